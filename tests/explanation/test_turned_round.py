"""The check: what every record knows, put together so that it says something false, and what is true beside it."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from genrec.data.catalog import Catalog
from genrec.explanation.checking import Checker
from genrec.explanation.evidence import Subject
from genrec.explanation.facts import Facts, OwnText
from genrec.explanation.language import Language
from tests.explanation.conftest import ALIEN, BLADE, FILMS, HEAT, TOY

SUBJECT = Subject((ALIEN, HEAT, TOY), BLADE, "ann")


@pytest.fixture(scope="module")
def told(facts: Facts) -> Facts:
    """The films with more columns; nothing is waterproof but the last."""
    size = len(FILMS)
    mostly = [*["no"] * (size - 1), "yes"]
    table = facts.catalog.table.with_columns(
        waterproof=pl.Series(mostly),
        in_stock=pl.Series(mostly),
        listed=pl.Series(mostly),
        best_for=pl.Series([*["Hair"] * (size - 1), "Skin"]),
        actors=pl.Series([["Harrison Ford"]] * size),
        price=pl.Series([20.0] * size),
        rating=pl.Series([3.5] * size),
        change=pl.Series([-2.0] * size),
    )
    return replace(facts, catalog=Catalog(table))


FALSE = {
    "a column that says no": "“Blade Runner” is waterproof.",
    "a column that says no, of two": "“Alien” and “Blade Runner” are both waterproof.",
    "a column of two words that says no": "“Blade Runner” is in stock.",
    "a column of the language's words that says no": "“Blade Runner” is listed.",
    "a word of a column": "It is the best.",
    "a column for you": "“Blade Runner” is best for you.",
    "the person had it": "You had “Blade Runner”.",
    "the person had this": "You had it.",
    "the person had another": "You had “Alien”.",
    "the person made it": "You made “Blade Runner”.",
    "the person has it": "You have “Blade Runner”.",
    "the person listed it": "You listed “Blade Runner”.",
    "others had it": "Those had “Blade Runner”.",
    "an actor beside who made it": "“Blade Runner” was made by Ridley Scott and Harrison Ford.",
    "an actor behind an article": "“Blade Runner” was made by a Harrison Ford.",
    "an actor before the verb": "Harrison Ford made “Blade Runner”.",
    "an actor before the verb, as one": "The actor Harrison Ford made “Blade Runner”.",
    "an actor before who it is from": "Harrison Ford is whom it is from.",
    "an actor before a year": "Harrison Ford is from 1982.",
    "an actor who was made": "Harrison Ford was made by Ridley Scott.",
    "a director who was made": "Ridley Scott was made in 1982.",
    "a film that made its director": "“Blade Runner” made Ridley Scott.",
    "a film that is its director": "“Blade Runner” is Ridley Scott.",
    "a denial of a maker that is about an actor": "It was not made by Harrison Ford.",
    "one or the other": "3 people chose “Alien” or “Blade Runner”.",
    "one value or the other": "0 of the 3 items that you chose are Horror or Comedy.",
    "one value or the other by a comma": "0 of the 3 items that you chose are Horror, Comedy.",
    "a condition": "You chose “Alien” if “Blade Runner” is Science Fiction.",
    "a cause of what people chose": (
        "3 of 4 people who chose “Alien” also chose “Blade Runner” because it is Science Fiction."
    ),
    "a cause of what the person chose": "You chose “Alien”, because it is Science Fiction.",
    "a cause in another film": "You chose “Alien” because “Blade Runner” is from 1982.",
    "a cause before the choice": "Because of Science Fiction you chose “Alien”.",
    "a cause that is a reason": "Why you chose “Alien”: Science Fiction.",
    "a purpose of a choice": "You chose “Alien” for Science Fiction.",
    "a companion of a choice": "You watched “Alien” with Ridley Scott.",
    "a cause of what was written": "You wrote about “Alien”: “Never so afraid” because it is Science Fiction.",
    "a cause of what it is": "It is a thriller because it is from 1982.",
    "a time": "3 people who chose “Alien” chose “Blade Runner” since 1982.",
    "a sign": "The price of “Blade Runner” is -20.",
    "a sign and a space": "The price of “Blade Runner” is - 20.",
    "a sign before a word": "The price of “Blade Runner” is -three.",
    "no sign": "The change of “Blade Runner” is 2.",
    "a comma in a number": "“Blade Runner” has a price of 2,0.",
    "a comma for a point": "The rating of “Blade Runner” is 3,5.",
    "a point before a number": "The price of “Blade Runner” is .20.",
    "from one year to another": "“Blade Runner” is from 1982-1995.",
    "a film that directs its director": "“Blade Runner” is the director of Ridley Scott.",
    "a film that is a director": "“Blade Runner” is the director Ridley Scott.",
    "a film made from another": "“Blade Runner” was made from “Alien”, a Science Fiction.",
    "a film that chose the person": "“Alien” chose you.",
    "a person who was chosen": "You were chosen by “Alien”.",
    "a person who was chosen, in short": "You were chosen “Alien”.",
    "what a film chose": "You are what “Alien” chose.",
    "a film that chose beside the person": "“Alien” and you chose “Toy Story”.",
    "anyone": "Anyone chose “Alien”.",
    "whoever": "Whoever chose “Alien” chose “Heat”.",
    "a film that chose people": "“Alien” chose people who chose “Blade Runner”.",
    "people whom a film chose": "People who “Alien” chose also chose “Blade Runner”.",
    "a film that wrote": "“Alien” wrote about you: “Never so afraid”.",
    "a person who was tagged": "You were tagged “Alien” “Science Fiction”.",
    "what is to come": "“Blade Runner” will be made in 1982.",
    "what is to come in other words": "“Blade Runner” is to be made in 1982.",
}
TRUE = [
    "The waterproof of “Blade Runner”: “no”.",
    "“Alien” and “Blade Runner” have the same waterproof: “no”.",
    "“Alien” and “Blade Runner” have the same director.",
    "The best for of “Blade Runner”: Hair.",
    "The listed of “Blade Runner”: “no”.",
    "“Blade Runner” has the actor Harrison Ford.",
    "Ridley Scott made “Blade Runner”.",
    "It is a thriller from Ridley Scott.",
    "The price of “Blade Runner” is 20.",
    "The rating of “Blade Runner” is 3.5.",
    "The change of “Blade Runner” is -2.",
    "It was made in 1,982.",
    "- 3 of 4 people who chose “Alien” also chose “Blade Runner”.",
    "“Blade Runner” may be for you because you chose “Alien”.",
    "Here is why: it is a thriller.",
    "You chose “Alien”, which is Science Fiction.",
]
FALSE_IN_GERMAN = {
    "a column that says no": "„Blade Runner“ ist waterproof.",
    "the person has it": "Sie haben „Blade Runner“.",
    "the person has this": "Sie haben es.",
    "an actor beside who made it": "„Blade Runner“ ist von Ridley Scott und Harrison Ford.",
    "an actor behind an article": "„Blade Runner“ ist von einem Harrison Ford.",
    "a film from another": "„Blade Runner“ ist von „Alien“, Science Fiction.",
    "one or the other": "3 Personen haben „Alien“ oder „Blade Runner“ gewählt.",
    "a cause of what people chose": (
        "3 von 4 Personen, die „Alien“ gewählt haben, haben auch „Blade Runner“ gewählt, weil es Science Fiction ist."
    ),
    "a cause of what the person chose": "Sie haben „Alien“ gewählt, denn „Blade Runner“ ist Science Fiction.",
    "a comma that is left out": "Die rating von „Blade Runner“: 35.",
    "a point for a comma": "Die rating von „Blade Runner“: 3.5.",
    "a sign": "Die price von „Blade Runner“: -20.",
    "a film that directs its director": "„Blade Runner“ ist Regie von Ridley Scott.",
    "a film that chose the person": "„Alien“ hat Sie gewählt.",
    "a film that chose the person, turned round": "Sie hat „Alien“ gewählt.",
    "a person who was chosen": "Sie sind von „Alien“ gewählt.",
    "a film that wrote": "„Alien“ hat über Sie geschrieben: „Never so afraid“.",
    "a person who was tagged": "Sie sind mit „Alien“ „Science Fiction“ beschriftet.",
    "anyone": "Jene wählten „Alien“.",
    "what is to come": "„Blade Runner“ wird von Ridley Scott sein.",
}
TRUE_IN_GERMAN = [
    "Die rating von „Blade Runner“: 3,5.",
    "Die price von „Blade Runner“: 20.",
    "Die waterproof von „Blade Runner“: no.",
    "Die Regie von „Blade Runner“: Ridley Scott.",
    "„Blade Runner“ ist von Ridley Scott.",
    "Sie haben „Alien“ und „Heat“ gewählt.",
    "Sie wählten „Alien“.",
    "3 Personen haben „Alien“ und „Blade Runner“ gewählt.",
    "Sie haben „Alien“ mit „Science Fiction“ beschriftet.",
    "1 der 3 Artikel, die Sie gewählt haben, haben diesen Eintrag als Genre: Science Fiction.",
    "Science Fiction für jene, die „Alien“ gewählt haben.",
]


def verdicts(language: Language, facts: Facts, text: str) -> list[str]:
    return [statement.verdict for statement in Checker(language, facts, SUBJECT).check(text)]


@pytest.mark.parametrize("text", FALSE.values(), ids=FALSE.keys())
def test_known_words_that_say_something_false_are_unsupported(english: Language, told: Facts, text: str) -> None:
    assert verdicts(english, told, text) == ["unsupported"]


@pytest.mark.parametrize("text", TRUE)
def test_what_is_true_beside_it_is_supported(english: Language, told: Facts, text: str) -> None:
    assert verdicts(english, told, text) == ["supported"]


@pytest.mark.parametrize("text", FALSE_IN_GERMAN.values(), ids=FALSE_IN_GERMAN.keys())
def test_in_german_too_what_is_false_is_unsupported(german: Language, told: Facts, text: str) -> None:
    assert verdicts(german, told, text) == ["unsupported"]


@pytest.mark.parametrize("text", TRUE_IN_GERMAN)
def test_in_german_too_what_is_true_is_supported(german: Language, told: Facts, text: str) -> None:
    assert verdicts(german, told, text) == ["supported"]


@pytest.mark.parametrize("text", ["Because it is Science Fiction.", "The reason: Science Fiction."])
def test_a_reason_in_a_sentence_of_its_own_is_none_of_a_choice(english: Language, told: Facts, text: str) -> None:
    assert verdicts(english, told, f"You chose “Alien”. {text}") == ["supported", "unsupported"]
    assert verdicts(english, told, f"Why “Blade Runner”? {text}") == ["no-claim", "supported"]


def test_the_sentences_of_a_tone_claim_nothing_though_they_speak_to_the_person(
    english: Language, german: Language, told: Facts
) -> None:
    for language in (english, german):
        quoted = "Blade Runner".join(language.quotes)
        for tone in language.tones.values():
            for words in filter(None, (tone.opening, tone.closing)):
                assert verdicts(language, told, language.render(words, {"item": quoted})) == ["no-claim"]
    assert verdicts(german, told, "Schauen Sie es an!") == ["unsupported"]


@pytest.mark.parametrize(
    ("review", "quote", "verdict"),
    [
        ("It almost works.", "works", "unsupported"),
        ("It almost works.", "It almost works", "supported"),
        ("I expected the best of it and got the worst.", "the best of it", "unsupported"),
        ("Everyone but me found it great.", "found it great", "unsupported"),
        ("It works... not.", "It works", "unsupported"),
        ("It works? Hardly.", "It works", "unsupported"),
        ("It works? Hardly.", "It works?", "supported"),
        ("Not with Dr. No. It works.", "No", "unsupported"),
        ("It works!! I tried it.", "It works", "supported"),
        ("I tried it, approx. twice.", "I tried it, approx", "unsupported"),
    ],
)
def test_only_whole_sentences_of_a_review_are_somebodys_words(
    english: Language, told: Facts, review: str, quote: str, verdict: str
) -> None:
    wrote = replace(told, own_texts={"ann": {ALIEN: (OwnText("review", review),)}})
    assert verdicts(english, wrote, f"You wrote about “Alien”: “{quote}”.") == [verdict]
