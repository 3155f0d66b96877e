"""The tiny run's tables with a description of every item and a review of every interaction, no two the same.

Reviews share `tale` with every description, which tells nothing, and three words with that of one other item.
"""

from __future__ import annotations

import json
from pathlib import Path

NUM_ITEMS, STEPS = 30, 6  # how far from an item the one is whose words its reviews hold


def words_of(number: int) -> str:
    """Three words that no other item's description holds."""
    name = chr(ord("a") + number // 6) + chr(ord("a") + number % 6)
    return f"moor{name} lake{name} hill{name}"


def description_of(item_id: str) -> str:
    """Two sentences, the second with a denial."""
    return f"the tale {item_id} of it. Nobody knows {words_of(int(item_id[1:]))} the end of {item_id}."


def review_of(user_id: str, item_id: str) -> str:
    """Seven words, three of them of the description of an item that the same people take later."""
    return f"tale of {user_id} {item_id} {words_of((int(item_id[1:]) + STEPS) % NUM_ITEMS)}"


def write_reviewed(source: Path, folder: Path) -> list[Path]:
    """Write `items.jsonl` and `interactions.csv` of the tiny files `source` into `folder`; both."""
    items = [json.loads(line) for line in (source / "items.jsonl").read_text().splitlines()]
    told = [{**item, "description": description_of(item["item_id"])} for item in items]
    rows = [line.split(",") for line in (source / "interactions.csv").read_text().splitlines()[1:]]
    lines = ["user_id,item_id,timestamp,review", *(",".join([*row, review_of(*row[:2])]) for row in rows)]
    tables = [folder / "items.jsonl", folder / "interactions.csv"]
    tables[0].write_text("".join(json.dumps(item) + "\n" for item in told))
    tables[1].write_text("".join(line + "\n" for line in lines))
    return tables
