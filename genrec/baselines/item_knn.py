"""Item-kNN: items that the same users took, by the cosine of their columns in the user-item matrix.

Sarwar et al. 2001, with shrinkage of rarely co-occurring pairs (Bell & Koren 2007) and, unlike both, the
latest history items weighing most, because what comes next is asked for here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from genrec.baselines.base import item_cosines, recency_weights
from genrec.data.sequences import Sequences
from genrec.progress import SILENT, Progress


class ItemKNN:
    """Cosine of user co-occurrence: common / (sqrt(users_i * users_j) + shrinkage).

    `neighbours` most similar items are kept per item; `last` history items count, each step back weighing
    `decay` times as much.
    """

    name = "item-knn"
    SPACE: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "neighbours": (200, 50, 1000),
        "shrinkage": (5.0, 0.0, 2.0, 10.0, 20.0),
        "last": (10, 3, 5, 50),
        "decay": (0.7, 0.5, 0.85, 1.0),
    }

    def __init__(self, *, neighbours: int = 200, shrinkage: float = 5.0, last: int = 10, decay: float = 0.7) -> None:
        self._neighbours = neighbours
        self._shrinkage = shrinkage
        self._last = last
        self._decay = decay

    def fit(self, sequences: Sequences, num_items: int, *, seed: int, progress: Progress = SILENT) -> None:
        """Compute the similarities of all pairs that share a user; nothing is random."""
        self._num_items = num_items
        matrix = item_cosines(sequences, num_items, shrinkage=self._shrinkage)
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
