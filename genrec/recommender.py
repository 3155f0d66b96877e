"""Histories of item ids in, recommended items out: what a program, a server and a batch job call.

A `Recommender` is a finished run opened for use: its catalogue, its trie, its model behind an engine, and the
prompt that the model was trained with. Items of the history are never recommended again. `refresh` follows what
`genrec items` changes while the process runs.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Unpack, overload

import numpy as np
from numpy.typing import NDArray

from genrec.adapter import adapter_folder
from genrec.branches import Branch, branches
from genrec.data.catalog import Catalog
from genrec.decoding.engine import BeamWidth, Engine, EngineOptions, RankedItem, check_width
from genrec.decoding.opening import check_name, open_engine
from genrec.errors import ConfigError, RunError
from genrec.evidence_source import EvidenceSource
from genrec.explanation.explainer import Explainer, ExplainRequest, Explanation, Wording
from genrec.explanation.loading import WriterName, load_explainer
from genrec.live_catalogue import CatalogueSource, LiveCatalogue
from genrec.prompting import HistoryPrompt, compile_history_prompt, load_templates
from genrec.rank_request import (
    Limit,
    RankRequest,
    Wishes,
    as_histories,
    check_number_of_items,
    check_wishes,
    checked_id,
    checked_ids,
    rank_with_new,
    rank_within_limits,
)
from genrec.run import Run
from genrec.trie import ItemTrie
from genrec.trie_filters import ItemFilter
from genrec.views import as_probabilities, check_view, filter_for, merge_answers
from genrec.vocabulary import SidVocabulary

__all__ = ["RankRequest", "Recommendation", "Recommender"]
_PROMPTS_AT_ONCE = 64


@dataclass(frozen=True)
class Recommendation:
    """One recommended item. `score` is a sum of log-probabilities; `rank` starts at 1."""

    item_id: str
    title: str
    score: float
    rank: int


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
        beam_width: BeamWidth = 50,
        source: CatalogueSource | None = None,
    ) -> None:
        """`item_tokens` holds the semantic-ID token ids of every item, (R, L). Without a `source` nothing changes."""
        self._views: tuple[Recommender, ...] = ()
        self._live = LiveCatalogue(catalog, trie, item_tokens)
        check_width(beam_width)
        self.engine, self._prompt, self._source = engine, prompt, source
        self._max_history_items, self.beam_width = max_history_items, beam_width
        self._explainers: dict[tuple[LiveCatalogue, str, Path | None], Explainer] = {}

    @property
    def catalog(self) -> Catalog:
        """The catalogue as it is now, removed items included."""
        return self._live.catalog

    @property
    def live(self) -> LiveCatalogue:
        """The catalogue of now with its trie and item tokens."""
        return self._live

    @property
    def trie(self) -> ItemTrie:
        """The items that may be recommended now; its `version` is the `catalog_version` of answers."""
        return self._live.trie

    @property
    def item_tokens(self) -> NDArray[np.int64]:
        """Semantic-ID token ids of every item, (R, L)."""
        return self._live.item_tokens

    @property
    def narrowest(self) -> int:
        """The smallest width of the beam: as many items a search can answer with."""
        return min(self.beam_width) if isinstance(self.beam_width, tuple) else self.beam_width

    @property
    def run(self) -> Run | None:
        """The run that this recommender was loaded from: then it can follow it, and explain what it recommends."""
        return None if self._source is None else self._source.run

    @property
    def evidence(self) -> EvidenceSource | None:
        """What joins the model inside the trie, None where the model is alone."""
        return self._live.evidence

    def refresh(self) -> bool:
        """Switch to the catalogue that is on disk now, if it is another one; True where it was.

        Call it between two requests, as often as you like: without a change it costs one look at the file system.
        A request that another thread is answering goes on with the catalogue that it started with. Raises RunError
        where the run was trained or tokenized again, and where this recommender was not loaded from a run.
        """
        if self._source is None or self._views:
            # Views change one after the other; between two changes they would not fit together.
            raise RunError(
                "this recommender does not follow changes: it was not loaded from a run, or it has views.",
                "Make it with Recommender.load, and anew after a change where it has views.",
            )
        loaded = self._source.load_if_changed()
        if loaded is None:
            return False
        before, self._live = self._live, loaded  # one assignment: `pinned` takes all of the old or all of the new one
        known = self._explainers.items() if loaded.catalog is before.catalog else ()  # then no fact has changed
        self._explainers = {(loaded, *key[1:]): one.following(loaded.trie.version) for key, one in known}
        return True

    def pinned(self) -> Recommender:
        """This recommender with the catalogue of now, which no `refresh` changes.

        For whoever asks it several things that must fit together: indices, a filter, an answer, its description.
        """
        return copy.copy(self)

    def with_views(self, views: Sequence[Recommender]) -> Recommender:
        """This recommender with the answers of others merged into its own (see `views`).

        Each is a run of the same ingested catalogue with other semantic IDs and a model of its own. Raises RunError
        for a view of another catalogue, or of one from which other items were removed.
        """
        for view in views:
            check_view(self.trie, view.trie)
        merged = self.pinned()
        merged._views = tuple(view.pinned() for view in views)
        return merged

    def with_evidence(self, evidence: EvidenceSource | None) -> Recommender:
        """This recommender with other evidence, or with None, also in dialogues; it does not follow changes."""
        changed = self.pinned()
        changed._live, changed._source = replace(self._live, evidence=evidence, dialogue_evidence=None), None
        return changed

    @classmethod
    def load(
        cls,
        path: Path | str,
        engine: str = "transformers",
        *,
        beam_width: BeamWidth = 50,
        evidence: bool = True,
        **options: Unpack[EngineOptions],
    ) -> Recommender:
        """Open a trained run. Evidence that `genrec evidence` has weighed joins the model, unless `evidence` is False.

        `options` are the engine's: `score_mode`; `device`, by default the GPU where there is one; `weights`, such as
        "int8"; `remembered_bytes` of keys and values, kept for prompts that come again (vLLM keeps its own);
        `engine_options`, vLLM's own arguments.

        Raises RunError where a stage is missing or its files do not belong together, ModelError where the
        model cannot be loaded, ConfigError for an engine that does not exist, MissingDependencyError for one
        whose package is not installed.
        """
        check_name(engine)
        from transformers import AutoTokenizer

        run = Run.open(path)
        # A stage killed half-way has changed files that it did not record.
        *_, training = run.read_unchanged(lambda: [run.require(stage) for stage in ("tokenize", "trie", "train")])
        folder = run.path / "model"
        vocabulary = SidVocabulary.load(folder).of_catalogue(Catalog.load(run).item_ids)
        opened = open_engine(engine, folder, vocabulary=vocabulary, adapter=adapter_folder(run), **options)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        template = load_templates(run.path / "prompts", "next_item").templates[0]
        return cls.assemble(
            run,
            engine=opened,
            vocabulary=vocabulary,
            prompt=compile_history_prompt(template, tokenizer),
            max_history_items=int(training.config["max_history_items"]),
            beam_width=beam_width,
            evidence=evidence,
            trained=training.outputs,
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
        beam_width: BeamWidth = 50,
        evidence: bool = False,
        trained: Mapping[str, str] | None = None,
    ) -> Recommender:
        """A recommender over a run's items and trie, with an engine of the caller's (a live model, a double).

        With `trained`, the checksums of the engine's model: RunError where the run has another model by now.
        """
        source = CatalogueSource(run, vocabulary, with_evidence=evidence, trained=trained)
        live = source.load()
        made = cls(
            live.catalog,
            live.trie,
            engine=engine,
            prompt=prompt,
            item_tokens=live.item_tokens,
            max_history_items=max_history_items,
            beam_width=beam_width,
            source=source,
        )
        made._live = live  # with its evidence
        return made

    @overload
    def recommend(  # type: ignore[overload-overlap]  # a str is a Sequence[str] too; refused below
        self, history: Sequence[str], k: int = 10, **wishes: Unpack[Wishes]
    ) -> list[Recommendation]: ...

    @overload
    def recommend(
        self, history: Sequence[Sequence[str]], k: int = 10, **wishes: Unpack[Wishes]
    ) -> list[list[Recommendation]]: ...

    def recommend(
        self, history: Sequence[str] | Sequence[Sequence[str]], k: int = 10, **wishes: Unpack[Wishes]
    ) -> list[Recommendation] | list[list[Recommendation]]:
        """Up to `k` items for one history (a list of item ids, oldest first) or for each of a list of them.

        `exclude` names items that must not come up; `allow` demands attributes, such as
        `{"genres": "Comedy"}` or `{"year": [1994, 1995]}` (one of several); `at_most` spreads an answer: with
        `{"genres": 2}` no genre comes more than twice; `new_share` keeps a share of the places for items that no
        training interaction has, which else hardly come up: with 0.2 the fifth and tenth place at the latest. Fewer
        than `k` come back where fewer are allowed. An empty history is a new user. Raises UnknownItemError for an
        unknown id, ConfigError for an unknown attribute and for any argument that is not of this kind.
        """
        one, histories = as_histories(history)
        here = self.pinned()
        wish = here.request((), **wishes)
        requests = [replace(wish, history=here.catalog.indices(items)) for items in histories]
        answers = [here.describe(ranked) for ranked in here.rank(requests, k)]
        return answers[0] if one else answers

    def request(self, history: Sequence[str], **wishes: Unpack[Wishes]) -> RankRequest:
        """What `recommend` asks for one history, in item indices. Raises what it raises."""
        check_wishes(wishes)
        exclude, allow = checked_ids(wishes.get("exclude", ()), "`exclude`"), wishes.get("allow")
        return RankRequest(
            self.catalog.indices(checked_ids(history, "a history")),
            self.catalog.indices(exclude) if exclude else None,
            self.filter(allow) if allow else None,
            limits=self.limits(wishes.get("at_most") or {}),
            new_share=wishes.get("new_share", 0.0),
        )

    def rank(self, requests: Sequence[RankRequest], k: int) -> list[list[RankedItem]]:
        """The engine's answers to requests in item indices, at most `k` each, best first; all views merged."""
        check_number_of_items(k)
        here = self.pinned()  # several searches answer these two
        if any(request.new_share for request in requests):
            return rank_with_new(here.rank, requests, k, trie=here.trie, new=here.live.new_items())
        if any(request.limits for request in requests):
            return rank_within_limits(here.rank, requests, k, trie=here.trie)
        if not self._views:
            return self._rank_alone(requests, k)
        if any(request.draw is not None for request in requests):
            raise ConfigError("views are merged and cannot draw.", "Ask one of them, or rank.")
        widest = max(self.narrowest, k)  # what a view found behind its k-th place may be among the k best of all
        answers = []
        for view in (self, *self._views):
            seen = [replace(one, allowed=filter_for(view.trie, one.allowed)) for one in requests]
            found, is_product = zip(seen, view._rank_alone(seen, widest), strict=True), view._live.multiplies
            answers.append([as_probabilities(one) if is_product(asked) else one for asked, one in found])
        return [merge_answers(of_one, k) for of_one in zip(*answers, strict=True)]

    def _rank_alone(self, requests: Sequence[RankRequest], k: int) -> list[list[RankedItem]]:
        live = self._live
        filters = [request.filter(live.trie) for request in requests]  # names items that there are not
        prompts = [self._prompts(live, request.history) for request in requests]
        own_items = None if live.own_tokens is None else live.own_tokens >= 0
        beam_width = self._wide_enough(k)
        answers: list[list[RankedItem]] = []
        for start in range(0, len(requests), _PROMPTS_AT_ONCE):
            part = slice(start, start + _PROMPTS_AT_ONCE)
            evidence = live.evidence_of(requests[part])
            codes, own = zip(*prompts[part], strict=True)
            wanted: dict[str, Any] = {"allowed": filters[part], "evidence": evidence, "item_prompts": own}
            answers += self.engine.rank(codes, live.trie, beam_width=beam_width, k=k, own_items=own_items, **wanted)
        return answers

    def shares(
        self, history: NDArray[np.int32], ranked: Sequence[RankedItem], *, in_dialogue: bool = False
    ) -> list[dict[str, float]]:
        """What speaks for each item of an answer (see `EvidenceSource.shares`); `in_dialogue` as in its request."""
        live = self._live
        evidence = live.joining(in_dialogue)
        return [{"model": 1.0} for _ in ranked] if evidence is None else evidence.shares(history, ranked, live.trie)

    def prompt_tokens(self, history: NDArray[np.int32]) -> list[int]:
        """The prompt of a history in item indices; the oldest items are cut first."""
        return self._prompts(self._live, history)[0]

    def item_prompt(self, history: NDArray[np.int32]) -> list[int] | None:
        """The same prompt in items' own tokens, without items that have none; None where the model knows no such."""
        return self._prompts(self._live, history)[1]

    def describe(self, ranked: Sequence[RankedItem]) -> list[Recommendation]:
        """Ranked items with their ids and titles."""
        catalog = self.catalog
        ids, titles = catalog.item_ids, catalog.titles
        return [
            Recommendation(ids[item.item_index], titles[item.item_index], item.score, rank)
            for rank, item in enumerate(ranked, start=1)
        ]

    def explain(
        self,
        history: Sequence[str],
        item_id: str | None,
        *,
        user_id: str | None = None,
        style: str = "line",
        language: str = "en",
        tone: str = "plain",
    ) -> Explanation:
        """Why this person may choose this item, from evidence, every statement checked (docs/explanations.md).

        `history` holds item ids, oldest first. `user_id` brings in what the person wrote about items of the training
        split. Styles `headline` and `description` are about the item, `taste` (`item_id` may be None) about the person.
        The text is empty, with a note, where there is no evidence. Raises UnknownItemError for an unknown id,
        ConfigError for an unknown style, language or tone or a missing item, RunError where this has no run.
        """
        told, here = checked_ids(history, "a history"), self.pinned()
        item = None if item_id is None else int(here.catalog.indices([checked_id(item_id)])[0])
        request = ExplainRequest(tuple(here.catalog.indices(told).tolist()), item, user_id)
        return here.explainer().explain([request], Wording(style, language, tone))[0]

    def explainer(self, writer: WriterName = "auto", *, prompts: Path | None = None) -> Explainer:
        """What explains this catalogue's items, many at once; made once and kept.

        `writer` says who writes: `template`, `model`, or `auto`: the model where it knows words. `prompts` is a folder
        of languages in place of the run's. Raises RunError without a run, and where it has changed: `refresh` first.
        """
        if self._source is None:
            raise RunError("this recommender was not loaded from a run.", "Make it with Recommender.load.")
        live = self._live
        key = (live, writer, prompts)  # a moment of the catalogue is equal to itself alone
        if key not in self._explainers:
            read = partial(load_explainer, self._source.run, live, engine=self.engine, writer=writer, prompts=prompts)
            self._explainers[key] = self._source.read_beside(live, read)
        return self._explainers[key]

    def filter(self, allow: Mapping[str, Any]) -> ItemFilter:
        """The items that have all the attributes asked for; compiled once per distinct question."""
        return self._live.by_attribute.filter(allow)

    def limits(self, at_most: Mapping[str, int]) -> tuple[Limit, ...]:
        """How often a value of each attribute may come in an answer. Raises ConfigError for an unknown attribute."""
        return tuple(Limit(self._live.by_attribute.attribute(name), count) for name, count in at_most.items())

    def branches(self, ranked: RankedItem) -> list[Branch]:
        """Why the search came to an item of an answer, code by code (see `genrec.branches`)."""
        return branches(self._live, ranked)

    def _wide_enough(self, k: int) -> BeamWidth:
        width = self.beam_width
        return tuple(max(one, k) for one in width) if isinstance(width, tuple) else max(width, k)

    def _prompts(self, live: LiveCatalogue, history: NDArray[np.int32]) -> tuple[list[int], list[int] | None]:
        """Of semantic IDs, and of items' own tokens where there are such."""
        newest = history[-self._max_history_items :]
        of_codes = self._prompt.token_ids(live.item_tokens[newest].ravel().tolist())
        own = None if live.own_tokens is None else live.own_tokens[newest]
        return of_codes, None if own is None else self._prompt.token_ids(own[own >= 0].tolist())
