"""From the text of CSV columns to numbers and truth values: a CSV has no types, so its whole columns tell them.

An attribute is what all of its filled cells are, wherever in the file they stand: whole numbers, numbers or truth
values, else text. One rule for JSON lines, CSV and the rows that are added later, so that "under 20" and `price: 6`
mean the same on all of them. Codes that only look like numbers stay text: sums of them mean nothing, and "007" is
not 7.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Sequence

from genrec.data.sources.records import KNOWN_COLUMNS, Item

# As people and programs write numbers: no sign +, no blanks, no marks of thousands or currencies. 16 digits and more
# before the point are no amount, and no float holds them all.
_WHOLE = re.compile(r"-?(?:0|[1-9][0-9]{0,14})")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]+)?(?:e[+-][0-9]+)?")
_TRUTHS = {"true": True, "false": False}
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")  # "zip_code", "movieId", "ISBN13"
# A column whose name has one of these words names things, whatever its cells look like.
_NAMING = frozenset(
    re.findall(
        r"\w+", "id ids code codes barcode ean upc gtin isbn issn asin sku zip zipcode postcode plz phone telephone fax"
    )
)


def plain_number(text: str) -> int | float | None:
    """The number that a whole text is, or None: "6", "-0.5" and "1e-05", but neither "007" nor "+6" nor "1,000"."""
    if _WHOLE.fullmatch(text):
        return int(text)
    number = float(text) if _NUMBER.fullmatch(text) else math.inf
    return number if math.isfinite(number) else None


def type_columns(items: Sequence[Item], *, as_text: Collection[str]) -> dict[str, list[str]]:
    """Give the attributes of items that were read from a CSV their types, in place.

    Columns of our own (KNOWN_COLUMNS), those that name things and those of `as_text` stay as they are. Returns the
    columns of "numbers" and of "truth values".
    """
    found: dict[str, list[str]] = {"numbers": [], "truth values": []}
    columns = dict.fromkeys(name for item in items for name in item if name not in KNOWN_COLUMNS)
    for name in columns:
        if name in as_text or not _NAMING.isdisjoint(word.lower() for word in _WORD.findall(name)):
            continue
        for kind, read in (("numbers", plain_number), ("truth values", _truth)):
            if _read_column(items, name, read):
                found[kind].append(name)
                break
    return found


def _read_column(items: Sequence[Item], name: str, read: Callable[[str], object]) -> bool:
    """Put what `read` makes of a column's filled cells in their places, if it makes something of all of them."""
    values = []
    for item in items:
        cell = item.get(name)
        value = None if cell is None else read(cell)
        if value is None and cell is not None:
            return False
        values.append(value)
    if all(value is None for value in values):
        return False
    for item, value in zip(items, values, strict=True):
        item[name] = value
    return True


def _truth(text: str) -> bool | None:
    return _TRUTHS.get(text.lower())
