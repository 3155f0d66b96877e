"""Codes that know nothing of what items are: the control that every other tokenizer is measured against.

`random` draws codes from a checksum of an item's vector, so that a new item gets codes like an old one and none of
them means anything.

N items, D width, L levels, K codes of a level.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from genrec.errors import RunError
from genrec.progress import SILENT, Progress
from genrec.run import write_json
from genrec.tokenizers.base import PLAIN, Makeup, check_vectors
from genrec.tokenizers.item_level import read_facts


class RandomCodes:
    """Codes without meaning."""

    method = "random"

    def __init__(self, *, codebook_sizes: Sequence[int]) -> None:
        self.codebook_sizes = tuple(codebook_sizes)
        self._seed = 0
        self._mean: NDArray[np.float32] | None = None  # (D,)

    def fit(
        self, vectors: NDArray[np.float32], *, seed: int, makeup: Makeup = PLAIN, progress: Progress = SILENT
    ) -> None:
        """Keep the seed and the mean of vectors (N, D): there is nothing to learn."""
        check_vectors(vectors, codebook_sizes=self.codebook_sizes)
        self._seed, self._mean = seed, vectors.mean(axis=0)

    def encode(self, vectors: NDArray[np.float32]) -> NDArray[np.uint16]:
        """Codes (N, L): equal vectors get equal ones."""
        self._fitted()
        rows = np.ascontiguousarray(vectors, dtype=np.float32)
        drawn = [np.random.default_rng([self._seed, _checksum(row)]).random(len(self.codebook_sizes)) for row in rows]
        scaled = np.array(drawn).reshape(-1, len(self.codebook_sizes)) * np.array(self.codebook_sizes)
        return scaled.astype(np.uint16)

    def reconstruct(self, codes: NDArray[np.uint16]) -> NDArray[np.float32]:
        """The mean vector for every item (N, D): such codes say nothing."""
        return np.repeat(self._fitted()[None], len(codes), axis=0)

    def last_costs(self, vectors: NDArray[np.float32], codes: NDArray[np.uint16]) -> NDArray[np.float32]:
        """Its own last code costs nothing, any other the same, (N, K)."""
        costs = np.ones((len(codes), self.codebook_sizes[-1]), dtype=np.float32)
        costs[np.arange(len(codes)), codes[:, -1]] = 0.0
        return costs

    def save(self, folder: Path) -> None:
        """Write into an existing folder."""
        facts = {"method": self.method, "codebook_sizes": list(self.codebook_sizes), "seed": self._seed}
        write_json(folder / "tokenizer.json", facts | {"mean": self._fitted().tolist()})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote. Raises RunError where it is missing or damaged."""
        facts = read_facts(folder, cls.method, ("codebook_sizes", "seed", "mean"))
        made = cls(codebook_sizes=facts["codebook_sizes"])
        made._seed, made._mean = facts["seed"], np.array(facts["mean"], dtype=np.float32)
        return made

    def _fitted(self) -> NDArray[np.float32]:
        if self._mean is None:
            raise RunError("This tokenizer has not been fitted.", "Call fit or load first.")
        return self._mean


def _checksum(row: NDArray[np.float32]) -> int:
    return int.from_bytes(hashlib.sha256(row.tobytes()).digest()[:8], "little")
