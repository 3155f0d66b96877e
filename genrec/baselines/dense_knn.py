"""Dense nearest neighbours: items whose content is near to what the user took last. Nothing is learned.

The classical way to recommend items that nobody has used yet, and what any method for cold items has to beat.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from genrec.baselines.base import centred_directions, recency_weights
from genrec.data.sequences import Sequences
from genrec.progress import SILENT, Progress


class DenseKNN:
    """Cosine between an item and the weighted mean of the history items' vectors.

    `vectors` (I, D) float32 with `mask` (I,), True where an item has a vector. They are centred over the items
    that have one, then normalised; an item without one has similarity 0 to everything. The `last` history items
    count, each step back weighing `decay` times as much.
    """

    name = "dense-knn"

    def __init__(
        self, vectors: NDArray[np.float32], mask: NDArray[np.bool_], *, last: int = 5, decay: float = 0.5
    ) -> None:
        self._directions = centred_directions(vectors, mask)  # (I, D)
        self._last = last
        self._decay = decay

    def fit(self, sequences: Sequences, num_items: int, *, seed: int, progress: Progress = SILENT) -> None:
        """Learn nothing."""
        assert len(self._directions) == num_items

    def scores(self, histories: Sequence[NDArray[np.int32]]) -> NDArray[np.float32]:
        """Cosines, (B, I); 0 for an empty history."""
        weights = recency_weights(histories, len(self._directions), last=self._last, decay=self._decay)
        profile = (weights @ self._directions).astype(np.float32)  # (B, D); its length changes no cosine's order
        profile /= np.maximum(np.linalg.norm(profile, axis=1, keepdims=True), 1e-12)
        found: NDArray[np.float32] = profile @ self._directions.T
        return found
