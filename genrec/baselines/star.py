"""STAR's retrieval: similarity of texts and of users, nothing trained.

Lee et al. 2024, "STAR: A Simple Training-free Approach for Recommendations using Large Language Models", sec. 3.2:
an item's score is the mean over the last history items of a·semantic + (1 − a)·collaborative similarity, each step
back weighing `decay` times as much. Semantic is the cosine of text vectors, collaborative that of the users who took
the items. The paper's second half, a language model that ranks what was retrieved, is not part of it; nor are
ratings, which the paper leaves out as well.

B histories, I items, D width of the vectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from genrec.baselines.base import centred_directions, item_cosines, recency_weights
from genrec.data.sequences import Sequences
from genrec.progress import SILENT, Progress


class STAR:
    """Vectors (I, D) float32 with mask (I,), True where an item has a vector; the others have similarity 0."""

    name = "star"
    SPACE: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "semantic_share": (0.5, 0.1, 0.25, 0.75),
        "last": (3, 5, 10),
        "decay": (0.7, 0.3, 0.5, 0.9),
    }

    def __init__(
        self,
        vectors: NDArray[np.float32],
        mask: NDArray[np.bool_],
        *,
        semantic_share: float = 0.5,
        last: int = 3,
        decay: float = 0.7,
    ) -> None:
        self._share, self._last, self._decay = semantic_share, last, decay
        origin = np.zeros(vectors.shape[1], np.float32)  # the paper's cosines are of the vectors as they come
        self._directions = centred_directions(vectors, mask, centre=origin)

    def fit(self, sequences: Sequences, num_items: int, *, seed: int, progress: Progress = SILENT) -> None:
        """Compare the users of all pairs of items; nothing is random."""
        assert len(self._directions) == num_items
        self._num_items = num_items
        self._collaborative = item_cosines(sequences, num_items)

    def scores(self, histories: Sequence[NDArray[np.int32]]) -> NDArray[np.float32]:
        """Weighted sum of both similarities to the history items, (B, I)."""
        weights = recency_weights(histories, self._num_items, last=self._last, decay=self._decay)
        found: NDArray[np.float32] = (weights @ self._collaborative).toarray().astype(np.float32)
        profile = (weights @ self._directions).astype(np.float32)  # (B, D)
        return np.float32(1 - self._share) * found + np.float32(self._share) * (profile @ self._directions.T)
