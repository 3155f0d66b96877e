"""Dense nearest neighbours against cosines worked out one by one."""

from __future__ import annotations

import numpy as np

from genrec.baselines.base import rank_all
from genrec.baselines.dense_knn import DenseKNN
from genrec.data.sequences import Sequences

TRAINING = Sequences.from_lists(["u"], [[0, 1]])


def fitted(vectors: np.ndarray, mask: np.ndarray) -> DenseKNN:
    baseline = DenseKNN(vectors.astype(np.float32), mask)
    baseline.fit(TRAINING, len(vectors), seed=0)
    return baseline


def test_scores_equal_cosines_with_the_weighted_mean_of_the_last_five_items() -> None:
    rng = np.random.default_rng(0)
    vectors, mask = rng.normal(size=(12, 4)), rng.random(12) < 0.8
    history = np.array([3, 9, 1, 0, 7, 11, 5], dtype=np.int32)
    centred = vectors - vectors[mask].mean(axis=0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True) * mask[:, None]
    profile = sum(0.5**step * unit[item] for step, item in enumerate(history[::-1][:5]))
    expected = unit @ profile / np.linalg.norm(profile)
    np.testing.assert_allclose(fitted(vectors, mask).scores([history])[0], expected, atol=1e-6)


def test_an_item_that_nobody_used_is_found_by_its_vector() -> None:
    vectors = np.array([[1, 0], [0.9, 0.1], [0, 1], [0.1, 0.9], [-1, 0], [0, -1]], dtype=np.float32)
    ranked = rank_all(fitted(vectors, np.ones(6, bool)), [np.array([2], np.int32)], 1, num_items=6, seed=0)
    assert ranked.tolist() == [[3]]


def test_without_a_history_every_item_scores_alike() -> None:
    scores = fitted(np.eye(3, dtype=np.float32), np.ones(3, bool)).scores([np.zeros(0, np.int32)])
    assert scores.tolist() == [[0.0, 0.0, 0.0]]


def test_only_allowed_items_are_ranked_and_the_rest_of_the_list_stays_empty() -> None:
    baseline = fitted(np.random.default_rng(1).normal(size=(8, 3)), np.ones(8, bool))
    histories = [np.array([0, 1], np.int32), np.array([5], np.int32)]
    allowed = np.isin(np.arange(8), [1, 4, 6])
    ranked = rank_all(baseline, histories, 5, num_items=8, seed=0, allowed=allowed)
    everything = rank_all(baseline, histories, 8, num_items=8, seed=0)
    for row, full in zip(ranked.tolist(), everything.tolist(), strict=True):
        kept = [item for item in full if item in {1, 4, 6}]
        assert row == kept + [-1] * (5 - len(kept))
