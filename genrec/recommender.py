"""Histories of item ids in, recommended items out: what a program, a server and a batch job call.

A `Recommender` is a finished run opened for use: its catalogue, its trie, its model behind an engine, and the
prompt that the model was trained with. Items of the history are never recommended again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, overload

import numpy as np
import polars as pl
from numpy.typing import NDArray

from genrec.data.catalog import Catalog
from genrec.decoding.engine import Engine, RankedItem, ScoreMode
from genrec.errors import ConfigError, TrieError
from genrec.prompting import HistoryPrompt, compile_history_prompt, load_templates
from genrec.run import Run
from genrec.tokenizers.codes import SemanticIds
from genrec.trie import ItemTrie
from genrec.trie_filters import ItemFilter
from genrec.vocabulary import SidVocabulary

ENGINES = ("transformers",)
_PROMPTS_AT_ONCE = 64


@dataclass(frozen=True)
class Recommendation:
    """One recommended item. `score` is a sum of log-probabilities; `rank` starts at 1."""

    item_id: str
    title: str
    score: float
    rank: int


@dataclass(frozen=True)
class RankRequest:
    """One user's question in item indices. `excluded` comes on top of the history; `allowed` None is all."""

    history: NDArray[np.int32]
    excluded: NDArray[np.int32] | None = None
    allowed: ItemFilter | None = None


class Recommender:
    """A run ready to answer. Make one with `Recommender.load`."""

    def __init__(
        self,
        catalog: Catalog,
        trie: ItemTrie,
        *,
        engine: Engine,
        prompt: HistoryPrompt,
        item_tokens: NDArray[np.int64],
        max_history_items: int,
        beam_width: int = 50,
    ) -> None:
        """`item_tokens` holds the semantic-ID token ids of every item, (I, L)."""
        self.catalog, self.trie, self.engine = catalog, trie, engine
        self._prompt, self.item_tokens = prompt, item_tokens
        self._max_history_items, self.beam_width = max_history_items, beam_width
        self._filters: dict[tuple[tuple[str, Any], ...], ItemFilter] = {}

    @classmethod
    def load(
        cls,
        path: Path | str,
        engine: str = "transformers",
        *,
        beam_width: int = 50,
        score_mode: ScoreMode = "level",
        device: str | None = None,
    ) -> Recommender:
        """Open a trained run. `device` None takes the GPU where there is one.

        Raises RunError where a stage is missing or its files do not belong together, ModelError where the
        model cannot be loaded, ConfigError for an engine that does not exist.
        """
        if engine not in ENGINES:
            raise ConfigError(f"there is no engine {engine!r}.", f"Choose one of: {', '.join(ENGINES)}.")
        from transformers import AutoTokenizer

        from genrec.decoding.transformers_engine import TransformersEngine

        run = Run.open(path)
        for stage in ("tokenize", "trie"):  # a stage killed half-way has changed files that it did not record
            run.require(stage)
        training = run.require("train").config
        folder = run.path / "model"
        vocabulary = SidVocabulary.load(folder)
        opened = TransformersEngine.load(folder, vocabulary=vocabulary, score_mode=score_mode, device=device)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        template = load_templates(run.path / "prompts", "next_item").templates[0]
        return cls.assemble(
            run,
            engine=opened,
            vocabulary=vocabulary,
            prompt=compile_history_prompt(template, tokenizer),
            max_history_items=int(training["max_history_items"]),
            beam_width=beam_width,
        )

    @classmethod
    def assemble(
        cls,
        run: Run,
        *,
        engine: Engine,
        vocabulary: SidVocabulary,
        prompt: HistoryPrompt,
        max_history_items: int,
        beam_width: int = 50,
    ) -> Recommender:
        """A recommender over a run's items and trie, with an engine of the caller's (a live model, a double)."""
        catalog = Catalog.load(run)
        codes = SemanticIds.load(run, catalog=catalog)
        trie = ItemTrie.load(run.path / "trie")
        if trie.codebook_sizes != vocabulary.codebook_sizes or codes.codebook_sizes != vocabulary.codebook_sizes:
            raise TrieError(
                f"the model knows codebooks {vocabulary.codebook_sizes}, the trie has {trie.codebook_sizes}.",
                "The items were tokenized again after training: run `genrec train RUN` again.",
            )
        if trie.order_checksum != catalog.order_checksum:
            raise TrieError("the trie belongs to another catalogue.", "Run `genrec tokenize RUN` again.")
        return cls(
            catalog,
            trie,
            engine=engine,
            prompt=prompt,
            item_tokens=vocabulary.token_ids(codes.codes),
            max_history_items=max_history_items,
            beam_width=beam_width,
        )

    @overload
    def recommend(  # type: ignore[overload-overlap]  # a str is a Sequence[str] too; refused below
        self,
        history: Sequence[str],
        k: int = 10,
        *,
        exclude: Sequence[str] = (),
        allow: Mapping[str, Any] | None = None,
    ) -> list[Recommendation]: ...

    @overload
    def recommend(
        self,
        history: Sequence[Sequence[str]],
        k: int = 10,
        *,
        exclude: Sequence[str] = (),
        allow: Mapping[str, Any] | None = None,
    ) -> list[list[Recommendation]]: ...

    def recommend(
        self,
        history: Sequence[str] | Sequence[Sequence[str]],
        k: int = 10,
        *,
        exclude: Sequence[str] = (),
        allow: Mapping[str, Any] | None = None,
    ) -> list[Recommendation] | list[list[Recommendation]]:
        """Up to `k` items for one history (a list of item ids, oldest first) or for a list of histories.

        `exclude` names items that must not come up; `allow` demands attributes, such as
        `{"genres": "Comedy"}` or `{"year": [1994, 1995]}` (one of several). Fewer than `k` come back where
        fewer are allowed. An empty history is a new user. Raises UnknownItemError for an id that the catalogue
        does not have, ConfigError for an attribute that it does not have and for anything but lists of ids.
        """
        one = not isinstance(history, str) and all(isinstance(item, str) for item in history)
        histories = [cast(Sequence[str], history)] if one else history
        for items in [history] if isinstance(history, str) else histories:
            _check_ids(items, "a history")
        _check_ids(exclude, "`exclude`")
        excluded = self.catalog.indices(exclude) if len(exclude) else None
        allowed = self.filter(allow) if allow else None
        requests = [RankRequest(self.catalog.indices(items), excluded, allowed) for items in histories]
        answers = [self.describe(ranked) for ranked in self.rank(requests, k)]
        return answers[0] if one else answers

    def rank(self, requests: Sequence[RankRequest], k: int) -> list[list[RankedItem]]:
        """The engine's answers to requests in item indices, at most `k` each, best first."""
        prompts = [self.prompt_tokens(request.history) for request in requests]
        filters = [self._request_filter(request) for request in requests]
        beam_width = max(self.beam_width, k)
        answers: list[list[RankedItem]] = []
        for start in range(0, len(requests), _PROMPTS_AT_ONCE):
            part = slice(start, start + _PROMPTS_AT_ONCE)
            answers += self.engine.rank(prompts[part], self.trie, beam_width=beam_width, k=k, allowed=filters[part])
        return answers

    def prompt_tokens(self, history: NDArray[np.int32]) -> list[int]:
        """The prompt of a history in item indices; the oldest items are cut first."""
        newest = history[-self._max_history_items :]
        return self._prompt.token_ids(self.item_tokens[newest].ravel().tolist())

    def describe(self, ranked: Sequence[RankedItem]) -> list[Recommendation]:
        """Ranked items with their ids and titles."""
        ids, titles = self.catalog.item_ids, self.catalog.titles
        return [
            Recommendation(ids[item.item_index], titles[item.item_index], item.score, rank)
            for rank, item in enumerate(ranked, start=1)
        ]

    def filter(self, allow: Mapping[str, Any]) -> ItemFilter:
        """The items that have all the attributes asked for; compiled once per distinct question."""
        key = tuple(sorted((name, repr(value)) for name, value in allow.items()))
        if key not in self._filters:
            mask = np.ones(len(self.catalog), dtype=np.bool_)
            for name, value in allow.items():
                mask &= attribute_mask(self.catalog, name, value)
            self._filters[key] = ItemFilter.allowing(self.trie, np.flatnonzero(mask))
        return self._filters[key]

    def _request_filter(self, request: RankRequest) -> ItemFilter | None:
        removed = np.unique(request.history if request.excluded is None else np.r_[request.history, request.excluded])
        if request.allowed is not None:
            return request.allowed.without(removed)
        return ItemFilter.excluding(self.trie, removed) if len(removed) else None


def attribute_mask(catalog: Catalog, name: str, value: Any) -> NDArray[np.bool_]:
    """Items whose attribute equals `value`, or one of them where `value` is a list; (I,).

    An attribute that is itself a list (genres, categories) matches where it contains a wanted value. Numbers
    are equal to their text: `1994` finds 1994, 1994.0 and "1994". Raises ConfigError for an attribute that the
    catalogue does not have and for a value that no attribute can equal.
    """
    if name not in catalog.table.columns:
        raise ConfigError(f"the catalogue has no attribute {name!r}.", f"It has: {', '.join(catalog.table.columns)}.")
    values = value if isinstance(value, list | tuple) else [value]
    if wrong := [one for one in values if not isinstance(one, str | int | float)]:
        raise ConfigError(
            f"attribute {name!r} cannot be compared with {wrong[0]!r}.",
            "Give a text, a number or a boolean, or a list of them: an item matches if it has one of them.",
        )
    wanted = {_as_text(one) for one in values}
    column = catalog.table[name]
    if isinstance(column.dtype, pl.List):
        found = [bool(wanted & {_as_text(part) for part in cell or ()}) for cell in column.to_list()]
    else:
        found = [cell is not None and _as_text(cell) in wanted for cell in column.to_list()]
    return np.asarray(found, dtype=np.bool_)


def _as_text(value: Any) -> str:
    """Whole floats read like integers: a column of years with gaps may come as 1994.0."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _check_ids(items: Any, what: str) -> None:
    if isinstance(items, str) or not isinstance(items, Iterable) or not all(isinstance(item, str) for item in items):
        raise ConfigError(f"{what} is a list of item ids, not {items!r}.", 'Write ["id"] for one item.')
