"""One turn: what the state becomes, what is decoded, what is said."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from genrec.chat import ChatState, Dialogue
from genrec.chat.filters import relatives, without_constraint
from genrec.chat.plan import Plan
from genrec.chat.replay import Said, listed, markdown, plain, replay
from genrec.chat.replies import Segment, spoken, write
from genrec.chat.state import Constraints, Span, Wish


def talk(dialogue: Dialogue, *messages: str) -> list:
    state, turns = ChatState(), []
    for message in messages:
        turns.append(dialogue.turn(state, message))
        state = turns[-1].state
    return turns


def titles(dialogue: Dialogue, item_ids) -> list[str]:
    catalog = dialogue.index.catalog
    return [catalog.titles[catalog.index[item]] for item in item_ids]


def test_a_state_survives_json(film_dialogue: Dialogue):
    state = talk(film_dialogue, "I loved Alien, no comedies, from the 90s", "the second one is boring", "why?")[
        -1
    ].state
    assert state.disliked
    assert ChatState.model_validate_json(state.model_dump_json()) == state


def test_the_same_messages_give_the_same_turns(film_dialogue: Dialogue):
    messages = ("I loved Alien", "no horror", "surprise me", "why the second one?")
    first, second = talk(film_dialogue, *messages), talk(film_dialogue, *messages)
    assert [turn.text for turn in first] == [turn.text for turn in second]


def test_a_disliked_item_takes_its_kind_with_it(film_dialogue: Dialogue):
    turns = talk(film_dialogue, "surprise me", "I hated the first one")
    disliked = film_dialogue.index.catalog.index[turns[0].item_ids[0]]
    tokens = film_dialogue.recommender.item_tokens
    family = set(relatives(tokens, disliked).tolist())
    assert family == {row for row in range(len(tokens)) if tokens[row, 0] == tokens[disliked, 0]}
    state = turns[1].state
    for _ in range(4):
        turn = film_dialogue.turn(state, "more")
        state = turn.state
        assert not family & {film_dialogue.index.catalog.index[item] for item in turn.item_ids}
    assert any("items of its kind" in step for step in turns[1].trace)


@pytest.mark.parametrize(("codes", "expected"), [([[1, 1], [1, 2], [2, 1]], 1), ([[1, 1]] * 300, 1)])
def test_an_item_without_narrow_company_stands_alone(codes, expected):
    assert len(relatives(np.array(codes), 0)) == expected


def test_every_title_stands_in_a_slot_and_every_slot_holds_the_title_of_its_item(film_dialogue: Dialogue):
    catalog = film_dialogue.index.catalog
    for turn in talk(
        film_dialogue, "I liked Alien and Fargo", "why?", "tell me about the second one", "what do you know?"
    ):
        slots = [part for part in turn.segments if part.item_id is not None]
        assert slots
        assert all(part.text == catalog.titles[catalog.index[part.item_id]] for part in slots)
        # What is not a slot holds none of the longer titles of the catalogue.
        words = " ".join(part.text for part in turn.segments if part.item_id is None)
        assert not [title for title in catalog.titles if len(title) > 14 and title in words]


def test_the_trace_says_what_was_decided(film_dialogue: Dialogue):
    trace = "\n".join(talk(film_dialogue, "I loved Termintor, no comedies, from the 80s")[0].trace)
    for words in ("read 'Termintor' as The Terminator", "likes The Terminator", "+ no Comedy", "decoded 5 of 5"):
        assert words in trace


def test_a_plan_and_its_ranking_are_the_turn(film_dialogue: Dialogue):
    plan = film_dialogue.plan(ChatState(), "a western")
    ranked = film_dialogue.recommender.rank([plan.request], plan.k)[0]
    assert film_dialogue.finish(plan, ranked) == film_dialogue.turn(ChatState(), "a western")


def test_a_conversation_kept_elsewhere_gives_the_same_state(film_dialogue: Dialogue):
    messages = ("I loved Alien, no comedies", "the second one is boring", "more", "hi")
    state, said = ChatState(), []
    for message in messages:
        turn = film_dialogue.turn(state, message)
        state = turn.state
        said += [Said("user", message), Said("assistant", plain(markdown(turn.segments)))]
    assert film_dialogue.alone(replay(film_dialogue, ChatState(), said)) == state


def test_items_are_read_from_numbered_lines_and_told_apart_by_year(film_dialogue: Dialogue):
    text = "King Kong\n1. King Kong — 1976, Adventure\n2. No Such Film — 1990\n3. Alien — 1979"
    rows = listed(film_dialogue.index, text)
    assert [film_dialogue.index.catalog.titles[row] for row in rows] == ["King Kong", "Alien"]
    assert film_dialogue.index.year(rows[0]) == 1976


def test_a_title_with_a_dash_is_read_whole(film_dialogue: Dialogue):
    row = film_dialogue.index.catalog.titles.index("Alien")
    index = replace(film_dialogue.index, names={("rose", "soap"): (row,), ("rose",): (1,), ("mint",): (2,)})
    assert listed(index, "1. Rose — Soap — 1979, Horror\n2. Mint — Fresh\n3. Rose") == [row, 2, 1]


def test_the_past_is_read_without_writing_and_with_a_pause_after_every_message(
    film_dialogue: Dialogue, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Dialogue, "finish", None)
    said = [Said("user", "I loved Alien"), Said("assistant", "1. Heat — 1995"), Said("user", "why?")]
    steps = replay(film_dialogue, ChatState(), said)
    assert [type(need).__name__ for need in (next(steps), next(steps))] == ["Pause", "Pause"]
    with pytest.raises(StopIteration) as done:
        next(steps)
    assert done.value.value.slate == (film_dialogue.index.catalog.item_ids[film_dialogue.index.names[("heat",)][0]],)


def test_markdown_of_a_hostile_title_is_only_its_text():
    title = "![x](http://evil) <script>`*_M*A*S*H_*`</script>"
    text = markdown([Segment(title, "i1")])
    assert plain(text) == title
    assert not any(mark in text.replace("\\" + mark, "") for mark in "<>[]*_`")


def test_each_filter_can_be_taken_back_by_its_label():
    wishes = Constraints(
        wanted=(Wish(attribute="genres", values=("Comedy", "Drama")),),
        unwanted=(Wish(attribute="genres", values=("War",)),),
        spans=(Span(attribute="year", low=1990, high=1999),),
        outside=(Span(attribute="year", low=1994, high=1994),),
    )
    assert without_constraint(wishes, "Comedy or Drama").wanted == ()
    assert without_constraint(wishes, "no War").unwanted == ()
    assert without_constraint(wishes, "from 1990 to 1999").spans == ()
    assert without_constraint(wishes, "not from 1994").outside == ()
    assert without_constraint(wishes, "something else") == wishes


def test_a_state_from_before_ranges_could_be_refused_still_loads():
    old = {
        "constraints": {"spans": [{"attribute": "year", "low": 1990}]},
        "question": {"item_ids": ["a"], "feeling": "liked"},
    }
    state = ChatState.model_validate_json(json.dumps(old))
    assert state.constraints.outside == ()
    assert state.question is not None
    assert state.question.waiting == ()


def test_the_newest_opinion_counts():
    state = ChatState().judge(["a", "b"], "liked").judge(["a"], "disliked").judge(["b"], "seen").judge(["b"], "cleared")
    assert (state.liked, state.disliked, state.seen) == ((), ("a",), ())


def test_a_like_and_a_dislike_of_one_sentence_are_both_kept(film_dialogue: Dialogue):
    first, second = talk(film_dialogue, "surprise me", "I like the first but not the second")
    assert (second.state.liked, second.state.disliked) == (first.item_ids[:1], first.item_ids[1:2])


@pytest.mark.parametrize("basis", [True, False])
def test_where_nothing_ties_an_item_to_what_was_told_no_people_are_made_up(film_dialogue: Dialogue, basis: bool):
    index = film_dialogue.index
    told, shown, other = index.catalog.item_ids[:3]
    state = ChatState(basis=(told,) if basis else (), shown=(shown,))
    rows = (index.catalog.index[shown], index.catalog.index[other])
    text = spoken(write(index, Plan("explain", "why", state, rows=rows, explained=("", "")), ()))
    assert "people" not in text
    assert ("no fact ties it to that" in text) == basis
    assert text.endswith("I have not recommended it.")


def test_why_of_a_whole_list_gives_a_reason_each_and_the_wish_once(film_dialogue: Dialogue):
    turn = film_dialogue.turn(ChatState(), "I loved Alien, a thriller from the 90s")
    why = film_dialogue.turn(turn.state, "why?")
    assert len([part for part in why.text.split("\n") if ": " in part]) == 6
    assert why.text.endswith("\nYou asked for: Thriller; from 1990 to 1999.")
    assert why.text.count("You asked for") == 1
    one = film_dialogue.turn(turn.state, "why the second one?")
    assert one.text.endswith(" You asked for: Thriller; from 1990 to 1999.")
