"""Metrics against brute force and against cases small enough to know."""

from __future__ import annotations

import math

import numpy as np
import pytest

from genrec import metrics


def brute_force(ranking: list[int], target: int, k: int) -> tuple[float, float, float]:
    for place, item in enumerate(ranking[:k], start=1):
        if item == target:
            return 1.0, 1.0 / math.log2(place + 1), 1.0 / place
    return 0.0, 0.0, 0.0


def test_recall_ndcg_and_mrr_equal_a_loop_over_the_lists() -> None:
    rng = np.random.default_rng(0)
    rankings = [rng.permutation(12)[: rng.integers(0, 9)].tolist() for _ in range(200)]
    targets = rng.integers(12, size=200).astype(np.int32)
    ranks = metrics.target_ranks(metrics.pad_rankings(rankings, 8), targets)
    for k in (1, 3, 8):
        expected = np.array([brute_force(r, t, k) for r, t in zip(rankings, targets, strict=True)])
        found = np.stack([metrics.recall(ranks, k), metrics.ndcg(ranks, k), metrics.mrr(ranks, k)], axis=1)
        np.testing.assert_allclose(found, expected)


def test_a_short_list_is_padded_and_a_long_one_cut() -> None:
    padded = metrics.pad_rankings([[5], [3, 1, 2, 0], []], 3)
    assert padded.tolist() == [[5, -1, -1], [3, 1, 2], [-1, -1, -1]]


def test_the_rank_of_an_absent_target_is_infinite() -> None:
    ranks = metrics.target_ranks(np.array([[4, 2, -1], [7, 8, 9]], np.int32), np.array([2, 1], np.int32))
    assert ranks.tolist() == [2.0, math.inf]


def test_recommendation_counts_leave_out_padding_and_what_stands_beyond_k() -> None:
    counts = metrics.recommendation_counts(np.array([[0, 1, 3], [1, -1, -1]], np.int32), 5, 2)
    assert counts.tolist() == [1, 2, 0, 0, 0]
    assert metrics.coverage(counts) == pytest.approx(2 / 5)


def test_gini_equals_the_mean_absolute_difference_over_all_pairs() -> None:
    counts = np.random.default_rng(1).integers(0, 30, size=40)
    pairs = np.abs(counts[:, None] - counts[None, :]).mean() / (2 * counts.mean())
    assert metrics.gini(counts) == pytest.approx(pairs)


def test_gini_is_zero_for_equal_counts_and_near_one_for_a_monopoly() -> None:
    assert metrics.gini(np.full(10, 3)) == pytest.approx(0.0)
    assert metrics.gini(np.array([0] * 99 + [7])) == pytest.approx(0.99)
    assert math.isnan(metrics.gini(np.zeros(4, np.int64)))


def test_popularity_groups_of_a_known_catalogue() -> None:
    # 100 interactions: 25 | 15 x 4 | 5 x 3 | 0. The first holds the first 20 %, the fives start at 85 %.
    counts = np.array([0, 15, 5, 25, 15, 5, 15, 0, 15, 5])
    names = [metrics.GROUPS[group] for group in metrics.popularity_groups(counts)]
    assert names == ["cold", "mid", "tail", "head", "mid", "tail", "mid", "cold", "mid", "tail"]


def test_equally_popular_items_share_a_group_whatever_their_order() -> None:
    rng = np.random.default_rng(2)
    counts = rng.zipf(1.8, size=500) - 1
    groups = metrics.popularity_groups(counts)
    order = rng.permutation(500)
    np.testing.assert_array_equal(metrics.popularity_groups(counts[order]), groups[order])
    for value in np.unique(counts):
        assert len(set(groups[counts == value].tolist())) == 1


def test_groups_of_a_catalogue_without_training_are_cold() -> None:
    assert metrics.popularity_groups(np.zeros(3, np.int64)).tolist() == [3, 3, 3]


def test_tail_share_counts_tail_and_cold_places() -> None:
    groups = np.array([0, 1, 2, 3], np.int8)
    assert metrics.tail_share(np.array([4, 3, 2, 1]), groups) == pytest.approx(0.3)
    assert math.isnan(metrics.tail_share(np.zeros(4, np.int64), groups))


def test_stratified_means_average_back_to_the_whole() -> None:
    rng = np.random.default_rng(3)
    values, groups = rng.random(300), rng.integers(0, 3, size=300).astype(np.int8)
    found = metrics.stratified_mean(values, groups)
    assert found["cold"] == (None, 0)
    parts = [(mean, size) for mean, size in found.values() if mean is not None]
    assert sum(mean * size for mean, size in parts) / 300 == pytest.approx(values.mean())


def test_bootstrap_means_equal_means_of_the_drawn_cases() -> None:
    values = np.random.default_rng(4).random((30, 2))
    means = metrics.bootstrap_means(values, seed=5, samples=7)
    drawn = np.random.default_rng(5).integers(30, size=(7, 30))
    np.testing.assert_allclose(means, [values[row].mean(axis=0) for row in drawn])


def test_the_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(6)
    covered = 0
    for trial in range(200):
        sample = (rng.random((150, 1)) < 0.3).astype(np.float64)
        low, high = metrics.bootstrap_intervals(sample, seed=trial, samples=300)[0]
        covered += low <= 0.3 <= high
    assert 0.89 <= covered / 200 <= 0.99


def test_a_paired_interval_is_tighter_than_the_intervals_of_its_parts() -> None:
    rng = np.random.default_rng(7)
    a = rng.random(400)
    b = a - 0.02 + rng.normal(scale=0.01, size=400)
    paired, alone = metrics.bootstrap_intervals(np.stack([a - b, a], axis=1), seed=0)
    assert paired[0] > 0
    assert paired[1] - paired[0] < (alone[1] - alone[0]) / 5


def test_the_same_seed_gives_the_same_interval_and_no_cases_give_nan() -> None:
    values = np.random.default_rng(8).random((50, 1))
    first, second = (metrics.bootstrap_intervals(values, seed=1) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert np.isnan(metrics.bootstrap_intervals(np.empty((0, 2)), seed=0)).all()
