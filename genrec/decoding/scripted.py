"""A test double that is public: an engine whose model is a function or a table, for tests without a model.

Everything but the model is real: the beam loop, filters, score modes and tie-breaking are those of the other
engines, and the same contract suite runs against it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from genrec.decoding.beam import (
    Floats,
    Integers,
    ItemValues,
    answerable,
    beam_search,
    check_item_prompts,
    check_request,
)
from genrec.decoding.engine import BeamWidth, Generation, RankedItem, ScoreMode, check_score_mode
from genrec.errors import ConfigError
from genrec.evidence import Evidence, check_evidence
from genrec.trie import ItemTrie
from genrec.trie_filters import ItemFilter

Script = Callable[[tuple[int, ...], tuple[int, ...]], ArrayLike]
"""(prompt, codes so far) → log-probabilities (K,) of the next level. Mode `level` normalises them over the
level; `raw` takes them as they are."""


ItemScript = Callable[[Sequence[tuple[int, ...]]], tuple[ArrayLike, Floats, float]]
"""P item prompts → rows (N,) of items that have a token of their own, log-probabilities (P, N), their weight."""


class ScriptedEngine:
    """An engine that plays a script.

    `script` scores codes (see `Script`, and `item_scores_script` for a table of item scores), `items` those items
    that have a token of their own. `texts` are what `generate` answers, one per prompt in the order in which prompts
    arrive; running out of them is an error.
    """

    concurrent = False

    def __init__(
        self,
        script: Script,
        *,
        items: ItemScript | None = None,
        texts: Sequence[str] = (),
        score_mode: ScoreMode = "level",
    ) -> None:
        self._script, self._items = script, items
        self._texts = iter(list(texts))
        check_score_mode(score_mode)
        self._score_mode = score_mode

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
        """See `Engine.rank`."""
        filters = check_request(trie, num_users=len(prompts), beam_width=beam_width, k=k, allowed=allowed)
        given = check_evidence(evidence, trie=trie, num_users=len(prompts))
        asked = check_item_prompts(item_prompts, num_users=len(prompts))
        users = answerable(filters)
        answers: list[list[RankedItem]] = [[] for _ in prompts]
        if not users:
            return answers
        found = beam_search(
            _ScriptedScorer(
                self._script,
                self._items,
                [(tuple(prompts[user]), asked[user]) for user in users],
                self._score_mode,
                own_items,
            ),
            trie,
            num_users=len(users),
            beam_width=beam_width,
            k=k,
            score_mode=self._score_mode,
            allowed=[filters[user] for user in users],
            evidence=[given[user] for user in users],
        )
        for user, ranked in zip(users, found, strict=True):
            answers[user] = ranked
        return answers

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        stop: Sequence[str] = (),
        seed: int = 0,
    ) -> list[Generation]:
        """The next scripted text of each prompt, cut at `stop` and at `max_new_tokens` characters.

        Characters stand for tokens. Temperature and seed change nothing: a script is deterministic.
        """
        return [self._next_text(max_new_tokens, stop) for _ in prompts]

    def stream(
        self,
        prompt: Sequence[int],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        stop: Sequence[str] = (),
        seed: int = 0,
    ) -> Iterator[str]:
        """The next scripted text, character by character."""
        yield from self._next_text(max_new_tokens, stop).text

    def close(self) -> None:
        """Nothing to free."""

    def _next_text(self, max_new_tokens: int, stop: Sequence[str]) -> Generation:
        text = next(self._texts, None)
        if text is None:
            raise ConfigError("the script has no texts left.", "Give ScriptedEngine one text per prompt.")
        ends = [text.index(mark) for mark in stop if mark in text]
        text = text[: min(ends, default=len(text))]
        reason = "stop" if len(text) <= max_new_tokens else "length"
        text = text[:max_new_tokens]
        return Generation(text, tuple(map(ord, text)), "stop" if reason == "stop" else "length")


class _ScriptedScorer:
    """Asks the script once per live beam; remembers each beam's codes."""

    def __init__(
        self,
        script: Script,
        items: ItemScript | None,
        prompts: list[tuple[tuple[int, ...], Sequence[int] | None]],
        score_mode: ScoreMode,
        own_items: NDArray[np.bool_] | None,
    ) -> None:
        self._script, self._items, self._score_mode, self._own_items = script, items, score_mode, own_items
        self._prompts = [prompt for prompt, _ in prompts]
        self._asked = [(user, tuple(prompt)) for user, (_, prompt) in enumerate(prompts) if prompt is not None]
        self._codes: list[list[tuple[int, ...]]] = [[()] for _ in prompts]

    def prefill(self) -> Floats:
        return self._values()[:, 0]

    def items(self) -> ItemValues | None:
        if self._items is None or not self._asked:
            return None
        rows, values, share = self._items([prompt for _, prompt in self._asked])
        users = np.array([user for user, _ in self._asked])
        return ItemValues(np.asarray(rows), users, values, share, self._own_items)

    def step(self, parents: Integers, codes: Integers, counts: Integers) -> Floats:
        self._codes = [
            [(*before[parents[user, slot]], int(codes[user, slot])) for slot in range(counts[user])]
            for user, before in enumerate(self._codes)
        ]
        return self._values()

    def _values(self) -> Floats:
        rows = [
            [np.asarray(self._script(prompt, codes), dtype=np.float32) for codes in beams]
            for prompt, beams in zip(self._prompts, self._codes, strict=True)
        ]
        values = np.full((len(rows), max(map(len, rows)), len(rows[0][0])), -np.inf, dtype=np.float32)
        for user, beams in enumerate(rows):
            values[user, : len(beams)] = beams
        if self._score_mode == "level":
            values = values - _log_sum_exp_last(values)
        return values


def item_scores_script(trie: ItemTrie, table: Mapping[tuple[int, ...], ArrayLike]) -> Script:
    """A script under which every item's score is known beforehand.

    `table` maps a prompt to scores (I,) by item_index. A code's log-probability is the share of its subtree in
    its parent's sum of exp(score); so in mode `level` a leaf's score is its items' log-sum-exp, normalised over
    the catalogue. A leaf with one item scores that item's log-softmax.
    """
    masses: dict[tuple[int, ...], NDArray[np.float64]] = {}
    for prompt, scores in table.items():
        by_position = np.asarray(scores, dtype=np.float64)[trie.items]
        masses[prompt] = np.exp(by_position - by_position.max())

    def script(prompt: tuple[int, ...], codes: tuple[int, ...]) -> NDArray[np.float64]:
        lo, hi = np.array([0]), np.array([trie.num_items])
        for level, code in enumerate(codes):
            below = trie.children(level, lo, hi)
            lo, hi = below.lo[below.code == code], below.hi[below.code == code]
        children = trie.children(len(codes), lo, hi)
        below_lo = masses[prompt][lo[0] : hi[0]]
        mass = np.add.reduceat(below_lo, children.lo - lo[0])
        values = np.full(trie.codebook_sizes[len(codes)], -np.inf)
        with np.errstate(divide="ignore", invalid="ignore"):
            values[children.code] = np.log(mass / mass.sum())
        return values

    return script


def _log_sum_exp_last(values: Floats) -> Floats:
    peak = values.max(axis=-1, keepdims=True)
    peak = np.where(np.isfinite(peak), peak, np.float32(0))
    total = np.exp(values - peak).sum(axis=-1, keepdims=True)
    return np.asarray(peak + np.log(np.where(total > 0, total, np.float32(1))), dtype=np.float32)
