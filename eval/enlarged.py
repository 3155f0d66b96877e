"""A set larger than a real one, to measure how long the recipe takes there: its figures of quality mean nothing.

    genrec ingest tables items.jsonl.gz interactions.csv.gz --out runs/beauty
    python eval/enlarged.py runs/beauty --items 17000 --users 50000 --out runs/large-raw
    python eval/recipe.py tables runs/large-raw/items.jsonl runs/large-raw/interactions.csv --out runs/large --seeds 0

Items are doubled, the most used first: a twin has another id and a mark in its title. Users are taken again and again,
and wherever an item has a twin, one of the two is drawn. So the length of histories, the words of texts and how skewed
popularity is are those of the real set.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from pathlib import Path

import numpy as np

from genrec.data.catalog import Catalog
from genrec.data.interactions import read_run_table
from genrec.errors import ConfigError, GenrecError
from genrec.run import Run

_MARK = "-2"


def enlarge(run: Run, out: Path, *, num_items: int, num_users: int, seed: int) -> int:
    """Write `items.jsonl` and `interactions.csv` (user_id, item_id, in time order per user); the number of rows.

    Raises ConfigError where the run has more items than asked for, or fewer than half of them.
    """
    records = Catalog.load(run).table.to_dicts()
    if not len(records) <= num_items <= 2 * len(records):
        raise ConfigError(f"--items {num_items:,} of {len(records):,}.", f"Give up to {2 * len(records):,}, not fewer.")
    table = read_run_table(run, "interactions.parquet")
    histories = [part["item_id"].to_list() for part in table.partition_by("user_id", maintain_order=True)]
    counts = dict(table["item_id"].value_counts().iter_rows())
    most_used = sorted(records, key=lambda record: -counts.get(record["item_id"], 0))
    twins = [
        record | {"item_id": record["item_id"] + _MARK, "title": f"{record['title']}, second edition"}
        for record in most_used[: num_items - len(records)]
    ]
    doubled = {twin["item_id"].removesuffix(_MARK) for twin in twins}
    rng, rows = np.random.default_rng(seed), 0
    out.mkdir(parents=True, exist_ok=True)
    with (out / "items.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(record) + "\n" for record in records + twins)
    with (out / "interactions.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["user_id", "item_id"])
        for number in range(num_users):
            for item in histories[number % len(histories)]:
                second = item in doubled and rng.random() < 0.5
                writer.writerow([f"u{number}", item + _MARK if second else item])
                rows += 1
    return rows


def main() -> int:
    """Read the command line, write the set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="an ingested run")
    parser.add_argument("--items", type=int, default=17_000, help="up to twice those of the run")
    parser.add_argument("--users", type=int, default=50_000)
    parser.add_argument("--out", type=Path, required=True, help="folder of the two files")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    try:
        rows = enlarge(Run.open(given.run), given.out, num_items=given.items, num_users=given.users, seed=given.seed)
    except GenrecError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    print(f"{given.items:,} items, {given.users:,} users, {rows:,} interactions in {given.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
