"""A table of items and a table of interactions, in the contract of docs/data.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from genrec.config import IngestConfig
from genrec.data.sources.cells import MEDIA_FIELDS, InputLog
from genrec.data.sources.records import (
    INTERACTION_SCHEMA,
    KNOWN_COLUMNS,
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

    Raises ConfigError where there are not two paths, DataError where a needed column is missing.
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
    item_names = {column: column for column in KNOWN_COLUMNS if column in columns[items_path]}
    items = read_items(items_file, item_names, log=log, title_required=config.empty_title == "stop", progress=progress)
    if not items and not log.problems:  # or every interaction would be a bad row
        raise DataError(f"{items_file.name}: there is not one item.", "Look whether this is the right file.")
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
    return RawData(items, interactions, [items_path, interactions_path], facts=facts)
