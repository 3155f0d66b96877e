"""Collision policies against their definitions, and semantic IDs on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from genrec.data.catalog import Catalog
from genrec.errors import DataError, RunError
from genrec.run import Run
from genrec.tokenizers.codes import SemanticIds, colliding_items, resolve_collisions

Codes = NDArray[np.uint16]


@st.composite
def crowded_codes(draw: st.DrawFn) -> tuple[Codes, int, NDArray[np.float32]]:
    """Codes with many collisions, their codebook size, and costs of every last code."""
    size = draw(st.integers(2, 5))
    levels = draw(st.integers(1, 3))
    num_items = draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    codes = rng.integers(0, size, (num_items, levels)).astype(np.uint16)
    return codes, size, rng.random((num_items, size)).astype(np.float32)


def naive_colliding(codes: Codes) -> list[bool]:
    rows = [tuple(row) for row in codes.tolist()]
    return [rows.count(row) > 1 for row in rows]


@settings(max_examples=80, deadline=None)
@given(crowded_codes())
def test_reassign_gives_every_item_its_own_codes_and_keeps_prefixes(
    case: tuple[Codes, int, NDArray[np.float32]],
) -> None:
    codes, size, costs = case
    made, sizes = resolve_collisions(
        codes, (size,) * codes.shape[1], policy="reassign", last_costs=lambda items: costs[items]
    )
    assert len({tuple(row) for row in made.tolist()}) == len(codes)
    levels = codes.shape[1]
    np.testing.assert_array_equal(made[:, : levels - 1], codes[:, : levels - 1])
    assert sizes[:levels] == (size,) * levels
    assert (made < np.array(sizes)).all()
    largest = max(np.unique(codes[:, :-1], axis=0, return_counts=True)[1]) if levels > 1 else len(codes)
    # An extra level is there only where a prefix has more items than last codes, and no larger than needed.
    assert len(sizes) == levels or (largest > size and sizes[-1] <= -(-largest // size))
    again, _ = resolve_collisions(
        codes, (size,) * codes.shape[1], policy="reassign", last_costs=lambda items: costs[items]
    )
    np.testing.assert_array_equal(made, again)


@settings(max_examples=80, deadline=None)
@given(crowded_codes())
def test_the_extra_level_numbers_the_items_of_a_group(case: tuple[Codes, int, NDArray[np.float32]]) -> None:
    codes, size, costs = case
    made, sizes = resolve_collisions(
        codes, (size,) * codes.shape[1], policy="extra-level", last_costs=lambda items: costs[items]
    )
    levels = codes.shape[1]
    np.testing.assert_array_equal(made[:, :levels], codes)
    rows = [tuple(row) for row in codes.tolist()]
    ranks = [rows[:item].count(row) for item, row in enumerate(rows)]
    if max(ranks):
        assert made[:, levels].tolist() == ranks
        assert sizes == (*(size,) * levels, max(ranks) + 1)
    else:
        assert sizes == (size,) * levels


@settings(max_examples=30, deadline=None)
@given(crowded_codes())
def test_shared_keeps_codes_and_collisions_are_counted_as_by_hand(
    case: tuple[Codes, int, NDArray[np.float32]],
) -> None:
    codes, size, costs = case
    made, sizes = resolve_collisions(
        codes, (size,) * codes.shape[1], policy="shared", last_costs=lambda items: costs[items]
    )
    np.testing.assert_array_equal(made, codes)
    assert sizes == (size,) * codes.shape[1]
    assert colliding_items(codes).tolist() == naive_colliding(codes)


def test_reassign_moves_the_item_whose_second_choice_costs_least() -> None:
    codes = np.array([[0, 1], [0, 1], [3, 1]], np.uint16)
    costs = np.array([[5.0, 0.0, 9.0, 9.0], [1.0, 0.0, 9.0, 9.0], [0.0, 9.0, 9.0, 9.0]], np.float32)
    made, _ = resolve_collisions(codes, (4, 4), policy="reassign", last_costs=lambda items: costs[items])
    assert made.tolist() == [[0, 1], [0, 0], [3, 1]]  # the third item collides with nobody and stays


def test_more_equal_items_than_a_level_can_number_are_refused() -> None:
    codes = np.zeros(((1 << 16) + 1, 1), np.uint16)
    with pytest.raises(DataError, match="65,537 items share one code sequence"):
        resolve_collisions(codes, (2,), policy="extra-level", last_costs=lambda items: np.zeros((len(items), 2)))


def catalog_of(size: int) -> Catalog:
    ids = [f"i{row}" for row in range(size)]
    return Catalog(pl.DataFrame({"item_id": ids, "title": ids}))


def test_saved_ids_load_as_they_were_and_only_for_their_catalogue(tmp_path: Path) -> None:
    run, catalog = Run.create(tmp_path / "run"), catalog_of(3)
    with pytest.raises(RunError, match="no semantic IDs yet"):
        SemanticIds.load(run, catalog=catalog)
    codes = np.array([[0, 1], [1, 0], [1, 1]], np.uint16)
    file, _ = SemanticIds(codes, (2, 2), catalog.order_checksum).save(run)
    loaded = SemanticIds.load(run, catalog=catalog)
    np.testing.assert_array_equal(loaded.codes, codes)
    assert loaded.codebook_sizes == (2, 2)
    with pytest.raises(RunError, match="another catalogue"):
        SemanticIds.load(run, catalog=catalog_of(4))
    for damaged, message in (
        (codes + np.uint16(1), "beyond its codebook"),
        (codes[:2], r"holds uint16 \(2, 2\), expected"),
        (codes.astype(np.int64), "holds int64"),
    ):
        np.save(file, damaged)
        with pytest.raises(RunError, match=message):
            SemanticIds.load(run, catalog=catalog)
    file.write_bytes(b"x")
    with pytest.raises(RunError, match="cannot be read"):
        SemanticIds.load(run, catalog=catalog)
