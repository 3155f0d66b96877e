"""Codes that know nothing of what items are: the controls that every other tokenizer is measured against.

`random` draws codes from a checksum of an item's vector, so that a new item gets codes like an old one and none of
them means anything. `item-id` gives every item one code of its own: the usual softmax over items, for the
catalogue that it was made for and no other.

N items, D width, L levels, K codes of a level.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from genrec.errors import DataError, RunError
from genrec.progress import SILENT, Progress
from genrec.run import read_json, write_json
from genrec.tokenizers.base import PLAIN, Makeup, check_vectors

_AGAIN = "Run `genrec tokenize RUN` again."
_MOST_ITEMS = 1 << 16  # codes are uint16


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
        facts = _facts(folder, cls.method, ("codebook_sizes", "seed", "mean"))
        made = cls(codebook_sizes=facts["codebook_sizes"])
        made._seed, made._mean = facts["seed"], np.array(facts["mean"], dtype=np.float32)
        return made

    def _fitted(self) -> NDArray[np.float32]:
        if self._mean is None:
            raise RunError("This tokenizer has not been fitted.", "Call fit or load first.")
        return self._mean


class ItemIdCodes:
    """One level, one code per item."""

    method = "item-id"

    def __init__(self) -> None:
        self._shape: tuple[int, int] | None = None  # (N, D)

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """As many codes as items."""
        return (self._fitted()[0],)

    def fit(
        self, vectors: NDArray[np.float32], *, seed: int, makeup: Makeup = PLAIN, progress: Progress = SILENT
    ) -> None:
        """Count vectors (N, D). Raises DataError for more than 65,536."""
        if len(vectors) > _MOST_ITEMS:
            raise DataError(f"{len(vectors):,} items are more than {_MOST_ITEMS:,} codes.", "Use --method rqvae.")
        self._shape = (len(vectors), vectors.shape[1])

    def encode(self, vectors: NDArray[np.float32]) -> NDArray[np.uint16]:
        """The number of every row, (N, 1). Raises DataError for any other number of items than was fitted."""
        known, _ = self._fitted()
        if len(vectors) != known:
            raise DataError(
                f"item-id codes exist for the {known:,} items they were made for, not for {len(vectors):,} others.",
                "Use --method rqvae, whose codes say what an item is.",
            )
        return np.arange(known, dtype=np.uint16)[:, None]

    def reconstruct(self, codes: NDArray[np.uint16]) -> NDArray[np.float32]:
        """Zeros (N, D): after centring, the mean of all items."""
        return np.zeros((len(codes), self._fitted()[1]), dtype=np.float32)

    def last_costs(self, vectors: NDArray[np.float32], codes: NDArray[np.uint16]) -> NDArray[np.float32]:
        """Its own code costs nothing, any other the same, (N, K)."""
        costs = np.ones((len(codes), self._fitted()[0]), dtype=np.float32)
        costs[np.arange(len(codes)), codes[:, -1]] = 0.0
        return costs

    def save(self, folder: Path) -> None:
        """Write into an existing folder."""
        write_json(folder / "tokenizer.json", {"method": self.method, "shape": list(self._fitted())})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote. Raises RunError where it is missing or damaged."""
        num_items, width = _facts(folder, cls.method, ("shape",))["shape"]
        made = cls()
        made._shape = (num_items, width)
        return made

    def _fitted(self) -> tuple[int, int]:
        if self._shape is None:
            raise RunError("This tokenizer has not been fitted.", "Call fit or load first.")
        return self._shape


def _checksum(row: NDArray[np.float32]) -> int:
    return int.from_bytes(hashlib.sha256(row.tobytes()).digest()[:8], "little")


def _facts(folder: Path, method: str, needed: Sequence[str]) -> dict[str, Any]:
    facts = read_json(folder / "tokenizer.json")
    if facts.get("method") != method:
        raise RunError(f"{folder} holds a {facts.get('method')} tokenizer, expected {method}.", _AGAIN)
    if missing := [name for name in needed if name not in facts]:
        raise RunError(f"{folder / 'tokenizer.json'} lacks {', '.join(missing)}.", _AGAIN)
    return dict(facts)
