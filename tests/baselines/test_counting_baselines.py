"""Popularity, transitions, item-kNN, EASE, STAR and the hybrid against scores made by hand or by loops."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from genrec import metrics
from genrec.baselines.base import Baseline, rank_all
from genrec.baselines.ease import EASE
from genrec.baselines.hybrid import Hybrid
from genrec.baselines.item_knn import ItemKNN
from genrec.baselines.popularity import Popularity
from genrec.baselines.star import STAR
from genrec.baselines.transitions import Transitions
from genrec.data.sequences import Sequences

LISTS = [[0, 1, 2, 3], [1, 2, 0], [3, 1]]
TRAINING = Sequences.from_lists(["a", "b", "c"], LISTS)


def history(*items: int) -> np.ndarray:
    return np.array(items, np.int32)


def test_popularity_counts_training_interactions_for_everyone() -> None:
    baseline = Popularity()
    baseline.fit(TRAINING, 5, seed=0)
    np.testing.assert_array_equal(baseline.scores([history(0), history()]), [[2, 3, 2, 2, 0]] * 2)


def test_transition_scores_of_a_hand_made_case() -> None:
    baseline = Transitions()
    baseline.fit(TRAINING, 5, seed=0)
    # From 1: to 2 twice at distance 1, to 3 at 2, to 0 at 2. From 0: to 1 at 1, to 2 at 2, to 3 at 3.
    expected = [0.5, 0.5, 2 + 0.25, 0.5 + 0.5 / 3, 0]
    np.testing.assert_allclose(baseline.scores([history(0, 1)])[0], expected, rtol=1e-6)


def test_transitions_use_the_last_three_items_only() -> None:
    baseline = Transitions()
    baseline.fit(TRAINING, 5, seed=0)
    longer, shorter = baseline.scores([history(3, 0, 1, 2), history(0, 1, 2)])
    np.testing.assert_array_equal(longer, shorter)


def test_item_knn_equals_the_cosine_of_user_columns() -> None:
    baseline = ItemKNN(shrinkage=0.0, last=2, decay=0.5)
    baseline.fit(TRAINING, 5, seed=0)
    taken = np.zeros((3, 5))
    for user, items in enumerate(LISTS):
        taken[user, items] = 1
    norms = np.linalg.norm(taken, axis=0)
    cosine = taken.T @ taken / np.maximum(np.outer(norms, norms), 1e-9)
    np.fill_diagonal(cosine, 0)
    expected = cosine[2] + 0.5 * cosine[0]
    np.testing.assert_allclose(baseline.scores([history(3, 0, 2)])[0], expected, rtol=1e-6)


def test_item_knn_keeps_the_most_similar_neighbours() -> None:
    full, cut = ItemKNN(shrinkage=0.0), ItemKNN(shrinkage=0.0, neighbours=1)
    for baseline in (full, cut):
        baseline.fit(TRAINING, 5, seed=0)
    every, one = full.scores([history(1)])[0], cut.scores([history(1)])[0]
    assert np.flatnonzero(one).tolist() == [int(every.argmax())]


def test_hybrid_scores_equal_a_loop_over_the_definition() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(5, 3)).astype(np.float32)
    mask = np.array([True, True, True, False, True])
    vectors[~mask] = 0
    baseline = Hybrid(vectors, mask, text_weight=0.5)
    baseline.fit(TRAINING, 5, seed=0)
    forward = np.zeros((5, 5))
    for items in LISTS:
        for at, item in enumerate(items):
            for distance, later in enumerate(items[at + 1 : at + 4], start=1):
                forward[item, later] += 1 / distance
    counts = np.maximum(np.bincount(TRAINING.items, minlength=5), 1)
    damped = (forward + 0.5 * forward.T) / np.outer(counts, counts) ** 0.3
    centred = (vectors - vectors[mask].mean(axis=0)) * mask[:, None]
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-9)
    both = damped + 0.5 * unit @ unit.T
    expected = both[2] + 0.5 * both[1] + 0.25 * both[3] + 0.125 * both[0] + 0.0625 * both[4]
    found = baseline.scores([history(0, 4, 0, 3, 1, 2)])[0]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_hybrid_without_any_vector_ranks_by_behaviour_alone() -> None:
    baseline = Hybrid(np.zeros((5, 3), np.float32), np.zeros(5, np.bool_))
    baseline.fit(TRAINING, 5, seed=0)
    assert np.isfinite(baseline.scores([history(0)])).all()
    assert baseline.scores([history(0)])[0].argmax() == 1


def test_ease_equals_the_ridge_regression_of_every_item_on_the_others() -> None:
    baseline = EASE(ridge=2.0, last=3, decay=0.5)
    baseline.fit(TRAINING, 5, seed=0)
    taken = np.zeros((3, 5))
    for user, items in enumerate(LISTS):
        taken[user, items] = 1
    weights = np.zeros((5, 5))
    for item in range(5):
        rest = [other for other in range(5) if other != item]
        of_rest = taken[:, rest]
        weights[rest, item] = np.linalg.solve(of_rest.T @ of_rest + 2.0 * np.eye(4), of_rest.T @ taken[:, item])
    found = baseline.scores([history(3, 0, 1)])[0]
    np.testing.assert_allclose(found, weights[1] + 0.5 * weights[0] + 0.25 * weights[3], rtol=1e-5, atol=1e-6)


def test_star_scores_equal_the_papers_sum() -> None:
    rng = np.random.default_rng(0)
    vectors = (1 + rng.normal(size=(5, 3))).astype(np.float32)
    mask = np.array([True, True, True, False, True])
    baseline = STAR(vectors, mask, semantic_share=0.3, last=2, decay=0.5)
    baseline.fit(TRAINING, 5, seed=0)
    taken = np.zeros((3, 5))
    for user, items in enumerate(LISTS):
        taken[user, items] = 1
    norms = np.linalg.norm(taken, axis=0)
    users = taken.T @ taken / np.maximum(np.outer(norms, norms), 1e-9)
    np.fill_diagonal(users, 0)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True) * mask[:, None]
    both = 0.7 * users + 0.3 * unit @ unit.T
    found = baseline.scores([history(3, 0, 2)])[0]
    np.testing.assert_allclose(found, both[2] + 0.5 * both[0], rtol=1e-5, atol=1e-6)


def test_transitions_with_the_hybrids_settings_are_its_half_without_texts() -> None:
    hybrid = Hybrid(np.zeros((5, 3), np.float32), np.zeros(5, np.bool_), damping=0.4, last=2, distances=1)
    counts = Transitions(last=2, distances=1, damping=0.4, backwards=0.5)
    for baseline in (hybrid, counts):
        baseline.fit(TRAINING, 5, seed=0)
    found = counts.scores([history(3, 1, 2)])
    np.testing.assert_allclose(hybrid.scores([history(3, 1, 2)]), found)
    assert found.any()


EYE = np.eye(5, dtype=np.float32), np.ones(5, bool)


@pytest.mark.parametrize("baseline", [Popularity(), Transitions(), ItemKNN(), EASE(), STAR(*EYE), Hybrid(*EYE)])
def test_batch_equals_single_and_an_empty_history_is_answered(baseline: Baseline) -> None:
    baseline.fit(TRAINING, 5, seed=0)
    histories = [history(0, 1), history(), history(3)]
    together = baseline.scores(histories)
    assert together.shape == (3, 5)
    assert together.dtype == np.float32
    for row, alone in enumerate(histories):
        np.testing.assert_allclose(together[row], baseline.scores([alone])[0], rtol=1e-6)


def beauty(data_folder: Path) -> tuple[int, Sequences, Sequences, np.ndarray]:
    folder = data_folder / "amazon_beauty_2014"
    if not folder.is_dir():
        pytest.skip("GENREC_DATA has no amazon_beauty_2014")
    with gzip.open(folder / "items.jsonl.gz", "rt", encoding="utf-8") as lines:
        index = {json.loads(line)["item_id"]: row for row, line in enumerate(lines)}
    users: dict[str, list[int]] = {}
    with gzip.open(folder / "interactions.csv.gz", "rt", encoding="utf-8") as lines:
        next(lines)
        for line in lines:
            user, item = line.strip().split(",")
            users.setdefault(user, []).append(index[item])
    lists = list(users.values())
    targets = np.array([items[-1] for items in lists], np.int32)
    training = Sequences.from_lists(list(users), [items[:-2] for items in lists])
    return len(index), training, Sequences.from_lists(list(users), [items[:-1] for items in lists]), targets


@pytest.mark.benchmark_data
def test_transitions_on_beauty_reach_the_reference(data_folder: Path) -> None:
    num_items, training, histories, targets = beauty(data_folder)
    assert (num_items, len(training)) == (12_101, 22_363)
    baseline = Transitions()
    baseline.fit(training, num_items, seed=0)
    ranked = rank_all(baseline, list(histories), 10, num_items=num_items, seed=0)
    ranks = metrics.target_ranks(ranked, targets)
    assert metrics.recall(ranks, 10).mean() == pytest.approx(0.081, abs=0.002)
    assert metrics.ndcg(ranks, 10).mean() == pytest.approx(0.051, abs=0.002)
