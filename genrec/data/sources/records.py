"""From rows of any layout to the two raw tables that every source hands to ingest.

A source says which of its columns is which; checking, cleaning and naming of bad rows happen here, once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from genrec.data.sources.cells import (
    LIST_FIELDS,
    MEDIA_FIELDS,
    BadCellError,
    InputLog,
    TimestampCells,
    has_control,
    parse_id,
    parse_known_item,
    parse_list,
    parse_media,
    parse_rating,
    parse_text,
    row_name,
    shown,
)
from genrec.data.sources.rows import InputFile, Row, read_rows
from genrec.errors import DataError
from genrec.progress import SILENT, Progress

KNOWN_COLUMNS = ("item_id", "title", "description", "brand", *LIST_FIELDS, *MEDIA_FIELDS)
INTERACTION_SCHEMA = {
    "user_id": pl.String,
    "item_id": pl.String,
    "timestamp": pl.Float64,  # Unix seconds; null where the order in the file counts
    "rating": pl.Float64,
    "review": pl.String,
    "explanation": pl.String,
}
Item = dict[str, Any]


@dataclass(frozen=True)
class RawData:
    """What a source read: items (unique `item_id`, title or None), interactions in file order, and its words."""

    items: list[Item]
    interactions: pl.DataFrame  # INTERACTION_SCHEMA
    files: list[Path]
    words: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


def require_columns(file: InputFile, found: Sequence[str], *, needed: Sequence[str], what: str) -> None:
    """Raise DataError, listing the columns found, where a needed one is missing."""
    missing = [column for column in needed if column not in found]
    if missing:
        raise DataError(
            f"{file.name} lacks the column {', '.join(missing)}. Columns found: {', '.join(found) or 'none'}.",
            f"{what} needs {' and '.join(needed)}.",
        )


def read_items(
    file: InputFile,
    names: Mapping[str, str] | None,
    *,
    log: InputLog,
    keep_others: bool = True,
    title_required: bool = True,
    repeats: list[int] | None = None,
    check: Callable[[Item], list[tuple[str, BadCellError]]] | None = None,
    progress: Progress = SILENT,
) -> list[Item]:
    """Read items. `names` maps columns of the file to ours; if `keep_others`, other columns become attributes, and
    those of KNOWN_COLUMNS that only some rows have are read as what they are.

    With `names` None the columns have our names, and an item has the keys that its own row has. A second row of
    an item is a problem, unless `repeats` is given: then it is left out and its line is appended there. `check`
    finds more problems of an item: columns and what is wrong. Media paths must exist in the file's folder.
    """
    parsers = _item_parsers(log, file.path.parent, title_required=title_required)
    lines: dict[str, int] = {}
    items = []
    for number, row in read_rows(file, log, progress=progress):
        own = {"item_id": "item_id"} if names is None else names
        if keep_others:
            own = {**own, **{name: name for name in KNOWN_COLUMNS if name in row}}
        item, bad = _parse_item(row, own, parsers, log, keep_others)
        item_id = item.get("item_id")
        if item_id in lines and repeats is not None:
            repeats.append(number)
            continue
        if item_id in lines:
            found = f"{shown(item_id)} is already on {row_name(file.name, lines[item_id])}"
            bad.append((_name_of("item_id", own), BadCellError(found, "every item once")))
        elif item_id:
            lines[item_id] = number
            bad += [] if check is None else check(item)
        for column, error in bad:
            log.reject(file.name, number, found=error.found, expected=error.expected, column=column)
        if not bad:
            items.append(item)
    return items


def _item_parsers(log: InputLog, folder: Path, *, title_required: bool) -> dict[str, Callable[[Any], Any]]:
    def title(value: Any) -> str | None:
        text = parse_text(value, log)
        if text is None and title_required:
            raise BadCellError("is empty", "a title: the run was ingested with --empty-title stop")
        return text

    parsers: dict[str, Callable[[Any], Any]] = {"item_id": parse_id, "title": title}
    parsers |= dict.fromkeys(("description", "brand"), partial(parse_text, log=log))
    parsers |= dict.fromkeys(LIST_FIELDS, partial(parse_list, log=log))
    parsers |= dict.fromkeys(MEDIA_FIELDS, partial(parse_media, folder=folder, log=log))
    return parsers


def _parse_item(
    row: Mapping[str, Any],
    names: Mapping[str, str],
    parsers: Mapping[str, Callable[[Any], Any]],
    log: InputLog,
    keep_others: bool,
) -> tuple[Item, list[tuple[str, BadCellError]]]:
    item: Item = {}
    bad = []
    for column, name in names.items():
        if name not in parsers:
            item[name] = log.clean_all(row.get(column))
            continue
        try:
            item[name] = parsers[name](row.get(column))
        except BadCellError as error:
            bad.append((column, error))
    if keep_others:
        for column in (column for column in row if column not in names):
            if has_control(column):
                bad.append((shown(column), BadCellError("is no name", "one without control characters")))
            else:
                item[column] = log.clean_all(row[column])
    return item, bad


def _name_of(ours: str, names: Mapping[str, str]) -> str:
    return next(column for column, name in names.items() if name == ours)


def read_interactions(
    file: InputFile,
    names: Mapping[str, str],
    *,
    log: InputLog,
    known_items: Collection[str] | None,
    items_name: str = "",
    ticks_per_second: int = 1,
    progress: Progress = SILENT,
) -> pl.DataFrame:
    """Read interactions in file order, (N, INTERACTION_SCHEMA). `names` maps columns of the file to ours.

    Every `item_id` must be in `known_items`, which came from the table called `items_name`; None allows all.
    """
    ours = {name: column for column, name in names.items()}
    item_cell = _cached(
        parse_id if known_items is None else partial(parse_known_item, known=known_items, table=items_name)
    )
    text_cell = partial(parse_text, log=log)
    parsers: dict[str, Callable[[Any], Any]] = {
        "user_id": _cached(parse_id),
        "item_id": item_cell,
        "timestamp": TimestampCells(ticks_per_second),
        "rating": parse_rating,
        "review": text_cell,
        "explanation": text_cell,
    }
    cells = [(ours[name], parsers[name]) for name in INTERACTION_SCHEMA if name in ours]
    records, untimed = _parse_interactions(read_rows(file, log, progress=progress), cells, file.name, log)
    if 0 < len(untimed) < len(records):
        for number in untimed.values():
            expected = "a timestamp, as other rows have one (or none in any row)"
            log.reject(file.name, number, found="is empty", expected=expected, column=ours["timestamp"])
        records = [record for place, record in enumerate(records) if place not in untimed]
    columns = zip(*records, strict=True) if records else ([] for _ in cells)
    values = dict(zip((name for name in INTERACTION_SCHEMA if name in ours), columns, strict=True))
    series = [
        pl.Series(name, values.get(name, [None] * len(records)), dtype=dtype)
        for name, dtype in INTERACTION_SCHEMA.items()
    ]
    return pl.DataFrame(series)


def _parse_interactions(
    rows: Iterator[Row], cells: Sequence[tuple[str, Callable[[Any], Any]]], name: str, log: InputLog
) -> tuple[list[tuple[Any, ...]], dict[int, int]]:
    """What the good rows hold, and those without a time: their place among them → the row's number."""
    records: list[tuple[Any, ...]] = []
    untimed: dict[int, int] = {}
    time = next((place for place, (_, parse) in enumerate(cells) if isinstance(parse, TimestampCells)), None)
    for number, row in rows:
        record = []
        for column, parse in cells:
            try:
                record.append(parse(row.get(column)))
            except BadCellError as error:
                log.reject(name, number, found=error.found, expected=error.expected, column=column)
        if len(record) == len(cells):
            if time is not None and record[time] is None:
                untimed[len(records)] = number
            records.append(tuple(record))
    return records, untimed


def _cached(parse: Callable[[Any], str]) -> Callable[[Any], str]:
    """Parse every id once; equal ids then share one string, which keeps millions of rows small."""
    seen: dict[Any, str] = {}

    def parse_once(value: Any) -> str:
        # True == 1 in a dict, and a list has no hash: only text and numbers that are not bool are looked up.
        if type(value) is not str and type(value) is not int:
            return parse(value)
        parsed = seen.get(value)
        if parsed is None:
            parsed = seen[value] = parse(value)
        return parsed

    return parse_once


def items_frame(items: Sequence[Item]) -> pl.DataFrame:
    """Items as a table, (I, columns): the known columns first, then attributes in order of appearance.

    A column of whole numbers, numbers, truth values or lists keeps its type; one of anything else is text,
    with JSON for what has no plain text.
    """
    found: dict[str, None] = {}
    for item in items:
        found.update(dict.fromkeys(item))
    ordered = [column for column in KNOWN_COLUMNS if column in found]
    ordered += [column for column in found if column not in KNOWN_COLUMNS]
    return pl.DataFrame([_series(column, [item.get(column) for item in items]) for column in ordered])


def _series(name: str, values: list[Any]) -> pl.Series:
    kinds = {type(value) for value in values if value is not None}
    if name in LIST_FIELDS or kinds == {list}:
        lists = [[_as_text(part) for part in value or []] for value in values]
        return pl.Series(name, lists, dtype=pl.List(pl.String))
    if kinds == {bool}:
        return pl.Series(name, values, dtype=pl.Boolean)
    fits = kinds <= {int, float} and all(value is None or abs(value) < 2**63 for value in values)
    if kinds == {int} and fits:
        return pl.Series(name, values, dtype=pl.Int64)
    if float in kinds and fits:
        return pl.Series(name, [None if value is None else float(value) for value in values], dtype=pl.Float64)
    texts = [None if value is None else _as_text(value) for value in values]
    return pl.Series(name, texts, dtype=pl.String)


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
