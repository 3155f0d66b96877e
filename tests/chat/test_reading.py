"""What a message says: words, years, feelings; each against sentences that were read by a person."""

from __future__ import annotations

import pytest

from genrec.chat import Dialogue
from genrec.chat.feelings import feeling_of
from genrec.chat.reading import read_message
from genrec.chat.words import joined, normalise, tokens_of


@pytest.mark.parametrize(
    ("text", "words"),
    [("Schindler’s Café & Bar", "schindlers cafe and bar"), ("don't", "dont"), ("Sci-Fi!", "sci fi"), ("", "")],
)
def test_words_are_compared_without_case_accents_and_apostrophes(text: str, words: str):
    assert " ".join(token.text for token in tokens_of(text)) == words
    assert normalise("AMÉLIE") == "amelie"


def test_clauses_end_at_punctuation_and_at_but_except_in_anything_but():
    assert [token.clause for token in tokens_of("I loved it, but no war. anything but war")] == [
        0,
        0,
        0,
        1,
        1,
        1,
        2,
        2,
        2,
    ]


@pytest.mark.parametrize(
    ("names", "text"), [([], ""), (["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")]
)
def test_names_are_joined_as_people_do(names: list[str], text: str):
    assert joined(names) == text


@pytest.mark.parametrize(
    ("before", "behind", "feeling"),
    [
        ("i loved", "", "liked"),
        ("i like", "", "liked"),
        ("something like", "", "seed"),
        ("", "was boring", "disliked"),
        ("i did not like", "", "disliked"),
        ("i have seen", "", "seen"),
        ("i havent seen", "", "named"),
        ("not", "", "disliked"),
        ("i loved", "and hated _", "liked"),
        ("i loved _ and hated", "", "disliked"),
        ("i have seen", "and loved it", "liked"),
        ("slower than", "", "seed"),
        ("tell me about", "", "named"),
        ("", "was not bad", "liked"),
        ("", "is never boring", "liked"),
        ("i dont hate", "", "liked"),
        ("i cant get enough of", "", "liked"),
        ("would i like", "", "named"),
        ("why not", "", "named"),
        ("forget", "", "cleared"),
        ("forget that i loved", "", "cleared"),
        ("i cant forget", "", "named"),
    ],
)
def test_what_is_said_about_an_item(before: str, behind: str, feeling: str):
    assert feeling_of(before, behind) == feeling


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("from the 90s", 1990, 1999),
        ("nineties", 1990, 1999),
        ("the early 2000s", 2000, 2003),
        ("before the 70s", None, 1969),
        ("after 1999", 2000, None),
        ("since 1999", 1999, None),
        ("between 1980 and 1985", 1980, 1985),
        ("1980-1985", 1980, 1985),
        ("not before 1970", 1970, None),
        ("1994", 1994, 1994),
        ("from the 20s", 1920, 1929),
        ("1990 or newer", 1990, None),
        ("1990 and up", 1990, None),
        ("pre-1980 films", None, 1979),
        ("post-2000 movies", 2001, None),
        ("the 80s or 90s", 1980, 1999),
        ("from 1999 or 2000", 1999, 2000),
        ("1995, 1996 or 1997", 1995, 1997),
        ("no films before 1990", 1990, None),
        ("I don't want anything older than the 90s", 1990, None),
        ("nothing after 1980", None, 1980),
    ],
)
def test_years(film_dialogue: Dialogue, text: str, low: float | None, high: float | None):
    (found,) = read_message(film_dialogue.index, text, has_slate=False).ranges
    assert (found.span.attribute, found.span.low, found.span.high) == ("year", low, high)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("nothing from the 80s", "unwanted"),
        ("no 80s movies", "unwanted"),
        ("anything but the 80s", "unwanted"),
        ("80s movies are boring", "unwanted"),
        ("forget the 80s", "relaxed"),
        ("the 80s are not bad", "relaxed"),
        ("not a comedy from the 80s", "wanted"),
        ("something not too long from the 80s", "wanted"),
        ("I hated Alien and want something from the 80s", "wanted"),
    ],
)
def test_a_range_is_wanted_or_refused_as_values_are(film_dialogue: Dialogue, text: str, kind: str):
    (found,) = read_message(film_dialogue.index, text, has_slate=False).ranges
    assert (found.kind, found.span.low, found.span.high) == (kind, 1980, 1989)


def test_a_message_of_a_thousand_ranges_is_read(film_dialogue: Dialogue):
    assert len(read_message(film_dialogue.index, "90s " * 1000, has_slate=False).ranges) == 1000


@pytest.mark.parametrize(
    ("text", "unknown", "unjudged"),
    [
        ("a comedy with Bill Murray", (), ("Bill Murray",)),
        ("something directed by Kubrick and a comedy", (), ("Kubrick",)),
        ("something like zorgon returns", ("zorgon returns",), ()),
        ('something like "Foo Barbaz"', ("Foo Barbaz",), ()),
        ("something like Alien", (), ()),
        ("a film about time travel", (), ()),
        ("a film with lots of romance", (), ()),
        ("something to watch with my girlfriend", (), ()),
        ("how about a comedy", (), ()),
        ("something like that", (), ()),
        ("I like french films", (), ()),
    ],
)
def test_where_a_title_or_a_topic_is_expected_what_is_none_is_said(
    film_dialogue: Dialogue, text: str, unknown: tuple[str, ...], unjudged: tuple[str, ...]
):
    reading = read_message(film_dialogue.index, text, has_slate=False)
    assert (reading.unknown, reading.unjudged) == (unknown, unjudged)


def test_every_title_of_two_and_more_uncommon_words_is_found_in_a_sentence(film_dialogue: Dialogue):
    catalog = film_dialogue.index.catalog
    chosen = [row for row in range(0, len(catalog), 40) if len(catalog.titles[row].split()) > 2]
    assert len(chosen) > 30
    missed = []
    for row in chosen:
        reading = read_message(film_dialogue.index, f'I loved "{catalog.titles[row]}" so much', has_slate=False)
        found = {other for title in reading.titles for other in title.rows}
        if row not in found and '"' not in catalog.titles[row]:
            missed.append(catalog.titles[row])
    assert missed == []


@pytest.mark.parametrize("text", ["it", "her", "up", "I want to go big", "you and me", "what is up with them"])
def test_common_words_that_are_titles_are_words(film_dialogue: Dialogue, text: str):
    assert read_message(film_dialogue.index, text, has_slate=False).titles == ()


@pytest.mark.parametrize(
    ("text", "wanted", "unwanted"),
    [
        ("no horror, a drama from the 90s", {"Drama"}, {"Horror"}),
        ("no horror or war, a comedy", {"Comedy"}, {"Horror", "War"}),
        ("no horror, drama, war", set(), {"Horror", "Drama", "War"}),
        ("not a horror, a war or a drama", set(), {"Horror", "Drama", "War"}),
        ("no horror, and a drama", {"Drama"}, {"Horror"}),
        ("a drama, no horror", {"Drama"}, {"Horror"}),
    ],
)
def test_an_article_after_a_bare_refusal_begins_a_wish(
    film_dialogue: Dialogue, text: str, wanted: set[str], unwanted: set[str]
):
    asked = read_message(film_dialogue.index, text, has_slate=False).asked
    found = {kind: {one.value.value for one in asked if one.kind == kind} for kind in ("wanted", "unwanted")}
    assert found == {"wanted": wanted, "unwanted": unwanted}
