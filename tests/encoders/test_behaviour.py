"""Item vectors from histories: against counting by hand, and on users who stay inside a group."""

from __future__ import annotations

import numpy as np
import pytest

from genrec.data.sequences import Sequences
from genrec.encoders.behaviour import _neighbour_counts, _shifted_ppmi, behaviour_revision, behaviour_vectors
from genrec.errors import DataError

GROUPS, SIZE = 6, 8
NUM_ITEMS = GROUPS * SIZE + 1  # nobody uses the last one


def walks(num_users: int = 400, seed: int = 0) -> Sequences:
    """Users who wander inside one group of items."""
    rng = np.random.default_rng(seed)
    histories = [(rng.integers(GROUPS) * SIZE + rng.integers(SIZE, size=6)).tolist() for _ in range(num_users)]
    return Sequences.from_lists([str(user) for user in range(num_users)], histories)


@pytest.mark.parametrize("model", ["ppmi-svd", "spectral", "sequential"])
def test_items_that_are_used_together_are_near_and_an_unused_item_has_no_vector(model: str) -> None:
    vectors, mask = behaviour_vectors(walks(), NUM_ITEMS, model=model, width=12, seed=0)
    assert vectors.shape == (NUM_ITEMS, 12)
    assert mask.tolist() == [True] * (NUM_ITEMS - 1) + [False]
    assert not vectors[-1].any()
    np.testing.assert_allclose(np.linalg.norm(vectors[:-1], axis=1), 1.0, rtol=1e-4)
    near = vectors[:-1] @ vectors[:-1].T
    group = np.arange(NUM_ITEMS - 1) // SIZE
    same = (group[:, None] == group[None]) & ~np.eye(NUM_ITEMS - 1, dtype=bool)
    different = group[:, None] != group[None]
    assert near[same].mean() > near[different].mean() + 0.2


def test_neighbours_count_by_distance_in_both_directions() -> None:
    counts = _neighbour_counts(Sequences.from_lists(["a", "b"], [[0, 1, 2, 0], [3, 1]]), 5).toarray()
    expected = np.zeros((5, 5))
    for first, second, weight in ((0, 1, 1), (1, 2, 1), (2, 0, 1), (0, 2, 1 / 2), (1, 0, 1 / 2), (3, 1, 1)):
        expected[first, second] += weight
        expected[second, first] += weight
    np.testing.assert_allclose(counts, expected)  # item 0 at distance 3 from itself counts nothing


def test_shifted_ppmi_is_that_of_the_definition() -> None:
    counts = _neighbour_counts(walks(60), NUM_ITEMS)
    found, dense = _shifted_ppmi(counts).toarray(), counts.toarray()
    rows = dense.sum(axis=1)
    contexts = rows**0.75 / (rows**0.75).sum()
    for first in range(0, NUM_ITEMS - 1, 7):
        for second in range(NUM_ITEMS - 1):
            if dense[first, second]:
                pmi = np.log(dense[first, second] / rows[first] / contexts[second])
                assert found[first, second] == pytest.approx(max(0.0, pmi - 1.0))
            else:
                assert found[first, second] == 0.0


def test_the_same_seed_gives_the_same_vectors_and_other_histories_another_revision() -> None:
    first, _ = behaviour_vectors(walks(), NUM_ITEMS, model="ppmi-svd", width=8, seed=0)
    again, _ = behaviour_vectors(walks(), NUM_ITEMS, model="ppmi-svd", width=8, seed=0)
    np.testing.assert_array_equal(first, again)
    assert behaviour_revision(walks()) == behaviour_revision(walks())
    assert behaviour_revision(walks()) != behaviour_revision(walks(seed=1))


def test_histories_in_which_everything_stands_beside_everything_are_refused() -> None:
    rng = np.random.default_rng(0)
    histories = [rng.permutation(12).tolist() for _ in range(2000)]
    mixed = Sequences.from_lists([str(user) for user in range(2000)], histories)
    with pytest.raises(DataError, match=r"more often than by chance.*--behaviour none"):
        behaviour_vectors(mixed, 12, model="ppmi-svd", width=4, seed=0)


def test_histories_without_pairs_are_refused() -> None:
    alone = Sequences.from_lists([str(user) for user in range(20)], [[user] for user in range(20)])
    with pytest.raises(DataError, match=r"Only 0 items stand beside another one.*--behaviour none"):
        behaviour_vectors(alone, 20, model="ppmi-svd", width=4, seed=0)
