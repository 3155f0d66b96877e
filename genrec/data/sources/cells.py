"""From a cell to a value, and the log of what was wrong on the way.

Text of a catalogue is untrusted and kept as it is: `<s0_17>` in a title is legal data. Only control
characters are taken out (they would break terminals, files and prompts), and counted.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

LIST_FIELDS = ("categories", "genres", "tags")
MEDIA_FIELDS = ("image", "audio", "video")
_BLANK = re.compile(r"[\t\n\r\x0b\x0c\x85]+")
# C0, DEL, C1, and halves of surrogate pairs, which JSON can hold and UTF-8 cannot.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_LATEST_SECONDS = 1e11  # the year 5138: anything later is not in seconds
_MAX_SHOWN = 80
MAX_DEPTH = 100  # levels of lists and objects in a cell: what is read of them calls itself at each
_NUMERIC = (str, int, float, Decimal)  # what may be a number; a tuple, as a union is built at every call


class BadCellError(Exception):
    """A cell's value is wrong; caught where the row is read and put into the log."""

    def __init__(self, found: str, expected: str) -> None:
        self.found = found
        self.expected = expected
        super().__init__(found)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with one row."""

    file: str
    row: int  # line of the file, or row for Parquet; from 1
    column: str  # "" where the row as a whole is wrong
    found: str
    expected: str

    def __str__(self) -> str:
        column = f', column "{self.column}"' if self.column else ""
        return f"{self.file}, {row_name(self.file, self.row)}{column}: {self.found}. Expected {self.expected}."


@dataclass
class InputLog:
    """What reading met: rows that are wrong, and control characters taken out of text."""

    problems: list[Problem] = field(default_factory=list)
    num_control_characters: int = 0
    num_addresses: int = 0  # of files elsewhere, which count as missing
    addresses_are_wrong: bool = False  # where the file that an item has would be lost by one

    @property
    def num_rejected_rows(self) -> int:
        """Rows with at least one problem."""
        return len({(problem.file, problem.row) for problem in self.problems})

    def reject(self, file: str, row: int, *, found: str, expected: str, column: str = "") -> None:
        """Note one problem of one row."""
        self.problems.append(Problem(file, row, column, found, expected))

    def json_lines(self) -> str:
        """The problems, one JSON object a line, as `rejected.jsonl` holds them."""
        return "".join(json.dumps(asdict(problem)) + "\n" for problem in self.problems)

    def clean(self, text: str) -> str:
        """Text with line breaks and tabs as spaces, other control characters taken out, ends trimmed."""
        if text.isprintable():
            return text.strip()
        text, count = _CONTROL.subn("", _BLANK.sub(" ", text))
        self.num_control_characters += count
        return text.strip()

    def clean_all(self, value: Any) -> Any:
        """`clean` for every text inside lists and dicts; dates and times as ISO 8601, empty text and NaN as None."""
        if isinstance(value, str):
            return self.clean(value) or None
        if isinstance(value, list):
            return [self.clean_all(part) for part in value if part is not None]
        if isinstance(value, dict):
            return {self.clean(str(key)): self.clean_all(part) for key, part in value.items()}
        if isinstance(value, Decimal):
            value = float(value)
        if isinstance(value, float) and not math.isfinite(value):
            return None
        if isinstance(value, date | time):
            return value.isoformat()
        return value


def is_too_deep(value: Any) -> bool:
    """Whether lists and dicts are nested more than MAX_DEPTH deep."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            part
            for one in level
            if isinstance(one, dict | list | tuple)
            for part in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return False
    return True


def row_name(file: str, row: int) -> str:
    """`line 3`, or `row 3` for Parquet, which has no lines."""
    unit = "row" if ".parquet" in file.lower() else "line"
    return f"{unit} {row}"


def has_control(name: str) -> bool:
    """Whether the name of a column holds a control character or half of a surrogate pair."""
    return _CONTROL.search(name) is not None


def shown(value: Any) -> str:
    """A value as messages show it: quoted, cut, control characters escaped."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    text = _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 1] + "…"


def whole_number_as_text(value: Any) -> Any:
    """A whole number as its decimal text, which is what it is called where it is an id; anything else as it came."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def parse_id(value: Any) -> str:
    """An id: text that is not empty, kept to the letter, or a whole number."""
    expected = "an id: text or a whole number"
    value = whole_number_as_text(value)
    if value is None or (isinstance(value, str) and not value.strip()):
        raise BadCellError("is empty", expected)
    if not isinstance(value, str):
        raise BadCellError(f"{shown(value)} is not an id", expected)
    if _CONTROL.search(value):
        raise BadCellError(f"{shown(value)} holds a control character", "an id of printable characters")
    return value


def parse_text(value: Any, log: InputLog) -> str | None:
    """Text, or None where there is none. Numbers become text, lists of texts are joined by spaces."""
    if value is None:
        return None
    if isinstance(value, list):
        value = " ".join(str(part) for part in value if part is not None)
    if isinstance(value, float) and math.isnan(value):
        return None
    if not isinstance(value, str | int | float):
        raise BadCellError(f"{shown(value)} is not text", "text, or an empty cell")
    return log.clean(str(value)) or None


def parse_list(value: Any, log: InputLog) -> list[str]:
    """A list of texts: a list (nested ones are flattened), one as JSON or Python writes it, or `A|B|C`. None twice."""
    if value is None:
        return []
    if isinstance(value, str):
        value = _split_list(value)
    if not isinstance(value, list):
        raise BadCellError(f"{shown(value)} is not a list", 'a list, "A|B|C", or an empty cell')
    texts: dict[str, None] = {}
    for part in value:
        for text in parse_list(part, log) if isinstance(part, list) else [parse_text(part, log)]:
            if text:
                texts[text] = None
    return list(texts)


def _split_list(text: str) -> list[Any]:
    if text.lstrip().startswith("["):
        try:
            parsed = _parsed_list(text)
        except (RecursionError, MemoryError):  # so many brackets
            parsed = None
        if parsed is None or is_too_deep(parsed):
            raise BadCellError("is nested too deeply", f"at most {MAX_DEPTH} levels")
        return list(parsed)
    return text.split("|")


def _parsed_list(text: str) -> Any:
    """What JSON or, as tables of pandas have it, Python writes as a list; else the text, split."""
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        found = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError):  # the last of a set or dict with a list as its key
        return text.split("|")
    return found if isinstance(found, list) else text.split("|")


def parse_rating(value: Any) -> float | None:
    """A finite number, or None for an empty cell."""
    if value is None or value == "":
        return None
    number = _number(value)
    if number is None:
        raise BadCellError(f"{shown(value)} is not a number", "a number, or an empty cell")
    return number


@dataclass
class TimestampCells:
    """Parses timestamps of one table: Unix time (`ticks_per_second` 1 or 1000) or ISO 8601, to seconds.

    All rows have one or none has: who reads the table looks when all are read (`records`). Of dates, one column has
    one kind: 20240102 beside 2024-01-02 would be a day of 1970.
    """

    ticks_per_second: int = 1
    kinds: set[str] = field(default_factory=set)

    def __call__(self, value: Any) -> float | None:
        """Seconds since 1970 (UTC), or None for an empty cell."""
        return None if value is None or value == "" else self._seconds(value)

    def _seconds(self, value: Any) -> float:
        number = _number(value)
        kind = "ISO 8601" if number is None else "digits that may be a date" if _may_be_date(value) else "Unix time"
        self.kinds.add(kind)
        if {"ISO 8601", "digits that may be a date"} <= self.kinds:
            found = f"{shown(value)} is written otherwise than other rows are"
            raise BadCellError(found, "one kind of time in all rows")
        if number is None:
            return _iso_seconds(value)
        if abs(number / self.ticks_per_second) >= _LATEST_SECONDS:
            raise BadCellError(f"{shown(value)} is too large", "Unix seconds (are these milliseconds?) or ISO 8601")
        return number / self.ticks_per_second


def _may_be_date(value: Any) -> bool:
    """Whether digits read as a year or as year, month and day: 2024, 20240102."""
    text = str(value).strip()
    return re.fullmatch(r"(?:19|20)\d\d(?:(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01]))?", text) is not None


def _iso_seconds(value: Any) -> float:
    try:
        if isinstance(value, str):
            value = datetime.fromisoformat(value.strip())
        if isinstance(value, date) and not isinstance(value, datetime):
            value = datetime(value.year, value.month, value.day)
        # A time without a zone is taken as UTC, so that the order does not depend on the machine.
        return float((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp())
    except (ValueError, AttributeError, OverflowError) as error:
        raise BadCellError(
            f"{shown(value)} is not a timestamp", "Unix seconds or ISO 8601, such as 2024-05-31T18:00:00Z"
        ) from error


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, _NUMERIC):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def parse_media(value: Any, folder: Path, log: InputLog) -> str | None:
    """A path relative to the table's folder that exists and stays inside it; None for an empty cell, and for the
    address of a file elsewhere: nothing is fetched."""
    if value is None or value == "":
        return None
    if isinstance(value, str) and value.startswith(("https://", "http://")):
        if log.addresses_are_wrong:
            raise BadCellError(f"{shown(value)} is an address, and nothing is fetched", "a path, or an empty cell")
        log.num_addresses += 1
        return None
    expected = "a path relative to the table, or an empty cell"
    if not isinstance(value, str) or _CONTROL.search(value):
        raise BadCellError(f"{shown(value)} is not a path", expected)
    try:
        target = (folder / value).resolve()
        found = target.is_file()
    except (OSError, RuntimeError):
        raise BadCellError(f"{shown(value)} is not a path", expected) from None
    if Path(value).is_absolute() or not target.is_relative_to(folder.resolve()):
        raise BadCellError(f"{shown(value)} leads outside the table's folder", expected)
    if not found:
        raise BadCellError(f"{shown(value)} does not exist", expected)
    return value


def parse_known_item(value: Any, known: Collection[str], table: str) -> str:
    """An id that the items table has."""
    item_id = parse_id(value)
    if item_id not in known:
        raise BadCellError(f"{shown(item_id)} is not an item of {table}", "an item_id with a good row there")
    return item_id
