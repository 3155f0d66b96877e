"""Codes of the items' own: as a last level behind a tokenizer whose levels say what an item is like, or alone.

Codes that items share make a model compose every item from parts; with a code of its own it also learns the item
itself, as a softmax over items does (docs/experiments.md has what that gives, and what not). An item that is not among
those the codes were made for (it is new, or there are more items than codes) borrows that of the one most like it:
behind other levels (`ItemLevel`) under a prefix of its own, where it is usually free, and else (`ItemIdCodes`)
together with its owner.

N items, D width, L levels of the tokenizer inside, K codes of the last level.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from genrec.errors import DataError, RunError
from genrec.progress import SILENT, Progress
from genrec.run import read_json, write_json
from genrec.tokenizers.base import PLAIN, ItemTokenizer, Makeup
from genrec.tokenizers.kmeans import squared_distances

_FILE = "items.safetensors"
_AT_ONCE = 1024  # rows of one distance matrix
_MOST_ITEMS = 1 << 16  # codes are uint16
_AGAIN = "Run `genrec tokenize RUN` again."


class ItemLevel:
    """The tokenizer `inside`, and behind it a level of at most `most_codes` codes: the most used items', one each."""

    def __init__(self, inside: ItemTokenizer, *, most_codes: int) -> None:
        self.inside, self.most_codes = inside, most_codes
        self._owners: NDArray[np.float32] | None = None  # (K, D), vectors of the items whose codes these are

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """K of every level, (L + 1,)."""
        return (*self.inside.codebook_sizes, len(self._fitted()))

    def fit(
        self,
        vectors: NDArray[np.float32],
        *,
        seed: int,
        makeup: Makeup = PLAIN,
        progress: Progress = SILENT,
    ) -> None:
        """Learn from vectors (N, D). Raises DataError where there are fewer of them than codes on a level inside."""
        self.inside.fit(vectors, seed=seed, makeup=makeup, progress=progress)
        owners = np.arange(len(vectors))
        if len(vectors) > self.most_codes:
            uses = np.zeros(len(vectors), dtype=np.int64) if makeup.uses is None else makeup.uses
            owners = np.sort(np.argsort(-uses, kind="stable")[: self.most_codes])
        self._owners = np.ascontiguousarray(vectors[owners])

    def encode(self, vectors: NDArray[np.float32]) -> NDArray[np.uint16]:
        """Codes (N, L + 1) of vectors (N, D): behind those inside, that of the nearest item with a code."""
        return np.concatenate([self.inside.encode(vectors), _nearest(vectors, self._fitted())], axis=1)

    def reconstruct(self, codes: NDArray[np.uint16]) -> NDArray[np.float32]:
        """Vectors (N, D) of codes or prefixes of codes (N, ≤ L + 1); a whole semantic ID is its item's own vector."""
        owners, levels = self._fitted(), len(self.inside.codebook_sizes)
        return self.inside.reconstruct(codes) if codes.shape[1] <= levels else owners[codes[:, -1]]

    def last_costs(self, vectors: NDArray[np.float32], codes: NDArray[np.uint16]) -> NDArray[np.float32]:
        """Squared distance of every item with a code to vectors (N, D), (N, K)."""
        return _distances(vectors, self._fitted())

    def save(self, folder: Path) -> None:
        """Write into an existing folder: the files of the tokenizer inside, and `items.safetensors`."""
        self.inside.save(folder)
        save_file({"owners": torch.from_numpy(self._fitted())}, folder / _FILE)

    @classmethod
    def around(cls, inside: ItemTokenizer, folder: Path) -> Self | None:
        """The level that `save` wrote beside the tokenizer inside; None where there is none.

        Raises RunError where it is damaged.
        """
        if not (folder / _FILE).is_file():
            return None
        owners = _read_owners(folder)
        made = cls(inside, most_codes=len(owners))
        made._owners = owners
        return made

    def _fitted(self) -> NDArray[np.float32]:
        return _there(self._owners)


class ItemIdCodes:
    """One level, one code per item: the usual softmax over items."""

    method = "item-id"

    def __init__(self) -> None:
        self._owners: NDArray[np.float32] | None = None  # (K, D), vectors of the items whose codes these are

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """As many codes as items."""
        return (len(self._fitted()),)

    def fit(
        self, vectors: NDArray[np.float32], *, seed: int, makeup: Makeup = PLAIN, progress: Progress = SILENT
    ) -> None:
        """Keep vectors (N, D). Raises DataError for more than 65,536."""
        if len(vectors) > _MOST_ITEMS:
            raise DataError(f"{len(vectors):,} items are more than {_MOST_ITEMS:,} codes.", "Use --method rqvae.")
        self._owners = np.ascontiguousarray(vectors, dtype=np.float32)

    def encode(self, vectors: NDArray[np.float32]) -> NDArray[np.uint16]:
        """Codes (N, 1): of the items it was made for their number, of others that of the nearest one (N, D)."""
        owners = self._fitted()
        if np.array_equal(vectors, owners):  # also where several of them have the same vector
            return np.arange(len(owners), dtype=np.uint16)[:, None]
        return _nearest(vectors, owners)

    def reconstruct(self, codes: NDArray[np.uint16]) -> NDArray[np.float32]:
        """The vectors (N, D) of the owners."""
        return self._fitted()[codes[:, 0]]

    def last_costs(self, vectors: NDArray[np.float32], codes: NDArray[np.uint16]) -> NDArray[np.float32]:
        """Squared distance of every owner to vectors (N, D), (N, K)."""
        return _distances(vectors, self._fitted())

    def save(self, folder: Path) -> None:
        """Write into an existing folder."""
        owners = self._fitted()
        write_json(folder / "tokenizer.json", {"method": self.method})
        save_file({"owners": torch.from_numpy(owners)}, folder / _FILE)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote. Raises RunError where it is missing or damaged."""
        read_facts(folder, cls.method, ())
        made = cls()
        made._owners = _read_owners(folder)
        return made

    def _fitted(self) -> NDArray[np.float32]:
        return _there(self._owners)


def read_facts(folder: Path, method: str, needed: Sequence[str]) -> dict[str, Any]:
    """`tokenizer.json` of a method. Raises RunError where it is another's or lacks what is needed."""
    facts = read_json(folder / "tokenizer.json")
    if facts.get("method") != method:
        raise RunError(f"{folder} holds a {facts.get('method')} tokenizer, expected {method}.", _AGAIN)
    if missing := [name for name in needed if name not in facts]:
        raise RunError(f"{folder / 'tokenizer.json'} lacks {', '.join(missing)}.", _AGAIN)
    return dict(facts)


def _there(owners: NDArray[np.float32] | None) -> NDArray[np.float32]:
    if owners is None:
        raise RunError("This tokenizer has not been fitted.", "Call fit or load first.")
    return owners


def _nearest(vectors: NDArray[np.float32], owners: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Number of the owner (K, D) nearest to each of vectors (N, D), (N, 1)."""
    chunks = [vectors[start : start + _AT_ONCE] for start in range(0, len(vectors), _AT_ONCE)]
    found = [_distances(chunk, owners).argmin(axis=1) for chunk in chunks]
    return np.concatenate(found).astype(np.uint16)[:, None] if found else np.zeros((0, 1), dtype=np.uint16)


def _distances(vectors: NDArray[np.float32], owners: NDArray[np.float32]) -> NDArray[np.float32]:
    return squared_distances(torch.from_numpy(vectors), torch.from_numpy(owners)).numpy()


def _read_owners(folder: Path) -> NDArray[np.float32]:
    file = folder / _FILE
    try:
        return load_file(file)["owners"].numpy()
    except (OSError, SafetensorError, KeyError) as error:
        raise RunError(f"{file} cannot be read: {error}.", _AGAIN) from error
