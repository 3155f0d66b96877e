"""How fast and how large the trie is: build, one step of 50 beams on every level, filters, files, memory.

    python eval/bench_trie.py --items 1000000 10000000

Prints a Markdown table. A step is what one user's beams need of the trie on one level: the children of every
beam, and with a filter (half of the items allowed, 50 items of history removed) only those with an allowed
item. Codes are uniform or skewed (every code twice as likely as the one of four ranks below it). The attribute has
1,000 values, some for many items, and is asked for three of them: its index is made once per version of a catalogue,
its filter from the index once per distinct question.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from genrec.data.attributes import Attribute
from genrec.trie import Children, ItemTrie
from genrec.trie_filters import ItemFilter

SIZES = (256, 256, 256, 256)


def describe_machine() -> str:
    """CPU model, usable cores and the load of the last minute (other work disturbs timings)."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{[*names, platform.machine()][0]}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"


def random_codes(num_items: int, rng: np.random.Generator, *, skewed: bool) -> NDArray[np.uint16]:
    """Codes (I, 4), uniform or with geometrically falling chances."""
    chances = 0.5 ** (np.arange(256) / 4) if skewed else np.ones(256)
    bounds = np.cumsum(chances / chances.sum())
    draws = rng.random((num_items, 4), dtype=np.float32)
    return np.minimum(np.searchsorted(bounds, draws), 255).astype(np.uint16)


def median_seconds(work: Callable[[], object], repeats: int) -> float:
    """Median wall time of a call."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def level_nodes(trie: ItemTrie, level: int, items: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The distinct nodes of depth `level` above the given items."""
    lo, hi = np.array([0]), np.array([trie.num_items])
    at = trie.positions(items)
    for depth in range(level):
        below = trie.children(depth, lo, hi)
        wanted = np.unique(np.searchsorted(below.lo, at, side="right") - 1)
        lo, hi = below.lo[wanted], below.hi[wanted]
    return lo, hi


def filtered_step(
    trie: ItemTrie, level: int, nodes: tuple[NDArray[np.int64], NDArray[np.int64]], item_filter: ItemFilter
) -> Children:
    """Children that hold an allowed item."""
    children = trie.children(level, *nodes)
    return children.select(item_filter.alive(children.lo, children.hi))


def attribute_seconds(trie: ItemTrie, rng: np.random.Generator) -> tuple[float, float]:
    """Wall times of an attribute's index and of a filter by three of its values."""
    chances = 1 / np.arange(1, 1001)
    cells = rng.choice(np.array([f"v{number}" for number in range(1000)]), trie.num_rows, p=chances / chances.sum())
    column = pl.Series(cells)
    start = time.perf_counter()
    attribute = Attribute.of("made", column)
    index_s = time.perf_counter() - start
    asked = ["v1", "v10", "v100"]
    return index_s, median_seconds(lambda: ItemFilter.allowing(trie, attribute.mask(asked)), 5)


def measure(num_items: int, *, skewed: bool, seed: int) -> list[str]:
    """One table row."""
    rng = np.random.default_rng(seed)
    codes = random_codes(num_items, rng, skewed=skewed)
    start = time.perf_counter()
    built = ItemTrie.build(codes, SIZES)
    build_s = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        paths = built.save(Path(folder))
        files = sum(path.stat().st_size for path in paths)
        start = time.perf_counter()
        trie = ItemTrie.load(Path(folder))
        load_s = time.perf_counter() - start
        start = time.perf_counter()
        base = ItemFilter.allowing(trie, rng.random(num_items) < 0.5)
        compile_s = time.perf_counter() - start
        history = rng.integers(0, num_items, 50)
        item_filter = base.without(history)  # also makes the position hints
        history_ms = 1e3 * median_seconds(lambda: base.without(history), 50)
        beams = rng.integers(0, num_items, 50)
        plain, filtered = [], []
        for level in range(4):
            nodes = level_nodes(trie, level, beams)
            plain.append(1e3 * median_seconds(partial(trie.children, level, *nodes), 50))
            filtered.append(1e3 * median_seconds(partial(filtered_step, trie, level, nodes, item_filter), 50))
        tables = sum(table.nbytes for table in trie._tables)
        hints = trie._hints[1].nbytes
        index_s, attribute_s = attribute_seconds(trie, rng)
        assert item_filter.allowed is not None
        bits = item_filter.allowed.words.nbytes + item_filter.allowed.ranks.nbytes
    return [
        f"{num_items:,}",
        "skewed" if skewed else "uniform",
        f"{build_s:.2f}",
        " / ".join(f"{ms:.2f}" for ms in plain),
        " / ".join(f"{ms:.2f}" for ms in filtered),
        f"{history_ms:.2f}",
        f"{compile_s:.2f}",
        f"{index_s:.2f} + {attribute_s:.3f}",
        f"{load_s:.2f}",
        f"{files / 1e6:.1f}",
        f"{(trie.num_bytes + tables) / 1e6:.1f} + {hints / 1e6:.1f}",
        f"{bits / 1e6:.2f}",
    ]


COLUMNS = [
    "items",
    "codes",
    "build s",
    "step ms, levels 0–3",
    "step ms with filter",
    "exclude 50 items, ms",
    "compile filter s",
    "by attribute s: index + filter",
    "load + verify s",
    "files MB",
    "memory MB: trie + position hints",
    "bitset MB per filter",
]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(f"4 levels of 256 codes, 50 beams, seed {options.seed}; {describe_machine()}\n")
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS))
    for num_items in options.items:
        for skewed in (False, True):
            print("| " + " | ".join(measure(num_items, skewed=skewed, seed=options.seed)) + " |", flush=True)


if __name__ == "__main__":
    main()
