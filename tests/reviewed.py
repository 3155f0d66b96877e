"""The tiny run's tables with a description of every item and a review of every interaction, no two the same."""

from __future__ import annotations

import json
from pathlib import Path


def description_of(item_id: str) -> str:
    """Two sentences, the second with a denial."""
    return f"the tale {item_id} of it. Nobody knows the end of {item_id}."


def review_of(user_id: str, item_id: str) -> str:
    """Seven words, one of them (`tale`) of every description."""
    return f"a tale of {user_id} about {item_id} here"


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
