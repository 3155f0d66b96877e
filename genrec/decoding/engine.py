"""The one seam for models: prompts in; ranked items or text out.

An engine knows token ids and item indices. Titles, histories and templates are above it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal, Protocol, TypedDict, get_args

import numpy as np
from numpy.typing import NDArray

from genrec.config import Weights
from genrec.errors import ConfigError, ModelError, TrieError
from genrec.evidence import Evidence
from genrec.trie import ItemTrie
from genrec.trie_filters import ItemFilter
from genrec.vocabulary import SidVocabulary

ScoreMode = Literal["level", "raw", "renormalised"]
"""What a level's log-probability is normalised over: the K codes of the level, the whole vocabulary, or the
allowed children of the node. The three rank differently."""


BeamWidth = int | tuple[int, ...]
"""Beams kept after every level, or one number for each level but the last, such as (256, 50, 50) of four."""


_HOTTEST = 2  # vLLM's limit


def check_width(width: BeamWidth) -> None:
    """Raise ConfigError for a beam that keeps nothing."""
    widths = width if isinstance(width, tuple) else (width,)
    if not widths or not all(isinstance(one, Integral) and one >= 1 for one in widths):
        raise ConfigError(
            f"a beam of width {width!r} was asked for; expected 1 or more on every level.",
            "Give a whole number, or a tuple of one for each level but the last.",
        )


def check_trie(trie: ItemTrie, vocabulary: SidVocabulary) -> None:
    """Raise TrieError for a trie whose codes the model does not know, or knows as those of other items."""
    if trie.codebook_sizes != vocabulary.codebook_sizes:
        raise TrieError(
            f"the trie has codebooks {trie.codebook_sizes}, the model {vocabulary.codebook_sizes}.",
            "The items were tokenized again after training: run `genrec train RUN` again.",
        )
    theirs, ours = trie.tokenizer_checksum[:12], vocabulary.tokenizer_checksum[:12]
    if theirs and ours and trie.tokenizer_checksum != vocabulary.tokenizer_checksum:
        raise TrieError(
            f"the trie is of the item tokenizer {theirs}, the model of {ours}: equal codes mean other items there.",
            "Use the model and the trie of one run. Where its items were tokenized again after training, run `genrec "
            "train RUN` again, and `genrec export` for what is served elsewhere.",
        )


def check_tokens(prompts: Sequence[Sequence[int]], *, num_tokens: int) -> None:
    """Raise ModelError for an empty prompt, and for a token that a model with so many does not have."""
    for row, prompt in enumerate(prompts):
        if not len(prompt):
            raise ModelError(f"prompt {row} is empty.", "A prompt needs at least one token, such as a start token.")
        if not (min(prompt) >= 0 and max(prompt) < num_tokens):
            strange = next(token for token in prompt if not 0 <= token < num_tokens)
            raise ModelError(
                f"prompt {row} holds the token {strange}; the model has tokens from 0 to {num_tokens - 1}."
            )


def check_writing(*, max_new_tokens: int, temperature: float, seed: int) -> None:
    """Raise ConfigError for options of a text that no engine can write with."""
    if max_new_tokens < 1 or not 0 <= temperature <= _HOTTEST:
        raise ConfigError(
            f"max_new_tokens is {max_new_tokens} and temperature is {temperature}; expected at least 1 token and a "
            f"temperature from 0 to {_HOTTEST}."
        )
    if not isinstance(seed, Integral) or not 0 <= seed < 2**63:
        raise ConfigError(f"the seed is {seed!r}; expected a whole number from 0 to 2**63 - 1.")


def check_score_mode(mode: str) -> None:
    """Raise ConfigError for a mode that does not exist."""
    if mode not in (modes := get_args(ScoreMode)):
        raise ConfigError(f"there is no score mode {mode!r}.", f"Choose one of: {', '.join(modes)}.")


class EngineOptions(TypedDict, total=False):
    """How an engine is opened (`genrec.decoding.opening.open_engine`)."""

    score_mode: ScoreMode
    device: str | None  # None: the GPU where there is one; vLLM knows its own
    weights: Weights  # int8 and nf4 are read through bitsandbytes, by the transformers engine only
    remembered_bytes: int  # of keys and values, kept for prompts that come again; vLLM has a cache of its own
    engine_options: Mapping[str, Any]  # vLLM's own engine arguments, such as max_model_len


@dataclass(frozen=True)
class RankedItem:
    """One item of an answer. `score` is a sum of log-probabilities over the levels, comparable within a mode.

    With evidence `score` is what the two together say (see `genrec.evidence`) and `model_score` the model's own
    part; without, they are equal. `trail` is the model's score of each prefix of the item's semantic ID, the whole of
    it last; an answer merged from several searches has none.
    """

    item_index: int
    score: float
    score_mode: ScoreMode
    model_score: float
    trail: tuple[float, ...] = ()


@dataclass(frozen=True)
class Generation:
    """Text that a model wrote, without the prompt and without the stop string."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: Literal["stop", "length"]  # an end token or stop string; or max_new_tokens reached


class Engine(Protocol):
    """What every engine does. One contract suite (tests/contracts) runs against all of them."""

    @property
    def concurrent(self) -> bool:
        """Whether calls of several threads are computed together: then a short one does not wait for a long one."""
        ...

    def rank(
        self,
        prompts: Sequence[Sequence[int]],
        trie: ItemTrie,
        *,
        beam_width: BeamWidth,
        k: int,
        allowed: Sequence[ItemFilter | None] | None = None,
        evidence: Sequence[Evidence | None] | None = None,
        item_prompts: Sequence[Sequence[int] | None] | None = None,
        own_items: NDArray[np.bool_] | None = None,
    ) -> list[list[RankedItem]]:
        """The best items per prompt, at most `k`, best first, ties by item index.

        Only items of the trie and of the prompt's filter; fewer than `k` where fewer are valid, never filler.
        `evidence` joins the model's scores on every level; None, or None for a prompt, is the model alone.
        `item_prompts` are the prompts in items' own tokens, where the model knows such; None, or None for a prompt,
        asks for semantic IDs alone. `own_items` (R,) are the items that their own tokens stand for, where that is not
        all that have one: what the model says of the others' is of what they were before, and is left out.
        Raises ConfigError for k above a width and for widths of another number of levels, TrieError for a filter or
        evidence of another trie.
        """
        ...

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        stop: Sequence[str] = (),
        seed: int = 0,
    ) -> list[Generation]:
        """Text per prompt; temperature 0 is greedy. The same prompt and seed give the same text.

        Text is words: tokens of semantic IDs and of items' own are never written, for an item is named under a trie
        alone (`rank`).
        """
        ...

    def stream(
        self,
        prompt: Sequence[int],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        stop: Sequence[str] = (),
        seed: int = 0,
    ) -> Iterator[str]:
        """The text of `generate` for one prompt, piece by piece."""
        ...

    def close(self) -> None:
        """Free the model. The engine cannot be used afterwards."""
        ...
