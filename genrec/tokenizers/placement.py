"""New items among items that have semantic IDs: each gets a free one, and nobody else's changes.

An item wants the codes that the frozen tokenizer gives it. Where another item has them, it moves as little as
it must: to the cheapest free code of the last level; where its prefix is full, to the extra level if there is
one; where that is full as well, to the nearest prefix that has room, by the distance between the item's vector
and what the tokenizer reconstructs from the prefix. So a place is found unless every place is taken.

I items placed before, N new items, D width, L levels of the tokenizer, K codes of a level, E codes of the extra
level (1 where there is none).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict

import numpy as np
from numpy.typing import NDArray

from genrec.errors import DataError
from genrec.tokenizers.base import ItemTokenizer
from genrec.tokenizers.codes import Policy

Codes = tuple[int, ...]
_AT_ONCE = 1024  # items whose costs are held, K each


def place_items(
    tokenizer: ItemTokenizer,
    vectors: NDArray[np.float32],
    *,
    taken: NDArray[np.uint16],
    sizes: tuple[int, ...],
    policy: Policy,
) -> NDArray[np.uint16]:
    """Codes (N, len(sizes)) of new items with vectors (N, D), none of them in `taken` (I, len(sizes)).

    Items are placed in order, so placing some now and the rest later gives the same codes. With policy
    `extra-level` an item keeps its own codes as long as the extra level has room; with `shared` it keeps them
    in any case. Raises DataError where every place is taken.
    """
    if not len(vectors):
        return np.zeros((0, len(sizes)), dtype=np.uint16)
    wanted = tokenizer.encode(vectors)
    if policy == "shared":  # an extra level there is only where another catalogue's codes came from
        return np.pad(wanted, ((0, 0), (0, len(sizes) - wanted.shape[1])))
    places = _Places(taken, sizes, levels=len(tokenizer.codebook_sizes))
    placed = np.zeros((len(vectors), len(sizes)), dtype=np.uint16)
    for row, codes in enumerate(wanted):
        if row % _AT_ONCE == 0:
            some = slice(row, row + _AT_ONCE)
            costs = tokenizer.last_costs(vectors[some], wanted[some])
        cost = costs[row % _AT_ONCE]
        prefix = tuple(codes[:-1].tolist())
        cost[codes[-1]] = -np.inf  # its own code comes first, whatever rounding says
        found = places.in_prefix(prefix, cost, keep_codes=policy == "extra-level")
        if found is None:
            found = _elsewhere(tokenizer, vectors[row], prefix, places)
        places.take(found)
        placed[row] = found
    return placed


class _Places:
    """Which places are taken. A place is a whole semantic ID, with the extra level where there is one."""

    def __init__(self, taken: NDArray[np.uint16], sizes: tuple[int, ...], *, levels: int) -> None:
        self.levels = levels
        self.codebook_sizes = sizes[:levels]
        self._extra_size = sizes[levels] if len(sizes) > levels else 1
        self._has_extra = len(sizes) > levels
        self._under: Counter[Codes] = Counter()  # prefix of 0 … L - 1 codes → items under it
        self._digits: defaultdict[Codes, set[int]] = defaultdict(set)  # L codes → digits of the extra level
        for codes in np.unique(taken, axis=0).tolist():
            self.take(tuple(codes))

    def take(self, codes: Codes) -> None:
        for length in range(self.levels):
            self._under[codes[:length]] += 1
        self._digits[codes[: self.levels]].add(codes[self.levels] if self._has_extra else 0)

    @property
    def size(self) -> int:
        """Places, taken or not."""
        return math.prod(self.codebook_sizes) * self._extra_size

    def is_full(self, prefix: Codes) -> bool:
        """Whether no place is free under a prefix of fewer than L codes."""
        return self._under[prefix] >= math.prod(self.codebook_sizes[len(prefix) :]) * self._extra_size

    def in_prefix(self, prefix: Codes, costs: NDArray[np.float32], *, keep_codes: bool) -> Codes | None:
        """The best free place under a prefix of L - 1 codes, by `costs` (K,) of the last; None if it is full.

        The extra level comes last, unless `keep_codes`: then it comes before another last code.
        """
        if self.is_full(prefix):
            return None
        best: tuple[tuple[float, float], Codes] | None = None
        for last, cost in enumerate(costs.tolist()):
            used = self._digits.get((*prefix, last), set())
            digit = next((digit for digit in range(self._extra_size) if digit not in used), None)
            if digit is None:
                continue
            order = (cost, float(digit)) if keep_codes else (float(digit), cost)
            if best is None or order < best[0]:
                best = order, (*prefix, last, *([digit] if self._has_extra else []))
        assert best is not None
        return best[1]


def _elsewhere(tokenizer: ItemTokenizer, vector: NDArray[np.float32], prefix: Codes, places: _Places) -> Codes:
    """A place in the nearest prefix that has room: as many codes as possible are those of `prefix` (L - 1)."""
    if places.is_full(()):
        raise DataError(
            f"All {places.size:,} semantic IDs are taken: there is no place for another item.",
            "Tokenize again with more levels or a larger codebook, then train again.",
        )
    kept = prefix
    while places.is_full(kept):
        kept = kept[:-1]
    while len(kept) < places.levels - 1:
        below = [(*kept, code) for code in range(places.codebook_sizes[len(kept)])]
        distances = np.square(tokenizer.reconstruct(np.array(below, dtype=np.uint16)) - vector).sum(axis=1)
        kept = next(below[code] for code in np.argsort(distances, kind="stable") if not places.is_full(below[code]))
    costs = tokenizer.last_costs(vector[None], np.array([[*kept, 0]], dtype=np.uint16))[0]
    found = places.in_prefix(kept, costs, keep_codes=False)
    assert found is not None
    return found
