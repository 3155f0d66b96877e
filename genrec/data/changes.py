"""Files of new, changed and removed items, checked against a catalogue like the rows of its first table.

All that is wrong is named at once, by file, line and column, and then nothing is taken. A cell has to fit the
type that its column has in the catalogue: adding an item never changes what the others are.

R rows of the catalogue.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from genrec.data.catalog import Catalog
from genrec.data.sources.cells import MEDIA_FIELDS, BadCellError, InputLog, parse_list, shown
from genrec.data.sources.column_types import plain_number
from genrec.data.sources.records import KNOWN_COLUMNS, Item, read_items
from genrec.data.sources.rows import InputFile
from genrec.errors import BadRowsError, DataError
from genrec.progress import SILENT, Progress

Problems = list[tuple[str, BadCellError]]
Check = Callable[[Item], Problems]
_TRUTHS = {"true": True, "false": False, "1": True, "0": False}


def read_new_items(
    file: Path,
    catalog: Catalog,
    *,
    removed: NDArray[np.bool_],
    title_required: bool,
    media_root: Path,
    progress: Progress = SILENT,
) -> list[Item]:
    """Items to add, whole rows that fit the catalogue. An id of a `removed` (R,) item may come again.

    Media paths are relative to the file; they lead into `media_root` and are relative to it afterwards. Raises
    BadRowsError naming every bad row, DataError where the file cannot be read or holds nothing.
    """

    def check(item: Item) -> Problems:
        row = catalog.index.get(item["item_id"])
        if row is not None and not removed[row]:
            found = f"{shown(item['item_id'])} is in the catalogue already"
            return [("item_id", BadCellError(found, "a new id (`genrec items update` changes an item)"))]
        return _fit(item, catalog.table.schema) + _rebase(item, file.parent, media_root)

    whole = {name: name for name in KNOWN_COLUMNS}
    items = _read(file, whole, check, title_required=title_required, progress=progress)
    for item in items:
        item["title"] = item.get("title") or item["item_id"]
    return items


def read_changed_items(
    file: Path,
    catalog: Catalog,
    *,
    removed: NDArray[np.bool_],
    title_required: bool,
    media_root: Path,
    progress: Progress = SILENT,
) -> list[Item]:
    """Items to change: `item_id` and the new values of some columns; an empty cell empties, no cell keeps.

    Media paths as in `read_new_items`; an address is a bad cell, for it would take away the file that is there.
    Raises BadRowsError naming every bad row, DataError where the file cannot be read or holds nothing.
    """

    def check(item: Item) -> Problems:
        row = catalog.index.get(item["item_id"])
        if row is None or removed[row]:
            state = "was removed" if row is not None else "is not in the catalogue"
            found = f"{shown(item['item_id'])} {state}"
            return [("item_id", BadCellError(found, "an item of the catalogue (`genrec items add` adds one)"))]
        return _fit(item, catalog.table.schema) + _rebase(item, file.parent, media_root)

    items = _read(file, None, check, title_required=title_required, progress=progress)
    for item in items:
        if "title" in item:
            item["title"] = item["title"] or item["item_id"]
    return items


def read_removed_ids(file: Path, catalog: Catalog, *, removed: NDArray[np.bool_]) -> list[str]:
    """Ids to remove, one a line; empty lines do not count.

    Raises BadRowsError naming every line with an id that is not in the catalogue, is removed already or comes
    twice, DataError where the file cannot be read or holds nothing.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}.", "Check the path.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not text in UTF-8: {error}.", "Write one item_id a line.") from error
    log = InputLog()
    lines: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        item_id = line.removesuffix("\r")
        if not item_id.strip():
            continue
        row = catalog.index.get(item_id)
        if item_id in lines:
            found = f"{shown(item_id)} is already on line {lines[item_id]}"
            log.reject(file.name, number, found=found, expected="every item once")
        elif row is None or removed[row]:
            state = "was removed before" if row is not None else "is not in the catalogue"
            log.reject(file.name, number, found=f"{shown(item_id)} {state}", expected="the id of an item")
        lines.setdefault(item_id, number)
    _stop_at(log)
    if not lines:
        raise DataError(f"{file.name}: there is not one item.", "Write one item_id a line.")
    return list(lines)


def with_rows(table: pl.DataFrame, rows: Mapping[int, Item]) -> pl.DataFrame:
    """`table` (R) with some rows replaced by others; rows numbered from R on are appended. Columns stay."""
    numbers = sorted(rows)
    values = [
        {name: rows[number].get(name, _nothing(dtype)) for name, dtype in table.schema.items()} for number in numbers
    ]
    fresh = pl.DataFrame(values, schema=table.schema)
    here = np.arange(len(table))
    kept = ~np.isin(here, numbers)
    order = np.argsort(np.concatenate([here[kept], np.array(numbers, np.int64)]), kind="stable")
    return pl.concat([table.filter(pl.Series(kept)), fresh])[order]


def _nothing(dtype: pl.DataType) -> list[str] | None:
    return [] if isinstance(dtype, pl.List) else None


def _read(
    file: Path, names: Mapping[str, str] | None, check: Check, *, title_required: bool, progress: Progress
) -> list[Item]:
    log = InputLog(addresses_are_wrong=names is None)
    items = read_items(InputFile(file), names, log=log, title_required=title_required, check=check, progress=progress)
    _stop_at(log)
    if log.num_addresses:
        progress.say(f"{log.num_addresses:,} media cells are web addresses; nothing is fetched, they count as missing.")
    if not items:
        raise DataError(f"{file.name}: there is not one item.", "Look whether this is the right file.")
    return items


def _stop_at(log: InputLog) -> None:
    if log.problems:
        raise BadRowsError([str(problem) for problem in log.problems], "Mend these rows; the catalogue is as it was.")


def _rebase(item: Item, folder: Path, root: Path) -> Problems:
    """Make the item's media paths relative to `root` instead of `folder`, in place; what lies outside it."""
    problems: Problems = []
    for name in MEDIA_FIELDS:
        if not isinstance(item.get(name), str):
            continue
        target = (folder / item[name]).resolve()
        if target.is_relative_to(root.resolve()):
            item[name] = target.relative_to(root.resolve()).as_posix()
        else:
            found = f"{shown(item[name])} lies outside the folder of the catalogue's media, {root}"
            problems.append((name, BadCellError(found, "a file inside it")))
    return problems


def _fit(item: Item, schema: Mapping[str, pl.DataType]) -> Problems:
    """Give the item's values, in place, the types of the catalogue's columns; what does not fit."""
    problems: Problems = []
    for name in list(item):
        if name not in schema:
            if item[name] in (None, "", []):
                del item[name]  # an empty cell of a column that nobody has says nothing
                continue
            found = f"{shown(item[name])} stands in a column that the catalogue does not have"
            problems.append((name, BadCellError(found, f"one of {', '.join(schema)}")))
            continue
        try:
            item[name] = _fitted(item[name], schema[name])
        except BadCellError as error:
            problems.append((name, error))
    return problems


def _fitted(value: Any, dtype: pl.DataType) -> Any:
    if value is None:
        return _nothing(dtype)
    if isinstance(dtype, pl.List):
        parts = (
            parse_list(value, InputLog()) if isinstance(value, str) else value if isinstance(value, list) else [value]
        )
        return [part if isinstance(part, str) else json.dumps(part, ensure_ascii=False, default=str) for part in parts]
    if dtype == pl.String:
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    if dtype == pl.Boolean:
        truth = value if isinstance(value, bool) else _TRUTHS.get(str(value).lower())
        if truth is None:
            raise BadCellError(f"{shown(value)} is not true or false", "true or false, as in the catalogue")
        return truth
    return _number(value, whole=dtype.is_integer())


def _number(value: Any, *, whole: bool) -> int | float:
    """A number, or text that a table would be read as a number for: "007" is none, here as at ingest."""
    what = "a whole number" if whole else "a number"
    number = plain_number(value) if isinstance(value, str) else value
    if (
        isinstance(number, bool)
        or not isinstance(number, int | float)
        or abs(number) >= 2**63
        or not np.isfinite(number)
        or (whole and number != int(number))
    ):
        raise BadCellError(f"{shown(value)} is not {what}", f"{what}, as in the catalogue, or an empty cell")
    return int(number) if whole else float(number)
