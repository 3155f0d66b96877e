"""Two transfers between catalogues, from raw data to the table: `genrec transfer` on runs that this recipe makes.

    python eval/transfer.py films --out runs/transfer-films
    python eval/transfer.py amazon --out runs/transfer-amazon --data FOLDER

`films`: the bundled MovieLens films without Comedy among their genres → those with it. The users are the same
people. `amazon`: Beauty 2014 → Musical Instruments 2014, of FOLDER `amazon_beauty_2014/items.jsonl.gz` with
`interactions.csv.gz` and one `amazon_musical_instruments_2014_reviews/*.json.gz` (as they are published). The
instruments have no titles: an item's text is what was written about it in the *training* interactions, never in
those that are tested; reviews of one day come in a drawn order. Stages that are finished with the same options
are not made again, and a killed training goes on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl

from genrec import pipeline
from genrec.config import (
    Config,
    EmbedConfig,
    IngestConfig,
    ScratchConfig,
    TokenizeConfig,
    TrainConfig,
    TransferConfig,
    dump_config,
)
from genrec.console import ConsoleProgress, print_report
from genrec.data.ingest import ingest
from genrec.data.sources.movielens import bundled_movielens
from genrec.encoders.embed import embed
from genrec.errors import ConfigError, DataError, GenrecError
from genrec.run import Run
from genrec.transfer import transfer

TRAINING = TrainConfig(
    scratch=ScratchConfig(hidden_size=64, layers=2, heads=4, intermediate_size=192),
    max_history_items=20,
    epochs=10,
    batch_tokens=4096,
    learning_rate=2e-3,
    dropout=0.2,
    validation_users=500,
    validate_every=2,
)
# Reviews have days, and the file is sorted by item: in its order, an item of the same day tells which one comes next.
TIMES_ARE_DAYS = IngestConfig(ties="shuffle")
PROGRESS = ConsoleProgress()


def films(out: Path) -> tuple[Run, Run]:
    """The bundled films in two halves, by one genre."""
    everything = Run.create(out / "all")
    if "ingest" not in everything.stages:
        ingest(everything, "movielens", [bundled_movielens()], IngestConfig(min_interactions=1))
    items = pl.read_parquet(everything.path / "items.parquet").select("item_id", "title", "genres")
    is_comedy = pl.col("genres").list.contains("Comedy").fill_null(value=False)
    interactions = pl.read_parquet(everything.path / "interactions.parquet")
    runs = []
    for name, half in (("no-comedy", items.filter(~is_comedy)), ("comedy", items.filter(is_comedy))):
        run = Run.create(out / name)
        if "ingest" not in run.stages:
            kept = interactions.filter(pl.col("item_id").is_in(half["item_id"].to_list()))
            _ingest_tables(run, half, kept, out / "tables" / name)
        runs.append(run)
    return runs[0], runs[1]


def amazon(out: Path, data: Path) -> tuple[Run, Run]:
    """Beauty, and Musical Instruments with the words of their training reviews as text."""
    source, target, raw = (Run.create(out / name) for name in ("beauty", "instruments", "instruments-raw"))
    if "ingest" not in source.stages:
        folder = data / "amazon_beauty_2014"
        ingest(source, "tables", [folder / "items.jsonl.gz", folder / "interactions.csv.gz"], IngestConfig())
    if "ingest" not in target.stages:
        folder = data / "amazon_musical_instruments_2014_reviews"
        found = sorted(folder.glob("*.json.gz"))
        if len(found) != 1:
            raise DataError(f"{folder} has {len(found)} files *.json.gz, not one.")
        [reviews] = found
        ingest(raw, "amazon", [reviews], TIMES_ARE_DAYS)
        interactions = pl.read_parquet(raw.path / "interactions.parquet")
        splits = pl.read_parquet(raw.path / "splits.parquet")
        read = interactions.join(splits.filter(pl.col("split") == "train"), on=["user_id", "item_id"], how="semi")
        words = read.group_by("item_id", maintain_order=True).agg(pl.col("review").str.join(" ").alias("description"))
        items = pl.read_parquet(raw.path / "items.parquet").select("item_id", "title")
        _ingest_tables(target, items.join(words, on="item_id", how="left"), interactions, out / "tables")
        if not pl.read_parquet(target.path / "splits.parquet").equals(splits):
            raise DataError("The split is not the one whose training reviews became the items' text.")
    return source, target


def _ingest_tables(run: Run, items: pl.DataFrame, interactions: pl.DataFrame, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    items.write_ndjson(folder / "items.jsonl")
    columns = [name for name in ("user_id", "item_id", "timestamp") if name in interactions.columns]
    interactions.select(columns).write_csv(folder / "interactions.csv")
    ingest(run, "tables", [folder / "items.jsonl", folder / "interactions.csv"], IngestConfig())


def prepare(source: Run, target: Run, *, texts: tuple[EmbedConfig, EmbedConfig], training: TrainConfig) -> None:
    """Both runs embedded, the source trained: what `genrec embed | tokenize | train` do."""
    codes = TokenizeConfig(seed=training.seed)
    stages: list[tuple[Run, str, Config, Callable[[], object]]] = [
        (source, "embed", texts[0], lambda: embed(source, texts[0], progress=PROGRESS)),
        (target, "embed", texts[1], lambda: embed(target, texts[1], progress=PROGRESS)),
        (source, "tokenize", codes, lambda: pipeline.tokenize(source, codes, progress=PROGRESS)),
        (source, "train", training, lambda: _train(source, training)),
    ]
    for run, name, config, stage in stages:
        if name not in run.stages or run.require(name, verify=False).config != dump_config(config):
            PROGRESS.say(f"{run.path}: {name}")
            stage()


def _train(run: Run, training: TrainConfig) -> None:
    """Go on with a training that was killed, and begin one of other settings anew."""
    try:
        pipeline.train(run, training, resume=True, progress=PROGRESS)
    except ConfigError:
        pipeline.train(run, training, progress=PROGRESS)


def main() -> int:
    """Read the command line, make the runs, print the table."""
    parser = argparse.ArgumentParser(description="A transfer from one catalogue to another.")
    parser.add_argument("which", choices=("films", "amazon"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="amazon: the folder of the data sets")
    parser.add_argument("--source-epochs", type=int, default=TRAINING.epochs)
    parser.add_argument("--epochs", type=int, default=TRAINING.epochs, help="of every training on the target")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    text = EmbedConfig()
    try:
        if given.which == "films":
            source, target = films(given.out)
            texts = (text, text)
        elif given.data is None:
            parser.error("amazon needs --data FOLDER")
        else:
            source, target = amazon(given.out, given.data)
            # Titles of the instruments are their ids: numbers of a shop say nothing.
            texts = (text, text.model_copy(update={"text_fields": ("description",)}))
        training = TRAINING.model_copy(update={"epochs": given.source_epochs, "seed": given.seed})
        prepare(source, target, texts=texts, training=training)
        config = TransferConfig(epochs=given.epochs)
        report = transfer(source, target, config, out=given.out / "transfer", progress=PROGRESS)
    except GenrecError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    print_report(report, as_json=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
