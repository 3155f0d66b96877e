"""From raw interactions to clean histories: ordered, rated well enough, without repeats, k-core.

Every step says what it left out and why, so that nothing goes silently. N interactions.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from genrec.data.sources.records import INTERACTION_SCHEMA
from genrec.errors import DataError, RunError
from genrec.run import Run


@dataclass(frozen=True)
class FilterStep:
    """What one step kept; `num_removed` interactions went."""

    step: str
    why: str
    num_removed: int
    num_interactions: int
    num_users: int
    num_items: int

    @property
    def words(self) -> str:
        """One line for people."""
        kept = f"{self.num_interactions:,} interactions of {self.num_users:,} users with {self.num_items:,} items"
        if self.step == "read":
            return f"{self.why}: {kept}."
        if not self.num_removed:
            return f"{self.why}: nothing left out."
        return f"{self.why}: {self.num_removed:,} left out; {kept} stay."

    @property
    def facts(self) -> dict[str, Any]:
        """The same for programs."""
        return asdict(self)


def load_interactions(run: Run) -> pl.DataFrame:
    """`interactions.parquet`: users one after the other, each oldest first. Raises RunError if damaged."""
    return read_run_table(run, "interactions.parquet")


def read_run_table(run: Run, name: str) -> pl.DataFrame:
    """A Parquet file that ingest wrote. Raises RunError where it is missing or is not what was written."""
    run.require("ingest")
    try:
        return pl.read_parquet(run.path / name)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise RunError(f"{run.path / name} cannot be read: {error}.", "Run `genrec ingest …` again.") from error


def in_order(raw: pl.DataFrame, *, ties_seed: int | None = None) -> pl.DataFrame:
    """Users in order of first appearance, each user's interactions by time, ties in file order.

    With `ties_seed` equal times are drawn, whatever the order of the file. Raises DataError for it without times.
    """
    ordered = raw.with_row_index("row").with_columns(user=pl.col("row").min().over("user_id"))
    tie = "row"
    if ties_seed is not None:
        if raw["timestamp"].null_count():
            raise DataError("--ties shuffle was given, but the interactions have no timestamps.", "Leave it out.")
        # Drawn for rows in an order that the file has no part in.
        ordered = ordered.sort("user_id", "item_id", "row")
        drawn = np.random.default_rng(ties_seed).permutation(len(ordered))
        ordered, tie = ordered.with_columns(drawn=pl.Series(drawn)), "drawn"
    return ordered.sort("user", "timestamp", tie).select(*INTERACTION_SCHEMA)


def tied_targets(interactions: pl.DataFrame, splits: pl.DataFrame) -> tuple[int, int]:
    """Test targets that have the time of what the user took before, and how many of them have a larger id.

    Rows of both are the same interactions. Where a file is sorted by item, nearly all have.
    """
    number = pl.col("item_id").cast(pl.Int64, strict=False)  # ids that are whole numbers go by their size
    number = number if not interactions.select(number.null_count()).item() else pl.col("item_id")
    rows = interactions.select("user_id", "timestamp", number.alias("item"))
    before = rows.shift(1).rename({name: f"last_{name}" for name in rows.columns})
    tied = pl.concat([rows, before, splits.select("split")], how="horizontal")
    tied = tied.filter(
        (pl.col("split") == "test")
        & (pl.col("split").shift(1) != "test")
        & (pl.col("user_id") == pl.col("last_user_id"))
        & (pl.col("timestamp") == pl.col("last_timestamp"))
    )
    return tied.height, int((tied["item"] > tied["last_item"]).sum())


def filter_interactions(
    raw: pl.DataFrame, *, min_interactions: int, min_rating: float | None, ties_seed: int | None = None
) -> tuple[pl.DataFrame, list[FilterStep]]:
    """Order, then drop low ratings, repeats and, until nothing changes, rare users and items (k-core).

    Of several interactions of a user with an item the earliest is kept, as the field does. Raises DataError
    where nothing is left or `min_rating` is asked of a table without ratings.
    """
    table = in_order(raw, ties_seed=ties_seed)
    steps = [_step("read", "Read", table, table)]
    if min_rating is not None:
        rated = _well_rated(table, min_rating)
        unrated = int(table["rating"].null_count())
        why = f"Rated below {min_rating:g}" + (f" or not rated ({unrated:,})" if unrated else "")
        steps.append(_step("min-rating", why, table, rated))
        table = rated
    once = table.unique(["user_id", "item_id"], keep="first", maintain_order=True)
    exact = table.height - table.unique().height
    why = f"Repeats of a user and an item, the earliest is kept ({exact:,} of them equal rows)"
    steps.append(_step("repeats", why, table, once))
    kept, rounds = k_core(_numbers(once["user_id"]), _numbers(once["item_id"]), min_interactions)
    core = once.filter(pl.Series(kept))
    why = f"{min_interactions}-core, users and items with fewer interactions, {rounds} round(s)"
    steps.append(_step("k-core", why, once, core))
    if core.is_empty():
        raise DataError(
            "No interaction is left: " + " ".join(step.words for step in steps),
            "Lower --min-interactions (or --min-rating), or bring more interactions.",
        )
    return core, steps


def k_core(users: NDArray[np.int64], items: NDArray[np.int64], k: int) -> tuple[NDArray[np.bool_], int]:
    """Which interactions stay when users and items with fewer than `k` of them go, until all have `k`.

    `users` and `items` are numbers from 0, (N,). Returns the mask, (N,), and the rounds that removed some.
    """
    kept = np.ones(len(users), dtype=np.bool_)
    rounds = 0
    while True:
        of_user = np.bincount(users[kept], minlength=int(users.max(initial=0)) + 1)
        of_item = np.bincount(items[kept], minlength=int(items.max(initial=0)) + 1)
        stays = kept & (of_user[users] >= k) & (of_item[items] >= k)
        if stays.sum() == kept.sum():
            return kept, rounds
        kept, rounds = stays, rounds + 1


def _well_rated(table: pl.DataFrame, min_rating: float) -> pl.DataFrame:
    if table["rating"].null_count() == table.height:
        raise DataError("--min-rating was given, but no interaction has a rating.", "Leave it out.")
    return table.filter(pl.col("rating") >= min_rating)


def _numbers(ids: pl.Series) -> NDArray[np.int64]:
    return ids.rank("dense").to_numpy().astype(np.int64) - 1


def _step(step: str, why: str, before: pl.DataFrame, after: pl.DataFrame) -> FilterStep:
    return FilterStep(
        step,
        why,
        num_removed=before.height - after.height,
        num_interactions=after.height,
        num_users=after["user_id"].n_unique(),
        num_items=after["item_id"].n_unique(),
    )
