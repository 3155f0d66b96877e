"""How long it takes to add items to a catalogue, and whether the IDs of before stay: `genrec items add`, timed.

    python eval/add_items.py RUN --out COPY [--items 1000] [--seed 0]

Copies the tokenized or trained RUN to the new folder COPY and adds items of new ids with the attributes of drawn
ones and a changed title, so that every text is encoded anew. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from genrec.catalogue_changes import add_items
from genrec.console import ConsoleProgress
from genrec.data.catalog import Catalog
from genrec.errors import GenrecError, RunError
from genrec.run import Run
from genrec.tokenizers.codes import SemanticIds


def new_rows(catalog: Catalog, count: int, *, seed: int) -> list[dict[str, object]]:
    """Rows as a table of items has them; media files are left out, as their paths are those of another table."""
    drawn = np.random.default_rng(seed).choice(len(catalog), size=count)
    rows = catalog.table.drop([name for name in ("image", "audio", "video") if name in catalog.table.columns])
    return [
        {**rows.row(int(row), named=True), "item_id": f"new-{n}", "title": f"{catalog.titles[row]}, number {n}"}
        for n, row in enumerate(drawn)
    ]


def main() -> int:
    """Read the command line, add, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="the copy; it must not exist")
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    try:
        if given.out.exists():
            raise RunError(f"{given.out} exists.", "Name a new folder with --out.")
        Run.open(given.run)
        run = Run(shutil.copytree(given.run, given.out))
        before = Catalog.load(run)
        codes = SemanticIds.load(run, catalog=before).codes
        table = given.out / "new.jsonl"
        rows = new_rows(before, given.items, seed=given.seed)
        table.write_text("".join(json.dumps(row, default=str) + "\n" for row in rows), encoding="utf-8")
        started, started_cpu = time.perf_counter(), time.process_time()
        add_items(run, table, when=datetime.now(UTC).isoformat(timespec="seconds"), progress=ConsoleProgress())
        seconds, cpu = time.perf_counter() - started, time.process_time() - started_cpu
    except GenrecError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    after = SemanticIds.load(run, catalog=Catalog.load(run)).codes
    same = int((after[: len(codes)] == codes).all(axis=1).sum())
    different = len(np.unique(after, axis=0))
    print(f"{given.items:,} items added to {len(codes):,}, seed {given.seed}; {os.cpu_count()} cores\n")
    print("| seconds | CPU seconds | items of before with the same ID | different IDs |\n|---|---|---|---|")
    print(f"| {seconds:.1f} | {cpu:.1f} | {same:,} of {len(codes):,} | {different:,} of {len(after):,} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
