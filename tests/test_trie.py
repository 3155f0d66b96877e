"""The trie against plain Python sets: children, filters, files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from genrec.errors import TrieError
from genrec.trie import Children, ItemTrie
from genrec.trie_filters import ItemFilter


@st.composite
def tables(draw: st.DrawFn) -> tuple[NDArray[np.int64], tuple[int, ...]]:
    """Random codes (I, L), some colliding, and their codebook sizes."""
    lists = st.lists(st.sampled_from([1, 2, 3, 5, 8, 300, 70_000]), min_size=1, max_size=4)
    # A key has 64 bits; four codebooks of 70,000 codes would need 68 and are refused.
    sizes = tuple(draw(lists.filter(lambda drawn: sum((size - 1).bit_length() for size in drawn) <= 64)))
    num_items, seed = draw(st.integers(1, 120)), draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    limits = [min(size, draw(st.sampled_from([2, 4, size]))) for size in sizes]
    return np.stack([rng.integers(0, limit, num_items) for limit in limits], axis=1), sizes


def walk(trie: ItemTrie, prefix: tuple[int, ...]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    lo, hi = np.array([0]), np.array([trie.num_items])
    for level, code in enumerate(prefix):
        below = trie.children(level, lo, hi)
        (index,) = np.flatnonzero(below.code == code)
        lo, hi = below.lo[[index]], below.hi[[index]]
    return lo, hi


def prefixes(codes: NDArray[np.int64], level: int) -> list[tuple[int, ...]]:
    return sorted({tuple(row[:level]) for row in codes.tolist()})


@settings(max_examples=150, deadline=None)
@given(tables())
def test_children_of_every_prefix_equal_brute_force(table: tuple[NDArray[np.int64], tuple[int, ...]]) -> None:
    codes, sizes = table
    trie = ItemTrie.build(codes, sizes)
    for level in range(len(sizes)):
        parents = prefixes(codes, level)
        nodes = [walk(trie, prefix) for prefix in parents]
        lo, hi = np.concatenate([n[0] for n in nodes]), np.concatenate([n[1] for n in nodes])
        found = trie.children(level, lo, hi)
        expected = [
            (node, code, sorted(np.flatnonzero((codes[:, : level + 1] == [*prefix, code]).all(1)).tolist()))
            for node, prefix in enumerate(parents)
            for code in sorted({row[level] for row in codes.tolist() if tuple(row[:level]) == prefix})
        ]
        assert [
            (int(n), int(c), sorted(trie.items[a:b].tolist()))
            for n, c, a, b in zip(found.node, found.code, found.lo, found.hi, strict=True)
        ] == expected


@settings(max_examples=60, deadline=None)
@given(tables())
def test_the_three_ways_to_find_children_agree(table: tuple[NDArray[np.int64], tuple[int, ...]]) -> None:
    trie = ItemTrie.build(*table)
    lo, hi = np.array([0]), np.array([trie.num_items])
    for level, size in enumerate(trie.codebook_sizes):
        ways: list[Children] = [trie._children_by_reading(level, lo, hi)]
        if size < 1000:
            ways.append(trie._children_by_search(level, lo, hi))
        if level < len(trie._tables):
            ways.append(trie._children_by_table(level, lo))
        for way in ways[1:]:
            for name in ("node", "code", "lo", "hi"):
                np.testing.assert_array_equal(getattr(way, name), getattr(ways[0], name))
        lo, hi = ways[0].lo, ways[0].hi


@settings(max_examples=150, deadline=None)
@given(tables(), st.integers(0, 2**32 - 1), st.booleans())
def test_a_filter_counts_the_allowed_items_of_every_range(
    table: tuple[NDArray[np.int64], tuple[int, ...]], seed: int, with_mask: bool
) -> None:
    trie, rng = ItemTrie.build(*table), np.random.default_rng(seed)
    mask = rng.random(trie.num_items) < rng.random()
    history = rng.integers(0, trie.num_items, 5)
    more = rng.integers(0, trie.num_items, 3)
    start = ItemFilter.allowing(trie, mask if seed % 2 else np.flatnonzero(mask)) if with_mask else None
    found = (start.without(history) if start else ItemFilter.excluding(trie, history)).without(more)
    expected = mask if with_mask else np.ones(trie.num_items, bool)
    expected[np.concatenate([history, more])] = False
    allowed = expected[trie.items]
    lo = rng.integers(0, trie.num_items, 50)
    hi = rng.integers(lo, trie.num_items) + 1
    counts = [allowed[a:b].sum() for a, b in zip(lo, hi, strict=True)]
    np.testing.assert_array_equal(found.count(lo, hi), counts)
    np.testing.assert_array_equal(found.alive(lo, hi), np.array(counts) > 0)
    np.testing.assert_array_equal(found.admits(np.arange(trie.num_items)), allowed)
    assert found.num_items == expected.sum()


def test_positions_undo_items_in_a_catalogue_too_large_for_exact_hints() -> None:
    codes = np.random.default_rng(0).integers(0, 256, (150_000, 4))
    trie = ItemTrie.build(codes, (256,) * 4)
    items = np.random.default_rng(1).integers(0, 150_000, 2_000)
    np.testing.assert_array_equal(trie.items[trie.positions(items)], items)
    assert trie.positions([]).shape == (0,)
    assert (trie.keys[1:] >= trie.keys[:-1]).all()


def test_items_that_share_a_key_are_one_leaf_in_index_order() -> None:
    trie = ItemTrie.build([[1, 1], [0, 1], [1, 1], [1, 1]], (2, 2))
    lo, hi = walk(trie, (1, 1))
    assert trie.items[lo[0] : hi[0]].tolist() == [0, 2, 3]


def test_keys_of_exactly_64_bits_work() -> None:
    codes = np.array([[0, 0, 0, 0], [65_535] * 4, [65_535, 65_535, 65_535, 0]])
    trie = ItemTrie.build(codes, (65_536,) * 4)
    lo, hi = walk(trie, (65_535, 65_535, 65_535))
    assert sorted(trie.items[lo[0] : hi[0]].tolist()) == [1, 2]
    assert trie._children_by_search(3, lo, hi).code.tolist() == [0, 65_535]


@pytest.mark.parametrize(
    ("codes", "sizes", "message"),
    [
        ([[0, 4]], (2, 4), "item_index 0 has code 4 on level 1; expected 0 to 3"),
        ([[0, -1]], (2, 4), "has code -1"),
        (np.zeros((0, 2), np.int64), (2, 4), "shape"),
        ([[0, 1, 2]], (2, 4), "shape"),
        ([[0.0, float("nan")]], (2, 4), "expected integers"),
        ([[0] * 9], (256,) * 9, "72 bits"),
        ([[]], (), "64-bit key"),
        ([[0]], (0,), "64-bit key"),
    ],
)
def test_codes_that_make_no_trie_are_named(codes: object, sizes: tuple[int, ...], message: str) -> None:
    with pytest.raises(TrieError, match=message):
        ItemTrie.build(np.asarray(codes), sizes)


@pytest.mark.parametrize(
    ("items", "message"),
    [([3], "item_index 3"), ([-1], "item_index -1"), ([0.5], "float64"), (np.ones(2, bool), "mask of shape")],
)
def test_filters_of_unknown_items_are_named(items: object, message: str) -> None:
    trie = ItemTrie.build([[0], [1], [2]], (3,))
    with pytest.raises(TrieError, match=message):
        ItemFilter.allowing(trie, np.asarray(items))


@pytest.mark.parametrize("mmap", [True, False])
def test_save_and_load_give_the_same_trie(tmp_path: Path, mmap: bool) -> None:
    codes = np.random.default_rng(0).integers(0, 5, (40, 3))
    trie = ItemTrie.build(codes, (5, 5, 5), order_checksum="abc")
    paths = trie.save(tmp_path)
    loaded = ItemTrie.load(tmp_path, mmap=mmap)
    np.testing.assert_array_equal(loaded.keys, trie.keys)
    np.testing.assert_array_equal(loaded.items, trie.items)
    assert (loaded.version, loaded.order_checksum, loaded.codebook_sizes) == (trie.version, "abc", (5, 5, 5))
    assert all(path.is_file() for path in paths)
    assert loaded.num_bytes == 40 * 12


def test_a_second_version_goes_live_and_the_first_stays(tmp_path: Path) -> None:
    first, second = ItemTrie.build([[0], [1]], (2,)), ItemTrie.build([[1], [0]], (2,))
    first.save(tmp_path)
    still_open = ItemTrie.load(tmp_path)
    second.save(tmp_path)
    assert ItemTrie.load(tmp_path).version == second.version != first.version
    assert still_open.items.tolist() == [0, 1]
    assert (tmp_path / first.version / "keys.npy").is_file()


@pytest.mark.parametrize(
    "damage", ["CURRENT", "keys.npy", "items.npy", "meta.json", "flip", "swap", "format", "escape", "not json"]
)
def test_a_damaged_trie_is_refused(tmp_path: Path, damage: str) -> None:
    trie = ItemTrie.build([[0], [1]], (2,))
    trie.save(tmp_path)
    folder = tmp_path / trie.version
    meta = json.loads((folder / "meta.json").read_text())
    if damage == "CURRENT":
        (tmp_path / "CURRENT").unlink()
    elif damage == "flip":
        content = bytearray((folder / "keys.npy").read_bytes())
        content[-1] ^= 1
        (folder / "keys.npy").write_bytes(content)
    elif damage == "swap":
        (folder / "items.npy").write_bytes((folder / "keys.npy").read_bytes())
        meta["sha256"]["items.npy"] = meta["sha256"]["keys.npy"]
        (folder / "meta.json").write_text(json.dumps(meta))
    elif damage == "format":
        (folder / "meta.json").write_text(json.dumps(meta | {"format_version": 99}))
    elif damage == "escape":
        (tmp_path / "CURRENT").write_text("../elsewhere")
    elif damage == "not json":
        (folder / "meta.json").write_text("{")
    else:
        (folder / damage).unlink()
    with pytest.raises(TrieError):
        ItemTrie.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("codebook_sizes", ["x", 2]),
        ("codebook_sizes", [2, 2.9]),
        ("codebook_sizes", [2, True]),
        ("codebook_sizes", []),
        ("codebook_sizes", [0, 2]),
        ("codebook_sizes", [1 << 40, 1 << 40]),
        ("codebook_sizes", 2),
        ("num_rows", "many"),
        ("num_rows", -3),
        ("num_rows", 1),  # two items stand in it
        ("num_rows", 2.5),
        ("num_rows", None),
        ("sha256", []),
    ],
)
def test_a_trie_whose_description_cannot_be_is_refused_when_it_is_opened(
    tmp_path: Path, name: str, value: object
) -> None:
    trie = ItemTrie.build([[0, 1], [1, 1]], (2, 2))
    trie.save(tmp_path)
    file = tmp_path / trie.version / "meta.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {name: value}))
    with pytest.raises(TrieError, match=r"meta\.json is (missing or )?damaged"):
        ItemTrie.load(tmp_path)


@settings(max_examples=100, deadline=None)
@given(tables(), st.integers(0, 2**32 - 1))
def test_a_trie_of_some_rows_is_the_trie_of_these_items_alone(
    table: tuple[NDArray[np.int64], tuple[int, ...]], seed: int
) -> None:
    codes, sizes = table
    rng = np.random.default_rng(seed)
    live = rng.random(len(codes)) < 0.6
    live[rng.integers(len(codes))] = True
    rows = np.flatnonzero(live)
    trie, alone = ItemTrie.build(codes, sizes, live=live), ItemTrie.build(codes[live], sizes)
    assert (trie.num_items, trie.num_rows) == (live.sum(), len(codes))
    np.testing.assert_array_equal(trie.keys, alone.keys)
    np.testing.assert_array_equal(trie.items, rows[alone.items])
    expected = np.full(len(codes), -1)
    expected[rows] = alone.positions(np.arange(len(rows)))
    np.testing.assert_array_equal(trie.positions(np.arange(len(codes))), expected)
    # Masks and histories speak of rows of the catalogue; what is not valid counts nowhere.
    mask, history = rng.random(len(codes)) < 0.5, rng.integers(0, len(codes), 5)
    found = ItemFilter.allowing(trie, mask).without(history)
    allowed = mask & live
    allowed[history] = False
    assert found.num_items == allowed.sum()
    np.testing.assert_array_equal(found.admits(np.arange(trie.num_items)), allowed[trie.items])
    excluding = ItemFilter.excluding(trie, history)
    assert excluding.num_items == (live & ~np.isin(np.arange(len(codes)), history)).sum()


def test_a_trie_of_some_rows_is_saved_with_the_number_of_all(tmp_path: Path) -> None:
    codes, live = np.arange(6)[:, None], np.array([True, False, True, True, False, True])
    trie = ItemTrie.build(codes, (6,), live=live)
    trie.save(tmp_path)
    loaded = ItemTrie.load(tmp_path)
    assert (loaded.num_rows, loaded.num_items, loaded.items.tolist()) == (6, 4, [0, 2, 3, 5])
    assert loaded.positions([1, 3]).tolist() == [-1, 2]
    assert ItemTrie.live_version(tmp_path) == trie.version != ItemTrie.build(codes, (6,)).version


def test_a_trie_of_the_first_format_holds_every_row(tmp_path: Path) -> None:
    trie = ItemTrie.build([[0], [2], [1]], (3,))
    trie.save(tmp_path)
    file = tmp_path / trie.version / "meta.json"
    meta = json.loads(file.read_text()) | {"format_version": 1}
    del meta["num_rows"]
    file.write_text(json.dumps(meta))
    assert ItemTrie.load(tmp_path).num_rows == 3


@pytest.mark.parametrize(
    ("live", "message"), [([False, False], "no item is left"), ([True], "a mask of bool"), ([1, 0], "a mask of int")]
)
def test_a_mask_that_makes_no_trie_is_named(live: list[object], message: str) -> None:
    with pytest.raises(TrieError, match=message):
        ItemTrie.build([[0], [1]], (2,), live=np.array(live))


def test_a_trie_knows_the_tokenizer_of_its_codes_and_one_of_before_does_not(tmp_path: Path) -> None:
    trie = ItemTrie.build([[0], [2], [1]], (3,), order_checksum="abc", tokenizer_checksum="t1")
    trie.save(tmp_path)
    assert ItemTrie.load(tmp_path).tokenizer_checksum == "t1"
    unknown = ItemTrie.build([[0], [2], [1]], (3,), order_checksum="abc")
    assert unknown.version == "0bb70f26af02" != trie.version  # what such a trie was called before
    file = tmp_path / trie.version / "meta.json"
    meta = json.loads(file.read_text())
    del meta["tokenizer_checksum"]
    file.write_text(json.dumps(meta))
    assert ItemTrie.load(tmp_path).tokenizer_checksum == ""
