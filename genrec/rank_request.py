"""One user's question to a recommender, in item indices; and answers in which no value of an attribute comes too often.

A list of ten with at most two of one genre is the ranking read from the top, leaving out an item once two of its genre
are taken. What stands behind the k-th place has to be known for that, so the search is repeated under the trie, each
time without what was taken and without the values that are full. A search answers with the best items that its filter
leaves, so the outcome is that of reading the whole ranking, as far as the beam is wide enough for it.

R rows of the catalogue.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from genrec.decoding.engine import RankedItem
from genrec.errors import ConfigError
from genrec.trie import ItemTrie
from genrec.trie_filters import ItemFilter


@dataclass(frozen=True, eq=False)
class Limit:
    """At most `count` items of an answer share a value. `values` are those of each row, (R,); a row may have none."""

    values: Sequence[Sequence[int]]
    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ConfigError(f"at most {self.count} items of a value were asked for; expected at least 1.")


@dataclass(frozen=True)
class RankRequest:
    """One user's question in item indices. `excluded` comes on top of the history; `allowed` None is all.

    With a seed in `draw` the answer is drawn without replacement in place of ranked (see `Evidence.drawing`). With
    `limits` no value comes more often than they say; all of them hold at once. `in_dialogue`: the history is what a
    conversation mentioned, and what the run has learned from dialogues joins.
    """

    history: NDArray[np.int32]
    excluded: NDArray[np.int32] | None = None
    allowed: ItemFilter | None = None
    draw: int | None = None
    limits: tuple[Limit, ...] = ()
    in_dialogue: bool = False

    def filter(self, trie: ItemTrie) -> ItemFilter | None:
        """What may be recommended, None for everything. Raises TrieError for items that the catalogue lacks."""
        removed = np.unique(self.history if self.excluded is None else np.r_[self.history, self.excluded])
        if self.allowed is not None:
            return self.allowed.without(removed)
        return ItemFilter.excluding(trie, removed) if len(removed) else None


Rank = Callable[[Sequence[RankRequest], int], list[list[RankedItem]]]


@dataclass
class _Reading:
    """One request's ranking while it is read from the top."""

    request: RankRequest
    taken: list[RankedItem] = field(default_factory=list)
    used: list[Counter[int]] = field(default_factory=list)  # per limit: how often each value was taken

    def take(self, ranked: Sequence[RankedItem], k: int) -> None:
        """Take what still fits, best first."""
        for item in ranked:
            if len(self.taken) < k and not self._is_full(item.item_index):
                self.taken.append(item)
                for limit, used in zip(self.request.limits, self.used, strict=True):
                    used.update(limit.values[item.item_index])

    def remaining(self, trie: ItemTrie) -> RankRequest:
        """The question for what comes next."""
        mask = np.zeros(trie.num_rows, dtype=np.bool_)
        allowed = self.request.allowed
        positions = np.arange(trie.num_items)
        mask[trie.items if allowed is None else trie.items[allowed.admits(positions)]] = True
        mask[[item.item_index for item in self.taken]] = False
        full = [row for row in np.flatnonzero(mask).tolist() if self._is_full(row)]
        mask[full] = False
        return replace(self.request, allowed=ItemFilter.allowing(trie, mask), limits=())

    def _is_full(self, row: int) -> bool:
        return any(
            used[value] >= limit.count
            for limit, used in zip(self.request.limits, self.used, strict=True)
            for value in limit.values[row]
        )


def rank_within_limits(
    rank: Rank, requests: Sequence[RankRequest], k: int, *, trie: ItemTrie
) -> list[list[RankedItem]]:
    """The answers of `rank` to requests, of which some have limits, at most `k` each.

    `rank` answers requests without limits with the best items, at most as many as asked for.
    """
    readings = [_Reading(request, used=[Counter() for _ in request.limits]) for request in requests]
    asked = [replace(request, limits=()) for request in requests]
    pending = list(range(len(requests)))
    while pending:
        answers = rank([asked[index] for index in pending], k)
        unfinished = []
        for index, answer in zip(pending, answers, strict=True):
            reading = readings[index]
            reading.take(answer, k)
            # Fewer than k are all that there were; the first of an answer always fits, so this ends.
            if reading.request.limits and len(answer) == k and len(reading.taken) < k:
                asked[index] = reading.remaining(trie)
                unfinished.append(index)
        pending = unfinished
    return [reading.taken for reading in readings]
