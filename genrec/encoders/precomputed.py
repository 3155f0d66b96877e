"""A file of vectors made elsewhere to the vectors and mask of one modality.

`.npy` has one row per item in catalogue order. Tables (`.parquet`, `.jsonl`, `.csv`, the last two also
`.gz`) have `item_id` and the numbers, in one list column or in one column per number; items that they leave
out, or whose cell is empty, are missing. So is, in every format, a row of NaN alone. I items, D width.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from genrec.data.catalog import Catalog
from genrec.errors import BadRowsError, DataError
from genrec.run import file_checksum


def _read_json_lines(file: Path) -> pl.DataFrame:
    """The rows of a JSON lines file. Raises DataError naming the first line that is none."""
    try:
        return pl.read_ndjson(file, infer_schema_length=None)
    except pl.exceptions.PolarsError:
        pass  # among others over NaN and Infinity, which Python's json writes and reads, but whose row is to be named
    rows: list[dict[str, object]] = []
    with (gzip.open if file.suffix == ".gz" else open)(file, "rt", encoding="utf-8") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                row = json.loads(line) if line.strip() else {}
            except (ValueError, RecursionError) as error:
                raise DataError(f"{file}, line {number}: not valid JSON: {error}.", "Is the file complete?") from error
            if not isinstance(row, dict):
                raise DataError(f"{file}, line {number}: expected an object.", 'Such as {"item_id": "a", "v": [0.5]}.')
            rows += [row] if row else []
    return pl.DataFrame(rows, infer_schema_length=None, strict=False)


_READERS: dict[str, Callable[[Path], pl.DataFrame]] = {
    ".parquet": pl.read_parquet,
    ".jsonl": _read_json_lines,
    ".csv": lambda file: pl.read_csv(file, infer_schema_length=None, schema_overrides={"item_id": pl.String}),
}


def read_vectors(file: Path, catalog: Catalog) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Vectors (I, D), zero where missing, and mask (I,) of a file.

    Raises DataError where the file cannot be read or has another shape than it should, BadRowsError listing
    every row with an unknown or repeated item, another width, or a number that is not finite.
    """
    if not file.is_file():
        raise DataError(f"{file} does not exist.", "Check the path of --precomputed NAME=FILE.")
    vectors, mask = _read_array(file, catalog) if file.suffix == ".npy" else _read_table(file, catalog)
    if not mask.any():
        raise DataError(f"{file} has a vector for no item of the catalogue.", "Check its item_id column.")
    return vectors, mask


def vectors_revision(file: Path) -> str:
    """What tells one version of a file from another."""
    return file_checksum(file)


def _read_array(file: Path, catalog: Catalog) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    try:
        array = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{file} is not a .npy file of numbers: {error}.", "Write it with np.save.") from error
    expected = f"Expected numbers of shape ({len(catalog)}, width), rows in the order of the catalogue."
    hint = "Or give a table with an item_id column, in any order."
    if array.ndim != 2 or array.shape[0] != len(catalog) or array.shape[1] == 0:
        raise DataError(f"{file} has shape {array.shape}. {expected}", hint)
    if array.dtype.kind not in "fiu":
        raise DataError(f"{file} holds {array.dtype}. {expected}", hint)
    vectors = array.astype(np.float32)
    mask = ~np.isnan(vectors).all(axis=1)
    vectors[~mask] = 0.0
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise BadRowsError(
            [f"{file.name}, row {row} ({catalog.item_ids[row]}): holds a number that is not finite" for row in bad],
            "An item without a vector has NaN in every column, or is left out of a table.",
        )
    return vectors, mask


def _read_table(file: Path, catalog: Catalog) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    item_ids, found = _rows(file)
    rows = [None if row is None or np.isnan(row).all() else row for row in found]  # an empty one has none that is not
    width = next((len(row) for row in rows if row is not None), 0)
    vectors = np.zeros((len(catalog), width), dtype=np.float32)
    mask = np.zeros(len(catalog), dtype=bool)
    problems: list[str] = []
    seen: dict[str, int] = {}
    for number, (item_id, row) in enumerate(zip(item_ids, rows, strict=True), start=1):
        problem = _problem(item_id, row, seen, catalog, width)
        if problem:
            problems.append(f"{file.name}, row {number}: {problem}")
            continue
        seen[str(item_id)] = number
        if row is not None:
            vectors[catalog.index[str(item_id)]] = row
            mask[catalog.index[str(item_id)]] = True
    if problems:
        raise BadRowsError(problems, "Mend the file; an item without a vector may simply be left out.")
    return vectors, mask


def _problem(
    item_id: str | None, row: NDArray[np.float32] | None, seen: dict[str, int], catalog: Catalog, width: int
) -> str:
    if item_id is None:
        return 'column "item_id" is empty. Expected the id of an item'
    if item_id not in catalog.index:
        return f'column "item_id": {item_id!r} is not in the catalogue'
    if item_id in seen:
        return f'column "item_id": {item_id!r} stands in row {seen[item_id]} already'
    if row is None:
        return ""
    if len(row) != width:
        return f"{len(row)} numbers. Expected {width}, as in the first row"
    if not np.isfinite(row).all():
        return "holds a number that is not finite, or an empty cell among others"
    return ""


def _rows(file: Path) -> tuple[list[str | None], list[NDArray[np.float32] | None]]:
    """Item ids and vectors of a table; None where a cell is empty."""
    suffixes = [suffix for suffix in file.suffixes if suffix != ".gz"]
    read = _READERS.get(suffixes[-1] if suffixes else "")
    if read is None:
        raise DataError(f"{file} has an unknown ending.", "Use .npy, .parquet, .jsonl, .jsonl.gz, .csv or .csv.gz.")
    try:
        table = read(file)
    # polars panics, past Exception, on some damaged Parquet files; a panic is a BaseException of its own.
    except (OSError, EOFError, ValueError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise DataError(f"{file} cannot be read: {error}.", "Is it complete, and is its ending right?") from error
    if "item_id" not in table.columns:
        raise DataError(
            f'{file} has no column "item_id"; its columns are {", ".join(table.columns)}.',
            "Add one, or give a .npy file in catalogue order.",
        )
    numbers = table.drop("item_id")
    lists = [name for name in numbers.columns if isinstance(numbers.schema[name], pl.List | pl.Array)]
    flat = [name for name in numbers.columns if numbers.schema[name].is_numeric()]
    others = [name for name in numbers.columns if name not in lists and name not in flat]
    # One list column or any number of plain ones, never both.
    if others or bool(flat) == bool(lists) or len(lists) > 1:
        raise DataError(
            f"{file}: beside item_id it has {', '.join(numbers.columns) or 'no column'}.",
            "Expected one column of lists of numbers, or one column per number, and nothing else.",
        )
    item_ids = table["item_id"].cast(pl.String).to_list()
    return item_ids, _list_rows(numbers[lists[0]], file) if lists else _flat_rows(numbers)


def _list_rows(column: pl.Series, file: Path) -> list[NDArray[np.float32] | None]:
    try:
        cells = column.cast(pl.List(pl.Float32)).to_list()
    except pl.exceptions.PolarsError as error:
        raise DataError(f'{file}, column "{column.name}" does not hold lists of numbers: {error}.') from error
    return [None if cell is None else np.array(cell, dtype=np.float32) for cell in cells]


def _flat_rows(numbers: pl.DataFrame) -> list[NDArray[np.float32] | None]:
    """Rows of one column per number; a row whose cells are all empty is a missing vector."""
    array = numbers.cast(pl.Float32).fill_null(float("nan")).to_numpy()
    empty = numbers.select(pl.all_horizontal(pl.all().is_null())).to_series().to_list()
    return [None if gone else row for gone, row in zip(empty, array, strict=True)]
