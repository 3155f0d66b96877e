"""Item-kNN: items that the same users took, by the cosine of their columns in the user-item matrix.

Sarwar et al. 2001, with shrinkage of rarely co-occurring pairs (Bell & Koren 2007) and, unlike both, the
latest history items weighing most, because what comes next is asked for here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from genrec.baselines.base import recency_weights
from genrec.data.sequences import Sequences
from genrec.progress import SILENT, Progress


class ItemKNN:
    """Cosine of user co-occurrence: common / (sqrt(users_i * users_j) + shrinkage).

    `neighbours` most similar items are kept per item; `last` history items count, each step back weighing
    `decay` times as much.
    """

    name = "item-knn"

    def __init__(self, *, neighbours: int = 200, shrinkage: float = 5.0, last: int = 10, decay: float = 0.7) -> None:
        self._neighbours = neighbours
        self._shrinkage = shrinkage
        self._last = last
        self._decay = decay

    def fit(self, sequences: Sequences, num_items: int, *, seed: int, progress: Progress = SILENT) -> None:
        """Compute the similarities of all pairs that share a user; nothing is random."""
        self._num_items = num_items
        users = np.repeat(np.arange(len(sequences)), np.diff(sequences.offsets))
        ones = np.ones(len(users), dtype=np.float32)
        taken = sparse.coo_array((ones, (users, sequences.items)), shape=(len(sequences), num_items)).tocsr()
        taken.data[:] = 1.0  # an item taken twice by one user counts once
        num_users = np.asarray(taken.sum(axis=0)).ravel()  # (I,)
        common = (taken.T @ taken).tocoo()  # (I, I)
        row, column = common.coords
        norm = np.sqrt(num_users[row] * num_users[column]) + self._shrinkage
        similar = np.where(row == column, 0.0, common.data / norm).astype(np.float32)
        matrix = sparse.coo_array((similar, (row, column)), shape=common.shape).tocsr()
        self._similarity = _keep_largest(matrix, self._neighbours)

    def scores(self, histories: Sequence[NDArray[np.int32]]) -> NDArray[np.float32]:
        """Weighted sum of the similarities to the history items, (B, I)."""
        weights = recency_weights(histories, self._num_items, last=self._last, decay=self._decay)
        found: NDArray[np.float32] = (weights @ self._similarity).toarray().astype(np.float32)
        return found


def _keep_largest(matrix: sparse.csr_array, size: int) -> sparse.csr_array:
    """The matrix with only the `size` largest entries of every row."""
    lengths = np.diff(matrix.indptr)
    rows = np.repeat(np.arange(matrix.shape[0]), lengths)
    order = np.lexsort((matrix.indices, -matrix.data, rows))
    place = np.arange(len(order)) - np.repeat(matrix.indptr[:-1], lengths)
    kept = order[place < size]
    return sparse.coo_array((matrix.data[kept], (rows[kept], matrix.indices[kept])), shape=matrix.shape).tocsr()
