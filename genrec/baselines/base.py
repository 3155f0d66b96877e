"""What a baseline is, and how its scores become ranked lists.

A baseline learns from training sequences and gives every item a score for every history. Items of the
history never enter an answer, and equal scores are put in a random but seeded order: neither the order of
the catalogue nor the order of the users can leak into a result.

B histories of a batch, I items, N history items of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from genrec.data.sequences import Sequences
from genrec.progress import SILENT, Progress

_SCORES_AT_ONCE = 4_000_000  # rows of a batch x items: 16 MB of scores and 32 MB of sort keys


class Baseline(Protocol):
    """A method to compare with. `name` is what tables call it."""

    @property
    def name(self) -> str:
        """Short name, such as `transitions`."""
        ...

    def fit(self, sequences: Sequences, num_items: int, *, seed: int, progress: Progress = SILENT) -> None:
        """Learn from training sequences over a catalogue of `num_items` items."""
        ...

    def scores(self, histories: Sequence[NDArray[np.int32]]) -> NDArray[np.float32]:
        """Score of every item after every history, (B, I); higher is better."""
        ...


def rank_all(
    baseline: Baseline,
    histories: Sequence[NDArray[np.int32]],
    k: int,
    *,
    num_items: int,
    seed: int,
    allowed: NDArray[np.bool_] | None = None,
    progress: Progress = SILENT,
) -> NDArray[np.int32]:
    """The k best items after every history, (C, k), best first; -1 where fewer are left.

    Items of the history are left out, and those outside `allowed` (I,). Ties are ordered as `top_k` says.
    """
    rows = max(1, _SCORES_AT_ONCE // max(num_items, 1))
    refused = np.zeros(0, np.int64) if allowed is None else np.flatnonzero(~allowed)
    ranked = np.full((len(histories), k), -1, dtype=np.int32)
    with progress.track(f"Ranking with {baseline.name}", len(histories), "users") as task:
        for start in range(0, len(histories), rows):
            batch = histories[start : start + rows]
            exclude = batch if not len(refused) else [np.concatenate([history, refused]) for history in batch]
            best = top_k(baseline.scores(batch), k, exclude=exclude, seed=seed, first_row=start)
            ranked[start : start + len(batch), : best.shape[1]] = best
            task.advance(len(batch))
    return ranked


def top_k(
    scores: NDArray[np.float32],
    k: int,
    *,
    exclude: Sequence[NDArray[np.int32]],
    seed: int,
    first_row: int = 0,
) -> NDArray[np.int32]:
    """Indices of the k highest scores of every row, (B, min(k, I)), best first; -1 where a row has fewer.

    `exclude[b]` never appears in row b. Equal scores are ordered by one seeded permutation of the items,
    turned by a seeded amount for each row (`first_row` is the number of the first row, so that the answer
    does not depend on how rows are batched).
    """
    num_rows, num_items = scores.shape
    k = min(k, num_items)
    permutation = np.random.default_rng(seed).permutation(num_items).astype(np.uint32)
    turns = np.random.default_rng([seed, 1]).integers(num_items, size=first_row + num_rows)[first_row:]
    turned = (permutation[None, :] + turns.astype(np.uint32)[:, None]) % np.uint32(num_items)  # (B, I)
    # One integer key holds both: the score in the upper half, the place among equals in the lower half.
    keys = _descending(scores).astype(np.uint64) << np.uint64(32) | turned
    last = np.iinfo(np.uint64).max
    for row, items in enumerate(exclude):
        keys[row, items] = last
    best = np.argpartition(keys, k - 1, axis=1)[:, :k]
    best_keys = np.take_along_axis(keys, best, axis=1)
    order = np.argsort(best_keys, axis=1)
    ranked = np.take_along_axis(best, order, axis=1).astype(np.int32)
    ranked[np.take_along_axis(best_keys, order, axis=1) == last] = -1
    return ranked


def _descending(scores: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Unsigned integers that sort upwards exactly as the floats sort downwards (-0.0 equals 0.0)."""
    bits = (scores + np.float32(0.0)).view(np.uint32)
    sign = np.uint32(0x80000000)
    # Positive floats compare like their bits, negative ones the other way round.
    return np.where(bits & sign, bits, ~(bits | sign))


def centred_directions(
    vectors: NDArray[np.float32], mask: NDArray[np.bool_], *, centre: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Unit vectors after `centre` (D,), or the mean of the present ones, is taken away; zero where missing, (I, D)."""
    centred = np.where(mask[:, None], vectors - (mean_vector(vectors, mask) if centre is None else centre), 0.0)
    norm = np.linalg.norm(centred, axis=1, keepdims=True)
    unit: NDArray[np.float32] = (centred / np.maximum(norm, 1e-12)).astype(np.float32)
    return unit


def mean_vector(vectors: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Mean of the vectors that are there, (D,); zero where there are none."""
    present = vectors[mask]
    return np.asarray(present.mean(axis=0) if len(present) else np.zeros(vectors.shape[1]), dtype=np.float32)


def item_counts(sequences: Sequences, num_items: int) -> NDArray[np.int64]:
    """Number of training interactions of every item, (I,)."""
    return np.bincount(sequences.items, minlength=num_items).astype(np.int64)


def taken_items(sequences: Sequences, num_items: int) -> sparse.csr_array:
    """Who took what, sparse (users, I): 1 where a user took an item, however often."""
    users = np.repeat(np.arange(len(sequences)), np.diff(sequences.offsets))
    ones = np.ones(len(users), dtype=np.float32)
    taken = sparse.coo_array((ones, (users, sequences.items)), shape=(len(sequences), num_items)).tocsr()
    taken.data[:] = 1.0
    return taken


def common_users(sequences: Sequences, num_items: int) -> sparse.csr_array:
    """How many users took both items, sparse (I, I); nothing on the diagonal."""
    taken = taken_items(sequences, num_items)
    common = (taken.T @ taken).tocoo()
    row, column = common.coords
    apart = row != column
    return sparse.coo_array((common.data[apart], (row[apart], column[apart])), shape=common.shape).tocsr()


def item_cosines(sequences: Sequences, num_items: int, *, shrinkage: float = 0.0) -> sparse.csr_array:
    """Common users / (sqrt(users_i * users_j) + shrinkage), sparse (I, I); nothing on the diagonal."""
    num_users = np.asarray(taken_items(sequences, num_items).sum(axis=0)).ravel()
    common = common_users(sequences, num_items).tocoo()
    row, column = common.coords
    values = common.data / (np.sqrt(num_users[row] * num_users[column]) + np.float32(shrinkage))
    return sparse.coo_array((values.astype(np.float32), (row, column)), shape=common.shape).tocsr()


def recency_weights(
    histories: Sequence[NDArray[np.int32]], num_items: int, *, last: int, decay: float = 0.5
) -> sparse.csr_array:
    """Weights of history items, sparse (B, I): the latest weighs 1, each step back `decay` times as much.

    Only the `last` items count; an item that appears twice weighs the sum.
    """
    tails = [history[-last:][::-1] for history in histories]
    lengths = np.fromiter((len(tail) for tail in tails), dtype=np.int64, count=len(tails))
    rows = np.repeat(np.arange(len(tails)), lengths)
    columns = np.concatenate([*tails, np.empty(0, np.int32)])
    steps = np.arange(len(columns)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    weights = np.power(decay, steps).astype(np.float32)
    return sparse.coo_array((weights, (rows, columns)), shape=(len(tails), num_items)).tocsr()


def transition_counts(sequences: Sequences, num_items: int, *, distances: int = 3) -> sparse.csr_array:
    """Weighted counts, sparse (I, I): entry (i, j) sums 1/d over every j that follows i at distance d."""
    owner = np.repeat(np.arange(len(sequences)), np.diff(sequences.offsets))
    total = sparse.csr_array((num_items, num_items), dtype=np.float32)
    for distance in range(1, distances + 1):
        same_user = owner[distance:] == owner[:-distance]
        before = sequences.items[:-distance][same_user]
        after = sequences.items[distance:][same_user]
        weight = np.full(len(before), 1.0 / distance, dtype=np.float32)
        total = total + sparse.coo_array((weight, (before, after)), shape=total.shape).tocsr()
    return total


def damped_transitions(
    sequences: Sequences, num_items: int, *, distances: int, backwards: float, damping: float
) -> sparse.csr_array:
    """Counts of j after i plus `backwards` times those of j before i, over (pop_i * pop_j)^damping; sparse (I, I).

    pop_i is the number of training interactions of item i (at least 1); a damping of 0.5 would be the cosine.
    """
    forward = transition_counts(sequences, num_items, distances=distances)
    weight = np.maximum(item_counts(sequences, num_items), 1) ** -damping
    scale = sparse.diags_array(weight.astype(np.float32))
    return (scale @ (forward + backwards * forward.T) @ scale).tocsr()
