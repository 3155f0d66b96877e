"""The vLLM engine beyond the contract: text, threads, adapters, what it refuses, and a whole run on it."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import torch

from genrec.decoding.engine import Engine
from genrec.decoding.transformers_engine import TransformersEngine
from genrec.errors import ConfigError, ModelError, TrieError
from genrec.trie import ItemTrie
from genrec.vocabulary import SidVocabulary

pytest.importorskip("vllm", reason="vllm is not installed (docs/install.md)")
pytestmark = pytest.mark.xdist_group("vllm")

import vllm  # noqa: E402  # behind the skip
from vllm.exceptions import VLLMValidationError  # noqa: E402

from genrec.decoding.vllm_engine import VllmEngine  # noqa: E402

VOCABULARY = SidVocabulary((4, 4), (40, 44))
TRIE = ItemTrie.build([[a, b] for a in range(4) for b in range(4)], (4, 4))
PROMPTS = [[1, 2, 3], [4], [5, 6, 7, 8, 9, 1, 2] * 6, [3, 3, 2]]
SMALL_CACHE = {"kv_cache_memory_bytes": 1 << 26}


def save_adapter(folder: Path, base: Path, seed: int, **options: Any) -> Path:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    options = {"r": 4, "target_modules": ["q_proj", "v_proj", "down_proj"], "init_lora_weights": False} | options
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(**options))
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def adapters(vllm_folder: Path) -> list[Path]:
    return [save_adapter(vllm_folder.parent / f"adapter{seed}", vllm_folder, seed) for seed in (1, 2)]


@pytest.fixture(scope="module")
def engine(vllm_folder: Path, adapters: list[Path]) -> Iterator[VllmEngine]:
    """One for all tests: it takes seconds to start."""
    loaded = VllmEngine.load(vllm_folder, vocabulary=VOCABULARY, adapter=adapters[0], options=SMALL_CACHE)
    yield loaded.with_adapter(None, 1)
    loaded.close()


@pytest.fixture(scope="module")
def reference(vllm_folder: Path) -> TransformersEngine:
    return TransformersEngine.load(vllm_folder, vocabulary=VOCABULARY)


def check_same_ranking(one: Engine, other: Engine) -> None:
    for ours, theirs in zip(
        one.rank(PROMPTS, TRIE, beam_width=16, k=16), other.rank(PROMPTS, TRIE, beam_width=16, k=16), strict=True
    ):
        by_item = {item.item_index: item.score for item in theirs}
        assert {item.item_index for item in ours} == by_item.keys()
        np.testing.assert_allclose([i.score for i in ours], [by_item[i.item_index] for i in ours], atol=2e-4)


def test_it_ranks_as_the_transformers_engine_does(engine: VllmEngine, reference: TransformersEngine) -> None:
    check_same_ranking(engine, reference)


def test_scores_that_come_as_log_probabilities_are_those_that_are_handed_over(
    engine: VllmEngine, reference: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = engine._runner
    assert runner.local
    handed = engine.rank(PROMPTS, TRIE, beam_width=16, k=16)
    monkeypatch.setattr(runner, "local", False)  # as with several devices, whose workers are other processes
    answered = engine.rank(PROMPTS, TRIE, beam_width=16, k=16)
    assert [[item.item_index for item in user] for user in handed] == [
        [item.item_index for item in user] for user in answered
    ]
    np.testing.assert_allclose(
        [[item.score for item in user] for user in handed],
        [[item.score for item in user] for user in answered],
        atol=1e-5,
    )
    check_same_ranking(engine, reference)


@pytest.mark.parametrize("stop", [(), ("H",), ("BB", "N")])
def test_greedy_text_is_that_of_the_transformers_engine(
    engine: VllmEngine, reference: TransformersEngine, stop: tuple[str, ...]
) -> None:
    found = engine.generate(PROMPTS, max_new_tokens=12, stop=stop)
    assert found == reference.generate(PROMPTS, max_new_tokens=12, stop=stop)
    assert len({text.text for text in found}) > 1


def test_text_is_words_where_a_request_beside_it_names_items(engine: VllmEngine) -> None:
    from vllm import SamplingParams

    drawn = {"temperature": 2.0, "max_tokens": 16, "ignore_eos": True, "detokenize": False}
    prompts = [{"prompt_token_ids": prompt} for prompt in PROMPTS]
    asked = [SamplingParams(**drawn, seed=5, extra_args=extra) for extra in (None, {"genrec_words": True}, None)]
    free, words, again = engine.llm.generate([prompts[0]] * 3, asked, use_tqdm=False)
    assert max(words.outputs[0].token_ids) < 40 <= max(free.outputs[0].token_ids)  # whoever asks for nothing has all
    assert free.outputs[0].token_ids == again.outputs[0].token_ids
    texts = engine.generate(PROMPTS, max_new_tokens=16, temperature=2.0, seed=5)
    assert all(token < 40 for text in texts for token in text.token_ids)
    assert list(texts[0].token_ids) == list(words.outputs[0].token_ids)[: len(texts[0].token_ids)]


def test_sampled_text_is_the_same_for_a_seed_in_any_batch_and_differs_between_seeds(engine: VllmEngine) -> None:
    together = engine.generate(PROMPTS, max_new_tokens=8, temperature=2.0, seed=5)
    alone = [engine.generate([prompt], max_new_tokens=8, temperature=2.0, seed=5)[0] for prompt in PROMPTS]
    assert together == alone
    assert together != engine.generate(PROMPTS, max_new_tokens=8, temperature=2.0, seed=6)


def test_streamed_pieces_joined_are_the_text_and_a_left_stream_harms_nobody(engine: VllmEngine) -> None:
    (whole,) = engine.generate(PROMPTS[:1], max_new_tokens=12)
    pieces = list(engine.stream(PROMPTS[0], max_new_tokens=12))
    assert len(pieces) > 1
    assert "".join(pieces) == whole.text
    left = engine.stream(PROMPTS[0], max_new_tokens=12)
    next(left)
    assert engine.generate(PROMPTS[:1], max_new_tokens=12) == [whole]
    left.close()
    assert "".join(engine.stream(PROMPTS[0], max_new_tokens=12)) == whole.text


def test_threads_get_the_answers_that_they_get_alone(engine: VllmEngine) -> None:
    def ranked(index: int) -> list[int]:
        (answer,) = engine.rank([PROMPTS[index % 4]], TRIE, beam_width=8, k=5)
        return [item.item_index for item in answer]

    def streamed(index: int) -> str:
        return "".join(engine.stream(PROMPTS[index % 4], max_new_tokens=6))

    expected = [ranked(index) for index in range(4)], [streamed(index) for index in range(4)]
    with ThreadPoolExecutor(8) as pool:
        jobs: list[Callable[[int], Any]] = [ranked, streamed]
        answers = list(pool.map(lambda number: jobs[number % 2](number // 2), range(48)))
    assert answers == [expected[number % 2][number // 2 % 4] for number in range(48)]


def test_several_adapters_over_one_base_rank_as_each_merged_model(
    engine: VllmEngine, vllm_folder: Path, adapters: list[Path]
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    for number, adapter in enumerate(adapters, start=1):
        merged = PeftModel.from_pretrained(
            AutoModelForCausalLM.from_pretrained(vllm_folder), adapter
        ).merge_and_unload()
        check_same_ranking(
            engine.with_adapter(adapter, number), TransformersEngine(merged, None, vocabulary=VOCABULARY)
        )


def test_adapters_that_rank_at_the_same_time_each_give_their_own_answer(
    engine: VllmEngine, adapters: list[Path]
) -> None:
    engines = [engine.with_adapter(adapter, number) for number, adapter in enumerate(adapters, start=1)]
    together = Barrier(len(engines))

    def ranked(one: VllmEngine) -> list[dict[int, float]]:
        found = one.rank(PROMPTS, TRIE, beam_width=16, k=16)
        return [{item.item_index: item.score for item in user} for user in found]

    def in_a_thread(one: VllmEngine) -> list[list[dict[int, float]]]:
        rounds = []
        for _ in range(3):
            together.wait(timeout=60)
            rounds.append(ranked(one))
        return rounds

    alone = [ranked(one) for one in engines]
    assert all(one != pytest.approx(other, abs=0.05) for one, other in zip(*alone, strict=True))
    with ThreadPoolExecutor(len(engines)) as pool:
        answers = list(pool.map(in_a_thread, engines))
    for rounds, expected in zip(answers, alone, strict=True):
        for answer in rounds:
            assert answer == [pytest.approx(user, abs=2e-4) for user in expected]


def test_an_adapter_that_changes_embeddings_is_refused_by_name(engine: VllmEngine, vllm_folder: Path) -> None:
    adapter = save_adapter(vllm_folder.parent / "rows", vllm_folder, 3, modules_to_save=["embed_tokens"])
    with pytest.raises(ModelError, match=r"changes embeddings \(modules_to_save"):
        engine.with_adapter(adapter, 3)
    with pytest.raises(ModelError, match=r"no readable adapter_config\.json"):
        engine.with_adapter(vllm_folder, 4)


def test_an_adapter_keeps_its_number_and_one_that_does_not_fit_is_refused_before_any_step(
    engine: VllmEngine, vllm_folder: Path, adapters: list[Path], tmp_path: Path
) -> None:
    engine.with_adapter(adapters[0], 1).with_adapter(adapters[0], 1)
    with pytest.raises(ConfigError, match=rf"number 1 is that of the adapter {adapters[0]}"):
        engine.with_adapter(adapters[1], 1)
    with pytest.raises(ModelError, match="has rank 512; the engine was loaded for"):
        engine.with_adapter(save_adapter(tmp_path / "wide", vllm_folder, 3, r=512), 7)
    bare = shutil.copytree(adapters[0], tmp_path / "bare")
    (bare / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"has no adapter_model\.safetensors"):
        engine.with_adapter(bare, 8)


@pytest.mark.parametrize("mask", [{"allowed_token_ids": [5]}, {"bad_words": ["x"]}])
def test_nothing_else_may_mask_what_the_trie_leaves(engine: VllmEngine, mask: dict[str, Any]) -> None:
    asked = vllm.SamplingParams(max_tokens=1, extra_args={"genrec_prefix": []}, **mask)
    with pytest.raises(VLLMValidationError, match="cannot stand beside genrec_"):
        engine.llm.generate([{"prompt_token_ids": [1, 2]}], asked, use_tqdm=False)


def test_an_adapter_of_rows_alone_is_refused_by_its_kind(engine: VllmEngine, vllm_folder: Path, tmp_path: Path) -> None:
    from peft import TrainableTokensConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    config = TrainableTokensConfig(token_indices=[1, 2], target_modules=["embed_tokens"])
    get_peft_model(AutoModelForCausalLM.from_pretrained(vllm_folder), config).save_pretrained(tmp_path / "rows")
    with pytest.raises(ModelError, match=r"PEFT's kind TRAINABLE_TOKENS.*genrec export"):
        engine.with_adapter(tmp_path / "rows", 3)


def test_a_second_engine_in_one_process_is_refused(engine: VllmEngine, vllm_folder: Path) -> None:
    with pytest.raises(ModelError, match="this process holds a vLLM engine already"):
        VllmEngine.load(vllm_folder, vocabulary=VOCABULARY, options=SMALL_CACHE)


def test_prompts_and_options_that_make_no_sense_are_refused(engine: VllmEngine) -> None:
    with pytest.raises(ModelError, match="prompt 1 is empty"):
        engine.rank([[1], []], TRIE, beam_width=4, k=4)
    with pytest.raises(ModelError, match=r"needs 65 tokens .* the context is 64"):
        engine.rank([[1] * 63], TRIE, beam_width=4, k=4)
    with pytest.raises(ConfigError, match="max_new_tokens is 0"):
        engine.generate([[1]], max_new_tokens=0)
    for seed in (-1, 2**64):
        with pytest.raises(ConfigError, match="the seed is"):
            engine.generate([[1]], max_new_tokens=1, seed=seed)
    with pytest.raises(ModelError, match="prompt 0 holds the token 4800"):
        engine.generate([[4800]], max_new_tokens=1)
    with pytest.raises(ConfigError, match="a temperature from 0 to 2"):
        engine.generate([[1]], max_new_tokens=1, temperature=2.5)
    with pytest.raises(TrieError, match="the trie has codebooks"):
        engine.rank([[1]], ItemTrie.build([[0]], (3,)), beam_width=1, k=1)
    known = copy.copy(engine)
    known._vocabulary = replace(VOCABULARY, tokenizer_checksum="ours")
    with pytest.raises(TrieError, match="of the item tokenizer theirs, the model of ours"):
        known.rank([[1]], ItemTrie.build([[0, 0]], (4, 4), tokenizer_checksum="theirs"), beam_width=1, k=1)
