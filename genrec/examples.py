"""Histories become training examples: token ids and which of them the model is trained on.

Every position of a history is a target, so one pass over an example teaches all of its transitions; the
usual scheme of one example per target reads the same prefix again and again (`examples_per_target`, kept to
measure that).

Shapes: I items, L levels, T tokens of an example.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from genrec.data.sequences import Sequences

SEQUENCE_TASK = "A1"  # whole histories


@dataclass(frozen=True)
class Example:
    """Token ids (T,) and a mask (T,) that is True where the token is a target; and where they come from."""

    tokens: NDArray[np.int64]
    targets: NDArray[np.bool_]
    task: str = SEQUENCE_TASK
    user: int = -1  # whose training history it tells of, as a row of the sequences; -1: nobody's
    items: tuple[int, ...] = ()  # every item whose ID or words are in it
    request: str = ""  # what somebody asks for in it, in words


def history_examples(
    sequences: Sequences,
    *,
    prompts: Sequence[Sequence[int]],
    item_tokens: NDArray[np.int64],
    max_items: int,
    rng: np.random.Generator,
    task: str = SEQUENCE_TASK,
    own_tokens: NDArray[np.int64] | None = None,
) -> list[Example]:
    """One example per window of a history: a prompt's tokens, then the items' tokens, all of them targets.

    A history longer than `max_items` is read in consecutive windows, each item once; where the first window
    ends is drawn anew on every call, so over the epochs an item is seen with many contexts. Of several `prompts`
    one is drawn for each example. `item_tokens` is (I, L).

    With `own_tokens`, (I,) and −1 for none, every window is read a second time, of its items' own tokens alone: a
    history that mixes both spellings teaches either of them worse (docs/experiments.md).
    """
    prefixes = [np.asarray(prompt, dtype=np.int64) for prompt in prompts]
    examples = []
    for user, history in enumerate(sequences):
        for window in _windows(history, max_items, rng):
            prefix = prefixes[int(rng.integers(len(prefixes)))] if len(prefixes) > 1 else prefixes[0]
            items = tuple(window.tolist())
            spellings = [item_tokens[window].ravel()]
            if own_tokens is not None:
                own = own_tokens[window]
                spellings += [own[own >= 0]] if (own >= 0).any() else []
            for spelling in spellings:
                tokens = np.concatenate([prefix, spelling])
                targets = np.ones(len(tokens), dtype=np.bool_)
                targets[: len(prefix)] = False
                examples.append(Example(tokens, targets, task, user, items))
    return examples


def examples_per_target(
    sequences: Sequences, *, prompt: Sequence[int], item_tokens: NDArray[np.int64], max_items: int
) -> list[Example]:
    """One example per training item: a prompt and at most `max_items` items, of which only the last is a target.

    So train LC-Rec (Zheng et al. 2024) and MiniOneRec: every item of a history but the first is
    predicted once from all that lies before it. Like theirs, but packed by the same code as `history_examples`, which
    only favours them: they pad.
    """
    prefix = np.asarray(prompt, dtype=np.int64)
    examples = []
    num_levels = item_tokens.shape[1]
    for user, history in enumerate(sequences):
        for end in range(2, len(history) + 1):
            window = history[max(0, end - max_items) : end]
            tokens = np.concatenate([prefix, item_tokens[window].ravel()])
            targets = np.arange(len(tokens)) >= len(tokens) - num_levels
            examples.append(Example(tokens, targets, SEQUENCE_TASK, user, tuple(window.tolist())))
    return examples


def _windows(history: NDArray[np.int32], max_items: int, rng: np.random.Generator) -> Iterator[NDArray[np.int32]]:
    """Consecutive pieces of at most `max_items` items; the first one's length is drawn."""
    if 0 < len(history) <= max_items:
        yield history
        return
    start = 0
    end = int(rng.integers(1, max_items + 1))
    while start < len(history):
        yield history[start:end]
        start, end = end, end + max_items
