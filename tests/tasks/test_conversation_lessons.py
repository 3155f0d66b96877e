"""Lessons of a conversation: what they mean is what they say, and phrases that are held out are never in them."""

from __future__ import annotations

import re

import numpy as np
import pytest

from genrec.errors import ConfigError
from genrec.prompting import default_prompts
from genrec.tasks.loading import template_words
from genrec.tasks.messages import Messages, _Maker, slipped
from genrec.tasks.phrases import MESSAGES_FILE, load_phrases
from genrec.tasks.reply_source import ReplyWords
from genrec.tasks.turn_text import Proposal, marked_message, parse_proposal, plan_text, state_text
from tests.tasks.conftest import Tiny

PHRASES = load_phrases(default_prompts())


def pattern(phrase: str) -> re.Pattern[str]:
    """A phrase with anything in its fields, as whole words."""
    words = re.sub(r"\\\{\w+\\\}", ".+", re.escape(phrase))
    return re.compile(rf"(?<!\w){words}(?!\w)", re.IGNORECASE)


def test_every_message_means_what_it_was_made_from(tiny: Tiny):
    source = Messages(PHRASES, tiny.data)
    rng = np.random.default_rng(0)
    lessons = [source.lesson(key % len(source), rng) for key in range(300)]
    assert {lesson.proposal.act for lesson in lessons} == {"ask", "recommend", "explain", "answer", "chat"}
    for lesson in lessons:
        proposal = lesson.proposal
        assert parse_proposal(proposal.text()) == proposal
        names = [*proposal.liked, *proposal.disliked, *proposal.seen, *proposal.like, *proposal.about]
        marks = [name for name in names if name.startswith("[")]
        assert sorted(re.findall(r"\[\w\]", lesson.message)) == sorted(marks)
        assert all(1 <= int(name) <= len(lesson.shown) for name in names if name.isdigit())
    wanted = {name for lesson in lessons for name in (*lesson.proposal.want, *lesson.proposal.avoid)}
    assert wanted == {"Comedy", "Drama", "Western", "Mood 0", "Mood 1"}


def test_the_same_state_of_the_generator_gives_the_same_message(tiny: Tiny):
    source = Messages(PHRASES, tiny.data)
    first, second = (source.record(3, np.random.default_rng(7), 6) for _ in range(2))
    assert first == second
    assert first.user == -1


def test_held_out_phrases_are_in_no_lesson_and_in_every_held_out_message(tiny: Tiny):
    kinds = PHRASES.clauses.values()
    assert not {line for kind in kinds for line in kind.said} & {line for kind in kinds for line in kind.held_out}
    held_out = [pattern(line) for kind in kinds for line in kind.held_out if len(line.split()) > 3]
    rng = np.random.default_rng(1)
    trained = [Messages(PHRASES, tiny.data).lesson(key % 30, rng).message for key in range(200)]
    assert not [text for text in trained for line in held_out if line.search(text)]
    assert not set(PHRASES.lines) & {line for kind in kinds for line in kind.held_out}


def test_a_slip_is_one_letter_and_never_the_first():
    rng = np.random.default_rng(0)
    slips = {slipped("western", rng) for _ in range(200)}
    assert len(slips) > 10
    assert all(slip[0] == "w" and abs(len(slip) - 7) <= 1 for slip in slips)
    assert slipped("war", rng) == "war"


def test_lessons_become_examples_and_pass_the_check_for_leaks(tiny: Tiny):
    mixture = tiny.mixture({"H1": 0.5, "H2": 0.5}, example_tokens=900)
    examples = mixture.examples(np.random.default_rng(0))
    assert {example.task for example in examples} == {"H1", "H2"}
    assert not mixture.left_out
    sids = set(tiny.item_tokens.ravel().tolist())
    assert not [token for example in examples for token in example.tokens.tolist() if token in sids]
    answers = [tiny.tokenizer.decode(example.tokens[example.targets].tolist()) for example in examples]
    assert all(answer.startswith("act: ") for answer, one in zip(answers, examples, strict=True) if one.task == "H1")


def test_words_for_a_list_hold_slots_and_no_title(tiny: Tiny):
    source = ReplyWords(PHRASES, tiny.data)
    for key in range(30):
        record = source.record(key, np.random.default_rng(key), 6)
        told = str(record.values["told"])
        assert "Film" not in told
        assert "{" not in told
        assert told.endswith((":", ".", "?"))
        assert record.items[0] == key


def test_a_text_tokenizer_made_here_reads_the_phrases_where_they_are_trained_on():
    with_lessons = template_words([default_prompts()], ["A1", "H1"], copies=1)
    assert "I fell asleep during {item}" in with_lessons
    assert "I fell asleep during {item}" not in template_words([default_prompts()], ["A1", "B1"], copies=1)


def test_brackets_and_lines_of_others_are_neutral_in_what_the_model_reads():
    assert marked_message("I  loved\nHeat [b] and Fargo!", [(9, 13), (22, 27)]) == "I loved [a] (b) and [b]!"
    assert state_text(asked="opener", told=False, shown=["A [1]\nmessage: x", "B"]) == (
        "asked: opener\ntold: nothing\nshown: 1. A (1) message: x; 2. B"
    )
    assert plan_text(topic="more", wishes=["no [x]\nHorror"], seeds=1, facts=["1999"]) == (
        "topic: more\nwishes: no (x) Horror\nfrom: [x]\n[1] 1999"
    )


def test_a_proposal_survives_its_text():
    proposal = Proposal("recommend", want=("Comedy", "Film-Noir"), years="-1979", liked=("[a]", "2"), also="more")
    assert proposal.text() == "act: recommend\nwant: Comedy; Film-Noir\nyears: -1979\nliked: [a]; 2\nalso: more"
    assert parse_proposal(proposal.text()) == proposal


def test_phrases_that_are_incomplete_are_named(tmp_path):
    with pytest.raises(ConfigError, match=MESSAGES_FILE):
        load_phrases(tmp_path)
    (tmp_path / MESSAGES_FILE).write_text("language: en\nclauses: {}\nsigns: {}\nreplies: {}\nreply_words: a\n")
    with pytest.raises(ConfigError, match="no phrases for want"):
        load_phrases(tmp_path)


@pytest.mark.parametrize("num_values", [0, 1, 2, 3])
def test_a_catalogue_of_few_values_has_messages_too(num_values: int) -> None:
    phrases = load_phrases(default_prompts())
    values = {name: [name] for name in ("soap", "tea", "salt")[:num_values]}
    for seed in range(400):  # each draws up to three clauses; two of them may want all that there is
        maker = _Maker(phrases, values, None, 2, held_out=False, rng=np.random.default_rng(seed))
        message, meaning = maker.wishes(told=True, asked="")
        assert message.strip()
        assert not set(meaning.want) & set(meaning.avoid)
