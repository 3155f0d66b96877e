"""Constraints to sets of items: what a wish allows, what a disliked item takes with it, what comparisons mean.

I items; masks are bool (I,).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from genrec.chat.catalogue_index import CatalogueIndex, flag_words
from genrec.chat.state import Constraints, Span, Wish
from genrec.chat.words import joined

Mask = NDArray[np.bool_]
_LIKE_IT_SHARE = 0.01  # of the catalogue: how many items a dislike takes with it at most


def wish_mask(index: CatalogueIndex, wish: Wish) -> Mask:
    """Items that have one of the wish's values; none where the catalogue lost the attribute."""
    wanted = frozenset(wish.values)
    cells = index.columns.get(wish.attribute)
    if cells is None:
        return np.zeros(len(index.catalog), dtype=np.bool_)
    return np.fromiter((not wanted.isdisjoint(cell) for cell in cells), dtype=np.bool_, count=len(cells))


def span_mask(index: CatalogueIndex, span: Span) -> Mask:
    """Items inside a range; an item without the number is outside of every range."""
    values = index.numbers.get(span.attribute)
    if values is None:
        return np.zeros(len(index.catalog), dtype=np.bool_)
    low = -np.inf if span.low is None else span.low
    high = np.inf if span.high is None else span.high
    return np.asarray((values >= low) & (values <= high))


def constraint_mask(index: CatalogueIndex, constraints: Constraints) -> Mask:
    """Items that satisfy everything that was asked for."""
    mask = np.ones(len(index.catalog), dtype=np.bool_)
    for wish in constraints.wanted:
        mask &= wish_mask(index, wish)
    for wish in constraints.unwanted:
        mask &= ~wish_mask(index, wish)
    for span in constraints.spans:
        mask &= span_mask(index, span)
    for span in constraints.outside:
        mask &= ~span_mask(index, span)
    return mask


def sharing_mask(index: CatalogueIndex, rows: Sequence[int]) -> Mask:
    """Items that share a value of the coarsest list attribute (genres, categories) with one of the items `rows`."""
    names = [name for name in index.facet_names() if any(len(index.columns[name][row]) > 1 for row in rows)]
    names = names or index.facet_names()
    for name in names:
        if values := frozenset().union(*(index.columns[name][row] for row in rows)):
            return wish_mask(index, Wish(attribute=name, values=tuple(values)))
    return np.ones(len(index.catalog), dtype=np.bool_)


def relatives(item_tokens: NDArray[np.int64], row: int) -> NDArray[np.int64]:
    """Rows of an item and its like, (N,): who shares the shortest prefix of semantic IDs that is still narrow.

    Narrow is a hundredth of the catalogue at most; an item without such company stands alone.
    """
    limit = max(1, int(len(item_tokens) * _LIKE_IT_SHARE))
    for length in range(1, item_tokens.shape[1] + 1):
        same = np.flatnonzero((item_tokens[:, :length] == item_tokens[row, :length]).all(axis=1))
        if len(same) <= limit:
            return same
    return np.asarray([row])


def span_words(span: Span) -> str:
    """A range in words: "from 1990 to 1999", "1979 or earlier"."""
    low, high = (None if end is None else f"{end:g}" for end in (span.low, span.high))
    name = "" if span.attribute == "year" else f"{span.attribute} "
    if span.attribute == "year":
        if low == high:
            return f"from {low}"
        if low is not None and high is not None:
            return f"from {low} to {high}"
        return f"{low} or later" if low is not None else f"{high} or earlier"
    if low is not None and high is not None:
        return f"{name}{low} to {high}"
    return f"{name}at least {low}" if low is not None else f"{name}at most {high}"


def _refusal(wish: Wish) -> str:
    """ "no Horror", "no subtitles" of `has_subtitles`; but "not vegan" of a column of truth values."""
    is_flag = wish.values == (flag_words(wish.attribute),) and not wish.attribute.lower().startswith("has_")
    return "not" if is_flag else "no"


def constraint_words(constraints: Constraints) -> list[str]:
    """Everything that is asked for, one phrase each."""
    words = [joined(wish.values, "or") for wish in constraints.wanted]
    words += [f"{_refusal(wish)} {joined(wish.values, 'or')}" for wish in constraints.unwanted]
    words += [span_words(span) for span in constraints.spans]
    return words + [f"not {span_words(span)}" for span in constraints.outside]


def without_constraint(constraints: Constraints, words: str) -> Constraints:
    """Constraints without the one that `constraint_words` calls `words`; the same where there is none."""
    wanted = tuple(one for one in constraints.wanted if constraint_words(Constraints(wanted=(one,))) != [words])
    unwanted = tuple(one for one in constraints.unwanted if constraint_words(Constraints(unwanted=(one,))) != [words])
    spans = tuple(one for one in constraints.spans if span_words(one) != words)
    outside = tuple(one for one in constraints.outside if f"not {span_words(one)}" != words)
    return Constraints(wanted=wanted, unwanted=unwanted, spans=spans, outside=outside)
