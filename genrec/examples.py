"""Histories become training examples: token ids and which of them the model is trained on.

Every position of a history is a target, so one pass over an example teaches all of its transitions; the
usual scheme of one example per target reads the same prefix again and again.

Shapes: I items, L levels, T tokens of an example.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from genrec.data.sequences import Sequences


@dataclass(frozen=True)
class Example:
    """Token ids (T,) and a mask (T,) that is True where the token is a target."""

    tokens: NDArray[np.int64]
    targets: NDArray[np.bool_]


def history_examples(
    sequences: Sequences,
    *,
    prompt: Sequence[int],
    item_tokens: NDArray[np.int64],
    max_items: int,
    rng: np.random.Generator,
) -> list[Example]:
    """One example per window of a history: the prompt's tokens, then the items' tokens, all of them targets.

    A history longer than `max_items` is read in consecutive windows, each item once; where the first window
    ends is drawn anew on every call, so over the epochs an item is seen with many contexts. `item_tokens` is
    (I, L).
    """
    prefix = np.asarray(prompt, dtype=np.int64)
    examples = []
    for history in sequences:
        for window in _windows(history, max_items, rng):
            tokens = np.concatenate([prefix, item_tokens[window].ravel()])
            targets = np.ones(len(tokens), dtype=np.bool_)
            targets[: len(prefix)] = False
            examples.append(Example(tokens, targets))
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
