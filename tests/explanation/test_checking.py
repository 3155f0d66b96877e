"""The check: what the facts say is supported, whatever they do not say is not, however it is worded."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from genrec.data.catalog import Catalog
from genrec.explanation.checking import Checker
from genrec.explanation.evidence import Subject
from genrec.explanation.facts import Facts, OwnText
from genrec.explanation.language import Language

ALIEN, BLADE, TOY, DR_NO, IT, HEAT, OLD_HEAT, NOTHING, ALIENS, COMEDY = range(10)
# ann, who knows Alien, Heat and Toy Story, is told about Blade Runner.
SUBJECT = Subject((ALIEN, HEAT, TOY), BLADE, "ann")


# gil, who knows Alien and Aliens and has a review of each, is told about a film whose description denies something.
DENIALS = (
    "A crew that is not afraid of the cold ship. Nobody hears them, and the doctor hunts machines. The rain is cold."
)
REVIEWS = {
    ALIEN: (OwnText("review", "I did not like this cold ship. The crew was best."),),
    ALIENS: (OwnText("tag", "not scary"),),
}

TWO = "His father Tom was a doctor in Rome. Her mother Ann was killed by wolves."


def verdicts(language: Language, facts: Facts, text: str, subject: Subject = SUBJECT) -> list[str]:
    return [statement.verdict for statement in Checker(language, facts, subject).check(text)]


SUPPORTED = [
    "“Alien” and “Blade Runner” have the same genre: Science Fiction.",
    "Alien and Blade Runner share the director Ridley Scott.",
    "“Blade Runner” is a thriller from 1982.",
    "It is a Science Fiction item from Ridley Scott.",
    "“Heat” and “Blade Runner” are both Thriller.",
    "Alien and Blade Runner have the same director.",
    "3 of 4 people who chose “Alien” also chose “Blade Runner”.",
    "Three people who chose “Alien” also chose “Blade Runner”.",
    "People who chose Alien also chose Blade Runner.",
    "You chose “Alien” and “Toy Story”.",
    "1 of the 3 items that you chose have the genre Science Fiction.",
    "You chose three items.",
    "In content, “Blade Runner” is close to “Alien”.",
    "You wrote about “Alien”: “The cold ship is the best of it!”.",
    "You tagged “Alien” “Science Fiction”.",
    "A policeman hunts machines in the rain.",
    "It is not Animation.",
    "“Blade Runner” is not a comedy.",
    "“Blade Runner” isn’t Comedy.",
    "You chose “Alien”; “Blade Runner” is Science Fiction.",
    "You chose “Alien”, which is Science Fiction.",  # so is the item
    "“Blade Runner” may be for you because “Alien” and “Blade Runner” have the same director.",
    "It shares the genre Science Fiction with “Alien”.",
    "It has the same director as “Alien”.",
    "In content, it is close to “Alien”.",
    "A policeman hunts machines in the rain",
    "“Blade Runner”: A policeman hunts machines in the rain.",
    "This is for those who chose “Alien”.",
    "It is Science Fiction for those who chose “Alien”.",
    "“Blade Runner” (1982)",
    "It was made in 1982.",
    "You wrote about “Alien”: “Never so afraid”.",
    "Ridley Scott made “Blade Runner”.",
    "It was made in 1982 by Ridley Scott.",
    "Ridley Scott is the director of “Blade Runner”.",
    "“Blade Runner” may be for you because you chose “Alien”.",
    "Because it is a thriller.",
]
UNSUPPORTED = {
    "a value of nobody": "“Blade Runner” is a musical.",
    "a value that only the history has": "“Blade Runner” is Horror.",
    "a value that one of two lacks": "“Toy Story” and “Blade Runner” have the same genre: Thriller.",
    "an item that is compared with itself": "“Alien” and “Alien” have the same genre: Science Fiction.",
    "a value in another column": "“Alien” and “Blade Runner” have the same director: Science Fiction.",
    "a person of another film": "It is from Michael Mann.",
    "a person of no record": "It is from Stanley Kubrick.",
    "a wrong year": "“Blade Runner” is from 1983.",
    "a year of another item": "“Blade Runner” is from 1979.",
    "a wrong count": "2 of 4 people who chose “Alien” also chose “Blade Runner”.",
    "a wrong total": "3 of 5 people who chose “Alien” also chose “Blade Runner”.",
    "counts in the wrong direction": "3 of 4 people who chose “Blade Runner” also chose “Alien”, 5.",
    "no people at all": "People who chose “Toy Story” also chose “Blade Runner”.",
    "many": "Many people who chose “Alien” also chose “Blade Runner”.",
    "people and nothing else": "“Blade Runner” is for people.",
    "a title of the catalogue that is not in the history": "You chose “Aliens”.",
    "a title of nowhere": "You chose “Jaws”.",
    "the item itself as chosen": "You chose “Blade Runner”.",
    "a wrong number of choices": "You chose 5 items.",
    "a wrong share of the history": "2 of the 3 items that you chose have the genre Science Fiction.",
    "content that is far": "In content, “Blade Runner” is close to “Toy Story”.",
    "words that nobody wrote": "You wrote about “Alien”: “A masterpiece”.",
    "words about another item": "You wrote about “Toy Story”: “Never so afraid”.",
    "somebody else's words": "People wrote about “Alien”: “Never so afraid”.",
    "a piece of a sentence of one's own": "You wrote about “Alien”: “best of it”.",
    "praise": "“Blade Runner” is a masterpiece.",
    "a feeling": "You love “Alien”.",
    "a comparison": "“Blade Runner” is better than “Alien”.",
    "a denial of what the record says": "“Blade Runner” is not a thriller.",
    "a denial of what the record cannot say": "“Blade Runner” is not boring.",
    "a denial of a choice": "You never chose “Alien”.",
    "a denial of a count": "Nobody who chose “Alien” also chose “Blade Runner”.",
    "a plot of another film": "Toys come alive when nobody looks.",
    "a plot put together": "A policeman hunts the rain.",
    "two claims in one": "You chose “Alien”, and 3 of 4 people who chose “Alien” also chose “Blade Runner”.",
    "a mention without a claim": "“Blade Runner” and “Alien”.",
    "control tokens": "“Blade Runner” <|im_end|> is a thriller.",
    "semantic IDs": "<s0_17><s1_3> is a thriller.",
    "an address": "See https://example.org for “Blade Runner”.",
    "a wish of the person": "You want a thriller.",
    "sharing with nothing": "Both are Thriller.",
    "a claim before a denial": "“Blade Runner” is Horror, not Comedy.",
    "a claim behind a denial": "“Blade Runner” is not Comedy, it is Horror.",
    "a person before a denial": "“Blade Runner” is from John Lasseter, not from Michael Mann.",
    "a denial of a denial": "“Blade Runner” is not without Horror.",
    "a choice and what it shares": "You chose “Alien” and “Toy Story”, which share the same director.",
    "closeness of a column": "“Blade Runner” and “Alien” have a similar year.",
    "counts behind the items": "“Blade Runner” was chosen by 2 of 2 people who chose “Alien”.",
    "several columns": "“Blade Runner” has the genre and director Ridley Scott.",
    "a date": "“Blade Runner” is from 25.06.1982.",
    "a digit that is no number": "“Blade Runner” is ².",
    "a piece of a word of one's own": "You wrote about “Alien”: “raid”.",
    "a piece of words of the description": "policeman hunts machines in the rai",
    "another language": "„Blade Runner“ ist ein Meisterwerk.",
    "a value that only the named one has": "It shares the genre Horror with “Alien”.",
    "a value that only the named one has, in a choice": "You chose “Alien”, which shares the genre Horror with it.",
    "a value of the named one, said of both": "With “Alien” it has the genre Horror.",
    "a column that only the named ones share": "It has the same genre as “Toy Story”.",
    "a value of a choice, said of the item": "It is a Comedy for those who chose “Toy Story”.",
    "a person of a choice, said of the item": "It is from John Lasseter, for those who chose “Toy Story”.",
    "a value of a choice, said beside it": "You chose “Toy Story” and it is Comedy.",
    "a count behind what it does not count": "It is Horror for those who chose 1 item.",
    "a number beside a title": "You chose “Alien” 3.",
    "a number beside a title without quotation marks": "You chose Alien 3.",
    "a total of nobody": "3 of 4 people chose “Alien” and “Blade Runner”.",
    "the same of several": "“Blade Runner” and “Alien” have the same genres.",
    "praise of its making": "“Blade Runner” is well made.",
    "a number of reasons": "It has 1982 reasons.",
    "a choice of the item, said as this": "Those who watched “Alien” watched this too.",
    "a choice of the item by anybody": "Whoever chose “Alien” also chose it.",
    "a choice of the item beside another": "You chose “Alien” and it.",
    "a choice of the item in a comparison": "You watched it as you watched “Alien”.",
    "a choice of the item by you": "It was chosen by you, as “Alien” was.",
    "a value of another, told of what one wrote": "You wrote about the Comedy “Alien”: “Never so afraid”.",
    "a column of what one wrote about": "You wrote about the director of “Alien”: “The cold ship is the best of it”.",
    "a review as a tag": "You tagged “Alien” “Never so afraid”.",
    "a review as a name": "You called “Alien” “best of it”.",
    "the closest": "“Alien” is closest to “Blade Runner”.",
    "closeness of two others": "“Alien” is close to “Heat” and “Blade Runner”.",
    "under a count": "Under 3 of 4 people who chose “Alien” also chose “Blade Runner”.",
    "from one count to another": "1 to 3 of the items that you chose have the genre Science Fiction.",
    "the same people": "The same people who chose “Alien” also chose “Blade Runner”.",
    "people who chose a director": "3 of 4 people who chose “Alien” also chose the director of “Blade Runner”.",
    "a number of items": "“Blade Runner” is in 1982 items.",
}


@pytest.mark.parametrize("text", SUPPORTED)
def test_what_the_facts_say_is_supported(english: Language, facts: Facts, text: str) -> None:
    assert verdicts(english, facts, text) == ["supported"]


@pytest.mark.parametrize("text", UNSUPPORTED.values(), ids=UNSUPPORTED.keys())
def test_what_no_fact_says_is_unsupported(english: Language, facts: Facts, text: str) -> None:
    assert verdicts(english, facts, text) == ["unsupported"]


def test_what_two_others_share_or_are_to_each_other_is_not_said_of_the_item(english: Language, facts: Facts) -> None:
    subject = Subject((ALIEN, ALIENS), BLADE)
    shared = "It shares the genre {} with “Alien” and “Aliens”."
    assert verdicts(english, facts, shared.format("Horror"), subject) == ["unsupported"]
    assert verdicts(english, facts, shared.format("Science Fiction"), subject) == ["supported"]
    crowded = replace(facts)
    vars(crowded)["num_close"] = len(facts.catalog) - 1  # everything is close to everything
    assert verdicts(english, crowded, "“Alien” is close to “Aliens”.", subject) == ["unsupported"]
    assert verdicts(english, crowded, "“Blade Runner” is close to “Alien” and “Aliens”.", subject) == ["supported"]


@pytest.fixture(scope="module")
def denying(facts: Facts) -> Facts:
    words = [DENIALS if row == BLADE else None for row in range(len(facts.catalog))]
    catalog = Catalog(facts.catalog.table.with_columns(description=pl.Series(words)))
    return replace(facts, catalog=catalog, own_texts={"gil": REVIEWS})


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("It is afraid of the cold ship.", "unsupported"),
        ("A crew that is not afraid of the cold ship.", "supported"),
        ("not afraid of the cold ship", "unsupported"),
        ("the doctor hunts machines.", "unsupported"),
        ("Nobody hears them, and the doctor hunts machines.", "supported"),
        ("The rain is cold.", "supported"),
        ("You wrote about “Alien”: “like this cold ship”.", "unsupported"),
        ("You wrote about “Alien”: “not like this cold ship”.", "unsupported"),
        ("You wrote about “Alien”: “I did not like this cold ship”.", "supported"),
        ("You wrote about “Alien”: “The crew was best”.", "supported"),
        ("You tagged “Aliens” “scary”.", "unsupported"),
        ("You tagged “Aliens” “not scary”.", "supported"),
    ],
)
def test_words_that_are_cut_out_of_a_denial_are_unsupported(
    english: Language, denying: Facts, text: str, verdict: str
) -> None:
    assert verdicts(english, denying, text, Subject((ALIEN, ALIENS), BLADE, "gil")) == [verdict]


def test_what_is_cut_out_of_a_denial_is_unsupported_in_german(german: Language, facts: Facts) -> None:
    texts = {"ann": {ALIEN: (OwnText("review", "Das ist fast eine gute Creme."),)}}
    told = replace(facts, own_texts=texts)
    assert verdicts(german, told, "Sie haben über „Alien“ geschrieben: „eine gute Creme“.") == ["unsupported"]
    whole = "Sie haben über „Alien“ geschrieben: „Das ist fast eine gute Creme“."
    assert verdicts(german, told, whole) == ["supported"]


@pytest.mark.parametrize(
    ("description", "text", "verdict"),
    [
        (TWO, "His father Tom was killed by wolves.", "unsupported"),
        (TWO, "Her mother Ann was killed by wolves.", "supported"),
        ("The battery is far from good value for money.", "good value for money.", "unsupported"),
        ("Critics hardly call it the best film.", "it the best film.", "unsupported"),
        ("It fails to keep the coffee hot.", "keep the coffee hot.", "unsupported"),
        ("It keeps the coffee hot.", "keeps the coffee hot.", "unsupported"),
        ("It keeps the coffee hot. Good.", "It keeps the coffee hot.", "supported"),
        ("From the makers of the worst film of all time.", "It is the worst film of all time.", "unsupported"),
        ("Toys of the U.S. Marines come alive.", "Toys of the U.S. Marines come alive.", "supported"),
        ("After “Alien” a crew meets Thriller people.", "After “Alien” a crew meets Thriller people.", "supported"),
        ("It keeps the coffee hot.", "You chose “Alien” because It keeps the coffee hot.", "unsupported"),
    ],
)
def test_pieces_of_a_description_say_what_it_says(
    english: Language, facts: Facts, description: str, text: str, verdict: str
) -> None:
    words = [description if row == BLADE else None for row in range(len(facts.catalog))]
    told = replace(facts, catalog=Catalog(facts.catalog.table.with_columns(description=pl.Series(words))))
    assert verdicts(english, told, text) == [verdict]


@pytest.mark.parametrize(
    "text",
    [
        "Comedy für jene, die „Toy Story“ gewählt haben.",
        "3 von 4 Personen wählten „Alien“ und „Blade Runner“.",
        "„Blade Runner“ und „Alien“ haben dieselben Genres.",
        "Sie haben „Alien“ 3 gewählt.",
    ],
)
def test_what_no_fact_says_is_unsupported_in_german(german: Language, facts: Facts, text: str) -> None:
    assert verdicts(german, facts, text) == ["unsupported"]


@pytest.mark.parametrize("text", ["Here is why.", "Why “Blade Runner”?", "It may be for you.", "!"])
def test_words_that_claim_nothing_are_no_claim(english: Language, facts: Facts, text: str) -> None:
    assert verdicts(english, facts, text) == ["no-claim"]


def test_every_sentence_and_every_bullet_is_a_statement_of_its_own(english: Language, facts: Facts) -> None:
    text = "Why “Blade Runner”?\n- It is a thriller.\n- It is a musical.\nIt is from 1982. You chose “Alien”."
    checked = Checker(english, facts, SUBJECT).check(text)
    assert [statement.verdict for statement in checked] == [
        "no-claim",
        "supported",
        "unsupported",
        "supported",
        "supported",
    ]
    assert checked[2].text == "- It is a musical."
    assert "musical" in checked[2].reason


def test_a_title_that_is_a_word_is_a_title_only_in_quotation_marks(english: Language, facts: Facts) -> None:
    subject = Subject((IT, COMEDY), ALIEN)
    assert verdicts(english, facts, "“It” and “Alien” have the same genre: Horror.", subject) == ["supported"]
    assert verdicts(english, facts, "You chose it.", subject) == ["unsupported"]
    # The film "Comedy" is a drama: the value is not the title.
    assert verdicts(english, facts, "“Comedy” is a comedy.", subject) == ["unsupported"]
    assert verdicts(english, facts, "You chose “Comedy”.", subject) == ["supported"]


def test_a_title_with_a_full_stop_does_not_end_a_sentence(english: Language, facts: Facts) -> None:
    told = "You chose “Dr. No”. “Alien” is Horror."
    assert verdicts(english, facts, told, Subject((DR_NO,), ALIEN)) == ["supported"] * 2


@pytest.mark.parametrize(
    "text",
    [
        "You chose “Toy Story” because it is a Thriller.",
        "You chose “Toy Story”; it is not a Comedy.",
        "You chose “Toy Story”. It is not a Comedy.",
        "You chose “Toy Story”. It is a Thriller.",
        "You chose “Toy Story”. Here is why. It is from 1982.",
        "You chose “Toy Story”. It is close to “Alien”.",
        "You chose “Alien” because a thriller.",
    ],
)
def test_what_may_be_said_of_the_item_named_before_has_to_hold_for_it_too(
    english: Language, facts: Facts, text: str
) -> None:
    assert verdicts(english, facts, text)[-1] == "unsupported"
    assert verdicts(english, facts, text.replace("You chose", "Why “Blade Runner”? You chose"))[-1] == "unsupported"
    assert verdicts(english, facts, "You chose “Alien”. “Blade Runner” is from 1982. It is not a Comedy.")[-1] == (
        "supported"
    )


def test_a_number_without_a_name_is_a_year(english: Language, facts: Facts) -> None:
    table = facts.catalog.table.with_columns(num_reviews=pl.Series([1995] * len(facts.catalog)))
    told = replace(facts, catalog=Catalog(table))
    assert verdicts(english, told, "It was made in 1995.") == ["unsupported"]
    assert verdicts(english, told, "The num reviews of “Blade Runner”: 1995.") == ["supported"]


def test_who_made_it_is_not_who_plays_in_it(english: Language, german: Language, facts: Facts) -> None:
    table = facts.catalog.table.with_columns(actors=pl.Series([["Harrison Ford"]] * len(facts.catalog)))
    told = replace(facts, catalog=Catalog(table))
    assert verdicts(english, told, "“Blade Runner” was made by Harrison Ford.") == ["unsupported"]
    assert verdicts(english, told, "“Blade Runner” was made by Ridley Scott.") == ["supported"]
    assert verdicts(english, told, "“Blade Runner” has the actor Harrison Ford.") == ["supported"]
    assert verdicts(german, told, "„Blade Runner“ ist von Harrison Ford.") == ["unsupported"]
    assert verdicts(german, told, "„Blade Runner“ ist von Ridley Scott.") == ["supported"]


def test_a_piece_of_a_number_is_no_quotation(english: Language, facts: Facts) -> None:
    told = replace(facts, own_texts={"ann": {ALIEN: (OwnText("review", "I give it 4.5 stars."),)}})
    assert verdicts(english, told, "You wrote about “Alien”: “I give it 4”.") == ["unsupported"]
    assert verdicts(english, told, "You wrote about “Alien”: “I give it 4.5 stars”.") == ["supported"]


def test_a_column_that_the_item_lacks_is_not_ascribed_to_it(english: Language, facts: Facts) -> None:
    subject = Subject((ALIEN,), NOTHING)
    assert verdicts(english, facts, "It has a director.", subject) == ["unsupported"]
    assert verdicts(english, facts, "It has a director.") == ["unsupported"]  # it does not say which
    assert verdicts(english, facts, "It has the director Ridley Scott.") == ["supported"]


def test_one_title_of_two_items_may_mean_either(english: Language, facts: Facts) -> None:
    subject = Subject((HEAT, OLD_HEAT), BLADE)
    assert verdicts(english, facts, "“Heat” and “Blade Runner” are both Thriller.", subject) == ["supported"]
    only_old = Subject((OLD_HEAT,), BLADE)
    assert verdicts(english, facts, "“Heat” and “Blade Runner” are both Thriller.", only_old) == ["unsupported"]


def test_private_characters_of_a_text_cannot_stand_for_a_mention(english: Language, facts: Facts) -> None:
    assert verdicts(english, facts, "“Blade Runner” is \ue000 and \ue001.") == ["unsupported"]


def test_the_check_knows_another_language_from_its_file(german: Language, facts: Facts) -> None:
    right = "3 von 4 Personen, die „Alien“ gewählt haben, haben auch „Blade Runner“ gewählt."
    wrong = "4 von 4 Personen, die „Alien“ gewählt haben, haben auch „Blade Runner“ gewählt."
    denied = "„Blade Runner“ ist kein Thriller."
    assert verdicts(german, facts, f"{right} {wrong} {denied}") == ["supported", "unsupported", "unsupported"]


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("Es teilt das Genre Science Fiction mit „Alien“.", "supported"),
        ("Es teilt das Genre Horror mit „Alien“.", "unsupported"),
        ("Im Inhalt liegt es nahe bei „Alien“.", "supported"),
    ],
)
def test_in_german_too_what_is_shared_has_to_be_said_of_the_item(
    german: Language, facts: Facts, text: str, verdict: str
) -> None:
    assert verdicts(german, facts, text) == [verdict]
