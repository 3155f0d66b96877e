"""A training in its stages: first the new rows alone, then everything that the configuration lets learn.

Rows of semantic IDs mean nothing at first. Trained together with a base that already knows language, their noise
would be pushed into it; so `row_epochs` teach them while the base is frozen, as OneRec-Think (Liu et al. 2025)
does. The warmed rows are then written into the base, and the main stage starts from there. Each stage has a
checkpoint of its own, and a killed training goes on in the stage in which it was.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate import PartialState

from genrec.config import TrainConfig
from genrec.progress import SILENT, Progress
from genrec.training.adapters import add_adapter, merge_rows, train_rows
from genrec.training.loop import Trainer, TrainingTask

if TYPE_CHECKING:
    from peft import PeftModel


def train_in_stages(
    model: Any,
    config: TrainConfig,
    task: TrainingTask,
    *,
    rows: Sequence[int],
    folder: Path,
    resume: bool,
    progress: Progress = SILENT,
) -> tuple[Trainer, PeftModel | None]:
    """Train the model in place; the trainer of the main stage, and the adapter that is live in the model (if any).

    `rows` are the token ids that learn where the base does not: semantic IDs and a soft prompt. `folder` holds the
    checkpoints. Errors are those of `Trainer.run`.
    """
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if config.row_epochs:
        progress.say(f"new rows first: {len(rows)} rows, {config.row_epochs} epochs")
        adapted = train_rows(model, rows)
        warm_up = Trainer(model, _row_config(config), task, folder=folder / "rows", progress=progress)
        warm_up.run(resume=resume)
        merge_rows(adapted)
        resume &= warm_up.had_ended
        if not resume and PartialState().is_main_process:  # it belongs to an earlier training, with other rows
            shutil.rmtree(folder / "checkpoint", ignore_errors=True)
    adapter = None
    if config.adapter != "none":
        adapter = add_adapter(model, config, rows=rows)
    trainer = Trainer(model, config, task, folder=folder, progress=progress)
    trainer.run(resume=resume)
    PartialState().destroy_process_group()
    return trainer, adapter


def remove_checkpoints(folder: Path) -> None:
    """Delete what a training left for the case of a kill."""
    shutil.rmtree(folder / "checkpoint", ignore_errors=True)
    shutil.rmtree(folder / "rows", ignore_errors=True)


def _row_config(config: TrainConfig) -> TrainConfig:
    rate = config.row_learning_rate or config.learning_rate
    return config.model_copy(update={"epochs": config.row_epochs, "learning_rate": rate, "row_learning_rate": None})
