"""What a tokenizer does: item vectors to codes and back. One interface for all methods.

N items, D width, L levels, K codes of a level, M modalities of which the vectors are made up, P pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from genrec.errors import DataError
from genrec.progress import SILENT, Progress


@dataclass(frozen=True, eq=False)
class Makeup:
    """What vectors (N, D) are made of, for a tokenizer that learns from more than the numbers.

    The D columns are M blocks, one modality each. Where an item lacks a modality its block holds a guess, which is
    good enough to be encoded and costs nothing where it is reconstructed badly.
    """

    widths: tuple[int, ...] = ()  # M block widths that add up to D; () = one block
    present: NDArray[np.bool_] | None = None  # (N, M); None = everything is there
    without: tuple[NDArray[np.float32], ...] = ()  # M × (N, D_m): each block as it is guessed where it is missing
    pairs: NDArray[np.int64] | None = None  # (P, 2): rows of items that were used one after the other
    uses: NDArray[np.int64] | None = None  # (N,) how often each item stands in training histories


PLAIN = Makeup()


class ItemTokenizer(Protocol):
    """Learns codebooks from vectors. Codes of an item depend on its vector alone, never on its batch."""

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """K of every level, (L,)."""
        ...

    def fit(
        self,
        vectors: NDArray[np.float32],
        *,
        seed: int,
        makeup: Makeup = PLAIN,
        progress: Progress = SILENT,
    ) -> None:
        """Learn from vectors (N, D). Raises DataError where there are fewer of them than codes on a level."""
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
        """Write into an existing folder what `load_tokenizer` (stage.py) reads."""
        ...


def check_vectors(vectors: NDArray[np.float32], *, codebook_sizes: Sequence[int]) -> None:
    """Raise DataError unless codebooks of these sizes can be learned from vectors (N, D)."""
    codebook_size = max(codebook_sizes)
    if vectors.ndim != 2 or not np.isfinite(vectors).all():
        raise DataError(f"Vectors of shape {vectors.shape} must be (items, width) and finite.")
    if len(vectors) < 2:
        raise DataError(
            f"{len(vectors):,} item(s) cannot fill a codebook: codes tell items apart.",
            "Give two items or more, or one code per item, --method item-id.",
        )
    if len(vectors) < codebook_size:
        # Eight items per code leave something for the later levels to tell apart.
        advice = max(2, 1 << max(1, (len(vectors) // 8).bit_length() - 1))
        raise DataError(
            f"{len(vectors):,} items cannot fill a codebook of {codebook_size:,} codes.",
            f"Choose a smaller one, for example --codebook-size {advice}.",
        )
