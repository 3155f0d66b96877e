"""What a run's catalogue is at one moment: items, trie and item tokens that belong together.

A recommender holds one such moment and answers a request from it alone. When items are added or removed, the
next moment is loaded beside it and takes its place by one assignment, so no request ever sees two.

R rows of the catalogue, L levels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from genrec.attribute_filters import AttributeFilters
from genrec.data.catalog import REMOVED_ITEMS, Catalog
from genrec.data.splits import forgotten_items, trained_items
from genrec.decoding.engine import check_trie
from genrec.errors import ConfigError, RunError, TrieError
from genrec.evidence import Evidence
from genrec.evidence_source import STAGES, EvidenceSource
from genrec.rank_request import RankRequest
from genrec.run import Run
from genrec.tokenizers.codes import SemanticIds
from genrec.trie import ItemTrie
from genrec.vocabulary import SidVocabulary

ReadT = TypeVar("ReadT")
# Whose files a moment is read from.
_CATALOGUE_STAGES = ("ingest", "embed", "align", "tokenize", "trie", *STAGES.values())


@dataclass(frozen=True, eq=False)
class LiveCatalogue:
    """One moment of a catalogue."""

    catalog: Catalog
    trie: ItemTrie
    item_tokens: NDArray[np.int64]  # (R, L)
    own_tokens: NDArray[np.int64] | None = None  # (R,) of items that the model knows by one, −1 for the others
    evidence: EvidenceSource | None = None
    dialogue_evidence: EvidenceSource | None = None  # what joins in conversations, where the run has learned that
    new: NDArray[np.bool_] | None = None  # (R,) items that no training interaction has; None: nobody knows

    @classmethod
    def load(
        cls,
        run: Run,
        vocabulary: SidVocabulary,
        *,
        with_evidence: bool = False,
        before: LiveCatalogue | None = None,
    ) -> LiveCatalogue:
        """Read a run, with its evidence where it has some and it is wanted. What `before` knows of ids is kept.

        Raises TrieError where trie, codes and model do not belong together, RunError if damaged."""
        catalog = Catalog.load(run)
        if before is not None and catalog.take_over(before.catalog):
            more = len(catalog) - len(before.catalog)
            own = None if before.own_tokens is None else np.pad(before.own_tokens, (0, more), constant_values=-1)
        else:
            own = vocabulary.of_catalogue(catalog.item_ids).own_tokens(len(catalog))
        if own is not None and (forgotten := forgotten_items(run, catalog=catalog)).any():
            own = np.where(forgotten, -1, own)
        codes = SemanticIds.load(run, catalog=catalog)
        if codes.codebook_sizes != vocabulary.codebook_sizes:
            raise _other_codebooks(vocabulary, codes.codebook_sizes)
        trie, new = _read_trie(run, vocabulary, catalog), ~trained_items(run, catalog=catalog)
        live = cls(catalog, trie, vocabulary.token_ids(codes.codes), own, new=new)
        if not with_evidence:
            return live
        users, dialogues = (EvidenceSource.load(run, setting, catalog=catalog) for setting in STAGES)
        return replace(live, evidence=users, dialogue_evidence=dialogues)

    def following(self, run: Run, vocabulary: SidVocabulary) -> LiveCatalogue:
        """This moment with the trie that the run has now. Raises as `load`."""
        trie = _read_trie(run, vocabulary, self.catalog)
        changed = replace(self, trie=trie)
        vars(changed)["by_attribute"] = self.by_attribute.following(trie)
        return changed

    def evidence_of(self, requests: Sequence[RankRequest]) -> list[Evidence | None]:
        """What joins the model for each request. A run that has not learned from dialogues uses in them what it learned
        from users."""
        found: list[Evidence | None] = [None] * len(requests)
        for source, in_dialogue in ((self.evidence, False), (self.dialogue_evidence or self.evidence, True)):
            rows = [row for row, request in enumerate(requests) if request.in_dialogue is in_dialogue]
            if source is not None and rows:
                histories = [requests[row].history for row in rows]
                for row, one in zip(rows, source.evidence(histories, self.trie), strict=True):
                    found[row] = one.alone() if one is not None and requests[row].by_evidence else one
        return [
            one if seed is None else Evidence.drawing(self.trie, np.random.default_rng(seed), beside=one)
            for one, seed in zip(found, (request.draw for request in requests), strict=True)
        ]

    def multiplies(self, request: RankRequest) -> bool:
        """Whether evidence joins as a product, so that scores are no probabilities."""
        source = self.joining(request.in_dialogue)
        joins = source is not None and source.join == "product" and source.weight > 0
        return joins and not request.by_evidence

    def joining(self, in_dialogue: bool) -> EvidenceSource | None:
        """The evidence that joins the model's answer to a request."""
        return self.dialogue_evidence or self.evidence if in_dialogue else self.evidence

    def new_items(self) -> NDArray[np.bool_]:
        """The items that no training interaction has, (R,). Raises ConfigError for a catalogue of no run."""
        if self.new is None:
            raise ConfigError(
                "which items are new is not known: this recommender was not loaded from a run.",
                "Make it with Recommender.load.",
            )
        return self.new

    @cached_property
    def by_attribute(self) -> AttributeFilters:
        """Filters by attribute, and the attributes themselves."""
        return AttributeFilters(self.catalog, self.trie)


def _read_trie(run: Run, vocabulary: SidVocabulary, catalog: Catalog) -> ItemTrie:
    trie = ItemTrie.load(run.path / "trie")
    check_trie(trie, vocabulary)
    if trie.order_checksum != catalog.order_checksum:
        raise TrieError("the trie belongs to another catalogue.", "Run `genrec tokenize RUN` again.")
    return trie.prepare()


def _other_codebooks(vocabulary: SidVocabulary, sizes: Sequence[int]) -> TrieError:
    return TrieError(
        f"the model knows codebooks {vocabulary.codebook_sizes}, the items have {tuple(sizes)}.",
        "The items were tokenized again after training: run `genrec train RUN` again.",
    )


Pins: TypeAlias = dict[str, dict[str, str]]
"""Checksums of what the catalogue and the model are made of, by stage and file; a stage that is gone has none."""


@dataclass
class CatalogueSource:
    """Where moments come from: a run on disk and the model that was trained on it."""

    run: Run
    vocabulary: SidVocabulary
    with_evidence: bool = False
    trained: Mapping[str, str] | None = None  # checksums of the model, where it was read from the run
    _now: tuple[tuple[int, ...], Pins, LiveCatalogue] | None = None  # the run's stamp, and what was read then

    def load(self) -> LiveCatalogue:
        """The moment that the run is in now. Raises RunError where it has another model than the one that was read."""
        self._now = self.run.read_unchanged(self._read)
        return self._now[2]

    def load_if_changed(self) -> LiveCatalogue | None:
        """The new moment, or None where the catalogue is what it was: then it costs one look at the file system.

        Raises RunError where the run was trained or tokenized again: its new model has to be loaded, too.
        """
        assert self._now is not None, "load comes first"
        stamp, pins, live = self._now
        if self.run.stamp == stamp:
            return None
        # Only what was read while nothing changed is kept: a moment that is read anew may be made from this one.
        found = self.run.read_unchanged(lambda: self._follow(pins, live))
        if found[2] is not live:  # what this one was asked for is read now, so that no request of the new one has to
            found[2].by_attribute.read_those_of(live.by_attribute)
        self._now = found
        return None if found[2] is live else found[2]

    def read_beside(self, live: LiveCatalogue, read: Callable[[], ReadT]) -> ReadT:
        """What `read` reads of the run for a moment. Raises RunError where the run is in another one by now."""
        assert self._now is not None, "load comes first"
        _, pins, now = self._now

        def checked() -> ReadT:
            if now is not live or _without_removals(self._current_pins()) != _without_removals(pins):
                raise RunError(f"{self.run.path} has changed since its catalogue was read.", "Call `refresh()` first.")
            return read()

        return self.run.read_unchanged(checked)

    def _read(self) -> tuple[tuple[int, ...], Pins, LiveCatalogue]:
        stamp, pins = self.run.stamp, self._current_pins()
        if self.trained is not None and pins["train"] != self.trained:
            raise RunError(
                f"{self.run.path} was trained or tokenized again while its model was read.",
                "Load the recommender anew.",
            )
        return stamp, pins, LiveCatalogue.load(self.run, self.vocabulary, with_evidence=self.with_evidence)

    def _follow(self, before: Pins, live: LiveCatalogue) -> tuple[tuple[int, ...], Pins, LiveCatalogue]:
        stamp, pins = self.run.stamp, self._current_pins()
        if pins["train"] != before["train"]:
            raise RunError(
                f"{self.run.path} was trained or tokenized again; this process still has the model of before.",
                "Load the recommender anew.",
            )
        if pins == before:
            return stamp, pins, live
        for stage in ("tokenize", "trie"):
            self.run.require(stage)
        if _without_removals(pins) == _without_removals(before):
            return stamp, pins, live.following(self.run, self.vocabulary)
        return stamp, pins, LiveCatalogue.load(self.run, self.vocabulary, with_evidence=self.with_evidence, before=live)

    def _current_pins(self) -> Pins:
        stages = self.run.stages
        return {name: stages[name].outputs if name in stages else {} for name in (*_CATALOGUE_STAGES, "train")}


def _without_removals(pins: Pins) -> Pins:
    """All but what changes where items are removed, or come back."""
    ingest = {name: checksum for name, checksum in pins["ingest"].items() if name != REMOVED_ITEMS}
    return pins | {"ingest": ingest, "trie": {}}
