"""The training-free hybrid: damped transition counts plus similarity of item vectors.

In the spirit of STAR (Lee et al. 2024, sec. 3), which scores an item by its semantic and its collaborative
similarity to the latest history items. Ours counts transitions with their direction instead of common
users. Nothing is trained, and on Amazon Beauty it is above every published figure: a generative model that
does not beat it has not earned its cost yet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from genrec.baselines.base import centred_directions, damped_transitions, recency_weights
from genrec.data.sequences import Sequences
from genrec.progress import SILENT, Progress


class Hybrid:
    """Transitions in both directions, each over (pop_i * pop_j)^damping, plus `text_weight` times the cosine.

    `vectors` (I, D) float32 with `mask` (I,), True where an item has a vector. The vectors are centred
    over the items that have one, then normalised; an item without one has similarity 0 to everything.
    The `last` history items count, each step back `decay` times as much, in both parts; pairs up to `distances` steps
    apart are transitions, and "j came before i" counts `backwards` times as much as "j came after i".
    """

    name = "hybrid"
    SPACE: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "text_weight": (0.5, 0.1, 0.25, 1.0, 2.0),
        "backwards": (0.5, 0.0, 0.25, 1.0),
        "damping": (0.3, 0.15, 0.4, 0.5),
        "last": (5, 2, 3, 10),
        "decay": (0.5, 0.3, 0.7),
        "distances": (3, 1, 5),
    }

    def __init__(
        self,
        vectors: NDArray[np.float32],
        mask: NDArray[np.bool_],
        *,
        text_weight: float = 0.5,
        backwards: float = 0.5,
        damping: float = 0.3,
        last: int = 5,
        decay: float = 0.5,
        distances: int = 3,
    ) -> None:
        self._text_weight, self._last, self._decay = text_weight, last, decay
        self._counting = {"backwards": backwards, "damping": damping}
        self._distances = distances
        self._directions = centred_directions(vectors, mask)  # (I, D)

    def fit(self, sequences: Sequences, num_items: int, *, seed: int, progress: Progress = SILENT) -> None:
        """Count and damp the transitions of the training sequences; nothing is random."""
        assert len(self._directions) == num_items
        self._num_items = num_items
        self._counts = damped_transitions(sequences, num_items, distances=self._distances, **self._counting)

    def scores(self, histories: Sequence[NDArray[np.int32]]) -> NDArray[np.float32]:
        """Damped counts plus weighted cosine, (B, I)."""
        weights = recency_weights(histories, self._num_items, last=self._last, decay=self._decay)
        behaviour: NDArray[np.float32] = (weights @ self._counts).toarray().astype(np.float32)
        profile = (weights @ self._directions).astype(np.float32)  # (B, D)
        behaviour += np.float32(self._text_weight) * (profile @ self._directions.T)
        return behaviour
