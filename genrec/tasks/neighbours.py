"""The source of cross-modal tasks: for every item and modality, the item whose vector is nearest.

I items, D width, n items with a vector.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from genrec.tasks.data import TaskData
from genrec.tasks.rendering import FieldKinds, Value
from genrec.tasks.sources import Record

_ROWS_AT_ONCE = 1024


class Neighbours:
    """`item` and `nearest` (IDs) and `modality`, one thing per warm item and modality that it has.

    Behaviour is left out: what is used together is what all other tasks tell.
    """

    def __init__(self, data: TaskData) -> None:
        self.kinds: FieldKinds = {"item": "items", "nearest": "items", "modality": "text"}
        self._data = data
        self._pairs: list[tuple[str, int, int]] = []
        for modality, embeddings in sorted(data.embeddings().items()):
            if modality.startswith(("behaviour", "aligned")):
                continue
            rows = np.flatnonzero(embeddings.mask & data.warm)
            if len(rows) > 1:
                nearest = nearest_rows(embeddings.vectors[rows])
                pairs = zip(rows.tolist(), rows[nearest].tolist(), strict=True)
                self._pairs += [(modality, item, other) for item, other in pairs]

    def __len__(self) -> int:
        return len(self._pairs)

    def record(self, key: int, rng: np.random.Generator, max_history: int) -> Record:
        """Pair `key`. See `Source.record`."""
        modality, item, nearest = self._pairs[key]
        values: dict[str, Value] = {
            "item": self._data.codes([item]),
            "nearest": self._data.codes([nearest]),
            "modality": modality.replace("_", " ").replace("-", " "),
        }
        return Record(values, (item, nearest))


def nearest_rows(vectors: NDArray[np.float32]) -> NDArray[np.int64]:
    """For every row (n, D) the other row with the largest cosine, (n,); of equals the first."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.maximum(length, 1e-12)
    found = []
    for start in range(0, len(unit), _ROWS_AT_ONCE):
        cosines = unit[start : start + _ROWS_AT_ONCE] @ unit.T
        cosines[np.arange(len(cosines)), start + np.arange(len(cosines))] = -np.inf
        found.append(cosines.argmax(axis=1))
    return np.concatenate(found)
