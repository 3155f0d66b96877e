"""A table of what people tagged ─► texts of their own, for items of their training interactions alone.

user_id,item_id,tag          or MovieLens' tags.csv: userId,movieId,tag,timestamp
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from genrec.data.catalog import Catalog
from genrec.data.splits import training_sequences
from genrec.errors import DataError
from genrec.explanation.facts import OwnText, OwnTexts, plain
from genrec.run import Run

_NAMES = {"userId": "user_id", "movieId": "item_id"}


def read_tags(path: Path, run: Run, catalog: Catalog) -> OwnTexts:
    """Tags by user and item index. Those of items outside of the user's training split are left out: they are what
    evaluation asks for. Raises DataError for a file that cannot be read or lacks a column.
    """
    try:
        table = pl.read_csv(path, infer_schema=False).rename(_NAMES, strict=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{path} cannot be read: {error}.", "Give a CSV table with a header.") from error
    if missing := [name for name in ("user_id", "item_id", "tag") if name not in table.columns]:
        raise DataError(f"{path} lacks the column {', '.join(missing)}.", "It needs user_id, item_id and tag.")
    sequences = training_sequences(run)
    trained = {user: set(items.tolist()) for user, items in zip(sequences.user_ids, sequences, strict=True)}
    found: dict[str, dict[int, tuple[OwnText, ...]]] = {}
    for user_id, item_id, tag in table.select("user_id", "item_id", "tag").drop_nulls().iter_rows():
        item = catalog.index.get(item_id)
        if item is None or item not in trained.get(user_id, ()) or not plain(tag):
            continue
        mine = found.setdefault(user_id, {})
        mine[item] = (*mine.get(item, ()), OwnText("tag", plain(tag)))
    return found
