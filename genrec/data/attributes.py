"""A column of the catalogue turned round: from a value to the rows that have it, so that a filter looks at no others.

A cell that is a list (genres, categories) has each of its values; an empty cell, or place in a list, has none. Values
are equal where their texts are: `1994` finds 1994, 1994.0 and "1994". In a column of numbers a text that is a number
is that number: "6.50" finds 6.5.

R rows of the catalogue, V distinct values, N pairs of a row and a value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from genrec.data.catalog import Catalog
from genrec.data.sources.column_types import plain_number
from genrec.errors import ConfigError


@dataclass(frozen=True, eq=False)
class Attribute:
    """One attribute of all rows, its values numbered as they first come. Make one with `read` or `of`."""

    name: str
    numbers: dict[str, int]  # V texts
    values: NDArray[np.int32]  # (N,) in the order of rows; row r has those in [row_starts[r], row_starts[r + 1])
    row_starts: NDArray[np.int64]  # (R + 1,)
    rows: NDArray[np.int32]  # (N,) in the order of values; value v has those in [value_starts[v], value_starts[v + 1])
    value_starts: NDArray[np.int64]  # (V + 1,)
    is_number: bool

    @classmethod
    def read(cls, catalog: Catalog, name: str) -> Attribute:
        """Raises ConfigError for an attribute that the catalogue does not have."""
        columns = catalog.table.columns
        if name not in columns:
            raise ConfigError(f"the catalogue has no attribute {name!r}.", f"It has: {', '.join(columns)}.")
        return cls.of(name, catalog.table[name])

    @classmethod
    def of(cls, name: str, cells: pl.Series) -> Attribute:
        """An attribute from its R cells. Python sees every distinct value once, and not every row."""
        pairs = pl.DataFrame({"row": np.arange(len(cells), dtype=np.int32), "value": cells})
        pairs = (pairs.explode("value") if isinstance(cells.dtype, pl.List) else pairs).drop_nulls("value")
        distinct = pairs["value"].unique(maintain_order=True)
        numbers: dict[str, int] = {}
        found = [numbers.setdefault(text, len(numbers)) for text in map(_as_text, distinct.to_list())]
        numbered = pl.DataFrame({"value": distinct, "number": pl.Series(found, dtype=pl.Int32)})
        pairs = pairs.join(numbered, on="value", maintain_order="left").select("row", "number")
        pairs = pairs.unique(maintain_order=True)  # a cell may say a thing twice
        owners, values = pairs["row"].to_numpy(), pairs["number"].to_numpy()
        row_starts = np.concatenate([[0], np.bincount(owners, minlength=len(cells)).cumsum()])
        value_starts = np.concatenate([[0], np.bincount(values, minlength=len(numbers)).cumsum()])
        rows = owners[np.argsort(values, kind="stable")]
        return cls(name, numbers, values, row_starts, rows, value_starts, cells.dtype.is_numeric())

    @property
    def num_rows(self) -> int:
        """R, of the catalogue that it was read from."""
        return len(self.row_starts) - 1

    def of_row(self, row: int) -> list[int]:
        """Numbers of a row's values, each once."""
        return self.values[self.row_starts[row] : self.row_starts[row + 1]].tolist()

    def rows_with(self, number: int) -> NDArray[np.int32]:
        """The rows that have a value, in ascending order."""
        return self.rows[self.value_starts[number] : self.value_starts[number + 1]]

    def mask(self, value: Any) -> NDArray[np.bool_]:
        """Rows that have `value`, or one of them where it is a list; (R,).

        Raises ConfigError for a value that no attribute can equal.
        """
        values = value if isinstance(value, list | tuple) else [value]
        if wrong := [one for one in values if not isinstance(one, str | int | float)]:
            raise ConfigError(
                f"attribute {self.name!r} cannot be compared with {wrong[0]!r}.",
                "Give a text, a number or a boolean, or a list of them: an item matches if it has one of them.",
            )
        found = np.zeros(self.num_rows, dtype=np.bool_)
        for text in map(self._wanted, values):
            if text in self.numbers:
                found[self.rows_with(self.numbers[text])] = True
        return found

    def _wanted(self, value: Any) -> str:
        number = plain_number(value) if self.is_number and isinstance(value, str) else None
        return _as_text(value if number is None else number)


def _as_text(value: Any) -> str:
    """Whole floats read like integers: a column of years with gaps may come as 1994.0. Truth values read alike, too."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    text = str(value)
    return text.lower() if text.lower() in ("true", "false") else text
