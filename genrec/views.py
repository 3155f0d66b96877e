"""Several semantic IDs of one catalogue at once: each view has a model and a trie, their answers are merged.

A view may be a modality (one code stream each for text, image and behaviour, as MQL4GRec does; Zhai et al. 2025) or
another tokenizer, seed or size. An item's merged score is the log of the mean of the probabilities that the views
give it: the probability under a mixture of the models. Where evidence joins a view as a product, its scores are no
probabilities: they are divided by the sum of those that its search found. Theirs share one model between the streams;
here every view has a run of its own, so that views are made, changed and served like any run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from genrec.decoding.engine import RankedItem
from genrec.errors import ConfigError, RunError
from genrec.trie import ItemTrie
from genrec.trie_filters import ItemFilter


def merge_answers(answers: Sequence[Sequence[RankedItem]], k: int) -> list[RankedItem]:
    """The `k` best items of one user over the answers of all views, ties by item index.

    An item that a view did not find counts as probability zero there, which is a lower bound: a wider beam makes
    it exact. Raises ConfigError where views score in different modes.
    """
    modes = {item.score_mode for answer in answers for item in answer}
    if len(modes) > 1:
        raise ConfigError(f"views score in different modes: {', '.join(sorted(modes))}.", "Load all with one mode.")
    found: dict[int, list[tuple[float, float]]] = {}
    for answer in answers:
        for item in answer:
            found.setdefault(item.item_index, []).append((item.score, item.model_score))
    merged = []
    for index, scores in found.items():
        score, own = (float(np.logaddexp.reduce(part)) - math.log(len(answers)) for part in zip(*scores, strict=True))
        merged.append(RankedItem(index, score, next(iter(modes)), own))
    return sorted(merged, key=lambda item: (-item.score, item.item_index))[:k]


def check_view(trie: ItemTrie, other: ItemTrie) -> None:
    """Raise RunError where `other` is of another catalogue, or of one from which other items were removed."""
    if other.order_checksum != trie.order_checksum:
        raise RunError("a view is of another catalogue.", "Views are runs with one ingest and `items` changes.")
    if not np.array_equal(np.sort(other.items), np.sort(trie.items)):
        raise RunError(
            "a view recommends other items: some were removed from one run alone.",
            "Make the same `genrec items` changes in all of them.",
        )


def as_probabilities(answer: Sequence[RankedItem]) -> list[RankedItem]:
    """The answer of one view to one user, its scores normalised over its items."""
    total = float(np.logaddexp.reduce([item.score for item in answer])) if answer else -math.inf
    return [replace(item, score=item.score - total) for item in answer] if math.isfinite(total) else list(answer)


def filter_for(trie: ItemTrie, item_filter: ItemFilter | None) -> ItemFilter | None:
    """The same items as `item_filter`, which may have been compiled for another trie over the same items."""
    if item_filter is None or item_filter.trie is trie:
        return item_filter
    other = item_filter.trie
    mask: NDArray[np.bool_] = np.zeros(other.num_rows, dtype=np.bool_)
    mask[other.items[item_filter.admits(np.arange(other.num_items))]] = True
    return ItemFilter.allowing(trie, mask)
