"""Which items may be recommended: item indices or a mask in, "does this trie node hold an allowed item" out.

A filter has two parts, both over the *sorted positions* of one trie. `allowed` is a bitset with running
counts per 64 positions, so that the allowed items of a range are counted in constant time (compile once per
category, tenant, stock list; 0.19 bytes per item). `removed` is a short sorted list, for one user's history
(compile per request). A node is alive if its range holds an allowed item, so a search never meets a dead end.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from genrec.errors import TrieError
from genrec.trie import ItemTrie


@dataclass(frozen=True, eq=False)
class _Bitset:
    """Bits of I positions in 64-bit words, and how many are set before each word."""

    words: NDArray[np.uint64]  # (I // 64 + 1,): the last word ends behind the last position
    ranks: NDArray[np.int32]  # (I // 64 + 1,)

    @classmethod
    def pack(cls, bits: NDArray[np.bool_]) -> _Bitset:
        packed = np.zeros((len(bits) // 64 + 1) * 8, dtype=np.uint8)
        filled = np.packbits(bits, bitorder="little")
        packed[: len(filled)] = filled
        words = packed.view("<u8").astype(np.uint64, copy=False)
        counts = np.bitwise_count(words)
        return cls(words, (np.cumsum(counts, dtype=np.int64) - counts).astype(np.int32))

    def rank(self, position: NDArray[np.int64]) -> NDArray[np.int64]:
        """Bits set before each position."""
        word = position >> 6
        below = (np.uint64(1) << (position & 63).astype(np.uint64)) - np.uint64(1)
        return np.asarray(self.ranks[word] + np.bitwise_count(self.words[word] & below), dtype=np.int64)

    def test(self, position: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each position's bit is set."""
        return np.asarray((self.words[position >> 6] >> (position & 63).astype(np.uint64)) & np.uint64(1) > 0)


@dataclass(frozen=True, eq=False)
class ItemFilter:
    """A set of allowed items, compiled for one trie. Make one with `allowing` or `excluding`."""

    trie: ItemTrie
    allowed: _Bitset | None  # None: every item
    removed: NDArray[np.int64]  # sorted positions, each of them allowed by `allowed`
    num_items: int  # allowed items

    @classmethod
    def allowing(cls, trie: ItemTrie, items: ArrayLike) -> ItemFilter:
        """Only these: item indices, or a bool mask over the rows of the catalogue, (R,); valid items count.

        Raises TrieError for a wrong length or unknown index.
        """
        given = np.asarray(items)
        if given.dtype == np.bool_:
            mask = given
        else:
            mask = np.zeros(trie.num_rows, dtype=np.bool_)
            mask[trie.checked_items(given)] = True
        if mask.shape != (trie.num_rows,):
            raise TrieError(
                f"a mask of shape {mask.shape} was given for a trie over {trie.num_rows} items.",
                "Give one value per row of the catalogue.",
            )
        none = np.zeros(0, dtype=np.int64)
        by_position = mask[trie.items]
        return cls(trie, _Bitset.pack(by_position), none, int(by_position.sum()))

    @classmethod
    def excluding(cls, trie: ItemTrie, items: ArrayLike) -> ItemFilter:
        """Everything but these item indices. Raises TrieError for an unknown index."""
        return cls(trie, None, np.zeros(0, dtype=np.int64), trie.num_items).without(items)

    def without(self, items: ArrayLike) -> ItemFilter:
        """This filter minus item indices (a user's history): shares the bitset. Raises TrieError if unknown."""
        positions = self.trie.positions(items)
        positions = positions[positions >= 0]  # a removed item may stand in a history; it is left out already
        if self.allowed is not None:
            positions = positions[self.allowed.test(positions)]
        removed = np.union1d(self.removed, positions)
        num_items = self.num_items + len(self.removed) - len(removed)
        return ItemFilter(self.trie, self.allowed, removed, num_items)

    def count(self, lo: NDArray[np.int64], hi: NDArray[np.int64]) -> NDArray[np.int64]:
        """Allowed items of each node [lo, hi), same shape."""
        total = hi - lo if self.allowed is None else self.allowed.rank(hi) - self.allowed.rank(lo)
        if len(self.removed):
            total = total - (np.searchsorted(self.removed, hi) - np.searchsorted(self.removed, lo))
        return np.asarray(total)

    def alive(self, lo: NDArray[np.int64], hi: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each node [lo, hi) holds an allowed item, same shape."""
        return np.asarray(self.count(lo, hi) > 0)

    def admits(self, position: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether the item at each position is allowed, same shape."""
        return self.alive(position, position + 1)
