"""The training-free hybrid: damped transition counts plus similarity of item vectors.

In the spirit of STAR (Lee et al. 2024, sec. 3), which scores an item by its semantic and its collaborative
similarity to the latest history items. Ours counts transitions with their direction instead of common
users. Nothing is trained, and on Amazon Beauty it is above every published figure: a generative model that
does not beat it has not earned its cost yet.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from genrec.baselines.base import centred_directions, item_counts, recency_weights, transition_counts
from genrec.data.sequences import Sequences
from genrec.progress import SILENT, Progress

_BACKWARDS = 0.5  # "j came before i" is weaker evidence than "j came after i"
_DAMPING = 0.3  # exponent of the popularities; 0.5 would be the cosine
_LAST = 5


class Hybrid:
    """Transitions in both directions, each over (pop_i * pop_j)^0.3, plus `text_weight` times the cosine.

    `vectors` (I, D) float32 with `mask` (I,), True where an item has a vector. The vectors are centred
    over the items that have one, then normalised; an item without one has similarity 0 to everything.
    The last five history items count, each step back half as much, in both parts. pop_i is the number of
    training interactions of item i (at least 1).
    """

    name = "hybrid"

    def __init__(self, vectors: NDArray[np.float32], mask: NDArray[np.bool_], *, text_weight: float = 0.5) -> None:
        self._text_weight = text_weight
        self._directions = centred_directions(vectors, mask)  # (I, D)

    def fit(self, sequences: Sequences, num_items: int, *, seed: int, progress: Progress = SILENT) -> None:
        """Count and damp the transitions of the training sequences; nothing is random."""
        assert len(self._directions) == num_items
        self._num_items = num_items
        forward = transition_counts(sequences, num_items)
        damping = np.maximum(item_counts(sequences, num_items), 1) ** -_DAMPING
        scale = sparse.diags_array(damping.astype(np.float32))
        self._counts = (scale @ (forward + _BACKWARDS * forward.T) @ scale).tocsr()

    def scores(self, histories: Sequence[NDArray[np.int32]]) -> NDArray[np.float32]:
        """Damped counts plus weighted cosine, (B, I)."""
        weights = recency_weights(histories, self._num_items, last=_LAST)
        behaviour: NDArray[np.float32] = (weights @ self._counts).toarray().astype(np.float32)
        profile = (weights @ self._directions).astype(np.float32)  # (B, D)
        behaviour += np.float32(self._text_weight) * (profile @ self._directions.T)
        return behaviour
