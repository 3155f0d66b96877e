"""What a message says: words, years, feelings; each against sentences that were read by a person."""

from __future__ import annotations

import polars as pl
import pytest

from genrec.chat import Dialogue
from genrec.chat.catalogue_index import CatalogueIndex
from genrec.chat.feelings import feeling_of
from genrec.chat.reading import read_message
from genrec.chat.words import joined, normalise, tokens_of
from genrec.data.catalog import Catalog


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
        ("i havent seen", "", "unseen"),
        ("never seen", "", "unseen"),
        ("i have never heard of", "", "unseen"),
        ("i dont know", "", "unseen"),
        ("i havent seen", "in years", "seen"),
        ("i loved _ and have not seen", "", "unseen"),
        ("i have not seen", "and loved _", "unseen"),
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


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("anything under 1,000 from Acme", None, 1000),
        ("under 9.99 dollars", None, 9.99),
        ("over 1,250.50 euros", 1250.5, None),
        ("between 10 and 20 dollars", 10, 20),
        ("under 90 minutes", 0, 0),  # 0, 0: no price is said
        ("between 2 and 4 players", 0, 0),
    ],
)
def test_prices(text: str, low: float | None, high: float | None):
    table = {"item_id": ["a", "b"], "title": ["A", "B"], "brand": ["Acme", "Böll"], "price": [5.0, 1500.0]}
    found = read_message(CatalogueIndex.build(Catalog(pl.DataFrame(table))), text, has_slate=False).ranges
    assert [(one.span.attribute, one.span.low, one.span.high) for one in found] == (
        [] if low == high == 0 else [("price", low, high)]
    )


@pytest.mark.parametrize("text", ["nothing from Böll", "nothing by Böll", "nothing made by Böll"])
def test_what_comes_from_somebody_is_refused_as_what_is_with_something(text: str):
    table = {"item_id": ["a", "b"], "title": ["One", "Two"], "brand": ["Acme", "Böll"]}
    found = read_message(CatalogueIndex.build(Catalog(pl.DataFrame(table))), text, has_slate=False)
    assert [(one.value.value, one.kind) for one in found.asked] == [("Böll", "unwanted")]


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


def _told(dialogue: Dialogue, text: str) -> dict[str, str]:
    """Each piece that a message names, as it was typed, and what is said of it."""
    reading, tokens = read_message(dialogue.index, text, has_slate=True), tokens_of(text)
    pieces = [*reading.titles, *reading.pointers]
    return {
        text[tokens[piece.place.start].start : tokens[piece.place.end - 1].end]: piece.feeling
        for piece in sorted(pieces, key=lambda one: one.place.start)
    }


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("I watched Heat and Se7en last week, both were great", {"Heat": "liked", "Se7en": "liked"}),
        ("I saw Heat and Se7en. They were boring", {"Heat": "disliked", "Se7en": "disliked"}),
        ("I loved both Heat and Casino", {"Heat": "liked", "Casino": "liked"}),
        ("My kids loved Frozen, what else would they enjoy?", {"Frozen": "liked"}),
        ("I watched Heat with friends, they were boring", {"Heat": "seen"}),
        ("I loved it when they sing", {}),
        ("I love those 80s movies", {}),
        ("these days I prefer comedies", {}),
        ("what would they like?", {}),
        ("I'd love them", {}),
        ("I hated those", {"those": "disliked"}),
        ("I've seen both", {"both": "seen"}),
        ("I've seen those two", {}),
        ("they were boring", {"they": "disliked"}),
        ("these were great", {"these": "liked"}),
        ("I've already seen all of them", {"all of them": "seen"}),
        ("more like these", {"these": "seed"}),
    ],
)
def test_plural_words_mean_what_was_named_or_what_a_verb_judges(film_dialogue: Dialogue, text: str, told: dict):
    assert _told(film_dialogue, text) == told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "seen the first, hated the second, loved the third",
            {"the first": "seen", "the second": "disliked", "the third": "liked"},
        ),
        ("hated the second, loved the third", {"the second": "disliked", "the third": "liked"}),
        ("I liked the first, the third was dull", {"the first": "liked", "the third": "disliked"}),
        ("the first and third look good", {"the first": "named", "third": "named"}),
        ("I've seen 1 and 3", {"1": "seen", "3": "seen"}),
        ("I've seen 3", {}),
        ("I liked the first two", {"the first two": "liked"}),
        ("First, I want a comedy", {}),
        ("I watched the first two seasons", {}),
    ],
)
def test_places_in_the_list_are_read_at_commas_and_before_verbs(film_dialogue: Dialogue, text: str, told: dict):
    assert _told(film_dialogue, text) == told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Jaws? Loved it.", {"Jaws": "liked"}),
        ("Heat - loved it!", {"Heat": "liked"}),
        ("Hated: Heat, Casino", {"Heat": "disliked", "Casino": "disliked"}),
        ("Likes: Heat; dislikes: Casino", {"Heat": "liked", "Casino": "disliked"}),
        ("Loved: Heat, Casino, Jaws", {"Heat": "liked", "Casino": "liked", "Jaws": "liked"}),
        ("nothing like Alien", {}),
        ("I don't want anything like Alien or Heat", {}),
        ("nothing like the second one", {}),
        ("The Godfather was too long for me", {"The Godfather": "disliked"}),
        ("I fell asleep during Dune", {"Dune": "disliked"}),
        ("Heat was meh", {"Heat": "disliked"}),
        ("I liked Heat more than Casino", {"Heat": "liked"}),
        ("Heat is better than Casino", {"Heat": "named"}),
        ("I prefer Heat to Casino", {"Heat": "named"}),
        ("I would rather watch Heat than Casino", {"Heat": "named"}),
        ("something newer than Casino", {"Casino": "seed"}),
        ("horror is boring and I loved Heat", {"Heat": "liked"}),
    ],
)
def test_titles_get_the_feeling_that_is_theirs(film_dialogue: Dialogue, text: str, told: dict):
    assert _told(film_dialogue, text) == told


@pytest.mark.parametrize(
    "text",
    [
        "horror isn't my thing",
        "horror isn't for me",
        "horror films aren't my thing",
        "I don't usually like horror but I loved Get Out",
        "I don't particularly like horror",
        "I've never been a fan of horror",
        "horror is not my cup of tea",
        "I can't watch horror",
        "I hardly ever watch horror",
        "I rarely enjoy horror",
        "I'm scared of horror films",
        "Likes: Heat; dislikes: horror",
    ],
)
def test_a_genre_is_refused_in_many_ways(film_dialogue: Dialogue, text: str):
    (asked,) = read_message(film_dialogue.index, text, has_slate=False).asked
    assert (asked.value.value, asked.kind) == ("Horror", "unwanted")


@pytest.mark.parametrize("text", ["older films, pre-1970", "older comedies, before 1970"])
def test_a_range_of_a_message_leaves_its_comparison_nothing_to_say(film_dialogue: Dialogue, text: str):
    reading = read_message(film_dialogue.index, text, has_slate=True)
    assert (reading.comparisons, [found.span.high for found in reading.ranges]) == ((), [1969])


@pytest.mark.parametrize(
    "text", ["I love Harry Potter", "something like harry potter please", 'I loved "Harry Potter"']
)
def test_a_name_that_titles_begin_with_is_a_choice_of_them(film_dialogue: Dialogue, text: str):
    reading = read_message(film_dialogue.index, text, has_slate=False)
    (title,) = reading.titles
    assert 2 <= len(title.rows) <= 5
    assert all(film_dialogue.index.catalog.titles[row].startswith("Harry Potter") for row in title.rows)
    assert reading.unknown == ()


def test_a_message_of_invented_names_costs_a_handful_of_searches(
    film_dialogue: Dialogue, monkeypatch: pytest.MonkeyPatch
):
    searched: list[str] = []
    similar = CatalogueIndex.similar_title

    def counted(index: CatalogueIndex, text: str) -> tuple[int, ...]:
        searched.append(text)
        return similar(index, text)

    monkeypatch.setattr(CatalogueIndex, "similar_title", counted)
    text = "and Zorgonia Quuxard Blorftang " * 130 + "but I loved Termintor"
    found = read_message(film_dialogue.index, text, has_slate=False).titles
    assert [title.text for title in found] == ["Termintor"]
    assert 0 < len(searched) <= 20
    searched.clear()
    quoted = " ".join(f'"Zorgonia {number}"' for number in range(200))
    assert read_message(film_dialogue.index, quoted, has_slate=False).titles == ()
    assert 0 < len(searched) <= 20


def test_a_message_of_nothing_but_references_costs_no_more_than_some(film_dialogue: Dialogue):
    reading = read_message(film_dialogue.index, "it " * 1300, has_slate=True)
    assert 0 < len(reading.pointers) <= 40


@pytest.mark.parametrize(
    ("text", "feeling"),
    [
        ("Mission: Impossible was terrible", "disliked"),
        ("Monsters, Inc. was terrible", "disliked"),
        ("Mission: Impossible (1996) was terrible", "disliked"),
        ("Monsters, Inc. is one I have already seen", "seen"),
        ("Mission: Impossible is my favourite film", "liked"),
        ("Mission: Impossible. Alien was terrible", "named"),
    ],
)
def test_marks_within_a_title_end_no_clause(text: str, feeling: str):
    names = ["Mission: Impossible (1996)", "Monsters, Inc. (2001)", "Alien (1979)"]
    table = pl.DataFrame(
        {"item_id": ["a", "b", "c"], "title": names, "genres": [["Action"]] * 3, "year": [1996, 2001, 1979]}
    )
    reading = read_message(CatalogueIndex.build(Catalog(table)), text, has_slate=False)
    assert reading.titles[0].feeling == feeling
