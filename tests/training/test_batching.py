"""Packing loses nothing and mixes nothing; batches are dealt out evenly."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.examples import Example
from genrec.training.batching import PackedRows, batches, num_batches, pack


def examples_of(lengths: list[int]) -> list[Example]:
    """Every token of every example is a number of its own, so that losses and mixtures show."""
    rng = np.random.default_rng(0)
    starts = np.cumsum([1, *lengths])
    return [
        Example(np.arange(start, start + length), rng.random(length) < 0.5, str(rng.choice(["A1", "B1"])))
        for start, length in zip(starts, lengths, strict=False)
    ]


def unpack(rows: PackedRows) -> list[Example]:
    """The examples of packed rows, by brute force over segments."""
    found = []
    for row in range(len(rows)):
        for segment in range(1, int(rows.segments[row].max()) + 1):
            here = rows.segments[row] == segment
            np.testing.assert_array_equal(rows.positions[row][here], np.arange(here.sum()))
            assert np.ptp(np.flatnonzero(here)) == here.sum() - 1  # one piece
            (is_words,) = np.unique(rows.words[row][here])
            task = "B1" if is_words else "A1"
            found.append(Example(rows.tokens[row][here], rows.targets[row][here], task))
    return found


@given(st.lists(st.integers(1, 12), max_size=25), st.integers(12, 20), st.integers(0, 9))
def test_every_example_is_packed_exactly_once_and_whole(lengths: list[int], row_tokens: int, seed: int):
    examples = examples_of(lengths)
    rows = pack(examples, row_tokens, np.random.default_rng(seed))
    found = sorted(unpack(rows), key=lambda example: int(example.tokens[0]))
    assert len(found) == len(examples)
    for one, other in zip(found, examples, strict=True):
        np.testing.assert_array_equal(one.tokens, other.tokens)
        np.testing.assert_array_equal(one.targets, other.targets)
        assert one.task == other.task
    empty = rows.segments == 0
    assert int((~empty).sum()) == sum(lengths)
    assert not rows.targets[empty].any()
    assert not rows.tokens[empty].any()
    assert not rows.words[empty].any()


def fewest_rows(lengths: tuple[int, ...], capacity: int) -> int:
    """The least number of rows, by trying everything."""

    @cache
    def rows_and_fill(left: frozenset[int]) -> tuple[int, int]:
        if not left:
            return 1, 0
        best = (len(lengths), capacity)
        for index in left:
            count, fill = rows_and_fill(left - {index})
            fits = fill + lengths[index] <= capacity
            best = min(best, (count, fill + lengths[index]) if fits else (count + 1, lengths[index]))
        return best

    return rows_and_fill(frozenset(range(len(lengths))))[0]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 10), min_size=1, max_size=8), st.integers(0, 9))
def test_few_rows_are_wasted(lengths: list[int], seed: int):
    num_rows = len(pack(examples_of(lengths), 10, np.random.default_rng(seed)))
    # Best fit needs at most 1.7 times the optimum (Dosa and Sgall 2014).
    assert num_rows <= 1.7 * fewest_rows(tuple(lengths), 10)


def test_rows_are_nearly_full_where_there_are_many_examples():
    lengths = np.random.default_rng(0).integers(5, 100, size=600).tolist()
    rows = pack(examples_of(lengths), 256, np.random.default_rng(0))
    assert sum(lengths) / rows.tokens.size > 0.96


def test_the_packing_follows_the_generator():
    examples = examples_of([3, 5, 2, 7, 4, 6, 1, 2])
    first, again, other = (pack(examples, 8, np.random.default_rng(seed)).tokens for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert first.shape != other.shape or (first != other).any()


def numbered_rows(num_rows: int) -> PackedRows:
    column = np.arange(num_rows)[:, None]
    return PackedRows(column, column, column, column >= 0, column < 0)


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("num_rows", [1, 5, 12, 13])
@pytest.mark.parametrize("rows_per_batch", [1, 2, 4])
def test_batches_are_dealt_out_evenly(world_size: int, num_rows: int, rows_per_batch: int):
    dealt = []
    for rank in range(world_size):
        own = batches(
            numbered_rows(num_rows),
            np.ones(num_rows, dtype=np.int64),
            rows_per_batch,
            rank=rank,
            world_size=world_size,
            together=1,
            rng=np.random.default_rng(4),
        )
        dealt.append([batch.tokens[:, 0].tolist() for batch, _ in own])
    steps = num_batches(num_rows, rows_per_batch, world_size)
    assert [len(own) for own in dealt] == [steps] * world_size
    seen = [row for own in dealt for batch in own for row in batch]
    assert set(seen) == set(range(num_rows))
    if world_size == 1:
        assert len(seen) == num_rows  # alone, nothing is read twice
    else:
        assert {len(batch) for own in dealt for batch in own} == {rows_per_batch}
        # Read twice is only what fills up the last step.
        assert len(seen) - num_rows < rows_per_batch * world_size


@pytest.mark.parametrize("world_size", [2, 4])
def test_a_step_of_several_processes_reads_the_rows_of_one_larger_batch(world_size: int):
    rows, weights = numbered_rows(16), np.arange(16)

    def dealt(rows_per_batch: int, *, rank: int, world_size: int) -> list[tuple[PackedRows, float]]:
        places = {"rank": rank, "world_size": world_size}
        return list(batches(rows, weights, rows_per_batch, **places, together=1, rng=np.random.default_rng(1)))

    alone = dealt(2 * world_size, rank=0, world_size=1)
    together = [dealt(2, rank=rank, world_size=world_size) for rank in range(world_size)]
    for (batch, counts), *parts in zip(alone, *together, strict=True):
        joined = np.concatenate([part.tokens[:, 0] for part, _ in parts])
        assert sorted(joined.tolist()) == sorted(batch.tokens[:, 0].tolist())
        assert counts == 1
        # Processes average: each row counts by its weight in the whole step, whoever reads it.
        for part, share in parts:
            assert share / world_size == pytest.approx(part.tokens[:, 0].sum() / joined.sum())


def test_batches_of_a_step_count_by_their_targets():
    weights = np.array([1, 1, 8, 2, 3])
    own = list(batches(numbered_rows(5), weights, 1, rank=0, world_size=1, together=2, rng=np.random.default_rng(0)))
    rows = [int(batch.tokens[0, 0]) for batch, _ in own]
    for first in (0, 2, 4):
        step = rows[first : first + 2]
        shares = [share for _, share in own[first : first + 2]]
        np.testing.assert_allclose(shares, weights[step] / weights[step].sum())
