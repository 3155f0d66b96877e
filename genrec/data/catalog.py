"""The catalogue: one row per item, in an order that vectors, codes and tries of a run share."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from genrec.data.interactions import read_run_table
from genrec.errors import ConfigError, UnknownItemError
from genrec.run import Digest, Run, text_digest

REMOVED_ITEMS = "removed_items.parquet"  # item_id of every removed item; there only where some are removed


@dataclass(frozen=True, eq=False)
class Catalog:
    """I items. Row `item_index` of `table` is the item `item_ids[item_index]`."""

    table: pl.DataFrame  # item_id, title, known text fields, attributes; categories, genres, tags are lists

    @classmethod
    def load(cls, run: Run) -> Catalog:
        """Read `items.parquet`. Raises RunError where the run has no ingest or the file is damaged."""
        return cls(read_run_table(run, "items.parquet"))

    def __len__(self) -> int:
        return self.table.height

    @cached_property
    def item_ids(self) -> list[str]:
        """Ids by `item_index`, (I,)."""
        return self.table["item_id"].to_list()

    @cached_property
    def titles(self) -> list[str]:
        """Titles by `item_index`, (I,)."""
        return self.table["title"].to_list()

    @cached_property
    def worded_titles(self) -> list[str]:
        """Titles as text for a model, (I,): empty where an id stands in for one that is missing."""
        return ["" if title == item_id else title for title, item_id in zip(self.titles, self.item_ids, strict=True)]

    @cached_property
    def index(self) -> dict[str, int]:
        """`item_id` → `item_index`."""
        return {item_id: row for row, item_id in enumerate(self.item_ids)}

    @cached_property
    def order_checksum(self) -> str:
        """Of the ids in order: what ties vectors and codes to this catalogue."""
        return self._digest.hexdigest()

    @cached_property
    def _digest(self) -> Digest:
        return text_digest(self.item_ids)

    def take_over(self, before: Catalog) -> bool:
        """Take over what an earlier catalogue made of its ids and titles; False where this one begins with other ids.

        While a large catalogue is read beside requests, whatever is made in Python is time that they wait.
        """
        ids, known = self.table["item_id"], before.table["item_id"]
        if not ids.head(len(known)).equals(known):
            return False
        new = ids.slice(len(known)).to_list()
        made = vars(self)  # where cached properties are kept
        made["item_ids"] = before.item_ids + new if new else before.item_ids
        made["index"] = before.index | dict(zip(new, range(len(known), len(ids)), strict=True)) if new else before.index
        made["_digest"] = text_digest(new, before._digest)
        titles = self.table["title"]
        if titles.head(len(known)).equals(before.table["title"]):
            more = titles.slice(len(known)).to_list()
            made["titles"] = before.titles + more if more else before.titles
        return True

    def indices(self, item_ids: Sequence[str]) -> NDArray[np.int32]:
        """Rows of items, in the order given. Raises UnknownItemError naming the first ones it does not have."""
        index = self.index
        unknown = [item_id for item_id in item_ids if item_id not in index]
        if unknown:
            more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
            raise UnknownItemError(
                f"Not in the catalogue of {len(self):,} items: {', '.join(unknown[:5])}{more}.",
                "Ids are those of the item_id column of the items table that was ingested, without the items that "
                "`genrec ingest` left out: those with too few interactions (--min-interactions 1 keeps every item).",
            )
        return np.fromiter((index[item_id] for item_id in item_ids), dtype=np.int32, count=len(item_ids))

    def mask(self, item_ids: pl.Series) -> NDArray[np.bool_]:
        """Which items (I,) a column names. Raises as `indices`."""
        found: NDArray[np.bool_] = self.table["item_id"].is_in(item_ids.implode()).to_numpy().copy()
        if found.sum() != item_ids.n_unique():
            self.indices(item_ids.to_list())  # names those that are unknown
        return found

    def texts(self, fields: Sequence[str]) -> list[str]:
        """One text per item, (I,): the title as it is, then `Brand: OPI. Categories: Makeup, Nails.`

        Fields that the catalogue lacks, and empty cells, add nothing; nor does an id that stands in for a title: it is
        no word, and files are often sorted by it. Raises ConfigError where the catalogue has none of the fields.
        """
        present = [field for field in fields if field in self.table.columns]
        if not present:
            raise ConfigError(
                f"The catalogue has none of the text fields {', '.join(fields)}.",
                f"Its columns are {', '.join(self.table.columns)}.",
            )
        no_title = pl.when(pl.col("title") != pl.col("item_id")).then(pl.col("title")).alias("title")
        table = self.table.with_columns(no_title)
        columns = [table[field].to_list() for field in present]
        return [_text(present, row) for row in zip(*columns, strict=True)]


def is_object(value: object) -> bool:
    """Whether a value is a JSON object or list, as the catalogue keeps cells without a plain text: data, no words."""
    if not isinstance(value, str) or value[:1] + value[-1:] not in ("{}", "[]"):
        return False
    try:
        return isinstance(json.loads(value), dict | list)
    except (ValueError, RecursionError):  # text in brackets, or so many of them
        return False


def are_truths(texts: Collection[str]) -> bool:
    """Whether texts are nothing but `true` and `false`, in any case."""
    return bool(texts) and {text.casefold() for text in texts} <= {"true", "false"}


def listed_items(run: Run, name: str, *, catalog: Catalog) -> NDArray[np.bool_]:
    """Which items (I,) the list `name` of the run names; none where its catalogue came with no such list."""
    if name in run.require("ingest", verify=False).outputs:
        return catalog.mask(read_run_table(run, name)["item_id"])
    return np.zeros(len(catalog), dtype=np.bool_)


def removed_items(run: Run, *, catalog: Catalog) -> NDArray[np.bool_]:
    """Which items (I,) were removed: rows that histories may hold and that are recommended to nobody."""
    return listed_items(run, REMOVED_ITEMS, catalog=catalog)


def _text(fields: Sequence[str], values: Sequence[object]) -> str:
    parts = []
    for field, value in zip(fields, values, strict=True):
        text = ", ".join(map(str, value)) if isinstance(value, list) else str("" if value is None else value)
        if text:
            parts.append(text if field == "title" else f"{field.replace('_', ' ').capitalize()}: {text}")
    if len(parts) < 2:
        return "".join(parts)
    return " ".join(part if part.endswith((".", "!", "?")) else f"{part}." for part in parts)
