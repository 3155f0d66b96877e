"""The stage `ingest`: tables on disk → `items.parquet`, `interactions.parquet`, `splits.parquet`.

Everything is read and checked before anything is written, and the three files take their places together:
bad rows or a full disk leave the run as it was.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from genrec.config import IngestConfig, dump_config
from genrec.data.interactions import FilterStep, filter_interactions, tied_targets
from genrec.data.sources import amazon, movielens, tables
from genrec.data.sources.cells import InputLog
from genrec.data.sources.records import RawData, items_frame
from genrec.data.splits import COLD_ITEMS, draw_cold_items, hold_out, make_splits, split_facts
from genrec.errors import BadRowsError, ConfigError, DataError
from genrec.files import atomic_file
from genrec.progress import SILENT, Progress
from genrec.run import Run, StageReport, writes

_MANY_TIED = 0.05  # of the test targets


class Source(Protocol):
    """Reads one kind of input; what is wrong with single rows goes into `log`."""

    def __call__(
        self, paths: Sequence[Path], config: IngestConfig, *, log: InputLog, progress: Progress
    ) -> RawData: ...


SOURCES: dict[str, Source] = {
    "tables": tables.read,
    "movielens": movielens.read,
    "amazon": amazon.read,
}


@writes("genrec ingest")
def ingest(
    run: Run,
    source: str,
    paths: Sequence[Path],
    config: IngestConfig,
    *,
    progress: Progress = SILENT,
) -> StageReport:
    """Read a source into the run and report what was kept and why; replaces an earlier ingest.

    Raises ConfigError for an unknown source, a wrong number of paths or `text_columns` that cannot be followed,
    BadRowsError naming every bad row (unless `config.on_bad_row` is `skip`: then they go to `rejected.jsonl`),
    DataError for anything else that is wrong with the input, RunError where the run cannot be written.
    """
    if source not in SOURCES:
        raise ConfigError(f"Unknown source {source!r}.", f"Known sources: {', '.join(SOURCES)}.")
    if config.text_columns and source != "tables":
        raise ConfigError(f"{source!r} knows its columns: text_columns is for `tables`.", "Leave it out.")
    started = run.begin()
    log = InputLog()
    raw = SOURCES[source]([Path(path) for path in paths], config, log=log, progress=progress)
    _check(raw, log, config)
    interactions, steps = filter_interactions(
        raw.interactions,
        min_interactions=config.min_interactions,
        min_rating=config.min_rating,
        ties_seed=config.ties_seed if config.ties == "shuffle" else None,
    )
    items = _surviving_items(raw, interactions, config)
    cold = draw_cold_items(items["item_id"], fraction=config.cold_fraction, seed=config.cold_seed)
    splits = hold_out(make_splits(interactions, config), cold)
    tables = {"items": items, "interactions": interactions, "splits": splits, "cold_items": cold}
    outputs = _write(run, tables, log)
    facts = _facts(raw, log, steps, tables) | {"source": source}
    report = StageReport("ingest", facts, _words(raw, facts, steps, config), f"genrec embed {run.path}")
    run.record(
        report,
        config={"source": source, "paths": [str(path) for path in paths], **dump_config(config)},
        seed=config.cold_seed,  # which items are held out; ties that are drawn have a seed of their own
        inputs=raw.files,
        outputs=outputs,
        started=started,
    )
    return report


def _check(raw: RawData, log: InputLog, config: IngestConfig) -> None:
    if log.problems and config.on_bad_row == "stop":
        raise BadRowsError(
            [str(problem) for problem in log.problems],
            "Mend these rows, or use --on-bad-row skip to leave them out (they go to rejected.jsonl).",
        )
    names = " and ".join(path.name for path in raw.files)
    for num_rows, what in ((len(raw.items), "item"), (raw.interactions.height, "interaction")):
        if not num_rows:
            rejected = f" ({log.num_rejected_rows:,} bad rows were skipped)" if log.problems else ""
            raise DataError(f"{names}: there is not one {what}{rejected}.", "Look whether these are the right files.")


def _surviving_items(raw: RawData, interactions: pl.DataFrame, config: IngestConfig) -> pl.DataFrame:
    """Rows in the order of the items table. A k-core above 1 keeps the items that survive, as the field does."""
    items = items_frame([{**item, "title": item["title"] or item["item_id"]} for item in raw.items])
    if config.min_interactions == 1:
        return items
    return items.filter(pl.col("item_id").is_in(interactions["item_id"].unique().to_list()))


def _write(run: Run, tables: Mapping[str, pl.DataFrame], log: InputLog) -> list[Path]:
    """Write every table but an empty `cold_items`, which would say what its absence says."""
    cold = run.path / COLD_ITEMS
    contents = {run.path / f"{name}.parquet": _parquet_bytes(table) for name, table in tables.items()}
    if tables["cold_items"].is_empty():
        del contents[cold]
    rejected = run.path / "rejected.jsonl"
    if log.problems:
        contents[rejected] = log.json_lines().encode()
    with ExitStack() as together:
        # All are written under temporary names before the first takes its place.
        for path, content in contents.items():
            together.enter_context(atomic_file(path)).write_bytes(content)
    for file in (rejected, cold):
        if file not in contents:
            file.unlink(missing_ok=True)
    return list(contents)


def _parquet_bytes(table: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.write_parquet(buffer)
    return buffer.getvalue()


def _facts(
    raw: RawData, log: InputLog, steps: Sequence[FilterStep], tables: Mapping[str, pl.DataFrame]
) -> dict[str, Any]:
    seen = set(raw.interactions["item_id"].unique().to_list())
    num_tied, num_ascending = tied_targets(tables["interactions"], tables["splits"])
    return {
        "num_test_tied": num_tied,
        "num_test_tied_ascending": num_ascending,
        "num_items": tables["items"].height,
        "num_users": steps[-1].num_users,
        "num_interactions": steps[-1].num_interactions,
        "num_items_read": len(raw.items),
        "num_items_never_used": sum(item["item_id"] not in seen for item in raw.items),
        "steps": [step.facts for step in steps],
        "num_items_without_title": sum(not item["title"] for item in raw.items),
        "num_rejected_rows": log.num_rejected_rows,
        "num_control_characters": log.num_control_characters,
        "num_media_elsewhere": log.num_addresses,
        **split_facts(tables["splits"], tables["cold_items"]),
        **raw.facts,
    }


def _words(raw: RawData, facts: Mapping[str, Any], steps: Sequence[FilterStep], config: IngestConfig) -> list[str]:
    words = [*raw.words, *(step.words for step in steps)]
    unused, dropped = facts["num_items_never_used"], facts["num_items_read"] - facts["num_items"]
    if config.min_interactions == 1:
        words.append(f"Catalogue: all {facts['num_items']:,} items; {unused:,} were never used (cold).")
    else:
        words.append(
            f"Catalogue: {facts['num_items']:,} of {facts['num_items_read']:,} items; {dropped:,} left out as "
            f"the {config.min_interactions}-core does not hold them, {unused:,} of these never used "
            "(--min-interactions 1 keeps every item)."
        )
    if facts["num_items_without_title"]:
        words.append(
            f"{facts['num_items_without_title']:,} items have no title: their item_id stands for it, where people read."
        )
    if facts["num_rejected_rows"]:
        words.append(f"Bad rows: {facts['num_rejected_rows']:,} left out, listed in rejected.jsonl.")
    if facts["num_control_characters"]:
        words.append(f"Control characters taken out of texts: {facts['num_control_characters']:,}.")
    if facts["num_media_elsewhere"]:
        words.append(
            f"{facts['num_media_elsewhere']:,} pictures, sounds or clips are web addresses and count as missing: "
            "put the files beside the table and name them there."
        )
    return words + _split_words(facts, config)


def _split_words(facts: Mapping[str, Any], config: IngestConfig) -> list[str]:
    words = [
        f"Split {config.split}: {facts['num_train']:,} train, {facts['num_validation']:,} validation, "
        f"{facts['num_test']:,} test interactions."
    ]
    if config.cold_fraction:
        words.append(
            f"Cold: {facts['num_cold_items']:,} items ({config.cold_fraction:.0%}, seed {config.cold_seed}) and their "
            f"{facts['num_held_out']:,} training interactions are held out of every training stage."
        )
    if facts["num_training_only_users"]:
        words.append(f"{facts['num_training_only_users']:,} users have training interactions only.")
    for split in ("validation", "test"):
        without = facts[f"num_{split}_users_without_history"]
        line = f"{split.capitalize()}: {facts[f'num_{split}_cases']:,} cases, "
        line += f"{facts[f'num_{split}_cold_targets']:,} with a target that training never saw"
        words.append(line + (f"; {without:,} users start in it and make no case." if without else "."))
    if config.ties == "file" and facts["num_test_tied"] >= _MANY_TIED * facts["num_test_cases"] > 0:
        tied, ascending = facts["num_test_tied"], facts["num_test_tied_ascending"]
        words.append(
            f"Order: {tied:,} of {facts['num_test_cases']:,} test targets have the time of what the user took before, "
            f"and stand behind it as in the file; {ascending:,} of them have the larger id. Where a file is sorted by "
            "item, that tells what comes next and says nothing about people: --ties shuffle draws the order."
        )
    return words
