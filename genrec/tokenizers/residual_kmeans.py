"""Residual k-means: every level clusters what the levels before it left over (GRID, Ju et al. 2025).

N items, D width, L levels, K codes per level.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genrec.errors import RunError
from genrec.progress import SILENT, Progress
from genrec.tokenizers.base import PLAIN, Makeup, check_vectors
from genrec.tokenizers.files import quantizer_from, quantizer_tensors, read_tokenizer, write_tokenizer
from genrec.tokenizers.quantizer import ResidualQuantizer, fit_quantizer


class ResidualKMeans:
    """The plain tokenizer: no network, no balancing. Fast, and the bar for RQ-VAE."""

    method = "residual-kmeans"

    def __init__(self, *, codebook_sizes: Sequence[int]) -> None:
        self.codebook_sizes = tuple(codebook_sizes)
        self._mean: Tensor | None = None  # (D,)
        self._quantizer: ResidualQuantizer | None = None

    def fit(
        self,
        vectors: NDArray[np.float32],
        *,
        seed: int,
        makeup: Makeup = PLAIN,
        progress: Progress = SILENT,
    ) -> None:
        """Learn from vectors (N, D); their makeup plays no part. Raises DataError for fewer of them than codes."""
        check_vectors(vectors, codebook_sizes=self.codebook_sizes)
        points = torch.from_numpy(vectors)
        self._mean = points.mean(dim=0)
        self._quantizer = fit_quantizer(
            points - self._mean,
            sizes=self.codebook_sizes,
            balanced=False,
            separate=False,
            generator=torch.Generator().manual_seed(seed),
            progress=progress,
        )

    def encode(self, vectors: NDArray[np.float32]) -> NDArray[np.uint16]:
        """Codes (N, L) of vectors (N, D)."""
        mean, quantizer = self._fitted()
        return quantizer.encode(torch.from_numpy(vectors) - mean).numpy().astype(np.uint16)

    def reconstruct(self, codes: NDArray[np.uint16]) -> NDArray[np.float32]:
        """Vectors (N, D) of codes or prefixes of codes (N, ≤ L)."""
        mean, quantizer = self._fitted()
        vectors: NDArray[np.float32] = (quantizer.decode(torch.from_numpy(codes.astype(np.int64))) + mean).numpy()
        return vectors

    def last_costs(self, vectors: NDArray[np.float32], codes: NDArray[np.uint16]) -> NDArray[np.float32]:
        """Squared distance of every last code to what is left over, (N, K)."""
        mean, quantizer = self._fitted()
        prefixes = torch.from_numpy(codes.astype(np.int64))
        costs: NDArray[np.float32] = quantizer.last_costs(torch.from_numpy(vectors) - mean, prefixes).numpy()
        return costs

    def save(self, folder: Path) -> None:
        """Write into an existing folder."""
        mean, quantizer = self._fitted()
        facts = {"method": self.method, "codebook_sizes": list(self.codebook_sizes)}
        write_tokenizer(folder, facts=facts, tensors={"mean": mean, **quantizer_tensors(quantizer)})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote. Raises RunError where it is missing or damaged."""
        facts, tensors = read_tokenizer(folder, method=cls.method)
        made = cls(codebook_sizes=facts["codebook_sizes"])
        made._quantizer = quantizer_from(tensors)
        made._mean = tensors["mean"]
        return made

    def _fitted(self) -> tuple[Tensor, ResidualQuantizer]:
        if self._mean is None or self._quantizer is None:
            raise RunError("This tokenizer has not been fitted.", "Call fit or load first.")
        return self._mean, self._quantizer
