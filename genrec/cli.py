"""`genrec …`: every verb reads its options, calls one function of the library and prints its report.

Exit status: 0 done, 1 something in the data, the run or a line of a batch is wrong, 2 wrong usage.
Nothing heavy is imported before the options and the run are known to be right, so that `--help` and a
misspelt key answer at once.
"""

from __future__ import annotations

import io
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from genrec.config import (
    Config,
    EmbedConfig,
    EvaluateConfig,
    IngestConfig,
    TokenizeConfig,
    TrainConfig,
    build_config,
    dump_config,
    load_config,
)
from genrec.console import ConsoleProgress, print_error, print_lines, print_report
from genrec.errors import ConfigError, GenrecError
from genrec.run import Run

if TYPE_CHECKING:
    from genrec.quickstart import QuickstartResult

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="""Recommendation by a language model that can only name items that exist.

Items become *semantic IDs*, a language model learns to write the next one, a trie keeps every answer real.
A **run** is one directory; each verb adds its part to it, in this order:

`ingest` tables → `embed` items → `tokenize` into semantic IDs → `train` the model → `evaluate` → `recommend`

Start with `genrec quickstart`: it does all of it on films that came with the package.""",
)

RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="The run directory.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="YAML file of options; flags win over it.")]
ConfigT = TypeVar("ConfigT", bound=Config)


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
    _print_quickstart(result)


@app.command()
def ingest(
    source: Annotated[str, typer.Argument(help="`tables`, `movielens` or `amazon`.")],
    paths: Annotated[list[Path], typer.Argument(metavar="PATH…", help="Files (or the MovieLens folder).")],
    out: Annotated[Path, typer.Option(help="The run directory to make or to fill anew.")],
    min_interactions: Annotated[int | None, typer.Option(help="k of the k-core filter.  [default: 5]")] = None,
    split: Annotated[str | None, typer.Option(help="`leave-one-out` or `time`.  [default: leave-one-out]")] = None,
    min_rating: Annotated[float | None, typer.Option(help="Leave out interactions rated below.")] = None,
    on_bad_row: Annotated[str | None, typer.Option(help="`stop` or `skip`.  [default: stop]")] = None,
    empty_title: Annotated[str | None, typer.Option(help="`item-id` or `stop`.  [default: item-id]")] = None,
    config: ConfigFile = None,
    json_: AsJson = False,
) -> None:
    """Read a catalogue and a log of what people used into a run: filtered, de-duplicated, split.

    `genrec ingest tables items.jsonl interactions.csv --out runs/mine`
    """
    from genrec.data.ingest import ingest as run_ingest

    resolved = _resolve(
        IngestConfig,
        config,
        min_interactions=min_interactions,
        split=split,
        min_rating=min_rating,
        on_bad_row=on_bad_row,
        empty_title=empty_title,
    )
    print_report(run_ingest(Run.create(out), source, paths, resolved, progress=ConsoleProgress()), as_json=json_)


@app.command()
def embed(
    run: RunPath,
    text: Annotated[
        str | None, typer.Option(help="sentence-transformers model name or folder; `none` for no text.")
    ] = None,
    precomputed: Annotated[list[str] | None, typer.Option(metavar="NAME=FILE", help="Vectors of your own.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Texts per batch.")] = None,
    config: ConfigFile = None,
    json_: AsJson = False,
) -> None:
    """Turn items into vectors. An item that has not changed is never encoded twice.

    `genrec embed runs/mine --precomputed behaviour=vectors.parquet`
    """
    from genrec.encoders.embed import embed as run_embed

    resolved = _resolve(
        EmbedConfig,
        config,
        text_model=text,
        batch_size=batch_size,
        precomputed=dict(_name_and_file(pair) for pair in precomputed) if precomputed else None,
    )
    if text == "none":
        resolved = resolved.model_copy(update={"text_model": None})
    print_report(run_embed(Run.open(run), resolved, progress=ConsoleProgress()), as_json=json_)


@app.command()
def tokenize(
    run: RunPath,
    method: Annotated[str | None, typer.Option(help="`rqvae` or `residual-kmeans`.  [default: rqvae]")] = None,
    modality: Annotated[str | None, typer.Option(help="Which vectors.  [default: text]")] = None,
    levels: Annotated[int | None, typer.Option(help="Codes per item.  [default: 4]")] = None,
    codebook_size: Annotated[int | None, typer.Option(help="Codes per level.  [default: 256]")] = None,
    collisions: Annotated[str | None, typer.Option(help="`reassign`, `extra-level` or `shared`.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the tokenizer.")] = None,
    config: ConfigFile = None,
    json_: AsJson = False,
) -> None:
    """Turn vectors into semantic IDs and build the trie of valid ones; prints a health report."""
    options = {"levels": levels, "codebook_size": codebook_size, "seed": seed}
    resolved = _resolve(TokenizeConfig, config, method=method, modality=modality, collisions=collisions, **options)
    opened = Run.open(run)
    from genrec import pipeline

    print_report(pipeline.tokenize(opened, resolved, progress=ConsoleProgress()), as_json=json_)


@app.command()
def train(
    run: RunPath,
    base: Annotated[str | None, typer.Option(help="`scratch`, a folder, or a hub name.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Times to read every history.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights, order and dropout.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a killed training stopped.")] = False,
    config: ConfigFile = None,
    json_: AsJson = False,
) -> None:
    """Fine-tune the language model. Ctrl-C or a crash loses a minute at most: go on with `--resume`.

    `genrec train runs/mine --config train/configs/beauty.yaml`; over several GPUs:
    `accelerate launch train/finetune.py --run runs/mine --config …`
    """
    resolved = _resolve(TrainConfig, config, base=base, epochs=epochs, seed=seed)
    opened = Run.open(run)
    from genrec import pipeline

    report = pipeline.train(opened, resolved, resume=resume, progress=ConsoleProgress())
    print_report(report, as_json=json_)


@app.command()
def evaluate(
    run: RunPath,
    split: Annotated[str | None, typer.Option(help="`test` or `validation`.  [default: test]")] = None,
    baselines: Annotated[str | None, typer.Option(help="`all`, `none`, or names with commas.")] = None,
    engine: Annotated[str, typer.Option(help="Which engine decodes.")] = "transformers",
    beam_width: Annotated[int | None, typer.Option(help="Beams per user.  [default: 50]")] = None,
    score: Annotated[str | None, typer.Option(help="`level`, `raw` or `renormalised`.")] = None,
    max_users: Annotated[int | None, typer.Option(help="A seeded sample of so many users.")] = None,
    config: ConfigFile = None,
    json_: AsJson = False,
) -> None:
    """Measure the model over the full catalogue, beside baselines; writes a report with plots."""
    resolved = _resolve(
        EvaluateConfig,
        config,
        split=split,
        baselines=_baseline_names(baselines),
        beam_width=beam_width,
        score=score,
        max_users=max_users,
    )
    opened = Run.open(run)
    from genrec import pipeline

    report = pipeline.evaluate(opened, resolved, engine=engine, progress=ConsoleProgress())
    print_report(report, as_json=json_)


@app.command()
def recommend(
    run: RunPath,
    input_: Annotated[Path, typer.Option("--input", help='JSON lines: {"user_id": …, "history": [item ids]}.')],
    output: Annotated[Path, typer.Option(help="Where the recommendations go, one line per input line.")],
    k: Annotated[int, typer.Option("-k", min=1, help="Items per user.")] = 10,
    beam_width: Annotated[int, typer.Option(min=1, help="Beams per user.")] = 50,
    engine: Annotated[str, typer.Option(help="Which engine decodes.")] = "transformers",
    json_: AsJson = False,
) -> None:
    """Recommend for a file of users. A bad line gets an error in its place; all others are served.

    A line may also hold `"exclude": [item ids]` and `"allow": {"genres": "Comedy"}`.
    """
    from genrec.batch import recommend_file
    from genrec.recommender import Recommender

    recommender = Recommender.load(run, engine, beam_width=beam_width)
    summary = recommend_file(recommender, input_, output, k=k, progress=ConsoleProgress())
    if json_:
        typer.echo(_json(asdict(summary)))
    else:
        served = summary.num_lines - summary.num_errors
        print_lines([f"{served:,} of {summary.num_lines:,} lines served: {output}", *summary.errors])
    if summary.num_errors:
        raise typer.Exit(1)


@app.command()
def inspect(
    run: RunPath,
    item_id: Annotated[str | None, typer.Argument(metavar="[ITEM_ID]", help="Show this item.")] = None,
    json_: AsJson = False,
) -> None:
    """Show a run's stages and figures, or an item with its codes and its neighbours under each prefix."""
    from genrec.inspection import inspect_item, inspect_run

    opened = Run.open(run)
    print_report(inspect_run(opened) if item_id is None else inspect_item(opened, item_id), as_json=json_)


def main() -> None:
    """Run the command line; errors of ours become one clear message and their exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # what a terminal or locale cannot show must not end a command
        sys.stdout.reconfigure(errors="backslashreplace")
    if not sys.stderr.isatty():  # transformers draws its bars into files as well
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        app()
    except GenrecError as error:
        print_error(error)
        sys.exit(error.exit_status)


def _resolve(kind: type[ConfigT], path: Path | None, **flags: Any) -> ConfigT:
    """Defaults, then the file, then the flags that were given."""
    given = {name: value for name, value in flags.items() if value is not None}
    from_file = dump_config(load_config(kind, path)) if path is not None else {}
    return build_config(kind, from_file | given, source="options")


def _name_and_file(pair: str) -> tuple[str, str]:
    name, found, file = pair.partition("=")
    if not (name and found and file):
        raise ConfigError(f"--precomputed {pair!r} is not NAME=FILE.", "For example: behaviour=vectors.npy")
    return name, file


def _baseline_names(text: str | None) -> tuple[str, ...] | None:
    if text is None or text == "all":
        return None
    return () if text == "none" else tuple(name.strip() for name in text.split(","))


def _json(value: Any) -> str:
    import json

    return json.dumps(value, ensure_ascii=False, indent=2)


def _print_quickstart(result: QuickstartResult) -> None:
    run = result.run.path
    for person in result.people:
        liked = "; ".join(person.history)
        print_lines(["", f"User {person.user_id} watched last: {liked}", f"  took next: {person.next_title}"])
        print_lines([f"  {item.rank}. {item.title}  ({item.score:.2f})" for item in person.recommendations])
    print_lines(["", *result.evaluation.words, "", f"Done in {result.seconds:.0f} s. Try next:"])
    print_lines(
        [
            f"  genrec inspect {run}                 what each stage did",
            f"  genrec inspect {run} 260             Star Wars: its semantic ID and its neighbours",
            f"  genrec recommend {run} --input examples/users.jsonl --output recs.jsonl",
            f"  tensorboard --logdir {run}/training  the training curve",
        ]
    )
