"""Scores of semantic-ID levels from vLLM: one request per beam and level, all users of a level in one call.

A beam is sent as its user's prompt and the codes so far. vLLM's prefix cache holds the prompt's full blocks, so a
beam computes its codes and what is left of the prompt behind the last full block; nothing is left where the length
of the prompt is a multiple of the block. We do not pad to get there: vLLM has no mask for padding, so it would
change the answer.

Shapes: B users, W beams, K codes of a level.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray
from vllm.lora.request import LoRARequest
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.v1.engine import EngineCoreOutput
from vllm.v1.outputs import LogprobsLists

from genrec.decoding.beam import Floats, Integers, ItemValues
from genrec.decoding.engine import ScoreMode
from genrec.decoding.vllm_local import Scores
from genrec.decoding.vllm_processor import LEVEL, SCORE, SCORES
from genrec.decoding.vllm_runner import Runner
from genrec.vocabulary import SidVocabulary


class VllmScorer:
    """A `Scorer` over one batch of prompts, for an engine with `SemanticIdProcessor` and processed logits."""

    def __init__(
        self,
        runner: Runner,
        prompts: Sequence[Sequence[int]],
        *,
        vocabulary: SidVocabulary,
        score_mode: ScoreMode,
        lora: LoRARequest | None,
        item_prompts: Sequence[Sequence[int] | None] = (),
        own_items: NDArray[np.bool_] | None = None,
    ) -> None:
        self._runner, self._vocabulary, self._lora = runner, vocabulary, lora
        # The search itself normalises over the children of a node.
        self._score_mode = "level" if score_mode == "renormalised" else score_mode
        self._beams = [[list(prompt)] for prompt in prompts]  # per user: token ids of each beam
        self._item_prompts, self._own_items = item_prompts, own_items
        self._level = 0

    def prefill(self) -> Floats:
        """See `Scorer.prefill`."""
        return np.asarray(self._values(self._beams, self._level)[:, 0])

    def items(self) -> ItemValues | None:
        """See `Scorer.items`. One more request per user, for the tokens that stand behind those of the last level."""
        vocabulary = self._vocabulary
        asked = [(user, list(prompt)) for user, prompt in enumerate(self._item_prompts) if prompt is not None]
        if not vocabulary.item_rows or not asked:
            return None
        values = self._values([[prompt] for _, prompt in asked], len(vocabulary.codebook_sizes))[:, 0]
        users = np.array([user for user, _ in asked])
        return ItemValues(np.array(vocabulary.item_rows), users, values, vocabulary.item_share, self._own_items)

    def step(self, parents: Integers, codes: Integers, counts: Integers) -> Floats:
        """See `Scorer.step`."""
        tokens = codes + self._vocabulary.first_token_ids[self._level]
        self._beams = [
            [[*beams[parents[user, slot]], int(tokens[user, slot])] for slot in range(counts[user])]
            for user, beams in enumerate(self._beams)
        ]
        self._level += 1
        return self._values(self._beams, self._level)

    def _values(self, asked: list[list[list[int]]], group: int) -> Floats:
        """Log-probabilities of a group's tokens after every beam: (B, W, K), −inf behind a user's last.

        A group is a level, or behind the last one the items' own tokens.
        """
        first, size = self._vocabulary.groups[group]
        mode = self._score_mode if group == self._level else "level"
        params = SamplingParams(
            max_tokens=1,
            temperature=0.0,
            logprobs=None if self._runner.local else size,
            detokenize=False,
            ignore_eos=True,
            output_kind=RequestOutputKind.FINAL_ONLY,
            skip_clone=True,  # it is ours: a deep copy per beam is half of the overhead
            extra_args={LEVEL: group, SCORE: mode},
        )
        beams = [beam for beams in asked for beam in beams]
        found = self._handed_over(beams, params) if self._runner.local else self._answered(beams, params, first, size)
        counts = [len(beams) for beams in asked]
        owner = np.repeat(np.arange(len(counts)), counts)
        slot = np.concatenate([np.arange(count) for count in counts])
        values = np.full((len(counts), max(counts), size), -np.inf, dtype=np.float32)
        values[owner, slot] = found
        return values

    def _handed_over(self, beams: list[list[int]], params: SamplingParams) -> Floats:
        scores, each = Scores(len(beams)), []
        for number in range(len(beams)):
            its = copy.copy(params)
            its.extra_args = {**params.extra_args, SCORES: (scores, number)}
            each.append(its)
        self._runner.run(beams, each, self._lora)
        return scores.collected()

    def _answered(self, beams: list[list[int]], params: SamplingParams, first: int, size: int) -> Floats:
        return _by_code(self._runner.run(beams, [params] * len(beams), self._lora), first, size)


def _by_code(outputs: Sequence[EngineCoreOutput], first: int, size: int) -> Floats:
    """What vLLM sorted by likelihood, sorted by code: (N, K)."""
    found = [cast(LogprobsLists, output.new_logprobs) for output in outputs]
    codes = np.concatenate([one.logprob_token_ids for one in found]) - first  # (N, 1 + K): the sampled token first
    scores = np.concatenate([one.logprobs for one in found])
    # Where fewer than K codes are possible, the rest are other tokens with −inf.
    rows, columns = np.nonzero((codes >= 0) & (codes < size))
    values = np.full((len(outputs), size), -np.inf, dtype=np.float32)
    values[rows, codes[rows, columns]] = scores[rows, columns]
    return values
