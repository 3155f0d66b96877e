"""What is said of items of the last list: unseen ones, "it" that is a wish, all but one, corrections."""

from __future__ import annotations

import pytest

from genrec.chat import ChatState, Dialogue


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
