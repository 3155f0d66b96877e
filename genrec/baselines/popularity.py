"""Popularity: every history gets the items with the most training interactions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from genrec.baselines.base import item_counts
from genrec.data.sequences import Sequences
from genrec.progress import SILENT, Progress


class Popularity:
    """Items by their number of training interactions, the same for every user."""

    name = "popularity"

    def fit(self, sequences: Sequences, num_items: int, *, seed: int, progress: Progress = SILENT) -> None:
        """Count the interactions of each item; nothing is random."""
        self._counts = item_counts(sequences, num_items).astype(np.float32)

    def scores(self, histories: Sequence[NDArray[np.int32]]) -> NDArray[np.float32]:
        """The counts, once per history, (B, I)."""
        return np.tile(self._counts, (len(histories), 1))
