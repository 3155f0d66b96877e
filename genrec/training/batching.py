"""Examples become rows of equal length: several examples share a row and never see each other.

Packing wastes a few percent of a row where padding would waste most of it, because histories differ in
length by a factor of ten. `segments` tells the examples of a row apart (0 is empty space); positions start
again at zero in each.

Shapes: R rows, T tokens of a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from genrec.examples import SEQUENCE_TASK, Example


@dataclass(frozen=True)
class PackedRows:
    """Rows ready for the model, all (R, T)."""

    tokens: NDArray[np.int64]
    positions: NDArray[np.int64]
    segments: NDArray[np.int64]
    targets: NDArray[np.bool_]
    words: NDArray[np.bool_]  # where examples of other tasks than whole histories are

    def __len__(self) -> int:
        return len(self.tokens)

    def select(self, rows: NDArray[np.int64]) -> PackedRows:
        """The named rows."""
        return PackedRows(
            self.tokens[rows], self.positions[rows], self.segments[rows], self.targets[rows], self.words[rows]
        )


def pack(examples: Sequence[Example], row_tokens: int, rng: np.random.Generator) -> PackedRows:
    """Put examples into as few rows of `row_tokens` as best-fit finds, in a drawn order.

    An example longer than a row is a mistake of the caller (the oldest history is cut where examples are
    made, never here).
    """
    order = rng.permutation(len(examples))
    members = _best_fit([len(examples[int(i)].tokens) for i in order], row_tokens)
    shape = (len(members), row_tokens)
    tokens, positions, segments = (np.zeros(shape, dtype=np.int64) for _ in range(3))
    targets, words = np.zeros(shape, dtype=np.bool_), np.zeros(shape, dtype=np.bool_)
    for row, contents in enumerate(members):
        start = 0
        for segment, index in enumerate(contents, start=1):
            example = examples[int(order[index])]
            end = start + len(example.tokens)
            tokens[row, start:end] = example.tokens
            positions[row, start:end] = np.arange(end - start)
            segments[row, start:end] = segment
            targets[row, start:end] = example.targets
            words[row, start:end] = example.task != SEQUENCE_TASK
            start = end
    return PackedRows(tokens, positions, segments, targets, words)


def _best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Which examples share a row: each goes where it leaves the least room, or opens a new row."""
    rows: list[list[int]] = []
    by_room: list[list[int]] = [[] for _ in range(capacity + 1)]  # rows by the room they have left
    for index, length in enumerate(lengths):
        assert 0 < length <= capacity, f"example of {length} tokens, row of {capacity}"
        room = next((room for room in range(length, capacity + 1) if by_room[room]), None)
        if room is None:
            rows.append([])
            row, room = len(rows) - 1, capacity
        else:
            row = by_room[room].pop()
        rows[row].append(index)
        by_room[room - length].append(row)
    return rows


def batches(
    rows: PackedRows,
    weights: NDArray[np.int64],
    rows_per_batch: int,
    *,
    rank: int,
    world_size: int,
    together: int,
    rng: np.random.Generator,
) -> Iterator[tuple[PackedRows, float]]:
    """This process's batches of an epoch: rows in a drawn order, dealt out so that all get equally many.

    Beside each one, what its mean loss counts in an optimizer step of `together` batches, so that the step is that of
    all their targets at once, however unequal the batches are: the share of its rows' `weights` (R,) in those of the
    step, times the processes, which average over one another.
    """
    order = rng.permutation(len(rows))
    per_batch = rows_per_batch * world_size
    steps = num_batches(len(rows), rows_per_batch, world_size)
    # The last batch is filled up from the beginning, so that no process waits for another's gradient.
    order = np.resize(order, steps * per_batch) if world_size > 1 else order
    for first in range(0, steps, together):
        whole = order[first * per_batch : (first + together) * per_batch]
        total = max(1, int(weights[whole].sum()))
        for start in range(0, len(whole), per_batch):
            own = whole[start : start + per_batch][rank::world_size]
            yield rows.select(own), world_size * int(weights[own].sum()) / total


def num_batches(num_rows: int, rows_per_batch: int, world_size: int) -> int:
    """Steps of an epoch."""
    return -(-num_rows // (rows_per_batch * world_size))
