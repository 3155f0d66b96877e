"""A table of items and a table of interactions, in the contract of docs/data.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from genrec.config import IngestConfig
from genrec.data.sources.cells import MEDIA_FIELDS, InputLog
from genrec.data.sources.column_types import type_columns
from genrec.data.sources.records import (
    INTERACTION_SCHEMA,
    KNOWN_COLUMNS,
    Item,
    RawData,
    read_interactions,
    read_items,
    require_columns,
)
from genrec.data.sources.rows import InputFile, columns_of
from genrec.errors import ConfigError, DataError
from genrec.progress import Progress


def read(paths: Sequence[Path], config: IngestConfig, *, log: InputLog, progress: Progress) -> RawData:
    """Read the two tables, in either order: the one with `user_id` holds the interactions.

    Raises ConfigError where there are not two paths or `text_columns` cannot be followed, DataError where a needed
    column is missing.
    """
    if len(paths) != 2:
        raise ConfigError(
            f"`tables` reads two files and got {len(paths)}.",
            "Name the table of items (item_id, title, …) and the table of interactions (user_id, item_id, …).",
        )
    columns = {path: columns_of(InputFile(path)) for path in paths}
    # Stable: where the columns do not tell the two apart, the order given counts, and the check below speaks.
    items_path, interactions_path = sorted(
        paths, key=lambda path: ("user_id" in columns[path], "title" not in columns[path])
    )
    items_file, interactions_file = InputFile(items_path), InputFile(interactions_path)
    require_columns(items_file, columns[items_path], needed=("item_id", "title"), what="The table of items")
    require_columns(
        interactions_file, columns[interactions_path], needed=("user_id", "item_id"), what="The table of interactions"
    )
    _check_text_columns(items_file, columns[items_path], config.text_columns)
    item_names = {column: column for column in KNOWN_COLUMNS if column in columns[items_path]}
    items = read_items(items_file, item_names, log=log, title_required=config.empty_title == "stop", progress=progress)
    if not items and not log.problems:  # or every interaction would be a bad row
        raise DataError(f"{items_file.name}: there is not one item.", "Look whether this is the right file.")
    words = _typed(items_file, items, config.text_columns)
    interactions = read_interactions(
        interactions_file,
        {column: column for column in INTERACTION_SCHEMA},
        log=log,
        known_items={item["item_id"] for item in items},
        items_name=items_file.name,
        progress=progress,
    )
    has_media = any(column in item for item in items for column in MEDIA_FIELDS)
    facts = {"media_root": str(items_path.parent.resolve())} if has_media else {}
    return RawData(items, interactions, [items_path, interactions_path], words, facts)


def _check_text_columns(file: InputFile, columns: Sequence[str], as_text: Sequence[str]) -> None:
    if as_text and file.format != "csv":
        raise ConfigError(
            f"{file.name} says itself what is text, so text_columns ({', '.join(as_text)}) cannot be followed.",
            "Write the column as text there; text_columns is for a table in CSV.",
        )
    if missing := [name for name in as_text if name not in columns]:
        raise ConfigError(
            f"{file.name} has no column {missing[0]!r}, which text_columns names.", f"It has: {', '.join(columns)}."
        )


def _typed(file: InputFile, items: list[Item], as_text: Sequence[str]) -> list[str]:
    """Give the attributes of a CSV their types, in place; what to report of it."""
    if file.format != "csv":
        return []
    found = type_columns(items, as_text=as_text)
    kinds = [f"as {kind}: {', '.join(names)}" for kind, names in found.items() if names]
    return [f"{file.name}: read {'; '.join(kinds)} (--text-column NAME keeps one as text)."] if kinds else []
