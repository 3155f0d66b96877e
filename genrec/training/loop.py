"""The training loop: packed rows in, a fine-tuned model out; killed and resumed to the same last digit.

Data order, window cuts and dropout are functions of (seed, epoch, step, process), so a resumed training
repeats exactly what an undisturbed one does. Validation is a function that the caller passes in: the loop
knows nothing of decoding.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor

from genrec.config import TrainConfig
from genrec.errors import ModelError
from genrec.examples import Example
from genrec.memory import freed_memory_kept
from genrec.precision import uses_bfloat16
from genrec.progress import SILENT, Progress, Task
from genrec.schedule import learning_rate_share
from genrec.training.batching import PackedRows, batches, num_batches, pack
from genrec.training.checkpoint import TrainingState, load_checkpoint, save_checkpoint, trainable_state
from genrec.training.model import PackedLoss
from genrec.vocabulary import SidVocabulary

MakeExamples = Callable[[np.random.Generator], list[Example]]
Validate = Callable[[], Mapping[str, float]]
ROWS_NAME = "trainable_tokens_delta"  # in the names of PEFT's trained rows
_LESS_MEMORY = (
    "Lower batch_tokens (and raise gradient_accumulation by as much), set gradient_checkpointing: true, or train "
    "beside a base in four bits (adapter: qlora)."
)
_MIN_ROW_TOKENS = 128  # short rows: attention costs their square


@dataclass(frozen=True)
class TrainingTask:
    """What is trained on what: examples are made anew each epoch, `validate` measures the live model."""

    make_examples: MakeExamples
    validate: Validate
    max_example_tokens: int
    vocabulary: SidVocabulary
    identity: Mapping[str, Any] = field(default_factory=dict)
    monitor: str = "recall@10"  # which of `validate`'s figures decides; more is better
    item_vectors: NDArray[np.float32] | None = None  # of the items with tokens of their own, as PackedLoss takes them


class Trainer:
    """One training of one model. `run` does it all; the other methods are its steps."""

    def __init__(
        self,
        model: Any,
        config: TrainConfig,
        task: TrainingTask,
        *,
        folder: Path,
        progress: Progress = SILENT,
    ) -> None:
        """`folder` holds the checkpoint and the TensorBoard log while the training lasts."""
        self.model, self.config, self.task = model, config, task
        self.folder, self.progress = folder, progress
        self.accelerator = Accelerator(
            mixed_precision="no",  # ours, in _micro_batch: accelerate allows one precision for a whole process
            gradient_accumulation_steps=1,  # accumulated below, where an epoch's last step may be short
            log_with="tensorboard",
            project_dir=str(folder),
        )
        self.bfloat16 = uses_bfloat16(config.precision, self.accelerator.device.type)
        self.loss = PackedLoss(
            model,
            task.vocabulary,
            dropout=config.dropout,
            word_dropout=config.word_dropout,
            label_smoothing=config.label_smoothing,
            item_vectors=task.item_vectors,
        )
        self.optimizer = _optimizer(self.loss, config)
        self.row_tokens = max(_MIN_ROW_TOKENS, task.max_example_tokens)
        # Counted now: an adapter may be taken out afterwards. Quantised weights count as the numbers they stand for.
        self.num_trained = sum(weight.numel() for weight in trainable_state(model).values())
        self.num_parameters = sum(_num_numbers(weight) for weight in model.parameters())
        # Each process reads its share of an epoch's batches, so a checkpoint only fits as many.
        world = self.accelerator.num_processes
        self.identity = {**task.identity, **({"num_processes": world} if world > 1 else {})}
        self.state = TrainingState()
        self.had_ended = False  # whether `run` found a checkpoint of a training that was over
        self.best: dict[str, Tensor] = {}
        self._saved_at = time.monotonic()

    def run(self, *, resume: bool) -> TrainingState:
        """Train until the last epoch or until validation stops improving; leave the weights to keep in the model.

        Raises ModelError where the loss is no longer finite, ConfigError where `resume` meets a checkpoint of
        other settings or of another number of processes.
        """
        if resume and (self.folder / "checkpoint").exists():
            self.state, self.best = load_checkpoint(
                self.folder / "checkpoint",
                model=self.loss,
                optimizer=self.optimizer,
                identity=self.identity,
            )
            self.had_ended = not self._goes_on
            self.progress.say(f"resumed at epoch {self.state.epoch + 1}, step {self.state.step}")
        elif resume:
            self.progress.say(f"{self.folder} has no checkpoint: the training begins anew")
        wrapped, optimizer = self.accelerator.prepare(self.loss, self.optimizer)
        self.accelerator.init_trackers("tensorboard")
        # The number of steps differs a little between epochs; the first one's is a good estimate of all.
        rng = np.random.default_rng([self.config.seed, 0])
        steps = self._num_steps(pack(self.task.make_examples(rng), self.row_tokens, rng)) * self.config.epochs
        left = max(0, steps - self.state.step)
        try:
            with freed_memory_kept(), self.progress.track("training", left, "steps") as task:
                while self._goes_on:
                    self._epoch(wrapped, optimizer, task)
        except torch.OutOfMemoryError as error:
            raise ModelError(f"the accelerator's memory is full: {str(error).split('.')[0]}.", _LESS_MEMORY) from error
        for tracker in self.accelerator.trackers:  # not `end_training`: another stage may need the processes' group
            tracker.finish()
        self.loss.finish()
        if self.best:
            self._restore_best()
        return self.state

    @property
    def _goes_on(self) -> bool:
        return not self.state.finished and self.state.epoch < self.config.epochs

    @property
    def _rows_per_batch(self) -> int:
        return max(1, self.config.batch_tokens // self.row_tokens)

    def _num_steps(self, rows: PackedRows) -> int:
        return num_batches(len(rows), self._rows_per_batch, self.accelerator.num_processes)

    def _epoch(self, wrapped: Any, optimizer: Any, task: Task) -> None:
        """Read every example once (from where a checkpoint left off), then validate."""
        config, state = self.config, self.state
        rng = np.random.default_rng([config.seed, state.epoch])
        rows = pack(self.task.make_examples(rng), self.row_tokens, rng)
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        micro_batches = batches(
            rows,
            self.loss.row_weights(rows),
            self._rows_per_batch,
            rank=rank,
            world_size=world,
            together=config.gradient_accumulation,
            rng=rng,
        )
        total = self._num_steps(rows)
        wrapped.train()
        for index, (batch, counts) in enumerate(micro_batches):
            if index < state.step_in_epoch:
                continue
            started = time.monotonic()
            last_of_step = (index + 1) % config.gradient_accumulation == 0 or index + 1 == total
            loss = self._micro_batch(wrapped, optimizer, batch, (index / total, counts, last_of_step))
            state.epoch_loss_sum += loss
            state.step_in_epoch, state.step = index + 1, state.step + 1
            state.seconds += time.monotonic() - started
            state.tokens += int((batch.segments > 0).sum())
            task.advance(1, f"epoch {state.epoch + 1} loss {state.epoch_loss_sum / (index + 1):.4f}")
            # Only between optimizer steps: gradients are not part of a checkpoint.
            if last_of_step and time.monotonic() - self._saved_at >= config.checkpoint_seconds:
                self._save()
        self._end_of_epoch(wrapped, total)

    def _micro_batch(self, wrapped: Any, optimizer: Any, batch: PackedRows, place: tuple[float, float, bool]) -> float:
        """Forward, backward and, at the end of a step, the update.

        `place` is (share of epoch, what its loss counts in the step, end of step).
        """
        config, state = self.config, self.state
        share, counts, last_of_step = place
        rate = learning_rate(config, (state.epoch + share) / config.epochs)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["share"]
        # Dropout is drawn from the place in the training, so a resumed run draws the same.
        torch.manual_seed(
            (
                ((config.seed * 1_000_003 + state.epoch) * 1_000_003 + state.step_in_epoch) * 997
                + self.accelerator.process_index
            )
            % 2**63
        )
        device = self.accelerator.device
        arrays = (batch.tokens, batch.positions, batch.segments, batch.targets, batch.words)
        tensors = [torch.from_numpy(array).to(device) for array in arrays]
        with torch.autocast(device.type, torch.bfloat16, enabled=self.bfloat16):
            loss = wrapped(*tensors)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise ModelError(
                f"the loss is {value} at epoch {state.epoch + 1}, step {state.step}.",
                "Lower learning_rate, or train with precision: float32.",
            )
        self.accelerator.backward(loss * counts)
        if last_of_step:
            self.accelerator.clip_grad_norm_(wrapped.parameters(), config.max_gradient_norm)
            optimizer.step()
            optimizer.zero_grad()
            self.accelerator.log({"loss": value, "learning_rate": rate}, step=state.step)
        return value

    def _end_of_epoch(self, wrapped: Any, num_steps: int) -> None:
        """Validate, remember the best weights, decide whether to go on, write a checkpoint."""
        config, state = self.config, self.state
        entry = {"epoch": state.epoch + 1, "loss": state.epoch_loss_sum / num_steps}
        state.epoch, state.step_in_epoch, state.epoch_loss_sum = state.epoch + 1, 0, 0.0
        if state.epoch % config.validate_every == 0 or state.epoch == config.epochs:
            wrapped.eval()
            entry |= self.task.validate()
            if entry[self.task.monitor] > state.best_metric:
                state.best_metric, state.best_epoch, state.bad_validations = entry[self.task.monitor], state.epoch, 0
                if config.keep == "best":
                    self.best = {name: w.detach().clone().cpu() for name, w in trainable_state(self.model).items()}
            else:
                state.bad_validations += 1
                state.finished = config.keep == "best" and state.bad_validations >= config.patience
            wrapped.train()
        state.history.append(entry)
        self.accelerator.log({k: v for k, v in entry.items() if k != "epoch"}, step=state.step)
        figures = "  ".join(f"{name} {value:.4f}" for name, value in entry.items() if name != "epoch")
        self.progress.say(f"epoch {state.epoch}/{config.epochs}  {figures}")
        self._save()

    def _save(self) -> None:
        if self.accelerator.is_main_process:
            save_checkpoint(
                self.folder / "checkpoint",
                state=self.state,
                model=self.loss,
                optimizer=self.optimizer,
                best=self.best,
                identity=self.identity,
            )
        # No barrier: each process has its own clock, so they would meet at different steps and hang.
        self._saved_at = time.monotonic()

    def _restore_best(self) -> None:
        with torch.no_grad():
            for name, weight in trainable_state(self.model).items():
                weight.copy_(self.best[name])


def learning_rate(config: TrainConfig, progress: float) -> float:
    """The rate after the share `progress` of the training."""
    return config.learning_rate * learning_rate_share(progress, warmup=config.warmup)


def _optimizer(module: torch.nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW; matrices decay, gains and biases do not. Rows trained apart from their matrix have their own rate."""
    named = [(name, weight) for name, weight in module.named_parameters() if weight.requires_grad]
    rows = [weight for name, weight in named if ROWS_NAME in name]
    others = [weight for name, weight in named if ROWS_NAME not in name]
    row_share = (config.row_learning_rate or config.learning_rate) / config.learning_rate
    groups = [
        {"params": [p for p in others if p.ndim >= 2], "weight_decay": config.weight_decay, "share": 1.0},
        {"params": [p for p in others if p.ndim < 2], "weight_decay": 0.0, "share": 1.0},
        {"params": rows, "weight_decay": config.weight_decay, "share": row_share},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98), fused=True)


def _num_numbers(weight: Tensor) -> int:
    """How many numbers a parameter holds; in bitsandbytes' four bits two of them share a byte."""
    state = getattr(weight, "quant_state", None)
    return weight.numel() if state is None else math.prod(state.shape)
