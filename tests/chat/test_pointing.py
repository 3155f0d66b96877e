"""What is said of items of the last list: unseen ones, "it" that is a wish, all but one, corrections."""

from __future__ import annotations

import pytest

from genrec.chat import ChatState, Dialogue
from genrec.chat.filters import constraint_words


def _state(dialogue: Dialogue, *messages: str) -> tuple[ChatState, list[tuple[str, ...]]]:
    """The state after some messages, and the lists that there were before the last one."""
    state, slates = ChatState(), []
    for message in messages:
        slates.append(state.slate)
        state = dialogue.turn(state, message).state
    return state, slates


def _opinions(state: ChatState) -> tuple[tuple[str, ...], ...]:
    return (state.liked, state.disliked, state.seen, state.seeds)


@pytest.mark.parametrize(
    "text",
    [
        "I haven't seen any of these",
        "I haven't seen the second one",
        "I haven't seen it yet",
        "I've not watched those",
        "I haven't seen Alien",
        "never seen Alien",
        "I've never heard of Alien",
        "I haven't seen King Kong",  # several have that title, and it does not matter which one
        "I haven't seen Alien or Heat",
    ],
)
def test_what_was_not_seen_is_no_opinion_and_no_start(film_dialogue: Dialogue, text: str):
    before = film_dialogue.turn(ChatState(), "a comedy").state
    turn = film_dialogue.turn(before, text)
    assert _opinions(turn.state) == ((), (), (), ())
    assert (turn.act, turn.state.question, turn.state.slate) == ("chat", None, before.slate)
    assert film_dialogue.turn(ChatState(), "never seen Alien").act == "ask"  # nothing is known yet


def test_beside_what_was_not_seen_the_rest_of_a_message_counts(film_dialogue: Dialogue):
    index = film_dialogue.index
    heat = index.catalog.item_ids[index.names[("heat",)][0]]
    assert _opinions(_state(film_dialogue, "I have not seen Alien but I loved Heat")[0]) == ((heat,), (), (), ())
    assert _opinions(_state(film_dialogue, "I loved Heat and have not seen Alien")[0]) == ((heat,), (), (), ())
    assert film_dialogue.turn(ChatState(), "I haven't seen Alien, tell me about it").act == "answer"
    assert film_dialogue.turn(ChatState(), "I haven't seen Alien, show me a western").act == "recommend"
    assert len(_state(film_dialogue, "I haven't seen Heat in years")[0].seen) == 1


def test_an_item_that_was_not_seen_after_all_is_no_longer_seen(film_dialogue: Dialogue):
    state, _ = _state(film_dialogue, "I have seen Alien and Heat", "actually I have not seen Alien")
    index = film_dialogue.index
    assert state.seen == (index.catalog.item_ids[index.names[("heat",)][0]],)


@pytest.mark.parametrize(
    ("text", "filters"),
    [
        ("make it newer", ["Comedy", "1995 or later"]),
        ("make it a thriller", ["Thriller"]),
        ("it should be from the 90s", ["Comedy", "from 1990 to 1999"]),
        ("can it be shorter", ["Comedy"]),
        ("could it be something from the 80s?", ["Comedy", "from 1980 to 1989"]),
        ("it has to be a western", ["Western"]),
        ("it shouldn't be a comedy", ["no Comedy"]),
        ("I want it to be older", ["Comedy", "1993 or earlier"]),
        ("I'd like it older", ["Comedy", "1993 or earlier"]),
        ("it'd be great if it was newer", ["Comedy", "1995 or later"]),
        ("can you make it without vampires", ["Comedy", "no vampires"]),
        ("anything, as long as it is funny", ["Comedy"]),
        ("it doesn't matter", ["Comedy"]),
    ],
)
def test_it_is_what_is_asked_for_where_something_is_wished_of_it(
    film_dialogue: Dialogue, text: str, filters: list[str]
):
    state, _ = _state(film_dialogue, "a comedy", text)
    assert (constraint_words(state.constraints), _opinions(state)) == (filters, ((), (), (), ()))


@pytest.mark.parametrize(
    ("text", "opinion"),
    [
        ("I loved it", "liked"),
        ("it was too long", "disliked"),
        ("I've seen it", "seen"),
        ("something like it", "seeds"),
        ("I'd like something like it, but make it newer", "seeds"),
        ("I loved it but make it newer", "liked"),
        ("could it be that it is boring?", "disliked"),
    ],
)
def test_elsewhere_it_is_an_item(film_dialogue: Dialogue, text: str, opinion: str):
    state, slates = _state(film_dialogue, "a comedy", text)
    assert getattr(state, opinion) == slates[-1][:1]


@pytest.mark.parametrize("text", ["tell me more about it", "is it a thriller?", "when did they make it?"])
def test_questions_about_it_are_answered(film_dialogue: Dialogue, text: str):
    before = film_dialogue.turn(ChatState(), "a comedy").state
    turn = film_dialogue.turn(before, text)
    assert (turn.act, {part.item_id for part in turn.segments} - {None}) == ("answer", {before.slate[0]})


def test_a_comparative_that_is_wished_of_it_is_owned_up_to(film_dialogue: Dialogue):
    before = film_dialogue.turn(ChatState(), "a comedy").state
    for text in ("can it be shorter", "make it shorter", "it could be a bit shorter"):
        assert "cannot judge “shorter”" in film_dialogue.turn(before, text).text


@pytest.mark.parametrize(
    ("text", "feeling", "places"),
    [
        ("I've seen all of them except the last one", "seen", (0, 1, 2, 3)),
        ("I liked all but the last", "liked", (0, 1, 2, 3)),
        ("I hated everything except the second", "disliked", (0, 2, 3, 4)),
        ("everything but the first was boring", "disliked", (1, 2, 3, 4)),
        ("all of them but the last were boring", "disliked", (0, 1, 2, 3)),
        ("I loved all of them, except the third and fourth", "liked", (0, 1, 4)),
        ("I've seen them all apart from the first two", "seen", (2, 3, 4)),
        ("I liked all of them except Pulp Fiction", "liked", (1, 2, 3, 4)),
        ("I've seen every one but the third", "seen", (0, 1, 3, 4)),
        ("I liked none of them except the first", "liked", (0,)),
        ("I liked nothing but the second one", "liked", (1,)),
        ("something like all of these but the second", "seeds", (0, 2, 3, 4)),
    ],
)
def test_what_is_left_out_of_all_of_a_list_gets_no_opinion(
    film_dialogue: Dialogue, text: str, feeling: str, places: tuple[int, ...]
):
    state, slates = _state(film_dialogue, "a thriller", text)
    titles = film_dialogue.index.catalog.titles
    assert titles[film_dialogue.index.catalog.index[slates[-1][0]]] == "Pulp Fiction"
    opinions = dict(zip(("liked", "disliked", "seen", "seeds"), _opinions(state), strict=True))
    assert {name: found for name, found in opinions.items() if found} == {
        feeling: tuple(slates[-1][place] for place in places)
    }


def test_what_is_said_of_the_left_out_one_itself_counts(film_dialogue: Dialogue):
    for text in ("I liked all of them but the last was boring", "I loved all of them, but not the last"):
        state, slates = _state(film_dialogue, "a thriller", text)
        assert (state.liked, state.disliked) == (slates[-1][:-1], slates[-1][-1:])


@pytest.mark.parametrize(
    ("text", "filters"),
    [
        ("I like everything except Alien", ["Thriller"]),
        ("I like everything except horror", ["Thriller", "no Horror"]),
        ("I like everything except Alien and horror", ["Thriller", "no Horror"]),
    ],
)
def test_everything_is_not_the_list_where_what_is_left_out_is_not_of_it(
    film_dialogue: Dialogue, text: str, filters: list[str]
):
    state, _ = _state(film_dialogue, "a thriller", text)
    index = film_dialogue.index
    alien = index.catalog.item_ids[index.names[("alien",)][0]]
    assert constraint_words(state.constraints) == filters
    assert _opinions(state) == ((), (alien,) if "Alien" in text else (), (), ())
    heat = _state(film_dialogue, "a thriller", "I hated everything but Heat")[0]
    assert (heat.liked, heat.disliked) == ((index.catalog.item_ids[index.names[("heat",)][0]],), ())
