"""EASE: the item-to-item weights that best reconstruct every user's items, in closed form.

Steck 2019, "Embarrassingly Shallow Autoencoders for Sparse Data": with G the counts of common users and λ a ridge,
P = (G + λ·1)⁻¹ and the weight from item i to item j is −P_ij / P_jj, nothing from an item to itself. The paper's
input is a set of items; because what comes next is asked for here, later history items weigh more.

B histories, I items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from genrec.baselines.base import recency_weights, taken_items
from genrec.data.sequences import Sequences
from genrec.progress import SILENT, Progress


class EASE:
    """Ridge regression of every item on all others. Takes 12·I² bytes while it is fitted, 4·I² afterwards."""

    name = "ease"
    MOST_ITEMS: ClassVar[int] = 25_000  # 7.5 GB
    SPACE: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "ridge": (100.0, 10.0, 30.0, 300.0, 1000.0),
        "last": (10, 3, 5, 50),
        "decay": (0.7, 0.5, 0.85, 1.0),
    }

    def __init__(self, *, ridge: float = 100.0, last: int = 10, decay: float = 0.7) -> None:
        self._ridge, self._last, self._decay = ridge, last, decay

    def fit(self, sequences: Sequences, num_items: int, *, seed: int, progress: Progress = SILENT) -> None:
        """Invert the matrix of common users; nothing is random."""
        self._num_items = num_items
        taken = taken_items(sequences, num_items)
        with progress.track("Inverting for ease", 1, "matrices") as task:
            gram = torch.from_numpy((taken.T @ taken).toarray())
            gram.diagonal().add_(self._ridge)
            inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
            inverse /= -inverse.diagonal().clone()
            inverse.fill_diagonal_(0.0)
            task.advance()
        self._weights = np.ascontiguousarray(inverse.numpy())  # rows are what is added up

    def scores(self, histories: Sequence[NDArray[np.int32]]) -> NDArray[np.float32]:
        """Weighted sum of the weights from the history items, (B, I)."""
        weights = recency_weights(histories, self._num_items, last=self._last, decay=self._decay)
        return np.asarray(weights @ self._weights, dtype=np.float32)
