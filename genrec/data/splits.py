"""Which interactions train, which validate and which test, and what training and evaluation read of them.

`splits.parquet` has one row per interaction in the order of `interactions.parquet`: users one after the
other, each oldest first, and for every user first `train`, then `validation`, then `test`. With
`--cold-fraction` a seeded share of the items is *held out*, or *cold*: no stage that learns sees them. What
would train of them is `held-out`, and `cold_items.parquet` names them. Interactions with an item whose id was given
to something else since (`genrec items update --reencode`) are `forgotten`. U users, N interactions, C cases, I items.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from genrec.config import IngestConfig
from genrec.data.catalog import Catalog, listed_items
from genrec.data.interactions import read_run_table
from genrec.data.sequences import EvaluationCases, Sequences
from genrec.errors import DataError
from genrec.run import Run

Split = Literal["validation", "test"]
FORGOTTEN = "forgotten"
COLD_ITEMS = "cold_items.parquet"  # item_id of every held-out item; there only where some are held out


def training_sequences(run: Run) -> Sequences:
    """Training interactions of every user that has one, oldest first. Raises RunError without an ingest."""
    splits = read_run_table(run, "splits.parquet")
    return training_part(splits, Catalog.load(run).indices(splits["item_id"].to_list()))


def evaluation_cases(run: Run, split: Split) -> EvaluationCases:
    """What to predict on a split: every user's first interaction in it, after everything earlier.

    So the history of a test case holds the validation items. A user whose very first interaction falls into
    the split has no history and makes no case (only with a split by time; ingest counts them). Held-out items and
    forgotten interactions play no part, neither as targets nor in histories: training stops by these cases, too.
    `cold_cases` has the held-out items.
    """
    splits = read_run_table(run, "splits.parquet")
    items = Catalog.load(run).indices(splits["item_id"].to_list())
    return cases_of(splits, items, split, cold=cold_items(run)[items] | (splits["split"] == FORGOTTEN).to_numpy())


def cold_items(run: Run) -> NDArray[np.bool_]:
    """Which items (I,) ingest held out of every training stage; none without `--cold-fraction`."""
    return listed_items(run, COLD_ITEMS, catalog=Catalog.load(run))


def trained_items(run: Run, *, catalog: Catalog) -> NDArray[np.bool_]:
    """Which items (I,) have a training interaction; the others are new to everything that learned from behaviour."""
    splits = read_run_table(run, "splits.parquet")
    return catalog.mask(splits.filter(pl.col("split") == "train")["item_id"])


def forget(splits: pl.DataFrame, item_ids: Sequence[str]) -> pl.DataFrame:
    """`splits` in which the interactions with these items, which were with something else, are forgotten."""
    is_other = pl.col("item_id").is_in(list(item_ids))
    return splits.with_columns(split=pl.when(is_other).then(pl.lit(FORGOTTEN)).otherwise("split"))


def forgotten_items(run: Run, *, catalog: Catalog) -> NDArray[np.bool_]:
    """Which items (I,) have forgotten interactions: a model that knows them by their id knows something else."""
    splits = read_run_table(run, "splits.parquet")
    return catalog.mask(splits.filter(pl.col("split") == FORGOTTEN)["item_id"])


def cold_cases(run: Run) -> EvaluationCases:
    """Every interaction with a held-out item, wherever it stands, after everything earlier of its user.

    Earlier held-out items are part of a history: at that time they have an ID like any other item. A user's
    first interaction has no history and makes no case. Forgotten interactions play no part.
    """
    splits = read_run_table(run, "splits.parquet").filter(pl.col("split") != FORGOTTEN)
    items = Catalog.load(run).indices(splits["item_id"].to_list())
    _, starts = _users(splits)
    rows = np.flatnonzero(cold_items(run)[items])
    return _cases_at(splits, items, rows[~np.isin(rows, starts)])


def draw_cold_items(item_ids: pl.Series, *, fraction: float, seed: int) -> pl.DataFrame:
    """A seeded share of the items, at least one where `fraction` is above 0, in catalogue order: (n, item_id)."""
    size = max(1, round(fraction * len(item_ids))) if fraction else 0
    chosen = np.sort(np.random.default_rng(seed).choice(len(item_ids), size=size, replace=False))
    return pl.DataFrame({"item_id": item_ids.gather(chosen)})


def hold_out(splits: pl.DataFrame, cold: pl.DataFrame) -> pl.DataFrame:
    """`splits` in which nothing of the items of `cold` trains. Raises DataError where nothing else would."""
    trains = pl.col("split") == "train"
    held = splits.with_columns(
        split=pl.when(trains & pl.col("item_id").is_in(cold["item_id"].to_list()))
        .then(pl.lit("held-out"))
        .otherwise("split")
    )
    if not held.select(trains.any()).item():
        raise DataError("Every training interaction is with a held-out item.", "Lower --cold-fraction.")
    return held


def make_splits(interactions: pl.DataFrame, config: IngestConfig) -> pl.DataFrame:
    """The split of every interaction, (N, user_id · item_id · position · split).

    Raises DataError where a split by time is asked of interactions without timestamps, or leaves no training.
    """
    position = pl.int_range(pl.len(), dtype=pl.Int32).over("user_id")
    table = interactions.with_columns(position=position)
    if config.split == "leave-one-out":
        split = _leave_one_out()
    else:
        split = _by_time(*_cut_times(interactions["timestamp"], config))
    return table.select("user_id", "item_id", "position", split.alias("split"))


def _leave_one_out() -> pl.Expr:
    size = pl.len().over("user_id")
    from_end = size - pl.col("position").cast(pl.UInt32)
    return (
        pl.when(size < 3)
        .then(pl.lit("train"))
        .when(from_end == 1)
        .then(pl.lit("test"))
        .when(from_end == 2)
        .then(pl.lit("validation"))
        .otherwise(pl.lit("train"))
    )


def _by_time(validation_from: float, test_from: float) -> pl.Expr:
    return (
        pl.when(pl.col("timestamp") >= test_from)
        .then(pl.lit("test"))
        .when(pl.col("timestamp") >= validation_from)
        .then(pl.lit("validation"))
        .otherwise(pl.lit("train"))
    )


def _cut_times(timestamps: pl.Series, config: IngestConfig) -> tuple[float, float]:
    """Times (Unix seconds) from which interactions validate and test; equal times are never torn apart."""
    if timestamps.null_count():
        raise DataError(
            "A split by time needs timestamps, and the interactions have none.", "Use --split leave-one-out."
        )
    ordered = np.sort(timestamps.to_numpy())
    test_share = config.test_fraction
    validation_from = float(ordered[int(len(ordered) * (1 - test_share - config.validation_fraction))])
    test_from = float(ordered[int(len(ordered) * (1 - test_share))])
    if validation_from == ordered[0]:
        raise DataError(
            "A split by time leaves nothing to train on: too many interactions have the earliest timestamp.",
            "Use --split leave-one-out, or smaller fractions.",
        )
    return validation_from, test_from


def split_facts(splits: pl.DataFrame, cold: pl.DataFrame) -> dict[str, Any]:
    """Sizes of the splits and of the cases, and how many targets never occur in training. `cold` has the held-out."""
    items = (splits["item_id"].rank("dense") - 1).to_numpy().astype(np.int32)
    held_out = splits["item_id"].is_in(cold["item_id"].to_list()).to_numpy()
    sizes = dict(splits["split"].value_counts().iter_rows())
    trained = np.unique(training_part(splits, items).items)
    facts: dict[str, Any] = {"num_train": sizes.get("train", 0)}
    names: tuple[Split, Split] = ("validation", "test")
    for split in names:
        cases = cases_of(splits, items, split, cold=held_out)
        users_in_split = splits.filter((pl.col("split") == split) & ~pl.Series(held_out))["user_id"].n_unique()
        facts[f"num_{split}"] = sizes.get(split, 0)
        facts[f"num_{split}_cases"] = len(cases)
        facts[f"num_{split}_users_without_history"] = users_in_split - len(cases)
        facts[f"num_{split}_cold_targets"] = int(np.isin(cases.targets, trained, invert=True).sum())
    users = splits.group_by("user_id").agg((pl.col("split") == "train").all())
    facts["num_training_only_users"] = int(users["split"].sum())
    if cold.height:
        facts |= {"num_cold_items": cold.height, "num_held_out": sizes.get("held-out", 0)}
    return facts


def training_part(splits: pl.DataFrame, items: NDArray[np.int32]) -> Sequences:
    """Training histories; `items` (N,) are the item numbers of the rows of `splits`."""
    user_ids, starts = _users(splits)
    is_train = (splits["split"] == "train").to_numpy()
    lengths = np.add.reduceat(is_train, starts[:-1], dtype=np.int64)  # (U,)
    present = lengths > 0
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths[present])])
    named = [user_id for user_id, there in zip(user_ids, present, strict=True) if there]
    return Sequences(named, offsets, items[is_train])


def cases_of(
    splits: pl.DataFrame, items: NDArray[np.int32], split: Split, *, cold: NDArray[np.bool_] | None = None
) -> EvaluationCases:
    """Cases of a split; `items` (N,) are the item numbers of the rows of `splits`, `cold` (N,) rows to leave out."""
    warm = splits if cold is None else splits.filter(pl.Series(~cold))
    items = items if cold is None else items[~cold]
    _, starts = _users(warm)
    rows = np.flatnonzero((warm["split"] == split).to_numpy())
    users, first = np.unique(np.searchsorted(starts, rows, side="right") - 1, return_index=True)
    targets = rows[first]  # row of every user's first interaction in the split
    return _cases_at(warm, items, targets[targets > starts[users]])


def _cases_at(splits: pl.DataFrame, items: NDArray[np.int32], targets: NDArray[np.int64]) -> EvaluationCases:
    """One case per row number in `targets`, (C,): its history is all that stands before it of the same user."""
    user_ids, starts = _users(splits)
    users = np.searchsorted(starts, targets, side="right") - 1
    begin = starts[users]
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(targets - begin)])
    # Row of every history entry: its place in the flat array, moved by where its user's rows begin.
    history_rows = np.arange(offsets[-1]) + np.repeat(begin - offsets[:-1], targets - begin)
    histories = Sequences([user_ids[user] for user in users], offsets, items[history_rows])
    return EvaluationCases(histories, items[targets])


def _users(splits: pl.DataFrame) -> tuple[list[str], NDArray[np.int64]]:
    """User ids, (U,), and where their rows start, (U + 1,)."""
    runs = splits["user_id"].rle().struct.unnest()
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(runs["len"].to_numpy().astype(np.int64))])
    return runs["value"].to_list(), starts
