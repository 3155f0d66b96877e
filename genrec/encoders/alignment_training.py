"""How alignment learns: a loop over seeded batches with accelerate, stopped by the loss on held-out pairs.

With several processes each draws batches of its own and gradients are averaged; in-batch negatives stay within
a process.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor, nn

from genrec.config import AlignConfig
from genrec.encoders.alignment_data import PairData
from genrec.encoders.alignment_model import AlignmentModel
from genrec.encoders.alignment_objectives import Batch, Objective
from genrec.errors import ModelError
from genrec.memory import freed_memory_kept
from genrec.progress import Progress

_HELD_OUT_BATCHES = 8
_LOOKS = 4  # at the held-out pairs while encoders learn: each costs some steps' time
_NO_LOSS = 1e-9
_FINAL_RATE = 0.05  # share of the learning rate that is left at the last step
_MAX_GRADIENT_NORM = 1.0


@dataclass(frozen=True)
class Phase:
    """One stretch of training: which loop settings, and where its random numbers start."""

    name: str
    steps: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    validate_every: int
    patience: int
    seed: int
    number: int


@dataclass(frozen=True)
class PhaseResult:
    """How a stretch of training went; losses are of held-out pairs, None where none could be held out."""

    steps: int
    best_step: int
    first_loss: float | None
    best_loss: float | None

    @property
    def facts(self) -> dict[str, float | None]:
        """For programs."""
        return {
            "steps": self.steps,
            "best_step": self.best_step,
            "held_out_loss_before": None if self.first_loss is None else round(self.first_loss, 6),
            "held_out_loss_after": None if self.best_loss is None else round(self.best_loss, 6),
        }

    @property
    def words(self) -> str:
        """One line for people."""
        if self.first_loss is None:
            return f"{self.steps:,} steps, the last weights are kept: too little is held out to choose others by."
        return (
            f"{self.steps:,} steps; the loss on held-out pairs went from {self.first_loss:.4f} to "
            f"{self.best_loss:.4f} (step {self.best_step:,}, whose weights are kept)."
        )


def phase_of_heads(config: AlignConfig) -> Phase:
    """The heads alone, on vectors as they are."""
    return Phase(
        name="aligning",
        number=0,
        seed=config.seed,
        steps=config.steps,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        validate_every=config.validate_every,
        patience=config.patience,
    )


class _Loss(nn.Module):
    """Model and objective as the one module that accelerate wraps."""

    def __init__(self, model: AlignmentModel, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, batch: Mapping[str, Tensor], generator: torch.Generator | None) -> Tensor:
        loss: Tensor = self.objective(self.model, batch, generator)
        return loss


def phase_of_encoders(config: AlignConfig) -> Phase:
    """Heads and encoders together, starting from trained heads: a new head would drag the encoder along with it
    (Kumar et al. 2022, "Fine-tuning can distort pretrained features")."""
    return Phase(
        name="adapting encoders",
        number=1,
        seed=config.seed,
        steps=config.encoder_steps,
        batch_size=config.encoder_batch_size,
        learning_rate=config.encoder_learning_rate,
        weight_decay=config.weight_decay,
        validate_every=max(1, config.encoder_steps // _LOOKS),
        patience=config.patience,
    )


def train(
    model: AlignmentModel, objective: Objective, data: PairData, phase: Phase, *, progress: Progress
) -> PhaseResult:
    """Train what of `model` and `objective` wants gradients, in place; the best held-out step's weights stay.

    Raises ModelError where the loss is no longer finite.
    """
    accelerator = Accelerator(
        mixed_precision="no",  # encoders choose their own; the heads are small and stay in float32
        # Not every batch has every modality.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    loss = _Loss(model, objective)
    model.features = model.features.to(accelerator.device)
    optimizer = _optimizer(loss, phase)
    wrapped, prepared = accelerator.prepare(loss, optimizer)
    held_out = _held_out_batches(objective, data, phase, accelerator.device)
    first = best = _held_out_loss(loss, held_out)
    # Without two pairs there is nothing to tell apart: the loss is 0, or a mean of nothing.
    is_judged = math.isfinite(first) and first > _NO_LOSS
    kept, best_step, waited, step = _trainable(loss), 0, 0, 0
    with freed_memory_kept(), progress.track(phase.name, phase.steps, "steps") as task:
        for step in range(1, phase.steps + 1):
            # Seed, phase, step and process decide what is drawn.
            rng = np.random.default_rng([phase.seed, 1 + phase.number, step, accelerator.process_index])
            batch = _tensors(objective.draw(data.train, phase.batch_size, rng), accelerator.device)
            generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
            for group in prepared.param_groups:
                group["lr"] = phase.learning_rate * (1.0 - (1.0 - _FINAL_RATE) * (step - 1) / phase.steps)
            value = _step(wrapped, prepared, batch, generator, accelerator=accelerator)
            if not math.isfinite(value):
                raise ModelError(
                    f"{phase.name}: the loss is {value} at step {step}.",
                    "Lower the learning rate of the configuration, or look for vectors of extreme size.",
                )
            task.advance(note=f"loss {value:.4f}, held out {best:.4f}")
            if step % phase.validate_every and step != phase.steps:
                continue
            now = _held_out_loss(loss, held_out)
            waited = 0 if now < best or not is_judged else waited + 1
            if now < best or not is_judged:
                best, best_step, kept = now, step, _trainable(loss)
            if waited >= phase.patience:
                break
    loss.load_state_dict(kept, strict=False)
    accelerator.free_memory()
    return PhaseResult(step, best_step, first if is_judged else None, best if is_judged else None)


def _step(
    wrapped: Any, optimizer: Any, batch: dict[str, Tensor], generator: torch.Generator, *, accelerator: Accelerator
) -> float:
    """One update; the loss."""
    loss = wrapped(batch, generator)
    value = float(loss.detach())
    if math.isfinite(value):  # else the caller stops
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(wrapped.parameters(), _MAX_GRADIENT_NORM)
        optimizer.step()
        optimizer.zero_grad()
    return value


def _held_out_batches(
    objective: Objective, data: PairData, phase: Phase, device: torch.device
) -> list[dict[str, Tensor]]:
    """The same few batches for every look and every process."""
    rng = np.random.default_rng([phase.seed, 0, phase.number])
    draws = [objective.draw(data.held_out, phase.batch_size, rng) for _ in range(_HELD_OUT_BATCHES)]
    return [_tensors(batch, device) for batch in draws]


@torch.no_grad()
def _held_out_loss(loss: _Loss, batches: list[dict[str, Tensor]]) -> float:
    return float(torch.stack([loss(batch, None) for batch in batches]).mean())


def _tensors(batch: Batch, device: torch.device) -> dict[str, Tensor]:
    return {name: torch.from_numpy(rows).to(device) for name, rows in batch.items()}


def _optimizer(loss: _Loss, phase: Phase) -> torch.optim.AdamW:
    """AdamW; matrices decay, gains, biases and temperatures do not."""
    weights = [weight for weight in loss.parameters() if weight.requires_grad]
    groups = [
        {"params": [weight for weight in weights if weight.ndim >= 2], "weight_decay": phase.weight_decay},
        {"params": [weight for weight in weights if weight.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=phase.learning_rate)


def _trainable(loss: _Loss) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in loss.named_parameters() if weight.requires_grad}
