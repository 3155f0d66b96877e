"""Why this branch: each step of a search down to an item, with what the items below it have in common.

A semantic ID is written code by code. An answer knows how likely the model found each code (`RankedItem.trail`); the
catalogue knows which items stand under each prefix. Together they say where the model decided, and between what.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from genrec.decoding.engine import RankedItem
from genrec.errors import ConfigError
from genrec.live_catalogue import LiveCatalogue

_SHARE = 0.5  # of the items below: a value that fewer of them have is nothing that they have in common
_LIFT = 2.0  # times as frequent as in the whole catalogue: "has a title" says nothing
_VALUES = 3


@dataclass(frozen=True)
class Common:
    """A value that most items below a branch have: their share, and that of all items."""

    attribute: str
    value: str
    share: float
    share_of_all: float


@dataclass(frozen=True)
class Branch:
    """One code of an item's semantic ID. `chance` is what the model gave it after the codes before, at most 1."""

    level: int
    code: int
    chance: float
    num_items: int  # valid items below it
    common: tuple[Common, ...]  # most telling first; none for the leaf


def branches(live: LiveCatalogue, ranked: RankedItem) -> list[Branch]:
    """The steps to a ranked item, first level first.

    Raises ConfigError for an answer merged from several searches, and for an item that was removed since.
    """
    if len(ranked.trail) != live.trie.num_levels:
        raise ConfigError(
            "this answer has no steps: it was merged from several searches.", "Ask one recommender without views."
        )
    trie, lo, hi = live.trie, np.array([0]), np.array([live.trie.num_items])
    position = trie.positions([ranked.item_index])
    if position[0] < 0:
        raise ConfigError("this item was removed since it was ranked.", "Rank again, then ask for the branches.")
    found, before = [], 0.0
    for level, score in enumerate(ranked.trail):
        below = trie.children(level, lo, hi)
        (own,) = np.flatnonzero((below.lo <= position) & (position < below.hi))
        lo, hi = below.lo[own : own + 1], below.hi[own : own + 1]
        rows = trie.items[lo[0] : hi[0]]
        common = _common(live.catalog.table, rows) if len(rows) > 1 else ()
        # Behind a code of no chance nothing has one; rounding may make a chance of one a little more.
        chance = min(1.0, math.exp(score - before)) if score > -math.inf else 0.0
        found.append(Branch(level, int(below.code[own]), chance, len(rows), common))
        before = score
    return found


def _common(table: pl.DataFrame, rows: NDArray[np.int32]) -> tuple[Common, ...]:
    found = []
    for column in (name for name in table.columns if name not in ("item_id", "title")):
        cells = table[column].gather(rows.tolist())
        counts = Counter(value for cell in cells.to_list() for value in set(_values(cell)))
        for value, count in counts.items():
            if count >= _SHARE * len(rows):
                share_of_all = _share_of_all(table[column], value)
                if count >= _LIFT * share_of_all * len(rows):
                    found.append(Common(column, str(value), count / len(rows), share_of_all))
    found.sort(key=lambda one: (-one.share / one.share_of_all, one.attribute, one.value))
    return tuple(found[:_VALUES])


def _values(cell: Any) -> Sequence[Any]:
    return [value for value in (cell if isinstance(cell, list) else [cell]) if value is not None]


def _share_of_all(column: pl.Series, value: Any) -> float:
    has = column.list.contains(value) if isinstance(column.dtype, pl.List) else column == value
    return int(has.sum()) / len(column)
