"""A column turned round, against reading it cell by cell."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from genrec.data.attributes import Attribute


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["x", None, "x", "y"], [["x"], [], ["x"], ["y"]]),
        ([1994.0, None, 1994.5], [["1994"], [], ["1994.5"]]),
        ([True, False, None], [["true"], ["false"], []]),
        (["True", "FALSE", "Truth"], [["true"], ["false"], ["Truth"]]),
        ([["a", "b", "a"], None, [], ["b", None, "c"]], [["a", "b"], [], [], ["b", "c"]]),
        ([[1, 2], [2, 2]], [["1", "2"], ["2"]]),
        ([None, None], [[], []]),
        ([], []),
    ],
)
def test_every_row_has_its_values_and_every_value_its_rows(cells: list[Any], expected: list[list[str]]) -> None:
    attribute = Attribute.of("made", pl.Series(cells))
    texts = list(attribute.numbers)
    assert [[texts[number] for number in attribute.of_row(row)] for row in range(len(cells))] == expected
    for text, number in attribute.numbers.items():
        rows = [row for row, own in enumerate(expected) if text in own]
        assert attribute.rows_with(number).tolist() == rows
        assert attribute.mask([text, "nowhere"]).nonzero()[0].tolist() == rows
