"""From a file (CSV, JSON lines, Parquet, MovieLens `.dat`; plain, `.gz` or inside a `.zip`) to rows.

A row is `(number, {column: value})`. The number is what a person needs to find it: the line of the file
(of its first line where a quoted CSV cell spans several), or the row for Parquet, both from 1. What makes a
whole file unreadable raises DataError at once; what is wrong with one row goes into the `InputLog`, so that
all of them can be shown together.
"""

from __future__ import annotations

import ast
import csv
import gzip
import io
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

import polars as pl

from genrec.data.sources.cells import MAX_DEPTH, InputLog, is_too_deep
from genrec.errors import DataError
from genrec.progress import SILENT, Progress

Row = tuple[int, dict[str, Any]]
_FORMATS = {
    ".csv": "csv",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".parquet": "parquet",
    ".dat": "dat",
}
_DAMAGED = (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile)
_PEEKED_ROWS = 100  # JSON lines have no header: the columns are the keys of the first rows
_LINES_PER_REPORT = 10_000
_LONGEST_CELL = 1 << 24  # of a CSV file; a quote that never closes takes no more memory than this


@dataclass(frozen=True)
class InputFile:
    """A file to read: `path`, or `member` inside it where `path` is a `.zip`.

    `dat_columns` names the columns of a `.dat` file, which has no header.
    """

    path: Path
    member: str = ""
    dat_columns: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Short name for messages."""
        return f"{self.path.name}:{self.member}" if self.member else self.path.name

    @property
    def format(self) -> str:
        """`csv`, `json`, `parquet` or `dat`. Raises DataError where the file's ending says none of them."""
        name = (self.member or self.path.name).lower()
        suffix = Path(name.removesuffix(".gz")).suffix
        if suffix not in _FORMATS:
            raise DataError(
                f"{self.name}: a file with this ending cannot be read.",
                "Use .csv, .jsonl (one JSON object a line) or .parquet, each also with .gz.",
            )
        return _FORMATS[suffix]

    @contextmanager
    def open(self) -> Iterator[tuple[IO[bytes], Callable[[], int], int]]:
        """Yield the bytes, a function that says how many were read of the file, and its size in bytes.

        Raises DataError where the file is missing, may not be read, or is truncated.
        """
        try:
            with self.path.open("rb") as raw:
                size = self.path.stat().st_size
                if self.member:
                    with zipfile.ZipFile(raw) as archive, archive.open(self.member) as inner:
                        yield inner, inner.tell, archive.getinfo(self.member).file_size
                elif self.path.name.lower().endswith(".gz"):
                    with gzip.GzipFile(fileobj=raw) as unpacked:
                        yield io.BufferedReader(unpacked), raw.tell, size
                else:
                    yield raw, raw.tell, size
        except _DAMAGED as error:
            raise DataError(
                f"{self.path} is truncated or damaged: {error or type(error).__name__}.",
                "Copy or download the file again.",
            ) from error
        except OSError as error:
            raise DataError(f"{self.path} cannot be read: {error.strerror or error}.", "Check the path.") from error


def columns_of(file: InputFile) -> list[str]:
    """The columns of a table: the header, or for JSON lines the keys of the first 100 rows.

    Raises DataError where the file cannot be read, holds nothing, or has a nameless or repeated column.
    """
    if file.format == "dat":
        return list(file.dat_columns)
    if file.format == "csv":
        return _csv_header(file)
    if file.format == "parquet":
        return _parquet(file).columns
    return _json_keys(file)


def read_rows(file: InputFile, log: InputLog, *, progress: Progress = SILENT) -> Iterator[Row]:
    """Every readable row of a file, in order; the unreadable ones go into `log`.

    CSV and `.dat` give text values, JSON lines and Parquet typed ones. Raises DataError where the file as a
    whole cannot be read.
    """
    readers = {"csv": _csv_rows, "json": _json_rows, "dat": _dat_rows, "parquet": _parquet_rows}
    return readers[file.format](file, log, progress)


def _lines(file: InputFile, progress: Progress) -> Iterator[tuple[int, bytes]]:
    with file.open() as (stream, position, size):
        done = 0
        with progress.track(f"reading {file.name}", size // 1024 + 1, "kB") as task:
            for number, line in enumerate(stream, start=1):
                yield number, line
                if number % _LINES_PER_REPORT == 0:
                    read = position() // 1024
                    task.advance(read - done)
                    done = read
            task.advance(size // 1024 + 1 - done)


def _decoded(number: int, line: bytes) -> str:
    return line.decode("utf-8-sig" if number == 1 else "utf-8")


def _csv_header(file: InputFile) -> list[str]:
    with file.open() as (stream, _, _):
        try:
            first = next(iter(stream), b"").decode("utf-8-sig")
            header = next(csv.reader([first], strict=True), [])
        except (UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{file.name}, line 1: {error}.", "Save the table as CSV in UTF-8.") from error
    repeated = sorted({column for column in header if header.count(column) > 1})
    if not header:
        raise DataError(f"{file.name} is empty.", "Its first line should name the columns.")
    if "" in header:
        raise DataError(f"{file.name}: column {header.index('') + 1} has no name.", "Give every column a name.")
    if repeated:
        raise DataError(f"{file.name} has the column {repeated[0]!r} twice.", "Give each its own name.")
    return header


def _json_keys(file: InputFile) -> list[str]:
    log = InputLog()
    columns: dict[str, None] = {}
    for _, row in islice(_json_rows(file, log, SILENT), _PEEKED_ROWS):
        columns.update(dict.fromkeys(row))
    if not columns:
        found = f"holds no row that can be read: {log.problems[0]}" if log.problems else "is empty."
        raise DataError(f"{file.name} {found}", "Each of its lines should be a JSON object.")
    return list(columns)


def _csv_rows(file: InputFile, log: InputLog, progress: Progress) -> Iterator[Row]:
    header = _csv_header(file)
    undecodable: dict[int, UnicodeDecodeError] = {}

    def text() -> Iterator[str]:
        for number, line in _lines(file, progress):
            try:
                yield _decoded(number, line)
            except UnicodeDecodeError as error:
                # The CSV reader needs every line, or quotes would no longer pair up: the row falls below.
                undecodable[number] = error
                yield line.decode("utf-8", errors="replace")

    csv.field_size_limit(_LONGEST_CELL)
    reader = csv.reader(text(), strict=True)
    next(reader)
    while True:
        number = reader.line_num + 1
        undecodable.clear()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            expected = f"quotes that open and close, and at most {_LONGEST_CELL:,} letters in a cell"
            log.reject(file.name, number, found=f"is not a CSV row: {error}", expected=expected)
            for line in range(number + 1, reader.line_num + 1):
                found = f"stands inside a quote of the row that begins on line {number}"
                log.reject(file.name, line, found=found, expected=expected)
            continue
        if undecodable:
            _reject_encoding(file, log, *next(iter(undecodable.items())))
        elif cells and len(cells) != len(header):
            log.reject(
                file.name, number, found=f"has {len(cells)} field(s)", expected=f"{len(header)}, as in the header"
            )
        elif cells:
            yield number, dict(zip(header, cells, strict=True))


def _reject_encoding(file: InputFile, log: InputLog, number: int, error: UnicodeDecodeError) -> None:
    found = f"byte 0x{error.object[error.start]:02x} at position {error.start} is not valid UTF-8"
    log.reject(file.name, number, found=found, expected="text in UTF-8")


def _json_rows(file: InputFile, log: InputLog, progress: Progress) -> Iterator[Row]:
    for number, line in _lines(file, progress):
        try:
            text = _decoded(number, line)
        except UnicodeDecodeError as error:
            _reject_encoding(file, log, number, error)
            continue
        if not text.strip():
            continue
        try:
            row = _parse_object(text)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
            log.reject(file.name, number, found=f"is not valid JSON: {error}", expected="one JSON object a line")
            continue
        if not isinstance(row, dict):
            log.reject(file.name, number, found=f"is a JSON {type(row).__name__}", expected="one JSON object a line")
        # Counting brackets is fast, and few of them need no closer look.
        elif text.count("[") + text.count("{") > MAX_DEPTH and is_too_deep(row):
            log.reject(file.name, number, found="is nested too deeply", expected=f"at most {MAX_DEPTH} levels")
        else:
            yield number, row


def _parse_object(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        # Amazon's metadata of 2014 are Python dicts, one a line. literal_eval runs no code.
        if not text.lstrip().startswith("{'"):
            raise
        row = ast.literal_eval(text.strip())
        if not all(isinstance(key, str) for key in row):
            raise ValueError("a key is not text") from None
        return row


def _dat_rows(file: InputFile, log: InputLog, progress: Progress) -> Iterator[Row]:
    columns: Sequence[str] = file.dat_columns
    for number, line in _lines(file, progress):
        try:
            text = _decoded(number, line)
        except UnicodeDecodeError:
            text = line.decode("latin-1")  # MovieLens 1M is in Latin-1, 10M in UTF-8
        cells = text.rstrip("\r\n").split("::")
        if len(cells) != len(columns):
            log.reject(
                file.name, number, found=f"has {len(cells)} field(s)", expected=f"{len(columns)} separated by `::`"
            )
            continue
        yield number, dict(zip(columns, cells, strict=True))


def _parquet(file: InputFile) -> pl.DataFrame:
    with file.open() as (stream, _, _):
        content = stream.read()
    try:
        return pl.read_parquet(io.BytesIO(content))
    # polars panics, past Exception, on some damaged files; a panic is a BaseException of its own.
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise DataError(
            f"{file.path} is not a whole Parquet file: {str(error).splitlines()[0]}.",
            "It may be truncated: write or copy it again.",
        ) from error


def _parquet_rows(file: InputFile, log: InputLog, progress: Progress) -> Iterator[Row]:
    table = _parquet(file)
    with progress.track(f"reading {file.name}", table.height, "rows") as task:
        for start in range(0, table.height, _LINES_PER_REPORT):
            part = table.slice(start, _LINES_PER_REPORT)
            yield from enumerate(part.iter_rows(named=True), start=start + 1)
            task.advance(part.height)
