"""`genrec train | evidence | tune | evaluate | recommend`: from semantic IDs to recommendations."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from genrec.cli.options import (
    AsJson,
    ConfigFile,
    EngineOption,
    RunPath,
    app,
    engine_options,
    is_standard_output,
    open_run,
    resolve,
)
from genrec.config import EvaluateConfig, EvidenceConfig, TrainConfig, TuneConfig, Weights
from genrec.console import ConsoleProgress, print_json, print_lines, print_report
from genrec.run import check_unfinished

Views = Annotated[
    list[Path] | None,
    typer.Option("--view", metavar="RUN", help="Merge in a run of the same items with other semantic IDs. Repeatable."),
]

WeightsOption = Annotated[
    Weights | None,
    typer.Option(help="How the engine holds the model; `int8` and `nf4` need bitsandbytes.  [default: float32]"),
]
NoEvidence = Annotated[
    bool, typer.Option("--no-evidence", help="The model alone, although the run has weights of evidence.")
]


@app.command()
def train(
    run: RunPath,
    base: Annotated[str | None, typer.Option(help="`scratch`, a folder, a hub name, or a run.")] = None,
    adapter: Annotated[
        str | None, typer.Option(help="`none` trains every weight; `lora`, `qlora` or `prompt` keep the base.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Times to read every history.")] = None,
    row_epochs: Annotated[int | None, typer.Option(help="Epochs before, in which only the new rows learn.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Highest rate of the training.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights, order and dropout.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a killed training stopped.")] = False,
    config: ConfigFile = None,
    json_: AsJson = False,
) -> None:
    """Fine-tune the language model. Ctrl-C or a crash loses a minute at most: go on with `--resume`.

    `genrec train runs/mine --config train/configs/default.yaml`; on a language model that exists:
    `genrec train runs/mine --base FOLDER --adapter lora --row-epochs 1 --learning-rate 5e-4`; over several GPUs:
    `accelerate launch train/finetune.py CONFIG.yaml --run runs/mine`
    """
    resolved = resolve(
        TrainConfig,
        config,
        base=base,
        adapter=adapter,
        epochs=epochs,
        row_epochs=row_epochs,
        learning_rate=learning_rate,
        seed=seed,
    )
    opened = open_run(run, "tokenize", "trie")
    if resume:
        check_unfinished(opened)
    from genrec import pipeline

    report = pipeline.train(opened, resolved, resume=resume, progress=ConsoleProgress())
    print_report(report, as_json=json_)


@app.command()
def evidence(
    run: RunPath,
    users: Annotated[int | None, typer.Option(help="Validation users to learn from.  [default: 20000]")] = None,
    dialogues: Annotated[
        bool, typer.Option("--dialogues", help="Learn from the run's dialogues what counts in conversations.")
    ] = False,
    engine: Annotated[str, typer.Option(help="Which engine decodes.")] = "transformers",
    engine_option: EngineOption = None,
    seed: Annotated[int | None, typer.Option(help="Seed of which users.")] = None,
    config: ConfigFile = None,
    json_: AsJson = False,
) -> None:
    """Learn what counts, texts and a retriever are worth beside the model. From then on they join its answers.

    `genrec recommend … --no-evidence` and `genrec evaluate … --no-evidence` leave them out.
    """
    resolved = resolve(EvidenceConfig, config, users=users, seed=seed, learn_from="dialogues" if dialogues else None)
    opened, options = open_run(run, "tokenize", "train"), engine_options(engine_option)
    from genrec.weighing import weigh_evidence

    report = weigh_evidence(opened, resolved, engine=engine, engine_options=options, progress=ConsoleProgress())
    print_report(report, as_json=json_)


@app.command()
def tune(
    run: RunPath,
    baselines: Annotated[
        str | None,
        typer.Option(
            help="Names with commas; `sasrec` and `gru4rec` train anew in every trial.  "
            "[default: item-knn,ease,transitions,star,hybrid]"
        ),
    ] = None,
    trials: Annotated[int | None, typer.Option(help="Settings to try per baseline.  [default: 16]")] = None,
    users: Annotated[int | None, typer.Option(help="Validation users that decide.  [default: 5000]")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the settings, the users and the trainings.")] = None,
    config: ConfigFile = None,
    json_: AsJson = False,
) -> None:
    """Choose the settings of baselines on the validation split; `genrec evaluate` compares with them from then on.

    A killed search goes on where it stopped: give the same command again.
    """
    names = None if baselines is None else tuple(name.strip() for name in baselines.split(","))
    resolved = resolve(TuneConfig, config, baselines=names, trials=trials, users=users, seed=seed)
    opened = open_run(run, "ingest")
    from genrec.tuning import tune_baselines

    print_report(tune_baselines(opened, resolved, progress=ConsoleProgress()), as_json=json_)


@app.command()
def evaluate(
    run: RunPath,
    split: Annotated[str | None, typer.Option(help="`test` or `validation`.  [default: test]")] = None,
    baselines: Annotated[str | None, typer.Option(help="`all`, `none`, or names with commas.")] = None,
    engine: Annotated[str, typer.Option(help="`transformers` or `vllm`.")] = "transformers",
    engine_option: EngineOption = None,
    beam_width: Annotated[int | None, typer.Option(help="Beams per user.  [default: 50]")] = None,
    score: Annotated[str | None, typer.Option(help="`level`, `raw` or `renormalised`.")] = None,
    max_users: Annotated[int | None, typer.Option(help="A seeded sample of so many users.")] = None,
    new_share: Annotated[float | None, typer.Option(help="As in `genrec recommend`, of the model's answers.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of baselines that are trained, ties, intervals.")] = None,
    weights: WeightsOption = None,
    view: Views = None,
    no_evidence: NoEvidence = False,
    config: ConfigFile = None,
    json_: AsJson = False,
) -> None:
    """Measure the model over the full catalogue, beside baselines; writes a report with plots."""
    resolved = resolve(
        EvaluateConfig,
        config,
        split=split,
        baselines=_baseline_names(baselines),
        beam_width=beam_width,
        score=score,
        max_users=max_users,
        new_share=new_share,
        seed=seed,
        weights=weights,
    )
    opened, others = open_run(run, "tokenize", "train"), [open_run(path, "tokenize", "train") for path in view or ()]
    from genrec import pipeline

    report = pipeline.evaluate(
        opened,
        resolved,
        engine=engine,
        engine_options=engine_options(engine_option),
        views=others,
        evidence=not no_evidence,
        progress=ConsoleProgress(),
    )
    print_report(report, as_json=json_)


@app.command()
def recommend(
    run: RunPath,
    input_: Annotated[
        Path, typer.Option("--input", help='JSON lines, plain or .gz: {"user_id": …, "history": [item ids]}.')
    ],
    output: Annotated[Path, typer.Option(help="Where the recommendations go, one line per input line.")],
    k: Annotated[int, typer.Option("-k", min=1, help="Items per user.")] = 10,
    beam_width: Annotated[int, typer.Option(min=1, help="Beams per user.")] = 50,
    engine: Annotated[str, typer.Option(help="`transformers` or `vllm`.")] = "transformers",
    engine_option: EngineOption = None,
    new_share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the places for items that nobody has used yet, such as 0.2.")
    ] = 0.0,
    weights: WeightsOption = None,
    view: Views = None,
    no_evidence: NoEvidence = False,
    json_: AsJson = False,
) -> None:
    """Recommend for a file of users. A bad line gets an error in its place; all others are served.

    A line may also hold `"exclude": [item ids]`, `"allow": {"genres": "Comedy"}`, `"at_most": {"genres": 2}` (no genre
    more than twice) and `"new_share": 0.2`.
    """
    runs = [open_run(path, "tokenize", "train") for path in (run, *(view or ()))]
    from genrec.batch import recommend_file
    from genrec.decoding.engine import EngineOptions
    from genrec.recommender import Recommender

    options: EngineOptions = {"weights": weights or "float32", "engine_options": engine_options(engine_option)}
    first, *others = (
        Recommender.load(one.path, engine, beam_width=beam_width, evidence=not no_evidence, **options) for one in runs
    )
    recommender = first.with_views(others) if others else first
    with closing(first.engine):
        summary = recommend_file(recommender, input_, output, k=k, new_share=new_share, progress=ConsoleProgress())
    aside = is_standard_output(output)
    if json_:
        print_json(asdict(summary), aside=aside)
    else:
        served = summary.num_lines - summary.num_errors
        print_lines([f"{served:,} of {summary.num_lines:,} lines served: {output}", *summary.errors], aside=aside)
    if summary.num_errors:
        raise typer.Exit(1)


@app.command()
def export(
    run: RunPath,
    out: Annotated[Path, typer.Option(help="The folder to make (or to make anew).")],
    json_: AsJson = False,
) -> None:
    """Write the model as one plain Hugging Face folder, adapter merged in, and prove that it is the same model."""
    opened = open_run(run, "tokenize", "train")
    from genrec.training.export import export as export_model

    print_report(export_model(opened, out, progress=ConsoleProgress()), as_json=json_)


def _baseline_names(text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    if text == "all":
        return EvaluateConfig().baselines
    return () if text == "none" else tuple(name.strip() for name in text.split(","))
