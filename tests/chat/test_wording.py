"""The guard of words: slots of the plan, statements that the facts support, nothing else of the model's own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from genrec.chat import ChatState, ChatTurn, Dialogue
from genrec.chat.speaker import Speaker
from genrec.chat.wording import opening_of
from genrec.data.sequences import Sequences
from genrec.decoding.engine import Generation
from genrec.explanation.explainer import Explainer
from genrec.explanation.facts import Facts
from genrec.prompting import default_prompts
from genrec.tasks.data import TaskData
from genrec.tasks.phrases import load_phrases
from genrec.tasks.reply_source import MESSAGES, REPLY_WORDS, ReplyWords
from tests.chat.speaking import TEMPLATES, TOKENIZER, speaking

PHRASES = load_phrases(default_prompts())
LIKED = "I liked Fargo, a comedy from the 90s"


@pytest.fixture(scope="module")
def explainer(film_dialogue: Dialogue) -> Explainer:
    """Facts of the films, without anybody's history."""
    return Explainer(Facts(film_dialogue.index.catalog, Sequences.from_lists([], [])), default_prompts())


def said(dialogue: Dialogue, text: str, message: str = LIKED, *, state: ChatState | None = None) -> ChatTurn:
    return speaking(dialogue, lambda _: text, about=(REPLY_WORDS,))[0].turn(state or ChatState(), message)


def judged(dialogue: Dialogue, text: str, explainer: Explainer | None, message: str = LIKED) -> object:
    plan = dialogue.plan(ChatState(), message)
    rows = [one.item_index for one in dialogue.recommender.rank([plan.request], 5)[0]]
    words = PHRASES.words_of_replies
    made = None if explainer is None else lambda: explainer
    return opening_of(dialogue.index, plan, rows, Generation(text, (), "stop"), words=words, explainer=made)


def test_words_of_the_model_stand_before_the_list_and_the_list_stays_as_it_is(film_dialogue: Dialogue):
    turn, template = (
        said(film_dialogue, "These are my picks (Comedy; from 1990 to 1999):"),
        film_dialogue.turn(ChatState(), LIKED),
    )
    assert turn.text.startswith("These are my picks (Comedy; from 1990 to 1999):\n1. ")
    assert turn.text.split("\n")[1:] == template.text.split("\n")[1:]
    assert (turn.item_ids, turn.state) == (template.item_ids, template.state)
    assert turn.trace[-1] == "the words for the list are the model's"


def test_slots_become_items(film_dialogue: Dialogue):
    turn = said(film_dialogue, "What about these starting from [x]?", "something like Alien")
    first = next(part for part in turn.segments if part.item_id is not None)
    assert first.text == "Alien"
    assert turn.text.startswith("What about these starting from Alien?\n1. ")


WISHES = "(Comedy; from 1990 to 1999)"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("Here is what I found:", "they leave out 'Comedy'"),
        ("Here is what I found (Comedy):", "they leave out 'from 1990 to 1999'"),
        (f"Here is what I found {WISHES}", "they do not come to an end"),
        (f"Here is what I found {WISHES}: Pulp Fiction!", "'pulp' is not in the plan"),
        (f"Here is a masterpiece {WISHES}:", "'masterpiece' is not in the plan"),
        (f"Here are some of 1980 {WISHES}:", "'1980' is not in the plan"),
        (f"Here is what I found {WISHES}, no Horror:", "'no' is not in the plan"),
        (f"Here is [7] {WISHES}:", "there is no [7]"),
        (f"Here is [x] {WISHES}:", "there is no [x]"),
        (f"Here is <b>what</b> I found {WISHES}:", "they hold markup"),
        (f"Here is what I found {WISHES}: http://evil.example/.", "they hold markup"),
        (f"Here is *what* I found {WISHES}:", "they hold markup"),
        (f"Here {'are some for you ' * 20}{WISHES}:", "they are too long"),
        (f"Here is what I found {WISHES}. [1] is from 1994.", "there are no facts to check a statement with"),
        ("", "they do not come to an end"),
    ],
)
def test_words_that_are_not_the_plans_are_not_said(film_dialogue: Dialogue, text: str, why: str):
    turn = said(film_dialogue, text)
    assert turn.text == film_dialogue.turn(ChatState(), LIKED).text
    assert turn.trace[-1] == f"the model's words for the list are not taken: {why}"


def test_a_statement_about_an_item_is_looked_up(film_dialogue: Dialogue, explainer: Explainer):
    turn = film_dialogue.turn(ChatState(), LIKED)
    row = film_dialogue.index.catalog.index[turn.item_ids[0]]
    year, opening = film_dialogue.index.year(row), f"Here is what I found {WISHES}. "
    assert not isinstance(judged(film_dialogue, f"{opening}[1] is Comedy.", explainer), str)
    assert not isinstance(judged(film_dialogue, f"{opening}Have a look at [1]: it is from {year}.", explainer), str)
    for wrong in ("[1] is Western.", "[1] is from 1907.", "[1] is great.", "You chose [1].", "[1] and [2] are Comedy."):
        assert isinstance(judged(film_dialogue, opening + wrong, explainer), str), wrong


def test_a_list_that_goes_on_says_so_and_a_stranger_hears_the_template(film_dialogue: Dialogue):
    state = film_dialogue.turn(ChatState(), "I liked Fargo").state
    turn = said(film_dialogue, "Here is what I found:", "more", state=state)
    assert turn.text.startswith("More of these:")
    assert said(film_dialogue, "More of these for you:", "more", state=state).text.startswith("More of these for you:")
    there, engine = speaking(film_dialogue, lambda _: "Here is what I found:", about=(REPLY_WORDS,))
    assert "I know nothing about you yet" in there.turn(ChatState(), "a western").text
    assert "nothing left" in there.turn(ChatState(), "a western musical horror film noir").text
    assert engine.calls == 0


def test_what_the_lessons_teach_may_be_said(film_dialogue: Dialogue, explainer: Explainer):
    """Every lesson's answer, put beside a plan that asks for the same, passes the guard."""
    index, catalog = film_dialogue.index, film_dialogue.index.catalog
    data = TaskData(
        catalog,
        np.zeros((len(catalog), 2), dtype=np.int64),
        np.ones(len(catalog), dtype=np.bool_),
        Sequences.from_lists([], []),
    )
    source, rng = ReplyWords(PHRASES, data), np.random.default_rng(0)
    plan = film_dialogue.plan(ChatState(), "something like Alien")
    for key in range(60):
        record = source.record(key, rng, 1)
        lines = dict(line.split(": ", 1) for line in str(record.values["plan"]).split("\n") if ": " in line)
        there = _with_wishes(film_dialogue, lines.get("wishes", ""))
        seeds = tuple(catalog.item_ids[:3][: lines.get("from", "").count("[")])
        state = plan.state.model_copy(update={"seeds": seeds, "constraints": there})
        here = replace(plan, state=state, topic=lines["topic"])
        if here.topic == "surprise" and seeds:
            continue  # a surprise starts from nothing
        told = Generation(str(record.values["told"]), (), "stop")
        made = opening_of(
            index, here, list(record.items), told, words=PHRASES.words_of_replies, explainer=lambda: explainer
        )
        assert not isinstance(made, str), (made, told.text)


def _with_wishes(dialogue: Dialogue, wishes: str):
    """Constraints that are said so: each phrase is read as a message."""
    state = ChatState()
    for wish in filter(None, wishes.split("; ")):
        state = dialogue.plan(state, f"also {wish}").state
    return state.constraints


def test_the_model_is_asked_for_words_with_the_facts_and_without_a_title(film_dialogue: Dialogue):
    there, engine = speaking(film_dialogue, lambda _: "", about=(REPLY_WORDS,))
    turn = there.turn(ChatState(), "something like Alien, no comedy")
    lines = engine.asked[0].split("\n")
    assert lines[:3] == ["topic: list", "wishes: no Comedy", "from: [x]"]
    assert [line.split(" ")[0] for line in lines[3:]] == ["[1]", "[2]", "[3]", "[4]", "[5]"]
    catalog = film_dialogue.index.catalog
    assert not [item for item in turn.item_ids if catalog.titles[catalog.index[item]] in engine.asked[0]]


def test_one_question_is_asked_once_and_what_was_not_taught_is_not_asked():
    class Counting:
        asked = 0

        def generate(self, prompts, **options):
            self.asked += len(prompts)
            return [Generation(f"text {len(prompt)}", (), "stop") for prompt in prompts]

    engine = Counting()
    speaker = Speaker(TOKENIZER, PHRASES, {MESSAGES: TEMPLATES[MESSAGES]})
    assert speaker.about_list("topic: list") is None
    wanted = [speaker.about_message("shown: nothing", text) for text in ("a", "bb", "a")]
    first = speaker.written(engine, wanted)  # type: ignore[arg-type]
    assert (engine.asked, first[0]) == (2, first[2])
    assert speaker.written(engine, wanted[1:]) == first[1:]  # type: ignore[arg-type]
    assert engine.asked == 2
