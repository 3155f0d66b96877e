"""What every engine promises, against scoring every item of the catalogue one by one.

Each case brings an engine and an oracle: the log-probabilities (K,) of a level after a prompt and a prefix,
computed with one full forward pass per prefix and nothing shared.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
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
from genrec.errors import ConfigError, TrieError
from genrec.evidence import Evidence, Join
from genrec.trie import ItemTrie
from genrec.trie_filters import ItemFilter
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


@pytest.fixture(scope="module", autouse=True)
def _close_vllm() -> Iterator[None]:
    """A process holds one vLLM engine at a time, and tests of other modules need theirs."""
    yield
    if vllm_engine.cache_info().currsize:
        vllm_engine().close()


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


@pytest.fixture(params=PARAMETERS)
def engine_case(request: pytest.FixtureRequest) -> Case:
    return case(*request.param)


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


def test_a_beam_as_wide_as_the_catalogue_equals_exhaustive_scoring(engine_case: Case) -> None:
    codes = random_codes(0, 45)  # of 60 IDs: some items share one
    trie = ItemTrie.build(codes, SIZES)
    for k in (45, 7):
        found = engine_case.engine.rank(PROMPTS, trie, beam_width=45, k=k)
        for prompt, answer in zip(PROMPTS, found, strict=True):
            check_answer(engine_case, answer, exhaustive(engine_case, prompt, codes, np.ones(45, bool)), k)


@settings(max_examples=40, deadline=None)
@given(num_items=st.integers(1, 40), seed=st.integers(0, 2**32 - 1))
@pytest.mark.parametrize("names", PARAMETERS)
def test_random_tries_and_filters_equal_exhaustive_scoring(
    names: tuple[str, ScoreMode], num_items: int, seed: int
) -> None:
    engine_case, rng = case(*names), np.random.default_rng(seed)
    codes = random_codes(seed, num_items)
    trie = ItemTrie.build(codes, SIZES)
    filters: list[ItemFilter | None] = [None]
    masks = [np.ones(num_items, bool)]
    for _ in PROMPTS[1:]:
        mask = rng.random(num_items) < rng.random()
        history = rng.integers(0, num_items, 3)
        filters.append(ItemFilter.allowing(trie, mask).without(history))
        mask[history] = False
        masks.append(mask)
    found = engine_case.engine.rank(PROMPTS, trie, beam_width=num_items, k=num_items, allowed=filters)
    for prompt, answer, mask in zip(PROMPTS, found, masks, strict=True):
        check_answer(engine_case, answer, exhaustive(engine_case, prompt, codes, mask), num_items)


def test_a_narrow_beam_returns_valid_items_in_order_and_its_own_scores(engine_case: Case) -> None:
    codes = random_codes(1, 50)
    trie = ItemTrie.build(codes, SIZES)
    mask = np.arange(50) % 3 == 0
    allowed = [ItemFilter.allowing(trie, mask)] * len(PROMPTS)
    for prompt, answer in zip(
        PROMPTS, engine_case.engine.rank(PROMPTS, trie, beam_width=3, k=3, allowed=allowed), strict=True
    ):
        scores = exhaustive(engine_case, prompt, codes, mask)
        assert len(answer) == 3
        check_answer(engine_case, answer, {item.item_index: scores[item.item_index] for item in answer}, 3)


def test_a_batch_answers_as_single_prompts_do_and_twice_the_same(engine_case: Case) -> None:
    codes = random_codes(2, 30)
    trie = ItemTrie.build(codes, SIZES)
    together = engine_case.engine.rank(PROMPTS, trie, beam_width=10, k=5)
    for prompt, answer in zip(PROMPTS, together, strict=True):
        (alone,) = engine_case.engine.rank([prompt], trie, beam_width=10, k=5)
        assert [item.item_index for item in alone] == [item.item_index for item in answer]
        np.testing.assert_allclose([i.score for i in alone], [i.score for i in answer], atol=1e-4)
    assert engine_case.engine.rank(PROMPTS, trie, beam_width=10, k=5) == together


def test_fewer_valid_items_than_k_give_fewer_and_none_give_none(engine_case: Case) -> None:
    codes = random_codes(3, 30)
    trie = ItemTrie.build(codes, SIZES)
    filters = [
        ItemFilter.allowing(trie, [4, 9]),
        ItemFilter.allowing(trie, np.zeros(30, bool)),
        ItemFilter.excluding(trie, np.arange(29)),
        ItemFilter.allowing(trie, [4]).without([4]),
    ]
    found = engine_case.engine.rank(PROMPTS, trie, beam_width=20, k=20, allowed=filters)
    assert [sorted(item.item_index for item in answer) for answer in found] == [[4, 9], [], [29], []]
    assert engine_case.engine.rank(PROMPTS[:1], trie, beam_width=5, k=5, allowed=[filters[1]]) == [[]]
    assert engine_case.engine.rank([], trie, beam_width=5, k=5) == []


def test_requests_that_make_no_sense_are_refused(engine_case: Case) -> None:
    trie = ItemTrie.build(random_codes(4, 10), SIZES)
    other = ItemTrie.build(random_codes(5, 10), SIZES)
    engine = engine_case.engine
    with pytest.raises(ConfigError, match="k is 6 and beam_width is 5"):
        engine.rank(PROMPTS, trie, beam_width=5, k=6)
    with pytest.raises(ConfigError, match="1 filters were given for 4"):
        engine.rank(PROMPTS, trie, beam_width=5, k=5, allowed=[None])
    if not isinstance(engine, WithItemPrompts):
        with pytest.raises(ConfigError, match="1 item prompts were given for 4"):
            engine.rank(PROMPTS, trie, beam_width=5, k=5, item_prompts=[None])
    with pytest.raises(TrieError, match="another trie"):
        engine.rank(PROMPTS[:1], trie, beam_width=5, k=5, allowed=[ItemFilter.excluding(other, [1])])


def joined(
    case: Case, scores: dict[int, float], mass: NDArray[np.float64], *, weight: float, join: Join
) -> dict[int, float]:
    """What model scores become with evidence of `mass` per item, by the definition and item by item."""
    total = mass.sum()
    if case.score_mode == "renormalised":
        total = sum(mass[item] for item in scores)
    together = {}
    with np.errstate(divide="ignore"):
        for item, score in scores.items():
            share = mass[item] / total if total > 0 else 0.0
            if weight == 0 or (total == 0 and case.score_mode == "renormalised"):
                together[item] = score
            elif join == "product":
                together[item] = score + weight * float(np.log(share))
            else:
                together[item] = float(np.log((1 - weight) * np.exp(score) + weight * share))
    return together


@settings(max_examples=40, deadline=None)
@given(
    num_items=st.integers(1, 40),
    seed=st.integers(0, 2**32 - 1),
    weights=st.lists(st.sampled_from([0.0, 0.3, 0.9, 1.0]), min_size=len(PROMPTS), max_size=len(PROMPTS)),
    joins=st.lists(st.sampled_from(["mixture", "product", None]), min_size=len(PROMPTS), max_size=len(PROMPTS)),
)
@pytest.mark.parametrize("names", PARAMETERS)
def test_evidence_under_random_tries_and_filters_equals_scoring_item_by_item(
    names: tuple[str, ScoreMode], num_items: int, seed: int, weights: list[float], joins: list[Join | None]
) -> None:
    engine_case, rng = case(*names), np.random.default_rng(seed)
    codes = random_codes(seed, num_items)  # up to 40 of 60 IDs: items share leaves and have evidence of their own
    trie = ItemTrie.build(codes, SIZES)
    masks = rng.random((len(PROMPTS), num_items)) < rng.random((len(PROMPTS), 1)) * 1.5
    masses = rng.gamma(0.3, size=(len(PROMPTS), num_items)) * (rng.random((len(PROMPTS), num_items)) < 0.9)
    evidence = [
        None if join is None else Evidence.from_mass(trie, mass, weight=weight, join=join)
        for mass, weight, join in zip(masses, weights, joins, strict=True)
    ]
    found = engine_case.engine.rank(
        PROMPTS,
        trie,
        beam_width=num_items,
        k=num_items,
        allowed=[ItemFilter.allowing(trie, mask) for mask in masks],
        evidence=evidence,
    )
    for prompt, answer, mask, mass, weight, join in zip(PROMPTS, found, masks, masses, weights, joins, strict=True):
        alone = exhaustive(engine_case, prompt, codes, mask)
        knows = join == "mixture" or (join == "product" and mass[mask].any())  # else the model is left alone
        expected = joined(engine_case, alone, mass, weight=weight, join=join) if join and knows else alone
        check_answer(engine_case, answer, expected, num_items)
        assert all(abs(item.model_score - alone[item.item_index]) < 2e-4 for item in answer)


def test_evidence_finds_the_item_that_a_narrow_beam_of_the_model_alone_loses(engine_case: Case) -> None:
    codes = random_codes(6, 40)
    trie = ItemTrie.build(codes, SIZES)
    alone = engine_case.engine.rank(PROMPTS, trie, beam_width=2, k=2)
    for prompt, answer in zip(PROMPTS, alone, strict=True):
        scores = exhaustive(engine_case, prompt, codes, np.ones(40, bool))
        last = min(scores, key=lambda item: scores[item])
        assert last not in {item.item_index for item in answer}
        sure = Evidence.from_scores(trie, np.where(np.arange(40) == last, 30.0, 0.0), weight=1.0)
        (found,) = engine_case.engine.rank([prompt], trie, beam_width=2, k=2, evidence=[sure])
        assert found[0].item_index == last


def test_evidence_that_makes_no_sense_is_refused(engine_case: Case) -> None:
    trie = ItemTrie.build(random_codes(4, 10), SIZES)
    other = ItemTrie.build(random_codes(5, 10), SIZES)
    evidence = Evidence.from_mass(other, np.ones(10), weight=0.5)
    with pytest.raises(TrieError, match="made for another trie"):
        engine_case.engine.rank(PROMPTS[:1], trie, beam_width=5, k=5, evidence=[evidence])
    with pytest.raises(ConfigError, match="evidence for 1 users was given for 4"):
        engine_case.engine.rank(PROMPTS, trie, beam_width=5, k=5, evidence=[None])
