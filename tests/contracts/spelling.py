"""Items that have a token of their own in the contract suite: how engines are asked, and what they must say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genrec.decoding.engine import Engine, RankedItem
from genrec.vocabulary import SidVocabulary

SIZES = (5, 3, 4)
WITH_ITEMS = SidVocabulary(SIZES, (10, 20, 24), item_rows=(0, 2, 3, 7), item_share=0.6)  # tokens 28 to 31


def item_prompt(prompt: Sequence[int]) -> list[int] | None:
    """The prompt in which items' own tokens are asked for: another one, and of one user none."""
    return None if len(prompt) == 1 else list(prompt)[::-1]


class WithItemPrompts:
    """An engine that is always asked for items' own tokens, too."""

    def __init__(self, engine: Engine) -> None:
        self.alone = engine

    def rank(self, prompts: Sequence[Sequence[int]], *given: Any, **options: Any) -> list[list[RankedItem]]:
        return self.alone.rank(prompts, *given, **options, item_prompts=[item_prompt(one) for one in prompts])


def item_script(prompts: Sequence[tuple[int, ...]]) -> tuple[tuple[int, ...], NDArray[np.float32], float]:
    draws = [np.random.default_rng([*prompt, 7]).dirichlet(np.ones(len(WITH_ITEMS.item_rows))) for prompt in prompts]
    return WITH_ITEMS.item_rows, np.log(draws).astype(np.float32), WITH_ITEMS.item_share


def with_own_tokens(values: NDArray[np.float64], scores: dict[int, float], *, renormalise: bool) -> dict[int, float]:
    """Both spellings of an item together: its probability under the mixture of the two."""
    chances = {row: float(np.exp(value)) for row, value in zip(WITH_ITEMS.item_rows, values, strict=True)}
    total = sum(chances.get(item, 0.0) for item in scores) if renormalise else 1.0
    share = WITH_ITEMS.item_share if total else 0.0  # no allowed item has a token of its own
    with np.errstate(divide="ignore"):
        return {
            item: float(np.log((1 - share) * np.exp(score) + share * chances.get(item, 0.0) / (total or 1.0)))
            for item, score in scores.items()
        }
