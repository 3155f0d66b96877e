"""Attention that shares a prompt among beams: every way to compute it gives one answer; the model keeps its own."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from genrec.decoding import prompt_attention
from genrec.decoding.engine import RankedItem
from genrec.decoding.transformers_engine import TransformersEngine
from genrec.errors import ModelError
from genrec.trie import ItemTrie
from genrec.vocabulary import SidVocabulary

VOCABULARY = SidVocabulary((4, 4, 4), (40, 44, 48))
CODES = [[a, b, c] for a in range(4) for b in range(4) for c in range(3)]
TRIE = ItemTrie.build(CODES, (4, 4, 4))
PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13], [1] * 20, [7, 5]]
SHAPE = {"vocab_size": 52, "hidden_size": 16, "num_hidden_layers": 3, "intermediate_size": 24, "head_dim": 8}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 40}


def loud(model: PreTrainedModel) -> PreTrainedModel:
    for parameter in model.parameters():
        parameter.data.mul_(8.0) if parameter.dim() > 1 else None
    return model.eval()


def qwen() -> PreTrainedModel:
    torch.manual_seed(1)
    return loud(Qwen3ForCausalLM(Qwen3Config(**SHAPE, **HEADS)))


def ranked(model: PreTrainedModel, *, beam_width: int = 12) -> list[list[RankedItem]]:
    engine = TransformersEngine(model, None, vocabulary=VOCABULARY)
    return engine.rank(PROMPTS, TRIE, beam_width=beam_width, k=12)


def check_equal(one: list[list[RankedItem]], other: list[list[RankedItem]]) -> None:
    assert [[item.item_index for item in answer] for answer in one] == [[i.item_index for i in a] for a in other]
    for mine, theirs in zip(one, other, strict=True):
        np.testing.assert_allclose([item.score for item in mine], [item.score for item in theirs], atol=1e-4)


def test_the_last_layer_may_stop_at_keys_and_values_and_prompts_may_be_read_in_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = ranked(qwen())
    stopped = []
    read = prompt_attention.PromptReader.attend

    def counted(self: prompt_attention.PromptReader, *arguments: torch.Tensor) -> torch.Tensor:
        try:
            return read(self, *arguments)  # type: ignore[arg-type]
        except prompt_attention.PromptReadError:
            stopped.append(len(self.memories))
            raise

    monkeypatch.setattr(prompt_attention.PromptReader, "attend", counted)
    monkeypatch.setattr(prompt_attention, "_few", lambda *_: 0)
    monkeypatch.setattr(prompt_attention, "_TOKENS_AT_ONCE", 4)
    check_equal(whole, ranked(qwen()))
    # 0, 1, 2, 4 and 19 tokens once the last is left out; the check of the engine itself comes first.
    assert stopped == [1, 3, 1, 1]


def test_the_kernel_and_the_formula_agree_on_attention_and_its_weight() -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(2, 9, 8), torch.randn(2, 5, 8), torch.randn(2, 5, 8)
    kernel = prompt_attention._attend(query, key, value, 0.3)
    formula = prompt_attention._attend_written_out(query, key, value, 0.3)
    for one, other in zip(kernel, formula, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    nothing, weight = prompt_attention._attend(query, key[:, :0], value[:, :0], 0.3)
    assert not nothing.any()
    assert (weight == -torch.inf).all()


def test_heads_whose_values_have_a_width_of_their_own_attend_as_the_formula_says() -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(2, 9, 8), torch.randn(2, 5, 8), torch.randn(2, 5, 6)
    found, weight = prompt_attention._attend(query, key, value, 0.3)
    match = query @ key.transpose(1, 2) * 0.3
    torch.testing.assert_close(found, match.softmax(-1) @ value)
    torch.testing.assert_close(weight, match.logsumexp(-1))
    assert prompt_attention._attend(query, key[:, :0], value[:, :0], 0.3)[0].shape == (2, 9, 6)


def deepseek() -> PreTrainedModel:
    """A decoder whose keys and values are made of one vector: heads of 12 for queries, of 6 for values."""
    torch.manual_seed(1)
    ranks = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 6}
    options: dict[str, Any] = {**SHAPE, **HEADS, **ranks, "num_key_value_heads": 4, "eos_token_id": 2}
    del options["head_dim"]
    return loud(DeepseekV3ForCausalLM(DeepseekV3Config(**options, first_k_dense_replace=9, n_routed_experts=8)))


@pytest.mark.parametrize("tokens_per_layer", [0, 128])
def test_a_model_with_narrower_values_than_queries_ranks_as_its_own_paths_score(
    tokens_per_layer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompt_attention, "_few", lambda _, layers: tokens_per_layer * layers)
    model = deepseek()
    for prompt, answer in zip(PROMPTS, ranked(model, beam_width=48), strict=True):
        for item in answer:
            path, score = list(prompt), 0.0
            for level, code in enumerate(CODES[item.item_index]):
                first = VOCABULARY.first_token_ids[level]
                with torch.no_grad():
                    logits = model(input_ids=torch.tensor([path])).logits[0, -1, first : first + 4]
                score += float(logits.log_softmax(-1)[code])
                path.append(first + code)
            assert item.score == pytest.approx(score, abs=2e-4)


def test_whatever_a_model_trips_over_when_it_is_tried_names_its_class(monkeypatch: pytest.MonkeyPatch) -> None:
    def attend(*_: object) -> Tensor:
        raise IndexError("of another shape")

    monkeypatch.setattr(prompt_attention, "_attend", attend)
    with pytest.raises(ModelError, match=r"Qwen3ForCausalLM cannot score .* \(IndexError: of another shape\)"):
        TransformersEngine(qwen(), None, vocabulary=VOCABULARY)


class Shapes(TorchDispatchMode):
    """Records the last dimension of whatever is computed while it is active."""

    def __init__(self) -> None:
        super().__init__()
        self.widths: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        self.widths |= {one.shape[-1] for one in (found if isinstance(found, tuple) else (found,)) if _is_made(one)}
        return found


def _is_made(found: object) -> bool:
    return isinstance(found, Tensor) and found.dim() > 1 and found._base is None


@pytest.mark.parametrize("mode", ["level", "renormalised", "raw"])
def test_only_the_rows_of_a_levels_codes_are_multiplied_unless_scores_are_raw(mode: Any) -> None:
    torch.manual_seed(1)
    model = Qwen3ForCausalLM(Qwen3Config(**{**SHAPE, **HEADS, "vocab_size": 211}))
    engine = TransformersEngine(model, None, vocabulary=VOCABULARY, score_mode=mode)
    with Shapes() as seen:
        engine.rank(PROMPTS, TRIE, beam_width=12, k=12)
    assert 4 in seen.widths
    assert (211 in seen.widths) == (mode == "raw")


def test_a_model_has_its_own_attention_again_and_may_run_in_other_threads_meanwhile() -> None:
    model = qwen()
    engine = TransformersEngine(model, None, vocabulary=VOCABULARY)
    tokens = torch.tensor([[1, 2, 3, 4], [0, 0, 5, 6]])
    mask = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]])

    def logits(_: int) -> torch.Tensor:
        with torch.no_grad():
            return model(input_ids=tokens, attention_mask=mask).logits[:, -1]

    expected, alone = logits(0), engine.rank(PROMPTS, TRIE, beam_width=12, k=12)
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(engine.rank, PROMPTS, TRIE, beam_width=12, k=12) for _ in range(8)]
        others = list(pool.map(logits, range(40)))
    for answer in answers:
        assert answer.result() == alone
    for other in others:
        torch.testing.assert_close(other, expected, atol=1e-4, rtol=1e-4)
    assert prompt_attention.attention_implementation(model) == "sdpa"


def test_a_mask_that_another_thread_made_while_we_read_holds_for_a_model_that_came_with_eager_attention() -> None:
    model = qwen()
    model.config._attn_implementation = "eager"
    tokens = torch.tensor([[1, 2, 3, 4]])
    with torch.no_grad():
        expected = model(input_ids=tokens).logits
    TransformersEngine(model, None, vocabulary=VOCABULARY)
    with ExitStack() as stack, torch.no_grad():
        stack.enter_context(prompt_attention.reading(model))
        # The mask is made by then, and the first layer's attention is not: this is where we are done.
        model.model.layers[0].register_forward_pre_hook(lambda *_: stack.close())
        found = model(input_ids=tokens).logits
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("field", ["attn_logit_softcapping", "final_logit_softcapping"])
def test_caps_are_refused_by_name_while_weights_are_too_small_to_meet_them(field: str) -> None:
    caps = {"attn_logit_softcapping": None, "final_logit_softcapping": None} | {field: 50.0}
    with pytest.raises(ModelError, match=f"caps its scores .{field}: 50"):
        TransformersEngine(Gemma2ForCausalLM(Gemma2Config(**SHAPE, **HEADS, **caps)), None, vocabulary=VOCABULARY)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The length of every prompt that is read, but for its last token."""
    lengths: list[int] = []
    whole = prompt_attention._read

    def counted(model: PreTrainedModel, prompts: Sequence[Sequence[int]], reader: Any) -> torch.Tensor:
        lengths.extend(map(len, prompts))
        return whole(model, prompts, reader)

    monkeypatch.setattr(prompt_attention, "_few", lambda *_: 0)
    monkeypatch.setattr(prompt_attention, "_read", counted)
    return lengths


def test_a_prompt_that_comes_again_is_not_read_again_and_the_oldest_is_forgotten(read: list[int]) -> None:
    expected = ranked(qwen())
    one_token = 2 * 3 * 2 * 8 * 4  # keys and values of 3 layers, 2 heads of 8 numbers
    engine = TransformersEngine(qwen(), None, vocabulary=VOCABULARY, remembered_bytes=30 * one_token)
    read.clear()
    first = engine.rank(PROMPTS, TRIE, beam_width=12, k=12)
    assert sorted(read) == [0, 1, 2, 4, 19]
    check_equal(first, expected)
    read.clear()
    assert engine.rank(PROMPTS, TRIE, beam_width=12, k=12) == first
    assert read == []
    engine.rank([[2] * 12], TRIE, beam_width=12, k=12)  # 11 tokens more than fit: those used longest ago go
    read.clear()
    # Read with fewer others beside them, prompts round differently in the last digit.
    check_equal(engine.rank(PROMPTS, TRIE, beam_width=12, k=12), first)
    assert read == [0, 1, 2, 4]


def test_prompts_of_one_token_are_read_although_nothing_stands_before_it(read: list[int]) -> None:
    plain = TransformersEngine(qwen(), None, vocabulary=VOCABULARY)
    keeping = TransformersEngine(qwen(), None, vocabulary=VOCABULARY, remembered_bytes=1 << 20)
    expected = plain.rank([[5], [2, 1, 4]], TRIE, beam_width=12, k=12)
    check_equal(plain.rank([[5]], TRIE, beam_width=12, k=12), expected[:1])
    keeping.rank([[2, 1, 4]], TRIE, beam_width=12, k=12)
    check_equal(keeping.rank([[5], [2, 1, 4]], TRIE, beam_width=12, k=12), expected)


@pytest.mark.parametrize("order", [1, -1])
def test_a_prompt_of_one_token_is_read_beside_one_that_fills_a_part_by_itself(
    read: list[int], monkeypatch: pytest.MonkeyPatch, order: int
) -> None:
    monkeypatch.setattr(prompt_attention, "_TOKENS_AT_ONCE", 4)
    engine = TransformersEngine(qwen(), None, vocabulary=VOCABULARY)
    prompts = [[5], [2, 1, 4, 3, 7, 6]][::order]
    alone = [engine.rank([prompt], TRIE, beam_width=12, k=12)[0] for prompt in prompts]
    check_equal(engine.rank(prompts, TRIE, beam_width=12, k=12), alone)
    with torch.no_grad(), prompt_attention.reading(qwen_model := qwen()):
        memories, _ = prompt_attention.read_prompts(qwen_model, prompts)
    assert [memory[0][0].shape[1] for memory in memories] == [len(prompt) - 1 for prompt in prompts]


def test_a_prompt_that_is_kept_again_counts_once() -> None:
    remembered = prompt_attention.Remembered(250)
    memory = [(torch.zeros(1, 5, 2), torch.zeros(1, 5, 3))]  # 100 bytes
    for prompt in ((1,), (2,), (2,), (2,)):
        remembered.add(prompt, memory)
    assert remembered.get((1,)) is memory
    remembered.add((3,), memory)
    assert [remembered.get((prompt,)) is memory for prompt in (1, 2, 3)] == [True, False, True]


def test_equal_prompts_of_one_call_are_read_once(read: list[int]) -> None:
    engine = TransformersEngine(qwen(), None, vocabulary=VOCABULARY)
    read.clear()  # of the engine's own check
    alone, other, again = engine.rank([[3, 1, 2], [4, 4, 4], [3, 1, 2]], TRIE, beam_width=5, k=5)
    assert read == [2, 2]
    assert alone == again != other


@pytest.mark.parametrize("num_heads", [1, 2])
def test_a_remembered_prompt_holds_no_memory_of_those_that_were_read_beside_it(num_heads: int) -> None:
    model = Qwen3ForCausalLM(Qwen3Config(**SHAPE, **{**HEADS, "num_key_value_heads": num_heads}))
    remembered = prompt_attention.Remembered(10_000)
    with torch.no_grad(), prompt_attention.reading(model):
        memories, _ = prompt_attention.read_prompts(model, [[1, 2], [3] * 40], remembered)
    kept = [part for memory in memories for layer in memory for part in layer]
    assert [part.untyped_storage().nbytes() for part in kept] == [part.nbytes for part in kept]
