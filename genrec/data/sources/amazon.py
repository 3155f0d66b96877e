"""Amazon Reviews in the layouts of 2014, 2018 and 2023: a file of reviews and, optionally, one of metadata.

What kind of file it is, and of which year, is read off its keys. Only what describes an item is kept of the
metadata: `also_buy`, `average_rating` and their like were computed from behaviour of later times, and a
recommender that reads them has seen its own test set.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from genrec.config import IngestConfig
from genrec.data.sources.cells import InputLog
from genrec.data.sources.records import Item, RawData, read_interactions, read_items
from genrec.data.sources.rows import InputFile, columns_of
from genrec.errors import ConfigError, DataError
from genrec.progress import Progress

_OLD_REVIEWS = {
    "reviewerID": "user_id",
    "asin": "item_id",
    "overall": "rating",
    "unixReviewTime": "timestamp",
    "reviewText": "review",
}
_NEW_REVIEWS = {
    "user_id": "user_id",
    "parent_asin": "item_id",
    "rating": "rating",
    "timestamp": "timestamp",
    "text": "review",
}


@dataclass(frozen=True)
class Layout:
    """One kind of file: which columns tell it, and which of its columns is which of ours."""

    name: str
    holds: str  # reviews | metadata
    keys: tuple[str, ...]
    names: dict[str, str]
    ticks_per_second: int = 1


_COMMON = {"title": "title", "description": "description", "price": "price"}
# In order: the first whose keys are all there. Reviews come first, as metadata share `asin` with them.
LAYOUTS = (
    Layout("2014/2018 reviews", "reviews", ("reviewerID", "asin"), _OLD_REVIEWS),
    Layout("2023 reviews", "reviews", ("user_id", "parent_asin"), _NEW_REVIEWS, ticks_per_second=1000),
    Layout(
        "2023 metadata",
        "metadata",
        ("parent_asin",),
        {
            "parent_asin": "item_id",
            **_COMMON,
            "store": "brand",
            "categories": "categories",
            "main_category": "main_category",
        },
    ),
    Layout(
        "2018 metadata",
        "metadata",
        ("asin", "category"),
        {
            "asin": "item_id",
            **_COMMON,
            "brand": "brand",
            "category": "categories",
            "main_cat": "main_category",
        },
    ),
    Layout(
        "2014 metadata",
        "metadata",
        ("asin",),
        {"asin": "item_id", **_COMMON, "brand": "brand", "categories": "categories"},
    ),
)


def read(paths: Sequence[Path], config: IngestConfig, *, log: InputLog, progress: Progress) -> RawData:
    """Read reviews and metadata, in either order. An item without a title is fine here
    whatever `config` says: the reviews alone are a usual input, and ingest counts such items.

    Raises ConfigError for another number of files, DataError where a file is of no known layout.
    """
    files, columns = _files_by_content(paths)
    if "reviews" not in files:
        raise DataError(f"{paths[0].name} holds metadata and no reviews.", "Name the file of reviews, too.")
    words: list[str] = []
    facts: dict[str, Any] = {"layout": [layout.name for _, layout in files.values()]}
    items: list[Item] = []
    repeats: list[int] = []
    if "metadata" in files:
        file, layout = files["metadata"]
        items = read_items(
            file, layout.names, log=log, keep_others=False, title_required=False, repeats=repeats, progress=progress
        )
        left_out = sorted(set(columns[file.path]) - set(layout.names))
        words.append(f"Left out of the metadata (not descriptions of an item): {', '.join(left_out) or 'none'}.")
    file, layout = files["reviews"]
    interactions = read_interactions(
        file,
        layout.names,
        log=log,
        known_items=None,
        ticks_per_second=layout.ticks_per_second,
        progress=progress,
    )
    if repeats:
        words.append(f"{len(repeats):,} further metadata rows of items already read were left out.")
    items = _with_reviewed([_unescaped(item, log) for item in items], interactions)
    facts["num_repeated_metadata_rows"] = len(repeats)
    return RawData(items, interactions, [file.path for file, _ in files.values()], words, facts)


def _files_by_content(
    paths: Sequence[Path],
) -> tuple[dict[str, tuple[InputFile, Layout]], dict[Path, list[str]]]:
    if len(paths) not in (1, 2):
        raise ConfigError(
            f"`amazon` reads one or two files and got {len(paths)}.",
            "Name the file of reviews and, if there is one, the file of metadata.",
        )
    columns = {path: columns_of(InputFile(path)) for path in paths}
    files: dict[str, tuple[InputFile, Layout]] = {}
    for path in paths:
        layout = _layout_of(path, columns[path])
        if layout.holds in files:
            raise DataError(
                f"{files[layout.holds][0].name} and {path.name} both hold {layout.holds}.",
                "Name one file of reviews and one of metadata.",
            )
        files[layout.holds] = (InputFile(path), layout)
    return files, columns


def _layout_of(path: Path, columns: Sequence[str]) -> Layout:
    for layout in LAYOUTS:
        if all(key in columns for key in layout.keys):
            return layout
    raise DataError(
        f"{path.name} is of no known Amazon layout. Columns found: {', '.join(columns) or 'none'}.",
        "Reviews have reviewerID and asin (2014, 2018) or user_id and parent_asin (2023); for other tables use "
        "`genrec ingest tables`.",
    )


def _unescaped(item: Item, log: InputLog) -> Item:
    """Amazon's texts hold HTML entities (`&amp;`)."""

    def plain(value: Any) -> Any:
        if isinstance(value, list):
            return [plain(part) for part in value]
        # Cleaned again: an entity can stand for a control character.
        return log.clean(html.unescape(value)) if isinstance(value, str) else value

    return {name: value if name == "item_id" else plain(value) for name, value in item.items()}


def _with_reviewed(items: list[Item], interactions: pl.DataFrame) -> list[Item]:
    """Add the items that only the reviews know; ingest gives them their `item_id` as title."""
    known = {item["item_id"] for item in items}
    # Sorted: the order of first appearance would tell which items came late, and ties are broken by order.
    missing = sorted(set(interactions["item_id"].unique().to_list()) - known)
    return items + [{"item_id": item_id, "title": None} for item_id in missing]
