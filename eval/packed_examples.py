"""Every position a target, against one example per target: how long until the same recall?

    python eval/packed_examples.py RUN --out FOLDER [--epochs 16] [--slow-epochs 2] [--seed 0]

Trains one small model twice on a tokenized run: on packed histories in which every position is a target, and on the
scheme of LC-Rec and MiniOneRec, one example per target (packed by the same code, which favours it: they pad). After
every epoch both are asked for the same validation users. The last line says after how many seconds of training,
validation left out, packed histories reached the best Recall@10 that the other scheme reached.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from genrec import pipeline
from genrec.config import ScratchConfig, TrainConfig
from genrec.console import ConsoleProgress, print_lines
from genrec.data.catalog import Catalog
from genrec.data.splits import cold_items, evaluation_cases, training_sequences
from genrec.decoding.transformers_engine import TransformersEngine
from genrec.errors import GenrecError
from genrec.examples import examples_per_target, history_examples
from genrec.prompting import compile_history_prompt, default_prompts, load_templates
from genrec.recommender import Recommender
from genrec.run import Run
from genrec.tokenizers.codes import SemanticIds
from genrec.training.loop import Trainer, TrainingTask
from genrec.training.model import scratch_model
from genrec.training.text_tokenizer import train_text_tokenizer
from genrec.vocabulary import extend_tokenizer

SHAPE = ScratchConfig(hidden_size=64, layers=2, heads=4, intermediate_size=192, text_vocabulary=320)
PACKED, PER_TARGET = "packed, every position", "one example per target"


@dataclass(frozen=True)
class Point:
    """Where a training stands after an epoch."""

    epoch: int
    seconds: float  # of training, validation left out
    recall: float


def learn(run: Run, config: TrainConfig, scheme: str, *, folder: Path) -> list[Point]:
    """Train a new model on the examples of a scheme; how it stood after every epoch."""
    catalog = Catalog.load(run)
    codes = SemanticIds.load(run, catalog=catalog)
    warm = ~cold_items(run)
    titles = [title for title, known in zip(catalog.titles, warm, strict=True) if known]
    tokenizer = train_text_tokenizer([*titles, "Items:"], config.scratch.text_vocabulary)
    torch.manual_seed(config.seed)
    model: Any = scratch_model(config.scratch, tokenizer)
    vocabulary = extend_tokenizer(tokenizer, codes.codebook_sizes)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    prompt = compile_history_prompt(load_templates(default_prompts(), "next_item").templates[0], tokenizer)
    recommender = Recommender.assemble(
        run,
        engine=TransformersEngine(model, None, vocabulary=vocabulary),
        vocabulary=vocabulary,
        prompt=prompt,
        max_history_items=config.max_history_items,
        beam_width=config.validation_beam_width,
    )
    cases = evaluation_cases(run, "validation").sample(config.validation_users, seed=config.seed)
    sequences, item_tokens, length = training_sequences(run), recommender.item_tokens, config.max_history_items
    points: list[Point] = []

    def validate() -> Mapping[str, float]:
        values = pipeline.validation_metrics(recommender, cases)
        points.append(Point(trainer.state.epoch, trainer.state.seconds, values["recall@10"]))
        return values

    task = TrainingTask(
        make_examples=lambda rng: (
            history_examples(sequences, prompts=[prompt.before], item_tokens=item_tokens, max_items=length, rng=rng)
            if scheme == PACKED
            else examples_per_target(sequences, prompt=prompt.before, item_tokens=item_tokens, max_items=length)
        ),
        validate=validate,
        max_example_tokens=len(prompt.before) + item_tokens.shape[1] * length,
        vocabulary=vocabulary,
    )
    trainer = Trainer(model, config, task, folder=folder, progress=ConsoleProgress())
    trainer.run(resume=False)
    return points


def table(curves: Mapping[str, list[Point]]) -> list[str]:
    """Both curves as Markdown, and the ratio of seconds."""
    lines = ["| scheme | epoch | seconds of training | validation Recall@10 |", "|---|---|---|---|"]
    for scheme, points in curves.items():
        lines += [f"| {scheme} | {point.epoch} | {point.seconds:.1f} | {point.recall:.4f} |" for point in points]
    best = max(curves[PER_TARGET], key=lambda point: (point.recall, -point.seconds))
    reached = [point for point in curves[PACKED] if point.recall >= best.recall]
    if not reached:
        return [*lines, "", f"Packed histories did not reach {best.recall:.4f}."]
    words = f"Recall@10 of {best.recall:.4f}: {best.seconds:.1f} s with {PER_TARGET}, {reached[0].seconds:.1f} s packed"
    return [*lines, "", f"{words}: {best.seconds / reached[0].seconds:.1f} times less."]


def main() -> int:
    """Read the command line, train both, print the table."""
    parser = argparse.ArgumentParser(description="Packed histories against one example per target.")
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="where logs and checkpoints go")
    parser.add_argument("--epochs", type=int, default=16, help="of packed histories")
    parser.add_argument("--slow-epochs", type=int, default=2, help="of one example per target")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    config = TrainConfig(
        scratch=SHAPE,
        max_history_items=20,
        batch_tokens=2048,
        learning_rate=3e-3,
        dropout=0.15,
        validate_every=1,
        patience=1000,
        seed=given.seed,
    )
    try:
        run = Run.open(given.run)
        curves = {
            scheme: learn(run, config.model_copy(update={"epochs": epochs}), scheme, folder=given.out / name)
            for scheme, epochs, name in (
                (PACKED, given.epochs, "packed"),
                (PER_TARGET, given.slow_epochs, "per-target"),
            )
        }
    except GenrecError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    print_lines(table(curves))
    return 0


if __name__ == "__main__":
    sys.exit(main())
