"""Beam search over the trie, level by level, for many users at once; the model is behind a `Scorer`.

The level of the search is the level of the semantic ID: every beam has the same length, so there is no end
token and no length penalty, and a score is a plain float32 sum of log-probabilities. Only children that
hold an allowed item become candidates: leaving the trie is impossible, not penalised. Evidence other than the
model's (`genrec.evidence`) joins here, so every engine that ranks through this loop has it.

A model may know items by tokens of their own beside their semantic IDs (`genrec.vocabulary`). What it says of these
is mass over items like evidence's; the two spellings' probabilities are added before evidence joins.

Shapes: B users, W beams (the widest user's), K codes of the level, C candidates of all users together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from numbers import Integral
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from genrec.decoding.engine import BeamWidth, RankedItem, ScoreMode, check_width
from genrec.errors import ConfigError, ModelError, TrieError
from genrec.evidence import Evidence, EvidenceTerms, check_evidence
from genrec.trie import Children, ItemTrie
from genrec.trie_filters import ItemFilter

_DAMAGED = "The model is damaged or diverged in training: train it again, or with a lower learning rate."
Floats = NDArray[np.float32]
Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ItemValues:
    """Log-probabilities of N items' own tokens after some users' item prompts, and their weight in an item's."""

    rows: Integers  # (N,) of the catalogue
    users: Integers  # (P,) those who have an item prompt, as numbers from 0 to B - 1
    values: Floats  # (P, N)
    share: float  # within (0, 1)
    own_items: NDArray[np.bool_] | None = None  # (R,) those that their tokens stand for; None: all of them

    def mass(self, trie: ItemTrie, *, num_users: int) -> NDArray[np.float64]:
        """Their probabilities by position in the trie, 0 for other items and users: (B, I). Raises ModelError for NaN.

        A trie that has fewer rows than the catalogue of the training leaves out the items behind them.
        """
        if np.isnan(self.values).any():
            raise ModelError("the model's scores of items are not numbers (NaN).", _DAMAGED)
        by_row = np.zeros((num_users, trie.num_rows))
        there = self.rows < trie.num_rows
        if self.own_items is not None:
            there[there] = self.own_items[self.rows[there]]
        by_row[np.ix_(self.users, self.rows[there])] = np.exp(self.values[:, there].astype(np.float64))
        return by_row[:, trie.items]


class Scorer(Protocol):
    """A model in the middle of one search. Called once with `prefill`, then L - 1 times with `step`.

    Returned values are log-probabilities, except in mode `renormalised`, where the search normalises and
    any constant per beam is allowed. −inf is a legal value, NaN is not.
    """

    def prefill(self) -> Floats:
        """Values of level 0 after each prompt: (B, K)."""
        ...

    def items(self) -> ItemValues | None:
        """What the model says of items that have a token of their own; None where nobody asks for these."""
        return None

    def step(self, parents: Integers, codes: Integers, counts: Integers) -> Floats:
        """Extend beams by one code each and return the values of the next level: (B, W, K).

        `parents` (B, W) index the beams of the call before (all 0 on the first call, where there is only the
        prompt), `codes` (B, W) were chosen on the level before, and user b has `counts[b]` beams: what stands
        behind them is padding, and so is what is returned there.
        """
        ...


@dataclass(frozen=True, eq=False)
class _Beams:
    """The live beams of all users, flat, ordered by user and then best first; each (N,)."""

    user: Integers
    slot: Integers  # number of the beam within its user
    lo: Integers
    hi: Integers
    score: Floats  # of the codes; beams are chosen by joined scores
    trail: Floats  # (N, level) the model's scores of each beam's prefixes, both spellings together


def beam_search(
    scorer: Scorer,
    trie: ItemTrie,
    *,
    num_users: int,
    beam_width: BeamWidth,
    k: int,
    score_mode: ScoreMode,
    allowed: Sequence[ItemFilter | None] | None = None,
    evidence: Sequence[Evidence | None] | None = None,
) -> list[list[RankedItem]]:
    """The best `k` items of each user. Every user's filter must leave an item (see `answerable`)."""
    filters = check_request(trie, num_users=num_users, beam_width=beam_width, k=k, allowed=allowed)
    terms = EvidenceTerms.compile(
        check_evidence(evidence, trie=trie, num_users=num_users),
        filters,
        renormalise=score_mode == "renormalised",
        num_items=trie.num_items,
    )
    beams = _Beams(
        user=np.arange(num_users),
        slot=np.zeros(num_users, np.int64),
        lo=np.zeros(num_users, np.int64),
        hi=np.full(num_users, trie.num_items),
        score=np.zeros(num_users, np.float32),
        trail=np.zeros((num_users, 0), np.float32),
    )
    widths = level_widths(beam_width, trie.num_levels)
    values = scorer.prefill()[:, None, :]
    items = scorer.items()
    own = None
    if items is not None:
        share = np.zeros(num_users)
        share[items.users] = items.share
        mass = items.mass(trie, num_users=num_users)
        own = EvidenceTerms.of_model(mass, filters, share=share, renormalise=score_mode == "renormalised")
    for level in range(trie.num_levels):
        children, scores = _candidates(trie, level, beams, values, filters, score_mode)
        owner = beams.user[children.node]
        bounds = np.searchsorted(owner, np.arange(num_users + 1)).tolist()  # user u: [bounds[u], bounds[u + 1])
        if level == trie.num_levels - 1:
            break
        model = scores if own is None else own.join_nodes(owner, children.lo, children.hi, scores)
        joined = model if terms is None else terms.join_nodes(owner, children.lo, children.hi, model)
        kept = [start + best(joined[start:end], widths[level]) for start, end in pairwise(bounds)]
        counts = np.array([len(chosen) for chosen in kept])
        chosen = np.concatenate(kept)
        slot = np.concatenate([np.arange(count) for count in counts])
        parents = np.zeros((num_users, int(counts.max())), np.int64)
        codes = np.zeros_like(parents)
        parents[owner[chosen], slot] = beams.slot[children.node[chosen]]
        codes[owner[chosen], slot] = children.code[chosen]
        trail = np.concatenate([beams.trail[children.node[chosen]], model[chosen, None]], axis=1)
        beams = _Beams(owner[chosen], slot, children.lo[chosen], children.hi[chosen], scores[chosen], trail)
        values = scorer.step(parents, codes, counts)
    if terms is None and own is None:  # every leaf has an item, so the k best items are under the k best leaves
        kept = [start + _as_good_as(k, scores[start:end]) for start, end in pairwise(bounds)]
        children, scores = children.select(np.concatenate(kept)), scores[np.concatenate(kept)]
    trails = np.concatenate([beams.trail[children.node], scores[:, None]], axis=1)
    under = _items_under(children, beams.user[children.node], trails, filters)
    return _ranked(trie, under, (own, terms), num_users=num_users, k=k, score_mode=score_mode)


def check_request(
    trie: ItemTrie, *, num_users: int, beam_width: BeamWidth, k: int, allowed: Sequence[ItemFilter | None] | None
) -> list[ItemFilter | None]:
    """One filter (or None) per user. Raises ConfigError or TrieError where a request makes no sense."""
    check_width(beam_width)
    if not isinstance(k, Integral) or not 1 <= k <= min(level_widths(beam_width, trie.num_levels), default=k):
        raise ConfigError(
            f"k is {k} and beam_width is {beam_width}; expected 1 ≤ k ≤ beam_width.",
            "Widen the beam or ask for fewer items.",
        )
    filters: list[ItemFilter | None] = [None] * num_users if allowed is None else list(allowed)
    if len(filters) != num_users:
        raise ConfigError(f"{len(filters)} filters were given for {num_users} prompts; expected one each.")
    if any(item_filter is not None and item_filter.trie is not trie for item_filter in filters):
        raise TrieError("a filter was compiled for another trie.", "Compile filters again after a trie is loaded.")
    return filters


def check_item_prompts(
    item_prompts: Sequence[Sequence[int] | None] | None, *, num_users: int
) -> list[Sequence[int] | None]:
    """One item prompt (or None) per user. Raises ConfigError for another number."""
    given: list[Sequence[int] | None] = [None] * num_users if item_prompts is None else list(item_prompts)
    if len(given) != num_users:
        raise ConfigError(f"{len(given)} item prompts were given for {num_users} prompts; expected one each.")
    return given


def level_widths(beam_width: BeamWidth, num_levels: int) -> tuple[int, ...]:
    """Beams kept after each level but the last, (L - 1,). Raises ConfigError for another number of widths.

    With one number they are as many after every level; a single level keeps none, but k may not exceed the number.
    """
    if not isinstance(beam_width, tuple):
        return (beam_width,) * max(1, num_levels - 1)
    if len(beam_width) != num_levels - 1:
        raise ConfigError(
            f"beam_width has {len(beam_width)} numbers, {beam_width}; expected one for each of {num_levels} levels but "
            f"the last: {num_levels - 1}.",
            "Give as many, or one number for all.",
        )
    return beam_width


def answerable(filters: Sequence[ItemFilter | None]) -> list[int]:
    """The users whose filter leaves at least one item; the others' answer is the empty list."""
    return [user for user, item_filter in enumerate(filters) if item_filter is None or item_filter.num_items]


def best(scores: Floats, count: int) -> Integers:
    """Indices of the `count` highest scores, best first; of equal scores the earlier index wins."""
    if len(scores) > count:
        threshold = np.partition(scores, len(scores) - count)[len(scores) - count]
        indices = np.flatnonzero(scores >= threshold)
        if len(indices) > count:  # some are as good as the last one
            level = np.flatnonzero(scores[indices] == threshold)
            indices = np.delete(indices, level[count - len(indices) :])
    else:
        indices = np.arange(len(scores))
    return np.asarray(indices[np.argsort(-scores[indices], kind="stable")])


def _candidates(
    trie: ItemTrie,
    level: int,
    beams: _Beams,
    values: Floats,
    filters: Sequence[ItemFilter | None],
    score_mode: ScoreMode,
) -> tuple[Children, Floats]:
    """All live children of all beams and their scores (C,), ordered by user, beam and code."""
    children = trie.children(level, beams.lo, beams.hi)
    if any(item_filter is not None for item_filter in filters):
        children = _only_alive(children, beams.user[children.node], filters)
    gained = values[beams.user[children.node], beams.slot[children.node], children.code]
    if np.isnan(gained).any():
        raise ModelError(
            f"the model's scores on level {level} are not numbers (NaN).",
            _DAMAGED,
        )
    if score_mode == "renormalised":
        gained = gained - _log_sum_exp(gained, children.node)
    return children, beams.score[children.node] + gained


def _only_alive(children: Children, owner: Integers, filters: Sequence[ItemFilter | None]) -> Children:
    alive = np.ones(len(owner), dtype=np.bool_)
    bounds = np.searchsorted(owner, np.arange(len(filters) + 1))
    for item_filter, start, end in zip(filters, bounds[:-1], bounds[1:], strict=True):
        if item_filter is not None:
            alive[start:end] = item_filter.alive(children.lo[start:end], children.hi[start:end])
    return children.select(alive)


def _log_sum_exp(values: Floats, node: Integers) -> Floats:
    """For each candidate the log of the summed exponentials of its node's candidates: (C,)."""
    starts = np.flatnonzero(np.diff(node, prepend=-1))
    sizes = np.diff(starts, append=len(node))
    peak = np.maximum.reduceat(values, starts)
    peak = np.where(np.isfinite(peak), peak, np.float32(0))  # a node of −inf only stays −inf, not NaN
    total = np.add.reduceat(np.exp(values - np.repeat(peak, sizes)), starts)
    total = np.where(total > 0, total, np.float32(1))
    return np.asarray(np.repeat(peak + np.log(total), sizes), dtype=np.float32)


def _as_good_as(k: int, scores: Floats) -> Integers:
    """Indices of the scores as good as the k-th, in their order."""
    if len(scores) <= k:
        return np.arange(len(scores))
    return np.flatnonzero(scores >= np.partition(scores, len(scores) - k)[len(scores) - k])


def _items_under(
    leaves: Children, owner: Integers, trails: Floats, filters: Sequence[ItemFilter | None]
) -> tuple[Integers, Integers, Floats]:
    """User, position and trail (L,) of every allowed item under leaves, user after user; a leaf can hold several."""
    sizes = leaves.hi - leaves.lo
    leaf = np.repeat(np.arange(len(sizes)), sizes)
    position = leaves.lo[leaf] + np.arange(len(leaf)) - (np.cumsum(sizes) - sizes)[leaf]
    user = owner[leaf]
    if any(item_filter is not None for item_filter in filters):
        admitted = np.ones(len(user), dtype=np.bool_)
        bounds = np.searchsorted(user, np.arange(len(filters) + 1)).tolist()
        for item_filter, (start, end) in zip(filters, pairwise(bounds), strict=True):
            if item_filter is not None:
                admitted[start:end] = item_filter.admits(position[start:end])
        user, position, leaf = user[admitted], position[admitted], leaf[admitted]
    return user, position, trails[leaf]


def _ranked(
    trie: ItemTrie,
    found: tuple[Integers, Integers, Floats],
    joining: tuple[EvidenceTerms | None, EvidenceTerms | None],
    *,
    num_users: int,
    k: int,
    score_mode: ScoreMode,
) -> list[list[RankedItem]]:
    """The best `k` of each user's items, best first, ties by item index. What joins: items' own tokens, evidence."""
    user, position, trails = found
    own, terms = joining
    items = trie.items[position].astype(np.int64)
    if own is not None:
        trails[:, -1] = own.join_items(user, position, trails[:, -1])
    score = trails[:, -1] if terms is None else terms.join_items(user, position, trails[:, -1])
    order = np.lexsort((items, -score, user))
    starts = np.searchsorted(user, np.arange(num_users + 1)).tolist()
    answers = []
    for start, end in pairwise(starts):
        best_first = order[start : min(end, start + k)]
        values = zip(items[best_first].tolist(), score[best_first].tolist(), trails[best_first].tolist(), strict=True)
        answers.append(
            [
                RankedItem(item, joined, score_mode, model_score=trail[-1], trail=tuple(trail))
                for item, joined, trail in values
            ]
        )
    return answers
