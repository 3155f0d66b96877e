"""Unique codes inside codebooks that cannot grow, against counts by hand and brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from genrec.errors import ConfigError, DataError
from genrec.tokenizers.codes import resolve_collisions
from genrec.tokenizers.residual_kmeans import ResidualKMeans
from genrec.tokenizers.room import resolve_within

Codes = NDArray[np.uint16]


def fitted(levels: int, size: int, *, seed: int = 0) -> ResidualKMeans:
    made = ResidualKMeans(codebook_sizes=(size,) * levels)
    made.fit(np.random.default_rng(seed).normal(size=(60, 4)).astype(np.float32), seed=seed)
    return made


def near_one_point(num_items: int, *, seed: int = 1) -> NDArray[np.float32]:
    """Vectors that a tokenizer of other vectors can hardly tell apart."""
    return (1.5 + 0.05 * np.random.default_rng(seed).normal(size=(num_items, 4))).astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(2, 4), st.integers(1, 3), st.floats(0, 1), st.booleans(), st.integers(0, 99))
def test_reassign_gives_every_item_its_own_id_as_long_as_there_are_ids(
    levels: int, size: int, extra: int, share: float, crowded: bool, seed: int
) -> None:
    tokenizer = fitted(levels, size)
    num_items = max(1, round(share * size**levels * extra))  # up to every ID that there is
    vectors = near_one_point(num_items, seed=seed)
    if not crowded:
        vectors = np.random.default_rng(seed).normal(size=(num_items, 4)).astype(np.float32)
    sizes = (size,) * levels + ((extra,) if extra > 1 else ())
    before = tokenizer.encode(vectors)
    made = resolve_within(before, sizes, policy="reassign", tokenizer=tokenizer, vectors=vectors)
    assert made.shape == (num_items, len(sizes))
    assert (made < np.array(sizes)).all()
    assert len({tuple(row) for row in made.tolist()}) == num_items
    again = resolve_within(before, sizes, policy="reassign", tokenizer=tokenizer, vectors=vectors)
    np.testing.assert_array_equal(made, again)


def test_where_every_prefix_has_room_nothing_is_spread() -> None:
    tokenizer = fitted(2, 8)
    vectors = np.random.default_rng(3).normal(size=(20, 4)).astype(np.float32)
    codes = tokenizer.encode(vectors)
    assert np.bincount(codes[:, 0]).max() <= 8
    made = resolve_within(codes, (8, 8), policy="reassign", tokenizer=tokenizer, vectors=vectors)
    usual, _ = resolve_collisions(
        codes, (8, 8), policy="reassign", last_costs=lambda items: tokenizer.last_costs(vectors[items], codes[items])
    )
    np.testing.assert_array_equal(made, usual)


def test_as_few_items_move_as_must_and_they_are_those_that_lose_least() -> None:
    tokenizer = fitted(2, 4)
    vectors = near_one_point(7)
    codes = tokenizer.encode(vectors)
    home = int(codes[0, 0])
    assert (codes[:, 0] == home).all()  # seven items, and four IDs under their prefix
    made = resolve_within(codes, (4, 4), policy="reassign", tokenizer=tokenizer, vectors=vectors)
    moved = np.flatnonzero(made[:, 0] != home)
    assert len(moved) == 3
    means = tokenizer.reconstruct(np.arange(4, dtype=np.uint16)[:, None])
    errors = np.square(vectors[:, None] - means[None]).sum(axis=2)
    others = np.delete(np.arange(4), home)
    rise = errors[:, others].min(axis=1) - errors[:, home]
    assert sorted(moved) == sorted(np.argsort(rise)[:3])
    np.testing.assert_array_equal(made[moved, 0], others[errors[moved][:, others].argmin(axis=1)])


def test_a_family_that_is_full_sends_items_to_the_next_one() -> None:
    tokenizer = fitted(3, 2)
    vectors = near_one_point(8)  # as many as there are IDs at all, all of one place
    made = resolve_within(tokenizer.encode(vectors), (2,) * 3, policy="reassign", tokenizer=tokenizer, vectors=vectors)
    assert sorted(map(tuple, made.tolist())) == [(a, b, c) for a in (0, 1) for b in (0, 1) for c in (0, 1)]
    more = near_one_point(9)
    with pytest.raises(DataError, match=r"9 items are more than the 8 semantic IDs"):
        resolve_within(tokenizer.encode(more), (2,) * 3, policy="reassign", tokenizer=tokenizer, vectors=more)


def test_levels_of_different_sizes_are_filled_to_the_last_id() -> None:
    tokenizer = ResidualKMeans(codebook_sizes=(3, 2, 4))
    tokenizer.fit(np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32), seed=0)
    vectors = near_one_point(24)
    made = resolve_within(tokenizer.encode(vectors), (3, 2, 4), policy="reassign", tokenizer=tokenizer, vectors=vectors)
    everything = [(a, b, c) for a in range(3) for b in range(2) for c in range(4)]
    assert sorted(map(tuple, made.tolist())) == everything


def test_an_extra_level_is_used_only_as_far_as_the_model_has_one() -> None:
    tokenizer = fitted(2, 4)
    vectors = np.repeat(near_one_point(1), 3, axis=0)
    codes = tokenizer.encode(vectors)
    made = resolve_within(codes, (4, 4, 3), policy="extra-level", tokenizer=tokenizer, vectors=vectors)
    np.testing.assert_array_equal(made, np.c_[codes, [0, 1, 2]])
    with pytest.raises(DataError, match=r"3 items share all codes; the extra level .* has 2"):
        resolve_within(codes, (4, 4, 2), policy="extra-level", tokenizer=tokenizer, vectors=vectors)
    with pytest.raises(ConfigError, match="no extra level"):
        resolve_within(codes, (4, 4), policy="extra-level", tokenizer=tokenizer, vectors=vectors)


@pytest.mark.parametrize("sizes", [(4, 4), (4, 4, 5)])
def test_shared_codes_stay_as_they_are(sizes: tuple[int, ...]) -> None:
    tokenizer = fitted(2, 4)
    vectors = near_one_point(30)  # more than there are IDs
    codes = tokenizer.encode(vectors)
    made = resolve_within(codes, sizes, policy="shared", tokenizer=tokenizer, vectors=vectors)
    np.testing.assert_array_equal(made[:, :2], codes)
    assert not made[:, 2:].any()
