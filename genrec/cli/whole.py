"""`genrec quickstart | inspect`: the whole way at once, and a look at what is there."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from genrec.cli.options import AsJson, ConfigFile, RunPath, app
from genrec.config import TrainConfig, load_config
from genrec.console import ConsoleProgress, print_lines, print_marked, print_report
from genrec.errors import ConfigError
from genrec.run import Run

if TYPE_CHECKING:
    from genrec.quickstart import QuickstartResult


@app.command()
def quickstart(
    out: Annotated[Path, typer.Option(help="Where the run goes.")] = Path("runs/quickstart"),
    epochs: Annotated[int | None, typer.Option(min=1, help="Train for so many epochs instead.")] = None,
    json_: AsJson = False,
) -> None:
    """The whole way on the bundled films, in minutes: real recommendations beside honest baselines."""
    from genrec.quickstart import TRAINING
    from genrec.quickstart import quickstart as run_quickstart

    training = TRAINING if epochs is None else TRAINING.model_copy(update={"epochs": epochs})
    result = run_quickstart(out, training=training, progress=ConsoleProgress())
    if json_:
        print_report(result.evaluation, as_json=True)
        return
    print_quickstart(result)


@app.command()
def inspect(
    run: RunPath,
    item_id: Annotated[str | None, typer.Argument(metavar="[ITEM_ID]", help="Show this item.")] = None,
    examples: Annotated[
        bool, typer.Option("--examples", help="Show ten training examples, the trained-on tokens marked.")
    ] = False,
    config: ConfigFile = None,
    json_: AsJson = False,
) -> None:
    """Show a run's stages and figures, or an item with its codes and its neighbours under each prefix.

    `--examples` shows what the model is trained on; with `--config`, what it would be with these tasks.
    """
    opened = Run.open(run)
    if examples and item_id is not None:
        raise ConfigError("--examples shows no single item.", "Leave the item id out.")
    if config is not None and not examples:
        raise ConfigError("--config is an option of --examples.", "Give --examples too.")
    from genrec.inspection import TRAINED_ON, inspect_examples, inspect_item, inspect_run

    if not examples:
        print_report(inspect_run(opened) if item_id is None else inspect_item(opened, item_id), as_json=json_)
        return
    report = inspect_examples(opened, None if config is None else load_config(TrainConfig, config))
    if json_:
        print_report(report, as_json=True)
    else:
        print_marked(report.words, TRAINED_ON)


def print_quickstart(result: QuickstartResult) -> None:
    """Three people with their films, the table, and what to try next."""
    run = result.run.path
    for person in result.people:
        liked = "; ".join(person.history)
        print_lines(["", f"User {person.user_id} watched last: {liked}", f"  took next: {person.next_title}"])
        print_lines([f"  {item.rank}. {item.title}  ({item.score:.2f})" for item in person.recommendations])
    print_lines(["", *result.evaluation.words, "", f"Done in {result.seconds:.0f} s. Try next:"])
    if shutil.which("genrec") is None:
        print_lines([f"  source {Path(sys.prefix) / 'bin' / 'activate'}  # once per shell: puts genrec on your path"])
    print_lines(
        [
            f"  genrec inspect {run}                 what each stage did",
            f"  genrec inspect {run} 260             Star Wars: its semantic ID and its neighbours",
            f"  genrec recommend {run} --input examples/users.jsonl --output recs.jsonl",
            f"  tensorboard --logdir {run}/training  the training curve",
            f"  genrec chat {run}                    talk to the model here",
            f"  genrec serve {run}                   the chat page and the HTTP API: http://127.0.0.1:8000",
        ]
    )
