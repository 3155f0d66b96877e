"""A set larger than a real one, to measure how long the recipe takes there: its figures of quality mean nothing.

    python eval/enlarged.py items.jsonl.gz interactions.csv.gz --items 17000 --users 50000 --out runs/large-raw
    python eval/recipe.py tables runs/large-raw/items.jsonl runs/large-raw/interactions.csv --out runs/large --seeds 0

Items are doubled, the most used first: a twin has another id and a mark in its title. Users are taken again and again,
and wherever an item has a twin, one of the two is drawn. So the length of histories, the words of texts and how skewed
popularity is are those of the real set.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np


def enlarge(items: Path, interactions: Path, out: Path, *, num_items: int, num_users: int, seed: int) -> int:
    """Write `items.jsonl` and `interactions.csv` (user_id, item_id, in time order per user); the number of rows."""
    with gzip.open(items, "rt", encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    with gzip.open(interactions, "rt", encoding="utf-8", newline="") as lines:
        histories: defaultdict[str, list[str]] = defaultdict(list)
        for row in csv.DictReader(lines):
            histories[row["user_id"]].append(row["item_id"])
    counts = Counter(item for history in histories.values() for item in history)
    most_used = sorted(records, key=lambda record: -counts[record["item_id"]])
    twins = [
        record | {"item_id": f"{record['item_id']}-2", "title": f"{record['title']}, second edition"}
        for record in most_used[: num_items - len(records)]
    ]
    doubled = {twin["item_id"].removesuffix("-2") for twin in twins}
    rng = np.random.default_rng(seed)
    out.mkdir(parents=True, exist_ok=True)
    with (out / "items.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(record) + "\n" for record in records + twins)
    users, rows = list(histories.values()), 0
    with (out / "interactions.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["user_id", "item_id"])
        for number in range(num_users):
            for item in users[number % len(users)]:
                second = item in doubled and rng.random() < 0.5
                writer.writerow([f"u{number}", f"{item}-2" if second else item])
                rows += 1
    return rows


def main() -> int:
    """Read the command line, write the set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("items", type=Path, help="JSON lines, gzip: item_id, title, …")
    parser.add_argument("interactions", type=Path, help="CSV, gzip: user_id, item_id in time order")
    parser.add_argument("--items", dest="num_items", type=int, default=17_000, help="up to twice those of the set")
    parser.add_argument("--users", dest="num_users", type=int, default=50_000)
    parser.add_argument("--out", type=Path, required=True, help="folder of the two files")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rows = enlarge(
        given.items,
        given.interactions,
        given.out,
        num_items=given.num_items,
        num_users=given.num_users,
        seed=given.seed,
    )
    print(f"{given.num_items:,} items, {given.num_users:,} users, {rows:,} interactions in {given.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
