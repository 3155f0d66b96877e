"""Scores to ranked lists: order, exclusion, ties."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from genrec.baselines.base import rank_all, recency_weights, top_k, transition_counts
from genrec.baselines.popularity import Popularity
from genrec.data.sequences import Sequences


def nothing(rows: int) -> list[NDArray[np.int32]]:
    return [np.empty(0, np.int32)] * rows


def test_top_k_equals_a_full_sort_where_no_scores_tie() -> None:
    scores = np.random.default_rng(0).normal(size=(20, 50)).astype(np.float32)
    expected = np.argsort(-scores, axis=1)[:, :7]
    np.testing.assert_array_equal(top_k(scores, 7, exclude=nothing(20), seed=0), expected)


def test_excluded_items_never_appear_and_short_rows_end_in_minus_one() -> None:
    scores = np.array([[3, 2, 1, 0]], np.float32)
    ranked = top_k(scores, 3, exclude=[np.array([0, 2], np.int32)], seed=0)
    assert ranked.tolist() == [[1, 3, -1]]


def test_minus_zero_and_zero_tie_and_negative_scores_come_last() -> None:
    scores = np.array([[-1.0, -0.0, 0.0, -2.0, np.inf, -np.inf]] * 60, np.float32)
    ranked = top_k(scores, 6, exclude=nothing(60), seed=0)
    assert (ranked[:, 0] == 4).all()
    assert set(ranked[:, 1].tolist()) == {1, 2}
    np.testing.assert_array_equal(ranked[:, 3:], [[0, 3, 5]] * 60)


def test_ties_are_uniform_over_items_and_differ_between_rows() -> None:
    first = top_k(np.zeros((4000, 8), np.float32), 1, exclude=nothing(4000), seed=1)[:, 0]
    counts = np.bincount(first, minlength=8)
    assert counts.min() > 400
    assert counts.max() < 600


def test_ties_do_not_depend_on_the_batches_and_follow_the_seed() -> None:
    scores = np.random.default_rng(1).integers(0, 3, size=(30, 40)).astype(np.float32)
    whole = top_k(scores, 10, exclude=nothing(30), seed=2)
    parts = [top_k(scores[s : s + 7], 10, exclude=nothing(7), seed=2, first_row=s) for s in range(0, 28, 7)]
    np.testing.assert_array_equal(whole[:28], np.concatenate(parts))
    assert (whole != top_k(scores, 10, exclude=nothing(30), seed=3)).any()


def test_rank_all_leaves_out_histories_and_pads_beyond_the_catalogue() -> None:
    training = Sequences.from_lists(["a", "b"], [[0, 1, 2], [2, 1]])
    baseline = Popularity()
    baseline.fit(training, 4, seed=0)
    ranked = rank_all(baseline, [np.array([1], np.int32)], 6, num_items=4, seed=0)
    assert ranked.tolist() == [[2, 0, 3, -1, -1, -1]]


def test_recency_weights_of_a_hand_made_history() -> None:
    histories = [np.array([4, 0, 2, 2], np.int32), np.empty(0, np.int32), np.array([3], np.int32)]
    weights = recency_weights(histories, 5, last=3).toarray()
    np.testing.assert_allclose(weights, [[0.25, 0, 1.5, 0, 0], [0] * 5, [0, 0, 0, 1, 0]])


def test_transition_counts_equal_a_loop_over_pairs() -> None:
    rng = np.random.default_rng(3)
    lists = [rng.integers(6, size=rng.integers(1, 9)).tolist() for _ in range(25)]
    expected = np.zeros((6, 6))
    for history in lists:
        for at, item in enumerate(history):
            for distance, later in enumerate(history[at + 1 : at + 4], start=1):
                expected[item, later] += 1 / distance
    found = transition_counts(Sequences.from_lists([str(u) for u in range(25)], lists), 6)
    np.testing.assert_allclose(found.toarray(), expected, rtol=1e-6)
