"""`genrec ingest | embed | tokenize`: from tables to semantic IDs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from genrec.cli.options import AsJson, ConfigFile, RunPath, app, names_and_files, open_run, resolve
from genrec.config import AlignConfig, EmbedConfig, IngestConfig, TokenizeConfig
from genrec.console import ConsoleProgress, print_report
from genrec.errors import ConfigError
from genrec.run import Run


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
    text_column: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A column of a CSV that stays text; may be repeated.")
    ] = None,
    ties: Annotated[
        str | None, typer.Option(help="Interactions of equal time: `file` (its order) or `shuffle`.  [default: file]")
    ] = None,
    cold_fraction: Annotated[
        float | None, typer.Option(help="Hold this share of the items out of all training, to evaluate on them.")
    ] = None,
    cold_seed: Annotated[int | None, typer.Option(help="Seed of which items are held out.")] = None,
    config: ConfigFile = None,
    json_: AsJson = False,
) -> None:
    """Read a catalogue and a log of what people used into a run: filtered, de-duplicated, split.

    `genrec ingest tables items.jsonl interactions.csv --out runs/mine`
    """
    from genrec.data.ingest import ingest as run_ingest

    resolved = resolve(
        IngestConfig,
        config,
        min_interactions=min_interactions,
        split=split,
        min_rating=min_rating,
        on_bad_row=on_bad_row,
        empty_title=empty_title,
        text_columns=text_column or None,
        ties=ties,
        cold_fraction=cold_fraction,
        cold_seed=cold_seed,
    )
    print_report(run_ingest(Run.create(out), source, paths, resolved, progress=ConsoleProgress()), as_json=json_)


@app.command()
def embed(
    run: RunPath,
    text: Annotated[
        str | None, typer.Option(help="sentence-transformers model name or folder; `none` for no text.")
    ] = None,
    text_template: Annotated[str | None, typer.Option(help="Jinja2 over columns: `{{ title }}. {{ brand }}`.")] = None,
    text_prompt: Annotated[str | None, typer.Option(help="Prompt name of the model, or the words themselves.")] = None,
    text_width: Annotated[int | None, typer.Option(help="Keep so many numbers (Matryoshka models).")] = None,
    image: Annotated[
        str | None, typer.Option(help="Vision model name or folder, or `descriptors` (no weights needed).")
    ] = None,
    behaviour: Annotated[
        str | None,
        typer.Option(
            help="Vectors from training histories: `spectral`, `ppmi-svd`, `sequential`, `none`.  [default: spectral]"
        ),
    ] = None,
    audio: Annotated[
        str | None, typer.Option(help="Audio model name or folder, or `descriptors` (no weights needed).")
    ] = None,
    video: Annotated[
        str | None, typer.Option(help="Video or image model name or folder, or `descriptors` (no weights needed).")
    ] = None,
    precomputed: Annotated[list[str] | None, typer.Option(metavar="NAME=FILE", help="Vectors of your own.")] = None,
    media_root: Annotated[Path | None, typer.Option(help="Folder of the media paths, where it has moved.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Inputs per batch.  [default: 64]")] = None,
    align: Annotated[bool, typer.Option("--align", help="Bring all modalities into one common space.")] = False,
    unfreeze: Annotated[
        str | None, typer.Option(help="With --align, train the encoders too: `lora`, `ia3`, `prompt`, `full`.")
    ] = None,
    align_config: Annotated[Path | None, typer.Option(help="YAML file of options of --align.")] = None,
    config: ConfigFile = None,
    json_: AsJson = False,
) -> None:
    """Turn items into vectors. An item that has not changed is never encoded twice.

    `genrec embed runs/mine --image openai/clip-vit-base-patch32 --precomputed mine=vectors.parquet`

    With `--align` and nothing else, the vectors that the run has are kept and aligned.
    """
    from genrec.encoders.embed import embed as run_embed

    resolved = resolve(
        EmbedConfig,
        config,
        text_model=text,
        text_template=text_template,
        text_prompt=text_prompt,
        text_width=text_width,
        image_model=image,
        behaviour_model=None if behaviour == "none" else behaviour,
        audio_model=audio,
        video_model=video,
        media_root=media_root,
        batch_size=batch_size,
        precomputed=names_and_files(precomputed) or None,
    )
    absent = {"text_model": text, "behaviour_model": behaviour}
    resolved = resolved.model_copy(update={name: None for name, model in absent.items() if model == "none"})
    if not align and (unfreeze is not None or align_config is not None):
        raise ConfigError("--unfreeze and --align-config are options of --align.", "Give --align too.")
    alignment = resolve(AlignConfig, align_config, unfreeze=unfreeze)
    opened = open_run(run, "ingest")
    nothing_new = text is None and behaviour is None and config is None and resolved == EmbedConfig()
    reports = []
    if not (align and nothing_new and "embed" in opened.stages):
        reports.append(run_embed(opened, resolved, progress=ConsoleProgress()))
    if align:
        from genrec.encoders.alignment import align as run_align

        reports.append(run_align(opened, alignment, progress=ConsoleProgress()))
    words = [word for report in reports for word in report.words]
    facts = reports[-1].facts if len(reports) == 1 else {report.stage: report.facts for report in reports}
    print_report(replace(reports[-1], facts=facts, words=words), as_json=json_)


@app.command()
def tokenize(
    run: RunPath,
    method: Annotated[
        str | None,
        typer.Option(
            help="`rqvae`, `residual-kmeans`, `item-id` (one code per item), or the control `random`.  [default: rqvae]"
        ),
    ] = None,
    modalities: Annotated[str | None, typer.Option(help="Such as `text,image`.  [default: all of them]")] = None,
    weights: Annotated[
        str | None, typer.Option(help="Shares of variance, such as `image=0.5`; `none`: as they are.  [1; behaviour 2]")
    ] = None,
    levels: Annotated[int | None, typer.Option(help="Codes per item.  [default: 4]")] = None,
    codebook_size: Annotated[
        str | None, typer.Option(help="Codes per level, or one number per level: `512,256,256,128`.  [default: 256]")
    ] = None,
    item_codes: Annotated[
        int | None, typer.Option(help="One level more, in which items have codes of their own: at most so many.  [0]")
    ] = None,
    balance: Annotated[
        float | None,
        typer.Option(help="1: codes are used equally often; 0: had by equally many items.  [1 with behaviour, else 0]"),
    ] = None,
    behaviour_loss: Annotated[
        float | None, typer.Option(help="Draw items used one after the other together.  [default: 0]")
    ] = None,
    collisions: Annotated[str | None, typer.Option(help="`reassign`, `extra-level` or `shared`.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the tokenizer.")] = None,
    from_: Annotated[
        Path | None, typer.Option("--from", metavar="SOURCE", help="Learn nothing: take this run's tokenizer.")
    ] = None,
    same_encoder: Annotated[
        bool, typer.Option("--same-encoder", help="--from: vectors of other names are of one encoder, on your word.")
    ] = False,
    config: ConfigFile = None,
    json_: AsJson = False,
) -> None:
    """Turn vectors into semantic IDs and build the trie of valid ones; prints a health report.

    `genrec tokenize runs/mine --from runs/other` encodes with the other run's frozen tokenizer.
    """
    options = {
        "method": method,
        "modalities": modalities.split(",") if modalities else None,
        "weights": _shares(weights) if weights else None,
        "levels": levels,
        "codebook_size": _sizes(codebook_size) if codebook_size else None,
        "item_codes": item_codes,
        "balance": balance,
        "behaviour_loss": behaviour_loss,
        "seed": seed,
    }
    if from_ is not None:
        _check_frozen({"config": config, **options})
        policy = resolve(TokenizeConfig, None, collisions=collisions).collisions if collisions else None
        opened, source = open_run(run, "embed"), open_run(from_, "tokenize")
        from genrec import pipeline

        report = pipeline.tokenize_from(
            opened, source, collisions=policy, same_encoder=same_encoder, progress=ConsoleProgress()
        )
        print_report(report, as_json=json_)
        return
    if same_encoder:
        raise ConfigError("--same-encoder says something about --from only.", "Give --from SOURCE, or leave it out.")
    resolved = resolve(TokenizeConfig, config, collisions=collisions, **options)
    opened = open_run(run, "embed")
    from genrec import pipeline

    print_report(pipeline.tokenize(opened, resolved, progress=ConsoleProgress()), as_json=json_)


def _shares(text: str) -> str | dict[str, str]:
    return text if text == "none" else dict(_name_and_number(pair) for pair in text.split(","))


def _name_and_number(pair: str) -> tuple[str, str]:
    name, found, number = pair.partition("=")
    if not (name and found and number):
        raise ConfigError(f"--weights {pair!r} is not NAME=NUMBER.", "For example: behaviour=2,image=0.5; or none.")
    return name, number


def _sizes(text: str) -> str | list[str]:
    return text.split(",") if "," in text else text


def _check_frozen(options: dict[str, object]) -> None:
    given = [f"--{name.replace('_', '-')}" for name, value in options.items() if value is not None]
    if given:
        raise ConfigError(
            f"{', '.join(given)} cannot change a frozen tokenizer.",
            "With --from, only --collisions is yours to choose.",
        )
