"""Checkpoints that resume exactly: safetensors and JSON, never a pickle.

Nothing random has to be stored: data order and dropout follow from (seed, epoch, step), so the state of a
training is its weights, the optimizer's moments, the best weights so far and a few numbers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from genrec.errors import ConfigError, RunError
from genrec.files import atomic_folder


@dataclass
class TrainingState:
    """Where a training is: the next batch to read and what has been seen."""

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    epoch_loss_sum: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    best_metric: float = -1.0
    best_epoch: int = -1
    bad_validations: int = 0
    seconds: float = 0.0
    tokens: int = 0  # read so far by this process, empty space left out
    finished: bool = False


def save_checkpoint(
    folder: Path,
    *,
    state: TrainingState,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    best: Mapping[str, Tensor],
    identity: Mapping[str, Any],
) -> None:
    """Write everything that `load_checkpoint` needs, as a whole or not at all.

    `identity` says what is being trained (configuration, checksums of the inputs).
    """
    tensors = {f"model.{name}": tensor for name, tensor in trainable_state(model).items()}
    tensors |= {f"best.{name}": tensor for name, tensor in best.items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": tensor for name, tensor in moments.items()}
    with atomic_folder(folder) as temporary:
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
            temporary / "state.safetensors",
        )
        content = {"state": asdict(state), "identity": dict(identity)}
        (temporary / "state.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def load_checkpoint(
    folder: Path, *, model: nn.Module, optimizer: torch.optim.Optimizer, identity: Mapping[str, Any]
) -> tuple[TrainingState, dict[str, Tensor]]:
    """Put model and optimizer back to where they were; return the state and the best weights.

    Raises ConfigError where the checkpoint was made with another configuration or other inputs, RunError
    where it is damaged.
    """
    try:
        content = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        found, state = content["identity"], TrainingState(**content["state"])
        tensors = load_file(folder / "state.safetensors")
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise RunError(f"{folder} is damaged: {error}.", "Train again without --resume.") from error
    _check_identity(found, identity)
    weights = trainable_state(model)
    if missing := [name for name in weights if f"model.{name}" not in tensors]:
        raise RunError(f"{folder} has no weights for {missing[0]}.", "Train again without --resume.")
    with torch.no_grad():
        for name, tensor in weights.items():
            tensor.copy_(tensors[f"model.{name}"])
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, moment = name.split(".", 2)
            moments.setdefault(int(index), {})[moment] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    best = {name.removeprefix("best."): tensor for name, tensor in tensors.items() if name.startswith("best.")}
    return state, best


def trainable_state(model: nn.Module) -> dict[str, Tensor]:
    """The parameters that learn, by name, tied ones once; a frozen base is not among them."""
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def _check_identity(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    changed = sorted(key for key in {*found, *expected} if found.get(key) != expected.get(key))
    if changed:
        listed = ", ".join(f"{key} ({found.get(key)!r} then, {expected.get(key)!r} now)" for key in changed)
        raise ConfigError(
            f"the unfinished training was started with other settings: {listed}.",
            "Resume with the same settings, or leave out --resume to start again.",
        )
