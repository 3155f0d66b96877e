"""Weighted transition counts: what followed the last items of this history in other people's histories?

No learning at all, and on sparse catalogues better than most published sequence models: the row that a
model has to beat before anything else is said about it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from genrec.baselines.base import recency_weights, transition_counts
from genrec.data.sequences import Sequences
from genrec.progress import SILENT, Progress


class Transitions:
    """Pairs at distance 1, 2, 3 weigh 1, 1/2, 1/3; the last three history items weigh 1, 1/2, 1/4."""

    name = "transitions"

    def fit(self, sequences: Sequences, num_items: int, *, seed: int, progress: Progress = SILENT) -> None:
        """Count the pairs of the training sequences; nothing is random."""
        self._num_items = num_items
        self._counts = transition_counts(sequences, num_items, distances=3)

    def scores(self, histories: Sequence[NDArray[np.int32]]) -> NDArray[np.float32]:
        """Sum of weighted counts from the last three history items, (B, I)."""
        weights = recency_weights(histories, self._num_items, last=3)
        found: NDArray[np.float32] = (weights @ self._counts).toarray().astype(np.float32)
        return found
