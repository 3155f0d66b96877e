"""Any transformers model, by hub name or folder, as a frozen encoder: how it is loaded, named and run.

Weights come from safetensors files only and no code of a model's repository is run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel

from genrec.encoders.checkpoints import fingerprint_of, first_line, folder_checksum
from genrec.errors import ModelError
from genrec.model_hub import reaching_hub
from genrec.precision import multiplies_bfloat16

# What transformers raises for a name, a folder or a file that it cannot use.
LOADING_ERRORS = (OSError, ValueError, RuntimeError, KeyError, ImportError, AttributeError, TypeError, SafetensorError)
# What a checkpoint may lack: a pooling layer that is then left out, a vector that only training uses.
_SPARE_WEIGHTS = ("pooler.", "masked_spec_embed")


@dataclass(frozen=True, eq=False)
class Pretrained:
    """A model in evaluation mode, on the accelerator where there is one."""

    model: PreTrainedModel
    source: str  # what transformers loads: a hub name or a folder
    name: str  # for people
    revision: str  # a commit, or the checksum of a folder
    reduced: bool  # runs in bfloat16, as the text encoder does on CPUs that multiply it
    pooled: bool  # False: its pooling layer is not in the checkpoint and would be random

    @property
    def device(self) -> torch.device:
        """Where its inputs have to be."""
        return self.model.device

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision that the model runs in."""
        return torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.reduced)

    def fingerprint(self, settings: Mapping[str, object]) -> str:
        """Hexadecimal name of the weights, the precision and the settings of an encoder around them."""
        # A folder is known by its contents: moved or renamed, it is still the same model.
        model = "" if Path(self.source).is_dir() else self.source
        return fingerprint_of({"model": model, "revision": self.revision, "reduced": self.reduced, **settings})


def load_model(name: str, *, what: str) -> Pretrained:
    """The base model of `name`.

    Raises ModelError, with `what` it was to be, where it cannot be loaded or lacks weights that a vector needs.
    """
    folder = Path(name)
    try:
        with reaching_hub(name):
            model, info = AutoModel.from_pretrained(
                name, dtype=torch.float32, use_safetensors=True, trust_remote_code=False, output_loading_info=True
            )
    except LOADING_ERRORS as error:
        raise loading_error(name, error, what=what) from error
    missing = sorted(info["missing_keys"])
    if lost := [key for key in missing if not any(spare in key for spare in _SPARE_WEIGHTS)]:
        raise ModelError(
            f"The {what} {name!r} lacks {len(lost)} of its weights, {lost[0]} first.",
            "They would be random numbers. Give the whole checkpoint.",
        )
    model.eval().requires_grad_(False)
    convolve_exactly(model)
    if torch.cuda.is_available():
        model.to("cuda")
    return Pretrained(
        model,
        source=name,
        name=folder.resolve().name if folder.is_dir() else name,
        revision=folder_checksum(folder) if folder.is_dir() else str(model.config._commit_hash),
        reduced=model.device.type == "cpu" and multiplies_bfloat16(),
        pooled=not any("pooler." in key for key in missing),
    )


def convolve_exactly(model: nn.Module) -> None:
    """Let convolutions along time run in float32 under autocast on a CPU.

    On CPUs with AMX, oneDNN's bfloat16 convolutions of few input channels and long kernels return wrong numbers (seen
    with torch 2.13: 16 channels in, kernels of 8 and more; convolutions over images were right). They are a small part
    of the work of an audio model.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv1d):
            module.forward = partial(_in_float32, module.forward)  # type: ignore[method-assign]


def _in_float32(forward: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    if inputs.device.type != "cpu":
        return forward(inputs)
    with torch.autocast("cpu", enabled=False):
        return forward(inputs.float())


def loading_error(name: str, error: Exception, *, what: str) -> ModelError:
    """The error of a model, or of what belongs to it, that cannot be loaded."""
    return ModelError(
        f"The {what} {name!r} cannot be loaded: {first_line(error)}.",
        "Give a folder or a hub name that transformers can load, with weights in safetensors files and with its "
        "preprocessor; without a model at hand, use `descriptors`.",
    )
