"""Answers to "which one do you mean?", messages that are none, and corrections of what was said before."""

from __future__ import annotations

import pytest

from genrec.chat import ChatState, Dialogue
from genrec.chat.filters import constraint_words
from genrec.chat.turn import ChatTurn


def _after(dialogue: Dialogue, *messages: str) -> tuple[list[ChatTurn], ChatState]:
    turns: list[ChatTurn] = []
    state = ChatState()
    for message in messages:
        turns.append(dialogue.turn(state, message))
        state = turns[-1].state
    return turns, state


def _years(dialogue: Dialogue, items: tuple[str, ...]) -> list[int | None]:
    """What items with one title differ in."""
    return [dialogue.index.year(dialogue.index.catalog.index[item]) for item in items]


@pytest.mark.parametrize(
    ("text", "years"),
    [
        ("the first", [1997]),
        ("no, the second one", [1953]),
        ("the one from 1953", [1953]),
        ("1997 please", [1997]),
        ("the romantic one", [1997]),
        ("a romance", [1997]),
        ("older", [1953]),
        ("not the first one", [1953]),
        ("not the 1997 one, the other", [1953]),
        ("not the first one, the second one", [1953]),
        ("I hated the first one", [1997]),
        ("both of them were boring", [1997, 1953]),
    ],
)
def test_what_is_picked_gets_the_opinion_that_was_asked_about(film_dialogue: Dialogue, text: str, years: list[int]):
    _, state = _after(film_dialogue, "I hated Titanic", text)
    assert _years(film_dialogue, state.disliked) == years
    assert (state.liked, state.seeds, state.question, constraint_words(state.constraints)) == ((), (), None, [])


@pytest.mark.parametrize(
    ("text", "feeling", "years"),
    [
        ("I liked the second one", "liked", [1953]),
        ("the second one is great", "liked", [1953]),
        ("I've seen the first", "seen", [1997]),
        ("something like the first one", "seeds", [1997]),
    ],
)
def test_an_answer_that_says_something_else_of_an_item_is_that(
    film_dialogue: Dialogue, text: str, feeling: str, years: list[int]
):
    _, state = _after(film_dialogue, "I hated Titanic", text)
    assert (state.disliked, state.question) == ((), None)
    assert _years(film_dialogue, getattr(state, feeling)) == years


@pytest.mark.parametrize(
    ("text", "act", "filters"),
    [
        ("a comedy from 1997", "recommend", ["Comedy", "from 1997"]),
        ("show me a western", "recommend", ["Western"]),
        ("surprise me", "recommend", []),
        ("never mind", "chat", []),
        ("neither", "chat", []),
        ("none of them", "chat", []),
        ("forget it", "chat", []),
        ("thanks", "chat", []),
        ("I haven't seen the second", "ask", []),
    ],
)
def test_a_message_that_is_no_answer_is_handled_alone_and_drops_the_question(
    film_dialogue: Dialogue, text: str, act: str, filters: list[str]
):
    turns, state = _after(film_dialogue, "I hated Titanic", text)
    assert (turns[-1].act, constraint_words(state.constraints), state.question) == (act, filters, None)
    assert (state.liked, state.disliked, state.seen, state.seeds) == ((), (), (), ())


@pytest.mark.parametrize("text", ["what do you mean?", "it was boring", "that one", "the original", "the ninth"])
def test_where_nothing_is_heard_the_question_is_asked_once_more(film_dialogue: Dialogue, text: str):
    turns, state = _after(film_dialogue, "I hated Titanic", text)
    assert "Which one do you mean?" in turns[-1].text
    assert _years(film_dialogue, film_dialogue.turn(state, "the second").state.disliked) == [1953]
    again = film_dialogue.turn(state, text)
    assert "Which one" not in again.text
    assert (again.state.question, again.state.disliked, again.state.seeds) == (None, (), ())


def test_of_several_that_are_left_it_is_asked_which(film_dialogue: Dialogue):
    turns, state = _after(film_dialogue, "I loved King Kong", "not the first one")
    assert [part in turns[-1].text for part in ("1933", "1976", "2005")] == [False, True, True]
    assert _years(film_dialogue, film_dialogue.turn(state, "the last").state.liked) == [2005]


def test_a_question_about_one_of_them_is_answered_and_the_own_one_stays(film_dialogue: Dialogue):
    turns, state = _after(film_dialogue, "I hated Titanic", "tell me about the first one", "the second")
    assert (turns[1].act, turns[1].state.disliked) == ("answer", ())
    assert _years(film_dialogue, state.disliked) == [1953]


def test_what_was_asked_about_a_title_that_several_have_is_answered(film_dialogue: Dialogue):
    turns, state = _after(film_dialogue, "tell me about Titanic", "the second")
    assert (turns[-1].act, "1953" in turns[-1].text, state.seeds) == ("answer", True, ())


def test_another_title_may_have_been_meant(film_dialogue: Dialogue):
    _, state = _after(film_dialogue, "I hated Titanic", "no, I meant Heat")
    titles = [film_dialogue.index.catalog.titles[film_dialogue.index.catalog.index[item]] for item in state.disliked]
    assert (titles, state.seeds) == (["Heat"], ())


@pytest.mark.parametrize(
    ("said", "text", "feeling", "places"),
    [
        ("I hated the second one", "sorry, I meant the third one", "disliked", (2,)),
        ("I hated the second one", "no, the third one", "disliked", (2,)),
        ("I hated the second one", "not the second one, the third one", "disliked", (2,)),
        ("I hated the second one", "not that one, the third", "disliked", (2,)),
        ("I've seen the second one", "oops, the first one I mean", "seen", (0,)),
        ("I loved the first two", "sorry, I meant the last two", "liked", (3, 4)),
        ("something like the first one", "I meant the second one", "seeds", (1,)),
    ],
)
def test_a_correction_takes_back_what_was_said_and_says_it_of_what_was_meant(
    film_dialogue: Dialogue, said: str, text: str, feeling: str, places: tuple[int, ...]
):
    turns, state = _after(film_dialogue, "a comedy", said, text)
    opinions = {name: getattr(state, name) for name in ("liked", "disliked", "seen", "seeds")}
    meant = tuple(turns[0].item_ids[place] for place in places)  # of the list that both messages speak of
    assert {name: found for name, found in opinions.items() if found} == {feeling: meant}


@pytest.mark.parametrize(
    ("text", "feeling", "place"),
    [
        ("I loved the first one, sorry, I meant the second one", "liked", 1),
        ("I hated the first one, no, the second one", "disliked", 1),
        ("I've seen the first one. Sorry, I meant the third", "seen", 2),
    ],
)
def test_a_message_may_correct_itself(film_dialogue: Dialogue, text: str, feeling: str, place: int):
    turns, state = _after(film_dialogue, "a comedy", text)
    opinions = {name: getattr(state, name) for name in ("liked", "disliked", "seen", "seeds")}
    assert {name: found for name, found in opinions.items() if found} == {feeling: (turns[0].item_ids[place],)}


def test_titles_and_questions_are_corrected_too(film_dialogue: Dialogue):
    index = film_dialogue.index
    heat, casino = (index.catalog.item_ids[index.names[(name,)][0]] for name in ("heat", "casino"))
    assert _after(film_dialogue, "I loved Heat", "not Heat, Casino")[1].liked == (casino,)
    assert _after(film_dialogue, "I loved Casino", "sorry, I meant Heat")[1].liked == (heat,)
    turns, state = _after(film_dialogue, "I loved Heat", "tell me about Heat", "sorry, the second one")
    assert (turns[-1].act, state.focus, state.liked) == ("answer", turns[0].item_ids[1], (heat,))
    _, state = _after(film_dialogue, "I loved Titanic", "the first one", "sorry, I meant the second one")
    assert _years(film_dialogue, state.liked) == [1953]


def test_the_other_one_of_two_is_known_and_of_more_it_is_asked_which(film_dialogue: Dialogue):
    _, state = _after(film_dialogue, "I loved Titanic", "the first one", "no, I meant the other one")
    assert _years(film_dialogue, state.liked) == [1953]
    turns, state = _after(film_dialogue, "a comedy", "I loved the first", "no, I meant the other one")
    assert (turns[-1].act, state.liked) == ("ask", ())
    assert film_dialogue.turn(state, "the last").state.liked == turns[0].item_ids[-1:]


@pytest.mark.parametrize(
    ("text", "liked", "disliked"),
    [
        ("actually I loved the third", True, True),  # another opinion, of the new list
        ("sorry", False, True),
        ("sorry, I meant comedies from the 80s", False, True),
    ],
)
def test_what_corrects_no_item_leaves_what_was_said(film_dialogue: Dialogue, text: str, liked: bool, disliked: bool):
    turns, state = _after(film_dialogue, "a comedy", "I hated the second one", text)
    assert state.disliked == (turns[0].item_ids[1:2] if disliked else ())
    assert state.liked == (turns[1].item_ids[2:3] if liked else ())
