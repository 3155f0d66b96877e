"""Codes to semantic IDs: what happens where items share all of their codes.

I items, L levels, K codes on the last level.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from genrec.data.catalog import Catalog
from genrec.errors import DataError, RunError
from genrec.files import array_stream, atomic_file
from genrec.run import Run, read_json, write_json

Policy = Literal["reassign", "extra-level", "shared"]
# Costs (n, K) of every last code for some items, given as item indices (n,).
LastCosts = Callable[[NDArray[np.int64]], NDArray[np.float32]]

_AGAIN = "Run `genrec tokenize RUN` again."


@dataclass(frozen=True, eq=False)
class SemanticIds:
    """The codes of every item of a catalogue."""

    codes: NDArray[np.uint16]  # (I, L); L counts an extra level where a policy added one
    codebook_sizes: tuple[int, ...]  # (L,)
    order_checksum: str

    def __post_init__(self) -> None:
        codes, sizes = self.codes, self.codebook_sizes
        assert codes.dtype == np.uint16
        assert codes.shape == (len(codes), len(sizes))
        assert not len(codes) or (codes.max(axis=0) < np.array(sizes)).all()

    def save(self, run: Run) -> list[Path]:
        """Write `semantic_ids/codes.npy` and `semantic_ids/semantic_ids.json`; the paths written."""
        file, description = _files(run)
        with atomic_file(file) as temporary, array_stream(temporary) as stream:
            np.save(stream, np.ascontiguousarray(self.codes), allow_pickle=False)
        facts = {
            "num_items": len(self.codes),
            "codebook_sizes": list(self.codebook_sizes),
            "order_checksum": self.order_checksum,
        }
        write_json(description, facts)
        return [file, description]

    @classmethod
    def load(cls, run: Run, *, catalog: Catalog) -> SemanticIds:
        """Read what `save` wrote.

        Raises RunError where there is nothing, where it is damaged, and where it belongs to another catalogue.
        """
        file, description = _files(run)
        if not description.is_file():
            raise RunError(f"{run.path} has no semantic IDs yet.", "Run `genrec tokenize RUN` first.")
        facts = read_json(description)
        if facts["order_checksum"] != catalog.order_checksum:
            raise RunError("The semantic IDs belong to another catalogue.", "Run `genrec embed` and `tokenize`.")
        sizes = tuple(facts["codebook_sizes"])
        try:
            codes = np.load(file, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise RunError(f"{file} cannot be read: {error}.", _AGAIN) from error
        if codes.dtype != np.uint16 or codes.shape != (len(catalog), len(sizes)):
            raise RunError(
                f"{file} holds {codes.dtype} {codes.shape}, expected uint16 {(len(catalog), len(sizes))}.", _AGAIN
            )
        if len(codes) and (codes.max(axis=0) >= np.array(sizes)).any():
            raise RunError(f"{file} holds a code beyond its codebook.", _AGAIN)
        return cls(codes, sizes, facts["order_checksum"])


def colliding_items(codes: NDArray[np.uint16]) -> NDArray[np.bool_]:
    """Which items (I,) share all their codes (I, L) with another."""
    groups, sizes = _groups(codes)
    shared: NDArray[np.bool_] = sizes[groups] > 1
    return shared


def resolve_collisions(
    codes: NDArray[np.uint16], sizes: tuple[int, ...], *, policy: Policy, last_costs: LastCosts
) -> tuple[NDArray[np.uint16], tuple[int, ...]]:
    """Codes (I, L or L + 1) and the sizes of their codebooks, unique per item unless `policy` is `shared`.

    `codes` (I, L) come with codebooks of `sizes` (L,).
    `reassign`: the items of a prefix that has collisions get different last codes at the least total cost,
    one per K items; where a prefix has more than K items, the rest is told apart by an extra level.
    `extra-level`: colliding items are numbered on a further level (TIGER, Rajput et al. 2023, sec. 3.1; only
    where any collide). `shared`: codes stay. Equal calls give equal codes. Raises DataError where an extra
    level would need more than 65,536 codes.
    """
    if policy == "shared" or not colliding_items(codes).any():
        return codes, sizes
    if policy == "extra-level":
        return _numbered(codes, _rank_in_group(_groups(codes)[0]), sizes)
    return _reassigned(codes, sizes, last_costs)


def _reassigned(
    codes: NDArray[np.uint16], sizes: tuple[int, ...], last_costs: LastCosts
) -> tuple[NDArray[np.uint16], tuple[int, ...]]:
    codes = codes.copy()
    digits = np.zeros(len(codes), dtype=np.int64)
    crowded = colliding_items(codes)
    prefixes, _ = _groups(codes[:, :-1])
    order = np.argsort(prefixes, kind="stable")
    for items in np.split(order, np.flatnonzero(np.diff(prefixes[order])) + 1):
        if not crowded[items].any():
            continue
        for digit, start in enumerate(range(0, len(items), sizes[-1])):
            some = items[start : start + sizes[-1]]
            rows, columns = linear_sum_assignment(last_costs(some).astype(np.float64))
            codes[some[rows], -1] = columns
            digits[some] = digit
    return _numbered(codes, digits, sizes) if digits.any() else (codes, sizes)


def _numbered(
    codes: NDArray[np.uint16], digits: NDArray[np.int64], sizes: tuple[int, ...]
) -> tuple[NDArray[np.uint16], tuple[int, ...]]:
    """Codes with `digits` (I,) as a further level."""
    size = int(digits.max()) + 1
    if size > 1 << 16:
        raise DataError(
            f"{size:,} items share one code sequence, more than a level can tell apart.",
            "Use more levels or a larger codebook, or give the items different vectors.",
        )
    return np.concatenate([codes, digits.astype(np.uint16)[:, None]], axis=1), (*sizes, size)


def _groups(codes: NDArray[np.uint16]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number of the group of equal rows of every item (I,), and the group sizes."""
    if codes.shape[1] == 0:
        return np.zeros(len(codes), dtype=np.int64), np.array([len(codes)])
    _, groups, sizes = np.unique(codes, axis=0, return_inverse=True, return_counts=True)
    return groups.reshape(-1).astype(np.int64), sizes.astype(np.int64)


def _rank_in_group(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many earlier items are in the same group, (I,)."""
    order = np.argsort(groups, kind="stable")
    starts = np.concatenate([[0], np.flatnonzero(np.diff(groups[order])) + 1])
    lengths = np.diff(np.concatenate([starts, [len(groups)]]))
    ranks = np.empty(len(groups), dtype=np.int64)
    ranks[order] = np.arange(len(groups)) - np.repeat(starts, lengths)
    return ranks


def _files(run: Run) -> tuple[Path, Path]:
    folder = run.path / "semantic_ids"
    return folder / "codes.npy", folder / "semantic_ids.json"
