"""The check: known words that leave open what is meant, say more than is known, or say it of something else."""

from __future__ import annotations

import pytest

from genrec.explanation.checking import Checker
from genrec.explanation.evidence import Subject
from genrec.explanation.explainer import Explainer, ExplainRequest, Wording
from genrec.explanation.facts import Facts
from genrec.explanation.language import Language
from genrec.prompting import default_prompts
from tests.explanation.conftest import ALIEN, ALIENS, BLADE, DR_NO, HEAT, TOY

# ann chose Alien, Heat and Toy Story; Toy Story shares nothing with Blade Runner, which is no drama.
SUBJECT = Subject((ALIEN, HEAT, TOY), BLADE, "ann")
MAY_BE = "“Blade Runner” may be for you"

DENIALS = [
    "Nothing has Drama.",
    "None of the items has Drama.",
    "Neither has Drama.",
    "No item is Drama.",
    "No genre is Drama.",
    "There is no Drama on the list.",
    "With it there is no Drama.",
    "This list is not Drama.",
    "Its description has no Drama.",
    "The items are not Drama.",
    "They are not Drama.",
    "What is not Drama is “Blade Runner”.",
    "Isn't it Drama?",
    "It cannot be Drama.",
    "It shouldn't be Drama.",
    "It has nothing as Drama.",
    "It has no genre as Drama.",
    "It is nothing but Drama.",
    "It is no other than Drama.",
    "It is anything but Drama.",
    "It is not only Drama.",
    "It is not about Drama.",
    "It is here, not in Drama.",
]
COUNTS = [
    "3 of 4 people chose “Alien” and chose “Blade Runner”.",
    "3 of 4 people chose “Alien” who chose “Blade Runner”.",
    "3 of 4 people have chosen “Alien” and have chosen “Blade Runner”.",
    "3 of 4 people who chose “Alien” and chose “Blade Runner”.",
    "3 of 4 people, who chose “Blade Runner”, chose “Alien”.",
    "The people who chose “Alien” also chose “Blade Runner”.",
    "The 3 people who chose “Alien” also chose “Blade Runner”.",
    "3 of 4 people who chose the look of “Alien” also chose “Blade Runner”.",
    "3 of 4 items of people who chose “Alien” also chose “Blade Runner”.",
    "3 people chose “Alien” as “Blade Runner”.",
    "3 people chose “Alien” with “Blade Runner”.",
    "The one item that you chose is Science Fiction.",
    "1 of the 3 items that you chose are about Science Fiction.",
]
LEFT_OPEN = [
    "You might choose “Alien”.",
    "You may have chosen “Alien”.",
    "Perhaps you chose “Alien”.",
    "You had to choose “Alien”.",
    "Had you chosen “Alien”.",
    "Did you choose “Alien”?",
    "You chose “Alien”?",
    "3 of 4 people who chose “Alien” might choose “Blade Runner”.",
    "3 of 4 people who may choose “Alien” chose “Blade Runner”.",
    "Perhaps 3 of 4 people who chose “Alien” also chose “Blade Runner”.",
    "Did 3 people choose “Alien” and “Blade Runner”?",
    "1 of the 3 items that you may choose have the genre Science Fiction.",
    "You could have said about “Alien”: “Never so afraid”.",
    "You may have tagged “Alien” “Science Fiction”.",
    "“Blade Runner” may be close to “Alien”.",
    "Is “Blade Runner” close to “Alien”?",
    "It could be Science Fiction.",
    "It may have the same director as “Alien”.",
    "Is it a thriller?",
]
USES = [
    "You bought “Alien”.",
    "You read “Alien”.",
    "You used “Alien”.",
    "You watched “Alien”.",
    "People who bought “Alien” also bought “Blade Runner”.",
    "3 of 4 customers who chose “Alien” also chose “Blade Runner”.",
    "This is for those who read “Alien”.",
    "1 of the 3 items that you bought have the genre Science Fiction.",
]
OTHERWISE = [
    "You chose “Alien” in “Heat”.",
    "You chose “Alien” as “Heat”.",
    "You chose about “Alien”.",
    "You chose the description of “Alien”.",
    "What you chose is “Alien”.",
    "You wrote “Alien”: “Never so afraid”.",
    "You wrote with “Alien”: “Never so afraid”.",
    "You wrote about “Alien” as “Never so afraid”.",
    "“Blade Runner” is as close to “Alien”.",
    "“Blade Runner” is close to the items of “Alien”.",
    "“Blade Runner” and “Alien” share a similar description.",
    "“Blade Runner” is about 1982.",
    "It is as Thriller as “Heat”.",
    "It is the thriller.",
    "It has the look of a thriller.",
    "It has 1982 years.",
    "It is from 1982 to 1982.",
    "It is for Science Fiction.",
    "Science Fiction is a thriller.",
    "Ridley Scott has Science Fiction.",
    "“Blade Runner” is “Alien”, a Science Fiction.",
    "“Blade Runner” is Science Fiction of “Alien”.",
    "How Science Fiction it is.",
]
REASONS = [
    f"{MAY_BE} because you chose “Toy Story”.",
    f"{MAY_BE} because you chose “Alien” and “Toy Story”.",
    f"{MAY_BE} because you chose three items.",
    f"{MAY_BE} because 1 of the 3 items that you chose have the genre Comedy.",
    f"{MAY_BE} because you wrote about “Toy Story”: “My children laughed”.",
    f"{MAY_BE}, and here is why. You chose “Toy Story”.",
    "Why “Blade Runner”? It is a thriller. You chose “Toy Story”.",
    "This is for those who chose “Toy Story”.",
]
IN_GERMAN = [
    "Nichts hat Drama.",
    "Niemand hat Drama.",
    "Keiner der Artikel ist Drama.",
    "Kein Genre ist Drama.",
    "Es hat nichts als Drama.",
    "Es hat kein Genre als Drama.",
    "Es ist nicht wie Drama.",
    "Es ist nicht nur Drama.",
    "3 von 4 Personen wählten „Alien“ und wählten „Blade Runner“.",
    "3 von 4 Personen haben „Alien“ gewählt und haben „Blade Runner“ gewählt.",
    "3 von 4 Personen, die „Alien“ gewählt haben und „Blade Runner“ gewählt haben.",
    "3 von 4 Personen, die „Alien“ gewählt haben, könnten „Blade Runner“ gewählt haben.",
    "Die Personen, die „Alien“ gewählt haben, haben auch „Blade Runner“ gewählt.",
    "Die 3 Personen, die „Alien“ gewählt haben, haben auch „Blade Runner“ gewählt.",
    "Sie könnten „Alien“ gewählt haben.",
    "Sie haben vielleicht „Alien“ gewählt.",
    "Hatten Sie „Alien“ gewählt.",
    "Dass Sie „Alien“ gewählt haben.",
    "Sie haben „Alien“ gekauft.",
    "Sie haben „Alien“ gelesen.",
    "3 von 4 Kunden, die „Alien“ gewählt haben, haben auch „Blade Runner“ gewählt.",
    "Sie haben „Alien“ mit „Heat“ gewählt.",
    "Sie haben „Alien“ geschrieben: „Never so afraid“.",
    "Im Inhalt liegt es vielleicht nahe bei „Alien“.",
    "Liegt „Blade Runner“ im Inhalt nahe bei „Alien“?",
    "Es ist der Thriller.",
    "Ist es ein Thriller?",
    "Science Fiction ist ein Thriller.",
    "Für jene, die „Toy Story“ gewählt haben.",
    "„Blade Runner“ ist vielleicht für Sie, weil Sie „Toy Story“ gewählt haben.",
    "Warum „Blade Runner“? Sie haben „Toy Story“ gewählt.",
]
TRUE = [
    "It is not Drama.",
    "“Blade Runner” has no genre Drama.",
    "It does not have the genre Drama.",
    "It was not made by Michael Mann.",
    "The director of “Blade Runner” is not Michael Mann.",
    "3 of the 4 people that chose “Alien” have also chosen “Blade Runner”.",
    "3 people chose “Alien” and also chose “Blade Runner”.",
    "You have chosen “Alien”, “Heat” and “Toy Story”.",
    "1 of the 3 items you chose is Science Fiction.",
    "You wrote “Never so afraid” about “Alien”.",
    "“Blade Runner” and “Alien” are similar in content.",
    "Have a look at “Blade Runner”: it is from 1982.",
    f"{MAY_BE} because you chose “Heat”.",
    f"{MAY_BE} because 1 of the 3 items that you chose have the genre Science Fiction.",
    f"{MAY_BE} because you wrote about “Alien”: “The cold ship is the best of it”.",
    "This is for those who chose “Alien” and “Heat”.",
]
TRUE_IN_GERMAN = [
    "Es ist kein Drama.",
    "Es hat nicht das Genre Drama.",
    "Die Regie von „Blade Runner“ ist nicht Michael Mann.",
    "3 von 4 Personen, die „Alien“ wählten, wählten auch „Blade Runner“.",
    "Leute, die „Alien“ gewählt haben, haben auch „Blade Runner“ gewählt.",
    "Sie haben „Alien“ gewählt, das Science Fiction ist.",
    "Im Inhalt ist es ähnlich wie „Alien“.",
    "„Blade Runner“ ist vielleicht für Sie, weil Sie „Alien“ gewählt haben.",
    "Für jene, die „Alien“ und „Heat“ gewählt haben.",
]


def verdicts(language: Language, facts: Facts, text: str) -> list[str]:
    return [statement.verdict for statement in Checker(language, facts, SUBJECT).check(text)]


@pytest.mark.parametrize("text", [*DENIALS, *COUNTS, *LEFT_OPEN, *USES, *OTHERWISE, *REASONS])
def test_what_is_not_plainly_so_is_unsupported(english: Language, facts: Facts, text: str) -> None:
    assert verdicts(english, facts, text)[-1] == "unsupported"


@pytest.mark.parametrize("text", IN_GERMAN)
def test_in_german_too_what_is_not_plainly_so_is_unsupported(german: Language, facts: Facts, text: str) -> None:
    assert verdicts(german, facts, text)[-1] == "unsupported"


@pytest.mark.parametrize("text", TRUE)
def test_what_is_plainly_so_is_supported(english: Language, facts: Facts, text: str) -> None:
    assert verdicts(english, facts, text) == ["supported"]


@pytest.mark.parametrize("text", TRUE_IN_GERMAN)
def test_in_german_too_what_is_plainly_so_is_supported(german: Language, facts: Facts, text: str) -> None:
    assert verdicts(german, facts, text) == ["supported"]


def as_before(language: Language) -> Language:
    """The language of a run of before: small words are all neutral."""
    words = language.words
    small = ("have", "joins", "also", "article", "place", "beside", "part", "topic", "like", "who")
    neutral = " ".join(getattr(words, name) for name in ("neutral", *small))
    return language.model_copy(
        update={"words": words.model_copy(update=dict.fromkeys(small, "") | {"neutral": neutral})}
    )


@pytest.mark.parametrize("code", ["en", "de"])
def test_with_a_languages_file_of_before_templates_are_supported_and_denials_of_everything_are_not(
    code: str, facts: Facts
) -> None:
    explainer = Explainer(facts, default_prompts())
    explainer._languages[code] = language = as_before(explainer.language(code))
    for style in language.styles:
        for tone in language.tones:
            for item in (BLADE, DR_NO):
                told = explainer.explain(
                    [ExplainRequest((ALIEN, ALIENS, HEAT), item, "ann")], Wording(style, code, tone)
                )[0]
                assert told.source == "template", (style, tone, item)
                assert "unsupported" not in {one.verdict for one in told.statements}
    for text in DENIALS if code == "en" else IN_GERMAN[:8]:
        assert verdicts(language, facts, text) == ["unsupported"], text


def test_small_words_by_the_thousand_are_refused_before_they_are_matched(english: Language, facts: Facts) -> None:
    assert verdicts(english, facts, f"You chose {'here ' * 3000}“Alien”.") == ["unsupported"]
