"""Histories become examples: every item once, windows that fit, the right targets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from genrec.data.sequences import Sequences
from genrec.examples import Example, examples_per_target, history_examples

PROMPT = [900, 901, 902]
LEVELS = 2
ITEM_TOKENS = np.arange(200, dtype=np.int64).reshape(100, LEVELS)  # item i is the tokens 2i, 2i + 1


def make(histories: list[list[int]], max_items: int, seed: int = 0) -> list[Example]:
    sequences = Sequences.from_lists([str(user) for user in range(len(histories))], histories)
    return history_examples(
        sequences, prompts=[PROMPT], item_tokens=ITEM_TOKENS, max_items=max_items, rng=np.random.default_rng(seed)
    )


def items_of(example: Example) -> NDArray[np.int64]:
    return example.tokens[len(PROMPT) :: LEVELS] // LEVELS


@given(
    st.lists(st.lists(st.integers(0, 99), max_size=30), max_size=5),
    st.integers(1, 12),
    st.integers(0, 5),
)
def test_every_item_is_read_once_in_order_and_no_window_is_too_long(
    histories: list[list[int]], max_items: int, seed: int
):
    examples = make(histories, max_items, seed)
    read = [int(item) for example in examples for item in items_of(example)]
    assert read == [item for history in histories for item in history]
    assert all(1 <= len(items_of(example)) <= max_items for example in examples)
    fitting = [history for history in histories if 0 < len(history) <= max_items]
    assert sum(items_of(example).tolist() in fitting for example in examples) >= len(fitting)
    # A window more than the least number, at most: the first one's length is drawn, the others are full.
    assert len(examples) <= sum(-(-len(history) // max_items) + 1 for history in histories)


def test_an_example_is_the_prompt_then_all_levels_and_only_the_items_are_targets():
    (example,) = make([[3, 1]], 5)
    assert example.tokens.tolist() == [900, 901, 902, 6, 7, 2, 3]
    assert example.targets.tolist() == [False, False, False, True, True, True, True]


def test_a_long_history_is_cut_elsewhere_each_time_and_equally_for_the_same_seed():
    history = [list(range(20))]
    cuts = {seed: tuple(len(items_of(example)) for example in make(history, 6, seed)) for seed in range(40)}
    assert {lengths[0] for lengths in cuts.values()} == {1, 2, 3, 4, 5, 6}
    assert all(set(lengths[1:-1]) == {6} for lengths in cuts.values())
    assert cuts[3] == tuple(len(items_of(example)) for example in make(history, 6, 3))


@pytest.mark.parametrize("histories", [[], [[]], [[], []]])
def test_no_interactions_make_no_examples(histories: list[list[int]]):
    assert make(histories, 4) == []


@given(st.lists(st.lists(st.integers(0, 99), max_size=9), max_size=4), st.integers(2, 5))
def test_one_example_per_target_predicts_every_item_but_the_first_from_all_before(
    histories: list[list[int]], max_items: int
):
    sequences = Sequences.from_lists([str(user) for user in range(len(histories))], histories)
    examples = examples_per_target(sequences, prompt=PROMPT, item_tokens=ITEM_TOKENS, max_items=max_items)
    expected = [
        (user, history[max(0, end - max_items) : end])
        for user, history in enumerate(histories)
        for end in range(2, len(history) + 1)
    ]
    assert [(example.user, items_of(example).tolist()) for example in examples] == expected
    for example in examples:
        assert example.targets.tolist() == [False] * (len(example.tokens) - LEVELS) + [True] * LEVELS
        assert list(example.items) == items_of(example).tolist()


def test_of_several_prompts_each_is_used_and_one_alone_draws_nothing():
    histories = [[1, 2]] * 40
    sequences = Sequences.from_lists([str(user) for user in range(40)], histories)
    rng = np.random.default_rng(0)
    some = history_examples(sequences, prompts=[[7], [8, 9]], item_tokens=ITEM_TOKENS, max_items=5, rng=rng)
    assert {tuple(example.tokens[:-4].tolist()) for example in some} == {(7,), (8, 9)}
    assert all(example.targets.sum() == 4 for example in some)
    untouched = np.random.default_rng(0)
    history_examples(sequences, prompts=[[7]], item_tokens=ITEM_TOKENS, max_items=5, rng=untouched)
    assert untouched.random() == np.random.default_rng(0).random()
