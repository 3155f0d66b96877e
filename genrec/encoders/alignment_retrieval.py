"""Did alignment help? Retrieval on held-out pairs, by the vectors as embedded and by the aligned ones.

R rows: items first, then attribute texts. Q queries, C candidates, D and W widths.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from genrec.encoders.alignment_data import ATTRIBUTE_MODALITY, PairData, draw_attributes

Vectors = Mapping[str, NDArray[np.float32]]  # by modality, (R, D), rows of length 1, zero where missing
ALL = "all"  # before: the vectors of all modalities side by side; after: the fused vector
_CUTOFF = 10
_FEW_CANDIDATES = 50  # of so few, being among the first ten says nothing
_MAX_QUERIES = 2000
_CHUNK = 256


@dataclass(frozen=True)
class Retrieval:
    """One question with its answers: the share of held-out queries whose target is among the first `cutoff`."""

    question: str
    num_queries: int
    num_candidates: int
    cutoff: int
    before: float | None  # None where the vectors as embedded have no common space
    after: float

    @property
    def chance(self) -> float:
        """What a random order reaches."""
        return min(1.0, self.cutoff / self.num_candidates)

    @property
    def facts(self) -> dict[str, Any]:
        """For programs."""
        return {**asdict(self), "chance": self.chance}

    @property
    def words(self) -> str:
        """One line for people."""
        before = "not comparable before" if self.before is None else f"{self.before:.3f} before"
        return (
            f"{self.question}: recall@{self.cutoff} {before}, {self.after:.3f} after, {self.chance:.3f} by chance "
            f"({self.num_queries:,} held out, {self.num_candidates:,} candidates)"
        )


@dataclass(frozen=True, eq=False)
class _Question:
    """Query rows (Q,), where their targets stand (Q,) among the candidate rows (C,), and what is no wrong answer."""

    name: str
    by: str
    among: str
    queries: NDArray[np.int64]
    targets: NDArray[np.int64]
    candidates: NDArray[np.int64]
    hidden: csr_array  # (Q, C) bool, the targets excepted


def measure(data: PairData, *, before: Vectors, after: Vectors, seed: int) -> list[Retrieval]:
    """The item used next, the same item in another modality, an attribute of the item.

    Both `before` and `after` hold every modality and ALL. Questions with fewer than two held-out queries are
    left out.
    """
    rng = np.random.default_rng([seed, 2])
    masks = {name: np.asarray(vectors.any(axis=1)) for name, vectors in after.items()}
    questions = [*_next_item(data, masks, rng), *_same_item(data, masks), *_attribute(data, masks, rng)]
    return [_answer(question, before, after) for question in questions if len(question.queries) > 1]


def recall(
    queries: NDArray[np.float32],
    candidates: NDArray[np.float32],
    *,
    targets: NDArray[np.int64],
    hidden: csr_array,
    cutoff: int,
) -> float:
    """Share of queries (Q, D) whose target, a row of `candidates` (C, D), has fewer than `cutoff` above it.

    Half of the candidates with the same score count as above. `hidden` (Q, C) are no candidates of a query.
    """
    hits = 0
    for start in range(0, len(queries), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        scores = queries[chunk] @ candidates.T  # (Q', C)
        own = np.take_along_axis(scores, targets[chunk, None], axis=1)
        scores[hidden[chunk].toarray()] = -np.inf
        np.put_along_axis(scores, targets[chunk, None], own, axis=1)
        above = (scores > own).sum(axis=1) + ((scores == own).sum(axis=1) - 1) / 2
        hits += int((above < cutoff).sum())
    return hits / len(queries)


def _next_item(data: PairData, masks: Mapping[str, NDArray[np.bool_]], rng: np.random.Generator) -> list[_Question]:
    pairs = data.held_out.pairs
    if len(pairs) > _MAX_QUERIES:
        pairs = pairs[np.sort(rng.choice(len(pairs), size=_MAX_QUERIES, replace=False))]
    found = []
    for name, mask in masks.items():
        known = pairs[mask[pairs].all(axis=1)]
        candidates = np.flatnonzero(mask[: data.num_items])
        sources, targets = (np.searchsorted(candidates, known[:, side]) for side in (0, 1))
        itself = _entries(sources, len(candidates))
        found.append(_Question(f"item used next, by {name}", name, name, known[:, 0], targets, candidates, itself))
    return found


def _same_item(data: PairData, masks: Mapping[str, NDArray[np.bool_]]) -> list[_Question]:
    items = data.held_out.items
    names = [name for name in masks if name != ALL]
    found = []
    for by in names:
        for among in names:
            if by != among:
                both = items[masks[by][items] & masks[among][items]]
                candidates = np.flatnonzero(masks[among][: data.num_items])
                targets = np.searchsorted(candidates, both)
                nothing = csr_array((len(both), len(candidates)), dtype=bool)
                name = f"{among} of the same item, by {by}"
                found.append(_Question(name, by, among, both, targets, candidates, nothing))
    return found


def _attribute(data: PairData, masks: Mapping[str, NDArray[np.bool_]], rng: np.random.Generator) -> list[_Question]:
    """Other attributes that an item has are no wrong answers."""
    tagged = data.held_out.tagged
    if not len(tagged):
        return []
    drawn = draw_attributes(data.attributes, tagged, rng)
    rows = data.num_items + np.arange(len(data.attributes.texts))
    found = []
    for by, mask in masks.items():
        here = mask[tagged]
        items, targets = tagged[here], drawn[here]
        among = ALL if by == ALL else ATTRIBUTE_MODALITY
        name = f"attribute of the item, by {by}"
        found.append(_Question(name, by, among, items, targets, rows, data.attributes.members[items]))
    return found


def _entries(columns: NDArray[np.int64], width: int) -> csr_array:
    """One True per row, (Q, width)."""
    return csr_array((np.ones(len(columns), bool), (np.arange(len(columns)), columns)), shape=(len(columns), width))


def _answer(question: _Question, before: Vectors, after: Vectors) -> Retrieval:
    cutoff = _CUTOFF if len(question.candidates) > _FEW_CANDIDATES else 1

    def reached(vectors: Vectors) -> float:
        queries, candidates = vectors[question.by][question.queries], vectors[question.among][question.candidates]
        return recall(queries, candidates, targets=question.targets, hidden=question.hidden, cutoff=cutoff)

    same_space = before[question.by].shape[1] == before[question.among].shape[1]
    num_queries, num_candidates = len(question.queries), len(question.candidates)
    old, new = reached(before) if same_space else None, reached(after)
    return Retrieval(question.name, num_queries, num_candidates, cutoff, old, new)
