"""Merged views against the mixture computed by hand, and recommenders over two scripted models."""

from __future__ import annotations

import math

import numpy as np
import pytest

from genrec.decoding.engine import RankedItem
from genrec.errors import ConfigError
from genrec.trie import ItemTrie
from genrec.trie_filters import ItemFilter
from genrec.views import filter_for, merge_answers


def ranked(scores: dict[int, float], mode: str = "level") -> list[RankedItem]:
    best_first = sorted(scores.items(), key=lambda pair: -pair[1])
    return [RankedItem(item, math.log(p), mode, math.log(p / 2)) for item, p in best_first]  # type: ignore[arg-type]


def test_merged_scores_are_the_mean_of_the_probabilities_and_what_one_view_lacks_counts_zero() -> None:
    merged = merge_answers([ranked({1: 0.5, 2: 0.3, 3: 0.1}), ranked({2: 0.4, 4: 0.35})], 10)
    found = {item.item_index: math.exp(item.score) for item in merged}
    assert found == pytest.approx({2: 0.35, 1: 0.25, 4: 0.175, 3: 0.05})
    assert [item.item_index for item in merged] == [2, 1, 4, 3]
    assert all(math.exp(item.model_score) == pytest.approx(found[item.item_index] / 2) for item in merged)
    assert [item.item_index for item in merge_answers([ranked({1: 0.5, 2: 0.3}), ranked({2: 0.5, 1: 0.3})], 1)] == [1]


def test_no_answers_merge_to_none_and_modes_do_not_mix() -> None:
    assert merge_answers([[], []], 5) == []
    with pytest.raises(ConfigError, match="different modes: level, raw"):
        merge_answers([ranked({1: 0.5}), ranked({1: 0.5}, "raw")], 5)


def test_a_filter_means_the_same_items_in_another_trie() -> None:
    rng = np.random.default_rng(0)
    first, second = (
        ItemTrie.build(np.stack(np.unravel_index(rng.permutation(64)[:40], (8, 8)), axis=1).astype(np.uint16), (8, 8))
        for _ in range(2)
    )
    mask = rng.random(40) < 0.4
    here = ItemFilter.allowing(first, mask)
    there = filter_for(second, here)
    assert there is not None
    assert there.num_items == mask.sum()
    assert set(second.items[there.admits(np.arange(40))]) == set(np.flatnonzero(mask))
    assert filter_for(first, here) is here
    assert filter_for(first, None) is None
