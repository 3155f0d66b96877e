""" "Older", "not older than Alien", "newer than Alien but older than Heat": what years are left."""

from __future__ import annotations

import pytest

from genrec.chat import ChatState, Dialogue
from genrec.chat.filters import constraint_words
from genrec.chat.reading import read_message


def _filters(dialogue: Dialogue, *messages: str) -> list[str]:
    """The wishes after some messages, in words; every list was of items that satisfy them."""
    state = ChatState()
    for message in messages:
        state = dialogue.turn(state, message).state
    return constraint_words(state.constraints)


@pytest.mark.parametrize(
    ("text", "filters"),
    [
        ("something older than Alien", ["1978 or earlier"]),
        ("something not older than Alien", ["1979 or later"]),
        ("no older than Alien", ["1979 or later"]),
        ("I don't want anything older than Alien", ["1979 or later"]),
        ("nothing much newer than Heat please", ["1995 or earlier"]),
        ("not newer than Heat", ["1995 or earlier"]),
        ("I loved Alien. Something not newer than it", ["1979 or earlier"]),
        ("why not something older than Alien?", ["1978 or earlier"]),
        ("isn't there anything newer than Heat?", ["1996 or later"]),
        ("horror is boring and I want something newer than Heat", ["no Horror", "1996 or later"]),
        ("I hated Casino show me something newer than Heat", ["1996 or later"]),
    ],
)
def test_a_comparison_that_is_refused_leaves_its_other_side(film_dialogue: Dialogue, text: str, filters: list[str]):
    assert _filters(film_dialogue, text) == filters


@pytest.mark.parametrize(
    ("text", "filters"),
    [
        ("newer than Alien but older than Heat", ["from 1980 to 1994"]),
        ("something older than Heat and newer than Alien", ["from 1980 to 1994"]),
        ("newer than Alien but not newer than Heat", ["from 1980 to 1995"]),
        ("newer than Alien but before 1990", ["from 1980 to 1989"]),
        ("newer than Alien, from the 70s or 80s", ["from 1980 to 1989"]),
        ("older than Heat and Jaws", ["1974 or earlier"]),
        ("older than Heat, Fargo and Jaws", ["1974 or earlier"]),
        ("not older than Heat and Jaws", ["1995 or later"]),
        ("older than Alien. Heat was great", ["1978 or earlier"]),
    ],
)
def test_all_that_a_message_compares_with_holds(film_dialogue: Dialogue, text: str, filters: list[str]):
    assert _filters(film_dialogue, text) == filters


def test_what_no_year_satisfies_leaves_no_item(film_dialogue: Dialogue):
    turn = film_dialogue.turn(ChatState(), "newer than Heat but older than Alien")
    assert (turn.act, turn.item_ids) == ("recommend", ())


@pytest.mark.parametrize(
    ("text", "high", "low"),
    [("older please", 1994, None), ("not older please", None, 1995), ("newer", None, 1996), ("not newer", 1995, None)],
)
def test_of_a_list_years_are_compared_with_most_and_are_whole(
    film_dialogue: Dialogue, text: str, high: float | None, low: float | None
):
    index = film_dialogue.index
    rows = [index.names[(name,)][0] for name in ("alien", "fargo", "jaws", "casino", "braveheart", "heat")]
    slate = tuple(index.catalog.item_ids[row] for row in (rows[0], *rows[3:]))  # 1979 and three of 1995
    assert sorted(index.year(index.catalog.index[item]) or 0 for item in slate) == [1979, 1995, 1995, 1995]
    (span,) = film_dialogue.turn(ChatState(slate=slate), text).state.constraints.spans
    assert (span.high, span.low) == (high, low)
    even = tuple(index.catalog.item_ids[row] for row in rows[:2])  # 1979 and 1996: half a year between them
    (span,) = film_dialogue.turn(ChatState(slate=even), text).state.constraints.spans
    assert all(end is None or end.is_integer() for end in (span.low, span.high))


def test_only_what_stands_behind_than_is_compared_with(film_dialogue: Dialogue):
    (one,) = read_message(
        film_dialogue.index, "I loved Heat, something not older than Alien", has_slate=False
    ).comparisons
    assert (one.word, one.refused, len(one.than)) == ("older", True, 1)
    assert _filters(film_dialogue, "I loved Heat, something not older than Alien") == ["1979 or later"]
