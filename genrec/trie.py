"""The set of valid items as sorted integer keys: semantic IDs in, children of a prefix out.

Every item is one `uint64`: its codes side by side, the first level in the most significant bits. In the
sorted order the items under a prefix stand side by side, so a *node* of the trie is a half-open range
[lo, hi) of positions and needs no memory of its own. Children of a node come from a small table of
boundaries (first levels), by reading the codes off the range (few items) or by binary search (many).
Several items may share a key (collision policy `shared`); a leaf is then a range of several positions. A trie
may leave out rows of its catalogue (items that were removed): they keep their item_index and stand nowhere here.

Shapes: R rows of the catalogue, I ≤ R items, L levels, K codes of a level, W nodes asked at once, C children found.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from genrec.errors import RunError, TrieError
from genrec.files import array_stream, atomic_file, atomic_folder
from genrec.run import file_checksum, read_json, write_json

FORMAT_VERSION = 2
_READABLE = (1, 2)  # version 1 has no "num_rows": its tries hold every row of their catalogue
_TABLE_BITS = 16  # boundaries of all prefixes of up to 16 bits are kept: at most 65,537 int32 (256 KiB)
_HINT_BITS = 16  # an item's position is remembered to 16 bits: 2 bytes per item instead of 4
_REBUILD = "Run `genrec tokenize RUN` again."


@dataclass(frozen=True, eq=False)
class Children:
    """Children of W nodes, flat: ordered by node, then code. All int64 (C,)."""

    node: NDArray[np.int64]  # index of the parent among the nodes asked
    code: NDArray[np.int64]
    lo: NDArray[np.int64]  # the child is the range [lo, hi) of positions
    hi: NDArray[np.int64]

    def select(self, kept: NDArray[Any] | slice) -> Children:
        """The children at the given indices, in the slice or under the mask."""
        return Children(self.node[kept], self.code[kept], self.lo[kept], self.hi[kept])


@dataclass(frozen=True, eq=False)
class ItemTrie:
    """The valid items of one catalogue version. Immutable; arrays may be memory-mapped files.

    The root is the node (0, num_items) at level 0. 10 M items take 120 MB (8 + 4 bytes per item).
    """

    keys: NDArray[np.uint64]  # (I,) sorted
    items: NDArray[np.int32]  # (I,) item_index at each position
    num_rows: int  # R: every item_index is below it
    codebook_sizes: tuple[int, ...]  # (L,)
    order_checksum: str  # of the catalogue whose rows `items` names
    version: str  # of the content: equal tries have equal versions
    tokenizer_checksum: str = ""  # of the item tokenizer whose codes these are; "" = not known, as in older tries

    @classmethod
    def build(
        cls,
        codes: ArrayLike,
        codebook_sizes: Sequence[int],
        *,
        live: NDArray[np.bool_] | None = None,
        order_checksum: str = "",
        tokenizer_checksum: str = "",
    ) -> ItemTrie:
        """Build from codes (R, L), row = item_index, of which those in the mask `live` (R,) are valid (None: all).

        Raises TrieError for an empty or misshapen table, codes that are not integers or out of range,
        codebooks that need more than 64 bits, and where no row is live.
        """
        sizes = tuple(int(size) for size in codebook_sizes)
        table = _checked_codes(np.asarray(codes), sizes)
        keys = np.zeros(len(table), dtype=np.uint64)
        for level, bits in enumerate(_bits(sizes)):
            keys = (keys << np.uint64(bits)) | table[:, level].astype(np.uint64)
        order = np.argsort(keys, kind="stable")  # stable: items that share a key stay in index order
        order = order if live is None else order[_checked_live(live, len(table))[order]]
        keys, items = keys[order], order.astype(np.int32)
        sums = [_array_checksum(keys), _array_checksum(items)]
        # A tokenizer that is not known counts for nothing, so such tries have the version that they always had.
        content = [*sums, str(len(table)), str(list(sizes)), order_checksum, *filter(None, [tokenizer_checksum])]
        version = hashlib.sha256("\n".join(content).encode()).hexdigest()[:12]
        return cls(keys, items, len(table), sizes, order_checksum, version, tokenizer_checksum)

    def prepare(self) -> ItemTrie:
        """This trie with everything made that a first request would otherwise wait for."""
        _ = self._tables, self._hints
        return self

    @property
    def num_items(self) -> int:
        """I, valid items and not distinct semantic IDs."""
        return len(self.keys)

    @property
    def num_levels(self) -> int:
        """L."""
        return len(self.codebook_sizes)

    @property
    def num_bytes(self) -> int:
        """Bytes of keys and items, which a load maps and does not copy."""
        return int(self.keys.nbytes + self.items.nbytes)

    def children(self, level: int, lo: NDArray[np.int64], hi: NDArray[np.int64]) -> Children:
        """Non-empty children of W non-empty nodes [lo, hi) at depth `level` (0 for the root): codes of `level`."""
        assert 0 <= level < self.num_levels, "a leaf has no children"
        if level < len(self._tables):
            return self._children_by_table(level, lo)
        num_positions, num_codes = int((hi - lo).sum()), self.codebook_sizes[level]
        if num_positions <= 4 * len(lo) * num_codes:
            return self._children_by_reading(level, lo, hi)
        return self._children_by_search(level, lo, hi)

    def positions(self, items: ArrayLike) -> NDArray[np.int64]:
        """Where items (H,) stand in the sorted order, int64 (H,); −1 for a row that is not valid.

        Raises TrieError for an item_index that the catalogue does not have.
        """
        wanted = self.checked_items(items)
        shift, hints = self._hints
        block = hints[wanted].astype(np.int64) << shift
        candidates = block[:, None] + np.arange(1 << shift)  # (H, 2^shift), 1 wide up to 65,536 items
        candidates = np.minimum(candidates, self.num_items - 1)
        hits = self.items[candidates] == wanted[:, None]
        return np.asarray(np.where(hits.any(axis=1), block + hits.argmax(axis=1), -1))

    def checked_items(self, items: ArrayLike) -> NDArray[np.int64]:
        """Item indices as int64 (H,). Raises TrieError where they are no integers or no rows of the catalogue."""
        given = np.asarray(items).reshape(-1)
        if given.size and not np.issubdtype(given.dtype, np.integer):
            raise TrieError(f"items of type {given.dtype} were given; expected integer item indices.")
        indices = given.astype(np.int64)
        unknown = indices[(indices < 0) | (indices >= self.num_rows)]
        if len(unknown):
            raise TrieError(
                f"item_index {int(unknown[0])} is not in the catalogue of the trie, which has {self.num_rows} rows.",
                "Compile filters against the catalogue that the trie was built from.",
            )
        return indices

    def save(self, folder: Path) -> list[Path]:
        """Write `folder/<version>/` and make it the live one. Returns the written paths.

        Older versions stay on disk: a running process may still have them mapped.
        """
        target = folder / self.version
        with atomic_folder(target) as temporary:
            for name, array in (("keys.npy", self.keys), ("items.npy", self.items)):
                with array_stream(temporary / name) as stream:
                    np.save(stream, array, allow_pickle=False)
            meta = {
                "format_version": FORMAT_VERSION,
                "codebook_sizes": list(self.codebook_sizes),
                "order_checksum": self.order_checksum,
                "tokenizer_checksum": self.tokenizer_checksum,
                "num_items": self.num_items,
                "num_rows": self.num_rows,
                "sha256": {name: file_checksum(temporary / name) for name in ("keys.npy", "items.npy")},
            }
            write_json(temporary / "meta.json", meta)
        with atomic_file(folder / "CURRENT") as temporary:
            temporary.write_text(self.version + "\n", encoding="utf-8")
        return [target / "keys.npy", target / "items.npy", target / "meta.json", folder / "CURRENT"]

    @classmethod
    def load(cls, folder: Path, *, version: str | None = None, mmap: bool = True) -> ItemTrie:
        """Open a version of `folder`, by default the live one.

        Raises TrieError where files are missing, damaged or of another format.
        """
        version = version or _current_version(folder)
        target = folder / version
        try:
            meta = read_json(target / "meta.json")
            if meta["format_version"] not in _READABLE:
                raise TrieError(f"{target} has trie format {meta['format_version']!r}.", _REBUILD)
            sums = meta["sha256"]
            keys = _load_array(target / "keys.npy", sums["keys.npy"], mmap=mmap)
            items = _load_array(target / "items.npy", sums["items.npy"], mmap=mmap)
            sizes = tuple(meta["codebook_sizes"])
            order_checksum, tokenizer_checksum = str(meta["order_checksum"]), str(meta.get("tokenizer_checksum", ""))
            num_rows = len(keys) if meta["format_version"] == 1 else meta["num_rows"]
        except (KeyError, TypeError, OSError, RunError) as error:
            raise TrieError(f"{target / 'meta.json'} is missing or damaged: {error}.", _REBUILD) from error
        if not 0 < len(keys) == len(items) or keys.dtype != np.uint64 or items.dtype != np.int32:
            raise TrieError(f"{target}: keys.npy and items.npy do not belong together.", _REBUILD)
        if not all(type(size) is int for size in sizes) or not _make_a_key(sizes):
            raise TrieError(f"{target / 'meta.json'} is damaged: codebook_sizes is {list(sizes)!r}.", _REBUILD)
        if type(num_rows) is not int or not 0 <= int(items.min()) <= int(items.max()) < num_rows:
            raise TrieError(f"{target / 'meta.json'} is damaged: num_rows is {num_rows!r}.", _REBUILD)
        return cls(keys, items, num_rows, sizes, order_checksum, version, tokenizer_checksum)

    @staticmethod
    def live_version(folder: Path) -> str:
        """The version that `CURRENT` names. Raises TrieError where there is none."""
        return _current_version(folder)

    @cached_property
    def _shifts(self) -> tuple[int, ...]:
        bits = _bits(self.codebook_sizes)
        return tuple(sum(bits[level + 1 :]) for level in range(len(bits)))

    @cached_property
    def _tables(self) -> tuple[NDArray[np.int32], ...]:
        """Per level: the first position of every packed prefix that ends on this level, and `num_items`."""
        tables, total = [], 0
        for level, bits in enumerate(_bits(self.codebook_sizes)):
            total += bits
            if total > _TABLE_BITS:
                break
            prefixes = np.arange(1 << total, dtype=np.uint64) << np.uint64(self._shifts[level])
            bounds = np.append(np.searchsorted(self.keys, prefixes), self.num_items)
            tables.append(bounds.astype(np.int32))
        return tuple(tables)

    @cached_property
    def _hints(self) -> tuple[int, NDArray[np.uint16]]:
        """(shift, position >> shift of every row, 0 where it is not valid). Made when items are first excluded."""
        shift = max(0, (self.num_items - 1).bit_length() - _HINT_BITS)
        hints = np.zeros(self.num_rows, dtype=np.uint16)
        hints[self.items] = np.arange(self.num_items) >> shift
        return shift, hints

    def _prefix(self, level: int, lo: NDArray[np.int64]) -> NDArray[np.uint64]:
        """The packed codes above `level` of nodes, moved up by the bits of `level`: (W,)."""
        if level == 0:
            return np.zeros(len(lo), dtype=np.uint64)
        above = np.asarray(self.keys[lo]) >> np.uint64(self._shifts[level - 1])
        return np.asarray(above << np.uint64(self._shifts[level - 1] - self._shifts[level]))

    def _children_by_table(self, level: int, lo: NDArray[np.int64]) -> Children:
        first = self._prefix(level, lo).astype(np.int64)
        columns = np.arange(self.codebook_sizes[level] + 1)
        return _from_bounds(self._tables[level][first[:, None] + columns])

    def _children_by_search(self, level: int, lo: NDArray[np.int64], hi: NDArray[np.int64]) -> Children:
        codes = np.arange(self.codebook_sizes[level], dtype=np.uint64)
        needles = (self._prefix(level, lo)[:, None] | codes) << np.uint64(self._shifts[level])
        starts = np.searchsorted(self.keys, needles.reshape(-1)).reshape(needles.shape)
        return _from_bounds(np.concatenate([starts, hi[:, None]], axis=1))

    def _children_by_reading(self, level: int, lo: NDArray[np.int64], hi: NDArray[np.int64]) -> Children:
        counts = hi - lo
        ends = np.cumsum(counts)
        node = np.repeat(np.arange(len(lo)), counts)
        position = np.arange(int(counts.sum())) + np.repeat(lo - (ends - counts), counts)
        # Within a node the prefix is constant, so a new prefix or a new node starts a new child.
        prefix = np.asarray(self.keys[position]) >> np.uint64(self._shifts[level])
        new = np.ones(len(position), dtype=np.bool_)
        new[1:] = (prefix[1:] != prefix[:-1]) | (node[1:] != node[:-1])
        starts = np.flatnonzero(new)
        bits = (self.codebook_sizes[level] - 1).bit_length()
        code = (prefix[starts] & np.uint64((1 << bits) - 1)).astype(np.int64)
        first = position[starts]
        size = np.diff(starts, append=len(position))
        return Children(node[starts], code, first, first + size)


def _from_bounds(bounds: NDArray[Any]) -> Children:
    """Children from boundaries (W, K + 1), without the empty ones."""
    lo, hi = bounds[:, :-1], bounds[:, 1:]
    filled = np.flatnonzero(hi > lo)
    node, code = np.divmod(filled, lo.shape[1])
    return Children(node, code, lo[node, code].astype(np.int64), hi[node, code].astype(np.int64))


def _bits(codebook_sizes: Sequence[int]) -> list[int]:
    return [(size - 1).bit_length() for size in codebook_sizes]


def _make_a_key(sizes: tuple[int, ...]) -> bool:
    return bool(sizes) and min(sizes) >= 1 and sum(_bits(sizes)) <= 64


def _checked_codes(codes: NDArray[Any], sizes: tuple[int, ...]) -> NDArray[np.integer[Any]]:
    if not _make_a_key(sizes):
        needed = sum(_bits(sizes)) if sizes and min(sizes) > 0 else 0
        raise TrieError(
            f"codebook sizes {sizes} do not make a 64-bit key ({needed} bits).",
            "Use fewer levels or smaller codebooks: at least one level, every size at least 1.",
        )
    if codes.ndim != 2 or codes.shape[1] != len(sizes) or not 0 < len(codes) < 2**31:
        raise TrieError(f"codes have shape {codes.shape}; expected (items ≥ 1, {len(sizes)}).", _REBUILD)
    if not np.issubdtype(codes.dtype, np.integer):
        raise TrieError(f"codes are {codes.dtype}; expected integers without gaps.", _REBUILD)
    wrong = (codes < 0) | (codes >= np.asarray(sizes))
    if wrong.any():
        item, level = (int(value) for value in np.argwhere(wrong)[0])
        raise TrieError(
            f"item_index {item} has code {int(codes[item, level])} on level {level}; expected 0 to {sizes[level] - 1}.",
            _REBUILD,
        )
    return codes


def _checked_live(live: NDArray[np.bool_], num_rows: int) -> NDArray[np.bool_]:
    if live.shape != (num_rows,) or live.dtype != np.bool_:
        raise TrieError(f"a mask of {live.dtype} {live.shape} was given for codes of {num_rows} items.")
    if not live.any():
        raise TrieError("no item is left: a trie needs one at least.", "Keep an item, or add others first.")
    return live


def _array_checksum(array: NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def _current_version(folder: Path) -> str:
    try:
        version = (folder / "CURRENT").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise TrieError(f"{folder} has no live trie version (CURRENT is missing).", _REBUILD) from error
    if not version or Path(version).name != version or version == "..":
        raise TrieError(f"{folder / 'CURRENT'} does not name a version: {version!r}.", _REBUILD)
    return version


def _load_array(path: Path, expected_sum: str, *, mmap: bool) -> NDArray[Any]:
    try:
        if file_checksum(path) != expected_sum:
            raise TrieError(f"{path} is damaged: its checksum differs from meta.json.", _REBUILD)
        array = np.load(path, mmap_mode="r" if mmap else None, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise TrieError(f"{path} cannot be read: {error}.", _REBUILD) from error
    return np.asarray(array)  # a plain view of the mapping: np.memmap's own indexing is slow
