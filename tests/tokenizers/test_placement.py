"""Places for new items: own code if free, else the cheapest, else the nearest, until there is none."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from genrec.errors import DataError
from genrec.tokenizers.codes import Policy, resolve_collisions
from genrec.tokenizers.placement import place_items
from genrec.tokenizers.residual_kmeans import ResidualKMeans
from genrec.tokenizers.rqvae import RQVAE, RQVAEOptions

K, LEVELS = 4, 3


@pytest.fixture(scope="module")
def tokenizer() -> ResidualKMeans:
    made = ResidualKMeans(codebook_sizes=(K,) * LEVELS)
    made.fit(np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32), seed=0)
    return made


def vectors(count: int, seed: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(count, 5)).astype(np.float32)


def place(
    tokenizer: ResidualKMeans | RQVAE,
    new: NDArray[np.float32],
    taken: NDArray[np.uint16],
    *,
    sizes: tuple[int, ...] = (K,) * LEVELS,
    policy: Policy = "reassign",
) -> NDArray[np.uint16]:
    return place_items(tokenizer, new, taken=taken, sizes=sizes, policy=policy)


def rows(codes: NDArray[np.uint16]) -> list[tuple[int, ...]]:
    return [tuple(row) for row in codes.tolist()]


NOBODY = np.zeros((0, LEVELS), dtype=np.uint16)


def test_an_item_whose_codes_are_free_keeps_them(tokenizer: ResidualKMeans) -> None:
    new = vectors(1)
    np.testing.assert_array_equal(place(tokenizer, new, NOBODY), tokenizer.encode(new))


def test_an_item_whose_codes_are_taken_gets_the_cheapest_free_last_code(tokenizer: ResidualKMeans) -> None:
    for seed in range(20):
        new = vectors(1, seed)
        wanted = tokenizer.encode(new)
        costs = tokenizer.last_costs(new, wanted)[0]
        order = np.argsort(costs)
        for num_taken in range(1, K):
            taken = np.repeat(wanted, num_taken, axis=0)
            taken[:, -1] = order[:num_taken]
            found = place(tokenizer, new, taken)[0]
            assert found.tolist() == [*wanted[0, :-1].tolist(), order[num_taken]]


def test_where_the_prefix_is_full_the_item_moves_to_the_nearest_with_room(tokenizer: ResidualKMeans) -> None:
    new = vectors(1)
    first, second, _ = tokenizer.encode(new)[0].tolist()
    full = np.array(list(product([first], [second], range(K))), dtype=np.uint16)
    found = rows(place(tokenizer, new, full))[0]
    siblings = np.array([(first, code) for code in range(K)], dtype=np.uint16)
    distances = np.square(tokenizer.reconstruct(siblings) - new).sum(axis=1)
    nearest = next(code for code in np.argsort(distances) if code != second)
    assert found[:2] == (first, nearest)
    below = np.array([[first, nearest, 0]], dtype=np.uint16)
    assert found[2] == tokenizer.last_costs(new, below)[0].argmin()


@pytest.mark.parametrize("sizes", [(K,) * LEVELS, (K, K, K, 2)])
def test_every_place_is_filled_before_an_item_is_refused(tokenizer: ResidualKMeans, sizes: tuple[int, ...]) -> None:
    total = int(np.prod(sizes))
    taken = np.zeros((0, len(sizes)), dtype=np.uint16)
    placed = place(tokenizer, vectors(total), taken, sizes=sizes)
    assert sorted(rows(placed)) == list(product(*map(range, sizes)))
    with pytest.raises(DataError, match=f"All {total} semantic IDs are taken"):
        place(tokenizer, vectors(1), placed, sizes=sizes)


def test_levels_of_different_sizes_are_filled_to_the_last_place() -> None:
    sizes = (2, 5, 3)
    tokenizer = ResidualKMeans(codebook_sizes=sizes)
    tokenizer.fit(vectors(60), seed=0)
    placed = place(tokenizer, vectors(30, seed=3), np.zeros((0, 3), np.uint16), sizes=sizes)
    assert sorted(rows(placed)) == list(product(*map(range, sizes)))


def test_placing_some_now_and_some_later_gives_the_same_codes(tokenizer: ResidualKMeans) -> None:
    new = vectors(40)
    together = place(tokenizer, new, NOBODY)
    first = place(tokenizer, new[:15], NOBODY)
    second = place(tokenizer, new[15:], first)
    np.testing.assert_array_equal(together, np.concatenate([first, second]))
    assert len(set(rows(together))) == 40


def test_the_extra_level_comes_after_the_last_codes_with_reassignment(tokenizer: ResidualKMeans) -> None:
    new = np.repeat(vectors(1), 2 * K, axis=0)
    placed = place(tokenizer, new, np.zeros((0, 4), np.uint16), sizes=(K, K, K, 2))
    order = np.argsort(tokenizer.last_costs(new[:1], tokenizer.encode(new[:1]))[0])
    assert [(last, digit) for _, _, last, digit in rows(placed)] == [(last, d) for d in (0, 1) for last in order]


def test_the_extra_level_comes_before_another_last_code_where_codes_are_kept(tokenizer: ResidualKMeans) -> None:
    new = np.repeat(vectors(1), 2 * K, axis=0)
    placed = place(tokenizer, new, np.zeros((0, 4), np.uint16), sizes=(K, K, K, 2), policy="extra-level")
    order = np.argsort(tokenizer.last_costs(new[:1], tokenizer.encode(new[:1]))[0])
    assert [(last, digit) for _, _, last, digit in rows(placed)] == [(last, d) for last in order for d in (0, 1)]


def test_shared_codes_are_kept_whoever_has_them(tokenizer: ResidualKMeans) -> None:
    new = vectors(30)
    wanted = tokenizer.encode(new)
    np.testing.assert_array_equal(place(tokenizer, new, wanted, policy="shared"), wanted)
    # Codes that were resolved within those of another catalogue have its extra level.
    wider = place(tokenizer, new, np.pad(wanted, ((0, 0), (0, 1))), policy="shared", sizes=(K, K, K, 2))
    np.testing.assert_array_equal(wider, np.pad(wanted, ((0, 0), (0, 1))))


def test_a_tokenizer_of_one_level_has_no_other_prefix() -> None:
    tokenizer = ResidualKMeans(codebook_sizes=(K,))
    tokenizer.fit(vectors(50), seed=0)
    placed = place(tokenizer, vectors(K), np.zeros((0, 1), np.uint16), sizes=(K,))
    assert sorted(rows(placed)) == [(code,) for code in range(K)]
    with pytest.raises(DataError, match="more levels"):
        place(tokenizer, vectors(1), placed, sizes=(K,))


def test_a_loaded_rqvae_places_items_beside_those_that_were_resolved(tmp_path: Path) -> None:
    tokenizer = RQVAE(codebook_sizes=(8,) * LEVELS, options=RQVAEOptions(epochs=2))
    old, new = vectors(150), vectors(60, seed=2)
    tokenizer.fit(old, seed=0)
    before = tokenizer.encode(old)
    taken, sizes = resolve_collisions(
        before,
        (8,) * LEVELS,
        policy="reassign",
        last_costs=lambda items: tokenizer.last_costs(old[items], before[items]),
    )
    tokenizer.save(tmp_path)
    placed = place(RQVAE.load(tmp_path), new, taken, sizes=sizes)
    assert len({*rows(taken), *rows(placed)}) == 210
    wanted = tokenizer.encode(new)
    free = ~np.isin([str(row) for row in rows(wanted)], [str(row) for row in rows(taken)])
    _, first = np.unique(wanted, axis=0, return_index=True)
    undisturbed = np.intersect1d(np.flatnonzero(free), first)
    assert len(undisturbed) > 20
    np.testing.assert_array_equal(placed[undisturbed, : LEVELS - 1], wanted[undisturbed, : LEVELS - 1])
