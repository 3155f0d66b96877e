"""Titles that are small words or numbers, against sentences that were read by a person."""

from __future__ import annotations

import polars as pl
import pytest

from genrec.chat.catalogue_index import CatalogueIndex
from genrec.chat.reading import read_message
from genrec.data.catalog import Catalog

SHELF = CatalogueIndex.build(
    Catalog(
        pl.DataFrame(
            {
                "item_id": ["the", "of", "and", "it", "1984", "9", "alien"],
                "title": ["The", "Of", "And", "It", "1984", "9", "Alien"],
                "year": [2010, 2011, 2012, 1990, 1956, 2009, 1979],
            }
        )
    )
)


@pytest.mark.parametrize(
    ("text", "titles"),
    [
        ("I want the best of the old films", ()),
        ("show me The Godfather and Lord Of The Rings", ()),
        ("the", ()),
        ("The", ()),
        ('I loved "The"', ("the",)),
        ("I loved the 2010", ("the",)),
        ('something like "Of"', ("of",)),
        ("I loved Alien And the rest", ("alien",)),
        ("I loved It", ("it",)),  # a word that titles seldom have in them
    ],
)
def test_a_title_of_a_word_that_is_in_every_sentence_needs_quotation_marks_or_its_year(
    text: str, titles: tuple[str, ...]
):
    found = read_message(SHELF, text, has_slate=False).titles
    assert tuple(SHELF.catalog.item_ids[title.rows[0]] for title in found) == titles


HOURS = CatalogueIndex.build(
    Catalog(
        pl.DataFrame(
            {
                "item_id": ["127", "13", "monkeys", "years"],
                "title": ["127 Hours", "13 Hours", "12 Monkeys", "Seven Years in Tibet"],
                "year": [2010, 2016, 1995, 1997],
            }
        )
    )
)


@pytest.mark.parametrize(
    ("text", "titles", "unjudged"),
    [
        ("shorter than 2 hours", (), ("shorter",)),
        ("something shorter than 2 hours please", (), ("shorter",)),
        ("longer than 127 hours", (), ("longer",)),
        ("less than 3 hours", (), ()),
        ("I've seen 2 hours of it", (), ()),
        ("older than 10 years", (), ("older than 10 years",)),
        ("something better than 127 Hours", ("127",), ("better",)),
        ("I loved 127 hours", ("127",), ()),
        ("newer than 12 monkeys", ("monkeys",), ()),
        ("I loved seven yeers in tibet", ("years",), ()),
    ],
)
def test_a_measure_is_no_title(text: str, titles: tuple[str, ...], unjudged: tuple[str, ...]):
    reading = read_message(HOURS, text, has_slate=True)
    assert tuple(HOURS.catalog.item_ids[title.rows[0]] for title in reading.titles) == titles
    assert reading.unjudged == unjudged


@pytest.mark.parametrize(
    ("text", "titles", "ranges"),
    [
        ("something like 1984", ("1984",), []),
        ("films like 1984 but newer", ("1984",), []),
        ("similar to 1984, please", ("1984",), []),
        ("something like 1984 from 1979", ("1984",), [(1979, 1979)]),
        ("it reminds me of 1984", ("1984",), []),
        ("I loved 1984", ("1984",), []),
        ("Alien and 1984", ("alien", "1984"), []),
        ("I saw Alien or 9", ("alien",), []),
        ("I saw Alien, 1984", ("alien",), [(1984, 1984)]),
        ("something from 1984", (), [(1984, 1984)]),
        ("a film of 1984", (), [(1984, 1984)]),
        ("I like 1984", (), [(1984, 1984)]),
        ("something older than 1984", (), [(None, 1983)]),
        ("something like 1985", (), [(1985, 1985)]),  # no title
        ("something like 9", (), []),  # may be a place in a list
    ],
)
def test_a_number_is_a_title_where_the_words_ask_for_its_like_and_a_year_elsewhere(
    text: str, titles: tuple[str, ...], ranges: list[tuple[float | None, float | None]]
):
    reading = read_message(SHELF, text, has_slate=False)
    assert tuple(SHELF.catalog.item_ids[title.rows[0]] for title in reading.titles) == titles
    assert [(one.span.low, one.span.high) for one in reading.ranges] == ranges
