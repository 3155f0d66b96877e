"""What a tokenizer does: item vectors to codes and back. One interface for RQ-VAE and residual k-means.

N items, D width, L levels, K codes per level.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from genrec.errors import DataError
from genrec.progress import SILENT, Progress


class ItemTokenizer(Protocol):
    """Learns codebooks from vectors. Codes of an item depend on its vector alone, never on its batch."""

    @property
    def levels(self) -> int:
        """L."""
        ...

    @property
    def codebook_size(self) -> int:
        """K, the same on every level."""
        ...

    def fit(self, vectors: NDArray[np.float32], *, seed: int, progress: Progress = SILENT) -> None:
        """Learn from vectors (N, D). Raises DataError where there are fewer than K of them."""
        ...

    def encode(self, vectors: NDArray[np.float32]) -> NDArray[np.uint16]:
        """Codes (N, L) of vectors (N, D), seen before or not."""
        ...

    def reconstruct(self, codes: NDArray[np.uint16]) -> NDArray[np.float32]:
        """Vectors (N, D) of codes (N, L), or of a prefix of them (N, 1 … L)."""
        ...

    def last_costs(self, vectors: NDArray[np.float32], codes: NDArray[np.uint16]) -> NDArray[np.float32]:
        """How ill every code of the last level fits each vector after its earlier codes, (N, K)."""
        ...

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` and `tokenizer.safetensors` into an existing folder."""
        ...

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote. Raises RunError where it is missing or damaged."""
        ...


def check_vectors(vectors: NDArray[np.float32], *, codebook_size: int) -> None:
    """Raise DataError unless a codebook of `codebook_size` can be learned from vectors (N, D)."""
    if vectors.ndim != 2 or not np.isfinite(vectors).all():
        raise DataError(f"Vectors of shape {vectors.shape} must be (items, width) and finite.")
    if len(vectors) < codebook_size:
        # Eight items per code leave something for the later levels to tell apart.
        advice = max(2, 1 << max(1, (len(vectors) // 8).bit_length() - 1))
        raise DataError(
            f"{len(vectors):,} items cannot fill a codebook of {codebook_size:,} codes.",
            f"Choose a smaller one, for example --codebook-size {advice}.",
        )
