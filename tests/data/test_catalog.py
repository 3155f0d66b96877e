"""Texts and rows of a catalogue."""

from __future__ import annotations

import polars as pl
import pytest

from genrec.data.catalog import Catalog
from genrec.errors import ConfigError, UnknownItemError
from genrec.run import text_checksum

CATALOG = Catalog(
    pl.DataFrame(
        {
            "item_id": ["b", "a", "c"],
            "title": ["Nail polish", "What?", "Soap"],
            "brand": ["OPI", None, None],
            "categories": [["Makeup", "Nails"], ["Books"], []],
            "main_category": [None, "Print.", None],
            "year": [1999, None, None],
        }
    )
)


def test_a_text_starts_with_the_title_and_names_the_other_fields() -> None:
    fields = ("title", "brand", "categories", "main_category", "year", "genres")
    assert CATALOG.texts(fields) == [
        "Nail polish. Brand: OPI. Categories: Makeup, Nails. Year: 1999.",
        "What? Categories: Books. Main category: Print.",
        "Soap",
    ]
    assert CATALOG.texts(["brand"]) == ["Brand: OPI", "", ""]


def test_fields_that_are_all_missing_are_an_error() -> None:
    with pytest.raises(ConfigError, match="none of the text fields plot") as caught:
        CATALOG.texts(["plot"])
    assert "main_category" in caught.value.hint


def test_indices_are_the_rows_of_the_ids_in_the_order_given() -> None:
    assert [CATALOG.item_ids[row] for row in CATALOG.indices(["c", "b", "c"])] == ["c", "b", "c"]
    assert CATALOG.indices([]).shape == (0,)
    assert len(CATALOG) == 3
    assert CATALOG.order_checksum == text_checksum(["b", "a", "c"])


def test_a_mask_is_of_the_items_that_a_column_names_and_unknown_ones_are_named() -> None:
    assert CATALOG.mask(pl.Series(["c", "b", "c"])).tolist() == [True, False, True]
    assert not CATALOG.mask(pl.Series([], dtype=pl.String)).any()
    with pytest.raises(UnknownItemError, match="3 items: q"):
        CATALOG.mask(pl.Series(["a", "q"]))


def test_nothing_is_taken_over_from_a_catalogue_of_other_ids() -> None:
    other = Catalog(pl.DataFrame({"item_id": ["b", "c"], "title": ["", ""]}))
    longer = Catalog(pl.DataFrame({"item_id": ["b", "a", "c", "d"], "title": [""] * 4}))
    assert not CATALOG.take_over(other)
    assert not CATALOG.take_over(longer)
    assert CATALOG.order_checksum == text_checksum(["b", "a", "c"])


def test_unknown_ids_are_named() -> None:
    with pytest.raises(UnknownItemError, match=r"3 items: q0, q1, q2, q3, q4 and 2 more"):
        CATALOG.indices(["a", *(f"q{number}" for number in range(7))])
