"""The engines of the contract suite, and what scoring every item of the catalogue one by one says.

Each case brings an engine and an oracle: the log-probabilities (K,) of a level after a prompt and a prefix,
computed with one full forward pass per prefix and nothing shared.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from genrec.decoding.engine import Engine, RankedItem, ScoreMode
from genrec.decoding.scripted import ScriptedEngine
from genrec.decoding.transformers_engine import TransformersEngine
from tests.contracts.spelling import SIZES, WITH_ITEMS, WithItemPrompts, item_prompt, item_script, with_own_tokens

if TYPE_CHECKING:
    from genrec.decoding.vllm_engine import VllmEngine

VOCABULARY = WITH_ITEMS.of_catalogue(())
NUM_TOKENS = 32
PROMPTS = [[1, 2, 3], [4], [5, 6, 7, 8, 9, 1, 2], [3, 3, 2]]
Oracle = Callable[[tuple[int, ...], tuple[int, ...]], NDArray[np.float64]]
ItemOracle = Callable[[tuple[int, ...]], NDArray[np.float64]]


@dataclass(frozen=True)
class Case:
    engine: Engine | WithItemPrompts
    oracle: Oracle
    score_mode: ScoreMode
    items: ItemOracle | None = None  # log-probabilities of the tokens of items' own, where the model has such


def tiny_model(family: str) -> PreTrainedModel:
    torch.manual_seed(0)
    small = {"vocab_size": NUM_TOKENS, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4}
    inner = {"intermediate_size": 24, "max_position_embeddings": 64}
    model: PreTrainedModel
    if family == "vllm":  # its attention takes heads of 32 and more
        wide = small | {"num_attention_heads": 2}
        model = Qwen3ForCausalLM(
            Qwen3Config(**wide, **inner, num_key_value_heads=1, head_dim=32, eos_token_id=2, bos_token_id=None)
        )
    elif family in ("qwen3", "qwen3-eager"):
        implementation = "eager" if family.endswith("eager") else "sdpa"
        model = Qwen3ForCausalLM(
            Qwen3Config(**small, **inner, num_key_value_heads=2, head_dim=8, attn_implementation=implementation)
        )
    elif family == "llama":
        model = LlamaForCausalLM(LlamaConfig(**small, **inner, num_key_value_heads=4))
    elif family == "mistral":
        model = MistralForCausalLM(MistralConfig(**small, **inner, num_key_value_heads=2, sliding_window=16))
    elif family == "gpt-neox":
        model = GPTNeoXForCausalLM(GPTNeoXConfig(**small, **inner))
    else:
        model = GPT2LMHeadModel(GPT2Config(vocab_size=NUM_TOKENS, n_embd=16, n_layer=2, n_head=4, n_positions=64))
    for parameter in model.parameters():  # so that no two codes are nearly equal
        parameter.data.mul_(6.0) if parameter.dim() > 1 else None
    return model.eval()


def script(prompt: tuple[int, ...], codes: tuple[int, ...]) -> NDArray[np.float64]:
    rng = np.random.default_rng([*prompt, 99, *codes])
    return np.log(rng.dirichlet(np.ones(SIZES[len(codes)] + 1))[:-1])  # a tenth or so lies elsewhere


@cache
def case(name: str, score_mode: ScoreMode) -> Case:
    family, _, with_items = name.partition("+")
    vocabulary = WITH_ITEMS if with_items else VOCABULARY
    if family == "scripted":

        def scripted_oracle(prompt: tuple[int, ...], codes: tuple[int, ...]) -> NDArray[np.float64]:
            values = script(prompt, codes)
            return values if score_mode == "raw" else values - np.log(np.exp(values).sum())

        scripted = ScriptedEngine(script, items=item_script if with_items else None, score_mode=score_mode)
        items = (lambda prompt: item_script([prompt])[1][0].astype(np.float64)) if with_items else None
        engine: Engine | WithItemPrompts = WithItemPrompts(scripted) if with_items else scripted
        return Case(engine, cache(scripted_oracle), score_mode, items)
    model = tiny_model(family)

    def oracle(prompt: tuple[int, ...], codes: tuple[int, ...]) -> NDArray[np.float64]:
        tokens = [*prompt, *(VOCABULARY.first_token_ids[i] + code for i, code in enumerate(codes))]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([tokens])).logits[0, -1].double()
        first = VOCABULARY.first_token_ids[len(codes)]
        rows = slice(first, first + SIZES[len(codes)])
        values = logits.log_softmax(-1)[rows] if score_mode == "raw" else logits[rows].log_softmax(-1)
        return values.numpy()

    def item_oracle(prompt: tuple[int, ...]) -> NDArray[np.float64]:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([list(prompt)])).logits[0, -1].double()
        return logits[WITH_ITEMS.first_item_token :].log_softmax(-1).numpy()

    known = cache(item_oracle) if with_items else None
    if family == "vllm":
        shared = vllm_engine().with_score_mode(score_mode)
        shared._vocabulary = vocabulary  # one model for both kinds of cases: a process holds one vLLM
        return Case(WithItemPrompts(shared) if with_items else shared, cache(oracle), score_mode, known)
    engine = TransformersEngine(model, None, vocabulary=vocabulary, score_mode=score_mode, batch_size=3)
    return Case(WithItemPrompts(engine) if with_items else engine, cache(oracle), score_mode, known)


@cache
def vllm_engine() -> VllmEngine:
    """One vLLM for all modes: it takes seconds to start."""
    from genrec.decoding.vllm_engine import VllmEngine

    with tempfile.TemporaryDirectory() as folder:
        tiny_model("vllm").save_pretrained(folder)
        words = {f"w{index}": index for index in range(NUM_TOKENS)}
        raw = Tokenizer(WordLevel(words, unk_token="w0"))
        PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="w2").save_pretrained(folder)
        WITH_ITEMS.save(Path(folder))
        options = {"kv_cache_memory_bytes": 1 << 26}
        return VllmEngine.load(Path(folder), vocabulary=VOCABULARY, batch_size=3, options=options)


CASES = [
    ("scripted", "level"),
    ("scripted", "raw"),
    ("scripted", "renormalised"),
    ("qwen3", "level"),
    ("qwen3", "raw"),
    ("qwen3", "renormalised"),
    ("qwen3-eager", "level"),
    ("llama", "raw"),
    ("mistral", "level"),
    ("gpt-neox", "level"),
    ("gpt2", "level"),
    ("vllm", "level"),
    ("vllm", "raw"),
    ("vllm", "renormalised"),
    ("scripted+items", "level"),
    ("scripted+items", "renormalised"),
    ("qwen3+items", "level"),
    ("qwen3+items", "raw"),
    ("gpt2+items", "renormalised"),
    ("vllm+items", "level"),
    ("vllm+items", "raw"),
]
NEEDS_VLLM = [
    pytest.mark.skipif(find_spec("vllm") is None, reason="vllm is not installed (docs/install.md)"),
    pytest.mark.xdist_group("vllm"),  # one worker, so one engine
]
PARAMETERS = [
    pytest.param(names, id="-".join(names), marks=NEEDS_VLLM if names[0].startswith("vllm") else ()) for names in CASES
]


def random_codes(seed: int, num_items: int) -> NDArray[np.int64]:
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(0, size, num_items) for size in SIZES], axis=1)


def exhaustive(
    case: Case, prompt: Sequence[int], codes: NDArray[np.int64], valid: NDArray[np.bool_]
) -> dict[int, float]:
    """Score of every valid item, each by its own path."""
    rows = codes[valid]
    scores = {}
    for item in np.flatnonzero(valid).tolist():
        total = 0.0
        for level in range(len(SIZES)):
            prefix = codes[item, :level]
            values = case.oracle(tuple(prompt), tuple(prefix.tolist()))
            total += values[codes[item, level]]
            if case.score_mode == "renormalised":
                siblings = np.unique(rows[(rows[:, :level] == prefix).all(1), level])
                total -= np.log(np.exp(values[siblings]).sum())
        scores[item] = float(total)
    asked = item_prompt(prompt)
    if case.items is None or asked is None:
        return scores
    return with_own_tokens(case.items(tuple(asked)), scores, renormalise=case.score_mode == "renormalised")


def check_answer(case: Case, found: list[RankedItem], scores: dict[int, float], k: int) -> None:
    """`found` is the top k of `scores`; items whose scores differ by rounding only may change places."""
    expected = sorted(scores.values(), reverse=True)[:k]
    assert len({item.item_index for item in found}) == len(found) == len(expected)
    np.testing.assert_allclose([item.score for item in found], expected, atol=2e-4)
    for item in found:
        assert np.isclose(item.score, scores[item.item_index], rtol=0, atol=2e-4)  # −inf equals −inf
        assert item.score_mode == case.score_mode
    for better, worse in pairwise(found):
        assert (-better.score, better.item_index) < (-worse.score, worse.item_index)
