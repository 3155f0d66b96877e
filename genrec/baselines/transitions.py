"""Weighted transition counts: what followed the last items of this history in other people's histories?

No learning at all, and on sparse catalogues better than most published sequence models: the row that a
model has to beat before anything else is said about it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from genrec.baselines.base import damped_transitions, recency_weights
from genrec.data.sequences import Sequences
from genrec.progress import SILENT, Progress


class Transitions:
    """Pairs at distance 1, 2, 3 weigh 1, 1/2, 1/3; the last three history items weigh 1, 1/2, 1/4.

    Those are the defaults; the rest is what `damped_transitions` says.
    """

    name = "transitions"
    SPACE: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "last": (3, 1, 2, 5, 10),
        "decay": (0.5, 0.3, 0.7),
        "distances": (3, 1, 5),
        "backwards": (0.0, 0.25, 0.5, 1.0),
        "damping": (0.0, 0.15, 0.3, 0.4, 0.5),
    }

    def __init__(
        self, *, last: int = 3, decay: float = 0.5, distances: int = 3, backwards: float = 0.0, damping: float = 0.0
    ) -> None:
        self._last, self._decay, self._distances = last, decay, distances
        self._counting = {"backwards": backwards, "damping": damping}

    def fit(self, sequences: Sequences, num_items: int, *, seed: int, progress: Progress = SILENT) -> None:
        """Count the pairs of the training sequences; nothing is random."""
        self._num_items = num_items
        self._counts = damped_transitions(sequences, num_items, distances=self._distances, **self._counting)

    def scores(self, histories: Sequence[NDArray[np.int32]]) -> NDArray[np.float32]:
        """Sum of weighted counts from the last history items, (B, I)."""
        weights = recency_weights(histories, self._num_items, last=self._last, decay=self._decay)
        found: NDArray[np.float32] = (weights @ self._counts).toarray().astype(np.float32)
        return found
