"""A last level in which an item has a code of its own, behind a tokenizer whose levels say what it is like.

Codes that items share make a model compose every item from parts; with a last code of its own it also learns the item
itself, as a softmax over items does, under prefixes that it shares with its like (docs/experiments.md has what that
gives, and what not). An item that is not among those the level was made for (it is new, or there are
more items than codes) borrows the code of the one most like it; under its own prefix that is usually free.

N items, D width, L levels of the tokenizer inside, K codes of the last level.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from genrec.errors import RunError
from genrec.progress import SILENT, Progress
from genrec.tokenizers.base import PLAIN, ItemTokenizer, Makeup
from genrec.tokenizers.kmeans import squared_distances

_FILE = "items.safetensors"
_AT_ONCE = 1024  # rows of one distance matrix


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
        owners = torch.from_numpy(self._fitted())
        chunks = torch.from_numpy(vectors).split(_AT_ONCE)
        nearest = [squared_distances(chunk, owners).argmin(dim=1) for chunk in chunks]
        last = torch.cat(nearest).numpy().astype(np.uint16) if nearest else np.zeros(0, dtype=np.uint16)
        return np.concatenate([self.inside.encode(vectors), last[:, None]], axis=1)

    def reconstruct(self, codes: NDArray[np.uint16]) -> NDArray[np.float32]:
        """Vectors (N, D) of codes or prefixes of codes (N, ≤ L + 1); a whole semantic ID is its item's own vector."""
        owners, levels = self._fitted(), len(self.inside.codebook_sizes)
        return self.inside.reconstruct(codes) if codes.shape[1] <= levels else owners[codes[:, -1]]

    def last_costs(self, vectors: NDArray[np.float32], codes: NDArray[np.uint16]) -> NDArray[np.float32]:
        """Squared distance of every item with a code to vectors (N, D), (N, K)."""
        return squared_distances(torch.from_numpy(vectors), torch.from_numpy(self._fitted())).numpy()

    def save(self, folder: Path) -> None:
        """Write into an existing folder: the files of the tokenizer inside, and `items.safetensors`."""
        self.inside.save(folder)
        save_file({"owners": torch.from_numpy(self._fitted())}, folder / _FILE)

    @classmethod
    def around(cls, inside: ItemTokenizer, folder: Path) -> Self | None:
        """The level that `save` wrote beside the tokenizer inside; None where there is none.

        Raises RunError where it is damaged.
        """
        file = folder / _FILE
        if not file.is_file():
            return None
        try:
            owners = load_file(file)["owners"].numpy()
        except (OSError, SafetensorError, KeyError) as error:
            raise RunError(f"{file} cannot be read: {error}.", "Run `genrec tokenize RUN` again.") from error
        made = cls(inside, most_codes=len(owners))
        made._owners = owners
        return made

    def _fitted(self) -> NDArray[np.float32]:
        if self._owners is None:
            raise RunError("This tokenizer has not been fitted.", "Call fit or load first.")
        return self._owners
