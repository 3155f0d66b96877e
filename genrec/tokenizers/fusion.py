"""Vectors of several modalities to one vector per item: balanced, and whole even where a modality is missing.

Every modality becomes a block of columns, centred and scaled so that it brings a stated share of the variance
(plain concatenation lets the modality of the largest numbers win). Where an item lacks a modality, its block is
what the others let expect: a ridge regression, learned on the items that have both. So a new film without any
viewer is encoded from its plot and its poster, near the films that its audience will come from.

N items, D_m width of modality m, D their sum, M modalities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from sklearn.linear_model import RidgeCV

from genrec.errors import DataError, RunError
from genrec.run import read_json, write_json

Floats = NDArray[np.float32]
_AGAIN = "Run `genrec tokenize RUN` again."
_PENALTIES = np.logspace(-3, 3, 7)
_NO_VARIANCE = 1e-10  # of the vectors' mean square: less is rounding
_MAX_ROWS = 20_000  # a regression of a few hundred columns does not get better with more


@dataclass(frozen=True, eq=False)
class _Block:
    """One modality. `guess` maps the other blocks to this one: (D - D_m + 1, D_m), the constant last."""

    name: str
    mean: Floats  # (D_m,)
    scale: np.float32
    guess: Floats


@dataclass(frozen=True, eq=False)
class Fusion:
    """How the modalities of one run become one vector. Make one with `fit`."""

    blocks: tuple[_Block, ...]

    @classmethod
    def fit(
        cls,
        vectors: Mapping[str, Floats],
        masks: Mapping[str, NDArray[np.bool_]],
        *,
        weights: Mapping[str, float] | None,
        seed: int,
    ) -> Fusion:
        """Learn from vectors (N, D_m) and masks (N,) by modality; a weight is a share of variance, default 1.

        Without weights (None) numbers keep their size: plain concatenation, in which the largest win.

        Raises DataError where no item has a modality.
        """
        means, scales, centred = {}, {}, {}
        for name, values in vectors.items():
            present = values[masks[name]]
            if not len(present):
                raise DataError(
                    f"No item that teaches has a vector of modality {name!r}.",
                    "Name other modalities; held-out items teach nothing.",
                )
            means[name] = present.mean(axis=0)
            variance = float(np.square(present - means[name], dtype=np.float64).sum(axis=1).mean())
            size = float(np.square(present, dtype=np.float64).sum(axis=1).mean())
            # Vectors that are all the same tell no items apart: whatever comes later, they have no say.
            tells = variance > _NO_VARIANCE * size
            share = variance if weights is None else weights.get(name, 1.0)
            scales[name] = np.float32(np.sqrt(share / variance) if tells else 0.0)
            centred[name] = np.where(masks[name][:, None], (values - means[name]) * scales[name], np.float32(0))
        rng = np.random.default_rng(seed)
        blocks = [_Block(name, means[name], scales[name], _learn_guess(centred, masks, name, rng)) for name in vectors]
        return cls(tuple(blocks))

    @property
    def names(self) -> tuple[str, ...]:
        """The modalities, in the order of their columns."""
        return tuple(block.name for block in self.blocks)

    @property
    def widths(self) -> tuple[int, ...]:
        """D_m of every modality."""
        return tuple(len(block.mean) for block in self.blocks)

    def apply(
        self, vectors: Mapping[str, Floats], masks: Mapping[str, NDArray[np.bool_]]
    ) -> tuple[Floats, tuple[Floats, ...]]:
        """Fused vectors (N, D), and every block (N, D_m) as it is guessed where it is missing.

        Raises DataError where a modality is not given or has another width.
        """
        self._check(vectors)
        centred = {
            block.name: np.where(
                masks[block.name][:, None], (vectors[block.name] - block.mean) * block.scale, np.float32(0)
            )
            for block in self.blocks
        }
        guesses = tuple(_others(centred, block.name) @ block.guess for block in self.blocks)
        filled = [
            np.where(masks[block.name][:, None], centred[block.name], guess)
            for block, guess in zip(self.blocks, guesses, strict=True)
        ]
        return np.concatenate(filled, axis=1).astype(np.float32), guesses

    def split(self, fused: Floats) -> dict[str, Floats]:
        """Fused vectors (N, D) back to the vectors of every modality, in their own units."""
        parts = np.split(fused, np.cumsum(self.widths)[:-1], axis=1)
        return {
            block.name: np.asarray(part / (block.scale or np.float32(1)) + block.mean, dtype=np.float32)
            for block, part in zip(self.blocks, parts, strict=True)
        }

    def save(self, folder: Path) -> list[Path]:
        """Write `fusion.json` and `fusion.safetensors` into an existing folder; the paths written."""
        tensors = {}
        for number, block in enumerate(self.blocks):
            tensors[f"{number}.mean"] = np.ascontiguousarray(block.mean, dtype=np.float32)
            tensors[f"{number}.scale"] = np.array([block.scale], dtype=np.float32)
            tensors[f"{number}.guess"] = np.ascontiguousarray(block.guess, dtype=np.float32)
        write_json(folder / "fusion.json", {"modalities": list(self.names)})
        save_file(tensors, folder / "fusion.safetensors")
        return [folder / "fusion.json", folder / "fusion.safetensors"]

    @classmethod
    def load(cls, folder: Path) -> Fusion:
        """Read what `save` wrote. Raises RunError where it is missing or damaged."""
        names = read_json(folder / "fusion.json")["modalities"]
        file = folder / "fusion.safetensors"
        try:
            tensors = load_file(file)
            blocks = [
                _Block(name, tensors[f"{n}.mean"], tensors[f"{n}.scale"][0], tensors[f"{n}.guess"])
                for n, name in enumerate(names)
            ]
        except (OSError, KeyError, SafetensorError) as error:
            raise RunError(f"{file} cannot be read: {error}.", _AGAIN) from error
        return cls(tuple(blocks))

    def _check(self, vectors: Mapping[str, Floats]) -> None:
        for block in self.blocks:
            found = vectors[block.name].shape[1] if block.name in vectors else None
            if found != len(block.mean):
                raise DataError(
                    f"The tokenizer reads {block.name} vectors of width {len(block.mean)}, found {found or 'none'}.",
                    "Embed these items as the items were that the tokenizer learned from.",
                )


def _learn_guess(
    centred: Mapping[str, Floats], masks: Mapping[str, NDArray[np.bool_]], name: str, rng: np.random.Generator
) -> Floats:
    """The regression of one block on the others, (D - D_m + 1, D_m); nothing to regress on gives zeros, the mean."""
    others = _others(centred, name)
    width = centred[name].shape[1]
    known = masks[name] & np.any([masks[other] for other in centred if other != name] or [masks[name] & False], axis=0)
    rows = np.flatnonzero(known)
    if others.shape[1] == 1 or len(rows) < 2:
        return np.zeros((others.shape[1], width), dtype=np.float32)
    rows = np.sort(rng.choice(rows, size=min(len(rows), _MAX_ROWS), replace=False))
    found = RidgeCV(alphas=_PENALTIES).fit(others[rows, :-1], centred[name][rows])
    coefficients = np.asarray(found.coef_).reshape(width, -1)
    constant = np.asarray(found.intercept_).reshape(1, width)
    return np.concatenate([coefficients.T, constant]).astype(np.float32)


def _others(centred: Mapping[str, Floats], name: str) -> Floats:
    """All blocks but one side by side, and a column of ones: (N, D - D_m + 1)."""
    blocks: Sequence[Floats] = [values for other, values in centred.items() if other != name]
    ones = np.ones((len(centred[name]), 1), dtype=np.float32)
    return np.concatenate([*blocks, ones], axis=1)
