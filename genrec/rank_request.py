"""One user's question to a recommender, in item indices; and answers in which no value of an attribute comes too often.

A list of ten with at most two of one genre is the ranking read from the top, leaving out an item once two of its genre
are taken. What stands behind the k-th place has to be known for that, so the search is repeated under the trie, each
time without what was taken and without the values that are full. A search answers with the best items that its filter
leaves, so the outcome is that of reading the whole ranking, as far as the beam is wide enough for it and scores do not
depend on which other items are allowed, as they do in the mode `renormalised` and for merged views with a product.

Nothing that learned from what people used prefers an item that nobody used yet. A share of the places can be kept for
such items: the best of them come in between, in the order of evidence alone, where there is any. The model has not
read their codes, and its word on them takes more than it brings (eval/RESULTS.md, *Films that no training has seen*).

R rows of the catalogue.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from genrec.data.attributes import Attribute
from genrec.decoding.engine import RankedItem
from genrec.errors import ConfigError, TrieError
from genrec.trie import ItemTrie
from genrec.trie_filters import ItemFilter


@dataclass(frozen=True, eq=False)
class Limit:
    """At most `count` items of an answer share a value of an attribute; a row may have several, or none."""

    attribute: Attribute
    count: int

    def __post_init__(self) -> None:
        if not _is_whole(self.count) or self.count < 1:
            raise ConfigError(f"at most {self.count!r} items of a value were asked for; expected a number from 1 on.")


def as_histories(given: Any) -> tuple[bool, list[list[str]]]:
    """Whether one history was given in place of several, and the histories. Raises ConfigError for anything else."""
    if isinstance(given, str) or not isinstance(given, Iterable):
        return True, [checked_ids(given, "a history")]
    items = list(given)
    if all(isinstance(item, str) for item in items):
        return True, [items]
    return False, [checked_ids(history, "a history") for history in items]


def checked_ids(items: Any, what: str) -> list[str]:
    """Item ids as a list. Raises ConfigError for what holds anything else, and for a text."""
    found = [] if isinstance(items, str) or not isinstance(items, Iterable) else list(items)
    if isinstance(items, str) or not isinstance(items, Iterable) or not all(isinstance(item, str) for item in found):
        raise ConfigError(f"{what} is a list of item ids, not {items!r}.", 'Write ["id"] for one item.')
    return found


def checked_id(item_id: Any) -> str:
    """The id of one item. Raises ConfigError for what is no text."""
    if not isinstance(item_id, str):
        raise ConfigError(f"{item_id!r} is no item id.", 'Ids are texts, also where they are numbers: "5".')
    return item_id


def check_wishes(wishes: Mapping[str, Any]) -> None:
    """Raise ConfigError for a wish that does not exist: swallowed, it would let through what was not to come.

    And for `allow` and `at_most` that are no mappings; what they map to is checked where it is used.
    """
    if unknown := sorted(wishes.keys() - Wishes.__annotations__.keys()):
        raise ConfigError(f"there is no wish {unknown[0]!r}.", f"There are: {', '.join(Wishes.__annotations__)}.")
    for name, example in (("allow", '{"genres": "Comedy"}'), ("at_most", '{"genres": 2}')):
        given = wishes.get(name)
        if given is not None and not (isinstance(given, Mapping) and all(isinstance(key, str) for key in given)):
            raise ConfigError(f"`{name}` is {given!r}; expected names of attributes and values.", f"Such as {example}.")


def check_number_of_items(k: Any) -> None:
    """Raise ConfigError for a `k` that is no whole number from 1 on."""
    if not _is_whole(k) or k < 1:
        raise ConfigError(f"k is {k!r}; expected how many items are wanted, a whole number from 1 on.")


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


class Wishes(TypedDict, total=False):
    """What a recommendation can be told beside the history; see `Recommender.recommend`."""

    exclude: Sequence[str]
    allow: Mapping[str, Any] | None
    at_most: Mapping[str, int] | None
    new_share: float


@dataclass(frozen=True)
class RankRequest:
    """One user's question in item indices. `excluded` comes on top of the history; `allowed` None is all.

    With a seed in `draw` the answer is drawn without replacement in place of ranked (see `Evidence.drawing`). With
    `limits` no value comes more often than they say; all of them hold at once. `in_dialogue`: the history is what a
    conversation mentioned, and what the run has learned from dialogues joins. Of the first n places of the answer at
    least the share `new_share`, rounded down, holds items that no training interaction has, as far as there are any.
    `by_evidence`: evidence ranks alone, where there is any; the model is still the one that is searched.
    Raises ConfigError for a share outside 0 to 1, for one beside limits, and for what is no index or seed.
    """

    history: NDArray[np.int32]
    excluded: NDArray[np.int32] | None = None
    allowed: ItemFilter | None = None
    draw: int | None = None
    limits: tuple[Limit, ...] = ()
    in_dialogue: bool = False
    new_share: float = 0.0
    by_evidence: bool = False

    def __post_init__(self) -> None:
        for name, given in (("history", self.history), ("excluded", self.excluded)):
            items = np.asarray([] if given is None else given)
            if len(items) and not np.issubdtype(items.dtype, np.integer):
                raise ConfigError(f"{given!r} are no item indices.", "Give whole numbers, as `catalog.indices` does.")
            if given is not None:
                object.__setattr__(self, name, items if len(items) else items.astype(np.int32))
        if self.draw is not None and (not _is_whole(self.draw) or self.draw < 0):
            raise ConfigError(f"draw is {self.draw!r}; expected a seed, a whole number from 0 on.")
        if not isinstance(self.new_share, Real) or not 0 <= self.new_share <= 1:
            raise ConfigError(
                f"{self.new_share!r} is no share of new items.", "Give a number from 0 to 1, such as 0.2 for a fifth."
            )
        if self.new_share and self.limits:
            raise ConfigError(
                "a share of new items and limits per value were asked for together.", "Leave one of the two out."
            )

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
                    used.update(limit.attribute.of_row(item.item_index))

    def remaining(self, trie: ItemTrie) -> RankRequest:
        """The question for what comes next."""
        mask = _allowed_rows(self.request, trie)
        mask[[item.item_index for item in self.taken]] = False
        for limit, used in zip(self.request.limits, self.used, strict=True):
            for value, count in used.items():
                if count >= limit.count:
                    mask[limit.attribute.rows_with(value)] = False
        return replace(self.request, allowed=ItemFilter.allowing(trie, mask), limits=())

    def _is_full(self, row: int) -> bool:
        return any(
            used[value] >= limit.count
            for limit, used in zip(self.request.limits, self.used, strict=True)
            for value in limit.attribute.of_row(row)
        )


def rank_within_limits(
    rank: Rank, requests: Sequence[RankRequest], k: int, *, trie: ItemTrie
) -> list[list[RankedItem]]:
    """The answers of `rank` to requests, of which some have limits, at most `k` each.

    `rank` answers requests without limits with the best items, at most as many as asked for. Raises TrieError for a
    limit of another catalogue.
    """
    if any(limit.attribute.num_rows != trie.num_rows for request in requests for limit in request.limits):
        raise TrieError(
            "a limit was made for another catalogue.", "Make limits again after items were added: `recommender.limits`."
        )
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


def rank_with_new(
    rank: Rank, requests: Sequence[RankRequest], k: int, *, trie: ItemTrie, new: NDArray[np.bool_]
) -> list[list[RankedItem]]:
    """The answers of `rank` to requests, of which some want a share of new items, at most `k` each.

    `new` (R,) are the items that count as new. Two searches answer such a request: one among all items that it allows,
    one by evidence among the new ones of these; `rank` knows nothing of shares.
    """
    asked = [replace(request, new_share=0.0) for request in requests]
    answers = rank(asked, k)
    places = [_kept_places(request.new_share, k) for request in requests]
    rows = [row for row, kept in enumerate(places) if kept]
    if not rows:
        return answers
    all_new = ItemFilter.allowing(trie, new)
    among_new = [
        replace(
            asked[row],
            by_evidence=True,
            allowed=all_new
            if asked[row].allowed is None
            else ItemFilter.allowing(trie, new & _allowed_rows(asked[row], trie)),
        )
        for row in rows
    ]
    for row, best_new in zip(rows, rank(among_new, max(places)), strict=True):
        answers[row] = _with_new_between(answers[row], best_new, k, share=requests[row].new_share, new=new)
    return answers


def _with_new_between(
    ranked: Sequence[RankedItem], best_new: Sequence[RankedItem], k: int, *, share: float, new: NDArray[np.bool_]
) -> list[RankedItem]:
    """`ranked`, in which the next of `best_new` takes every place that the share asks for and no new item has."""
    taken: dict[int, RankedItem] = {}
    num_new = 0
    while len(taken) < k:
        short = num_new < _kept_places(share, len(taken) + 1)
        order = [*best_new, *ranked] if short else ranked
        item = next((item for item in order if item.item_index not in taken), None)
        if item is None:
            break
        taken[item.item_index] = item
        num_new += bool(new[item.item_index])
    return list(taken.values())


def _kept_places(share: float, places: int) -> int:
    """How many of the first `places` are kept; a share such as .3 is not quite what it says, hence the epsilon."""
    return math.floor(share * places + 1e-9)


def _allowed_rows(request: RankRequest, trie: ItemTrie) -> NDArray[np.bool_]:
    """The items of the trie that the filter of a request leaves, (R,); the history is not looked at."""
    mask = np.zeros(trie.num_rows, dtype=np.bool_)
    positions = np.arange(trie.num_items)
    mask[trie.items if request.allowed is None else trie.items[request.allowed.admits(positions)]] = True
    return mask
