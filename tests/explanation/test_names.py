"""The check: names that are several things, hold one another, or have letters that change with their case."""

from __future__ import annotations

import polars as pl
import pytest

from genrec.data.catalog import Catalog
from genrec.data.sequences import Sequences
from genrec.explanation.checking import Checker
from genrec.explanation.evidence import Subject
from genrec.explanation.explainer import Explainer, ExplainRequest, Wording
from genrec.explanation.facts import Facts, OwnText
from genrec.explanation.language import Language
from genrec.prompting import default_prompts

STYLES = ("line", "paragraph", "bullets", "for-whom", "headline", "description")


def facts_of(column: str, *rows: tuple[str, str], tag: str = "") -> Facts:
    """The rows, then twelve items that share nothing with them; three people chose the first two."""
    rows = (*rows, *((f"Filler {n}", f"Maker {n // 2}") for n in range(12)))
    table = pl.DataFrame(
        {
            "item_id": [f"i{n}" for n in range(len(rows))],
            "title": [row[0] for row in rows],
            column: [row[1] for row in rows],
        }
    )
    texts = {"u": {0: (OwnText("tag", tag),)}} if tag else {}
    return Facts(Catalog(table), Sequences.from_lists(["u", "v", "w"], [[0, 1]] * 3), None, texts)


NAMES = {
    "an artist with a title's name": ("artist", "Weezer", "Pinkerton", "Weezer"),
    "a title at the beginning of a value": ("artist", "Heat", "Other Thing", "Heat Records"),
    "a title in a value": ("actors", "Philadelphia", "Fantasia", "The Philadelphia Orchestra"),
    "a value in a title": ("artist", "Rock and Roll", "Pop", "Rock"),
    "a column with a value's name": ("brand", "A1", "B1", "Brand"),
    "ß": ("artist", "Heilung", "Ruhe", "Fußpflege Großmann"),
    "İ": ("artist", "A1", "B1", "İstanbul İx"),
    "signs": ("artist", "A1", "B1", "...And (Oceans)"),
}
COLUMNS = [
    "used_for",
    "common_name",
    "read_level",
    "no_of_players",
    "recommended_by_people",
    "near_station",
    "watched_with",
    "one_size",
    "used",
    "why",
    "same",
    "you",
    "not_for",
    "made_in",
    "size (cm)",
    "because_of",
]


def all_supported(facts: Facts, code: str) -> int:
    """How many texts of all styles the template writes, each with every sentence supported or without a claim."""
    explainer, texts = Explainer(facts, default_prompts()), 0
    for style in STYLES:
        for tone in ("plain", "warm"):
            told = explainer.explain([ExplainRequest((0,), 1, "u")], Wording(style, code, tone))[0]
            assert told.source == "template", (style, tone)
            values = {piece["kind"] for piece in told.evidence}
            assert values & {"attribute", "record"}, (style, tone)  # no evidence was left out
            texts += 1
    taste = explainer.explain([ExplainRequest((0, 1), None, "u")], Wording("taste", code))[0]
    assert taste.source == "template"
    return texts + 1


@pytest.mark.parametrize("code", ["en", "de"])
@pytest.mark.parametrize(("column", "one", "other", "value"), NAMES.values(), ids=NAMES.keys())
def test_a_value_is_found_whatever_else_is_called_so(column: str, one: str, other: str, value: str, code: str) -> None:
    assert all_supported(facts_of(column, (one, value), (other, value)), code) == 13


@pytest.mark.parametrize("code", ["en", "de"])
@pytest.mark.parametrize("column", COLUMNS)
def test_a_column_may_be_called_by_words_of_the_language(column: str, code: str) -> None:
    assert all_supported(facts_of(column, ("A1", "red wine"), ("B1", "red wine")), code) == 13


@pytest.mark.parametrize("column", COLUMNS)
def test_the_name_of_a_column_alone_says_nothing_that_passes(column: str, english: Language) -> None:
    facts, name = facts_of(column, ("A1", "no"), ("B1", "no")), column.replace("_", " ")
    subject = Subject((0,), 1, "u")
    for text in (f"“B1” is {name}.", f"“A1” and “B1” are both {name}.", f"You had {name} “B1”.", f"“B1” has {name}."):
        assert [one.verdict for one in Checker(english, facts, subject).check(text)] == ["unsupported"], text


def test_a_name_that_is_two_things_supports_neither_where_it_is_false(english: Language) -> None:
    facts = facts_of("artist", ("Weezer", "Weezer"), ("Pinkerton", "Someone"), ("Thing", "Someone"))
    checker = Checker(english, facts, Subject((0,), 1, "u"))
    for text in ("The artist of “Pinkerton”: Weezer.", "“Pinkerton” is from Weezer.", "You chose “Pinkerton”."):
        assert [one.verdict for one in checker.check(text)] == ["unsupported"]
    assert [one.verdict for one in checker.check("You chose “Weezer”.")] == ["supported"]


def test_a_tag_may_be_the_title_of_what_it_is_given_to(english: Language) -> None:
    facts = facts_of("artist", ("Weezer", "Weezer"), ("Pinkerton", "Weezer"), tag="Weezer")
    checker = Checker(english, facts, Subject((0,), 1, "u"))
    assert checker.check("You tagged “Weezer” “Weezer”.")[0].verdict == "supported"
