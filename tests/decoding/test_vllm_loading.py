"""What the vLLM engine loads and refuses, and a whole run on it. Every test here has an engine of its own."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from genrec.decoding.transformers_engine import TransformersEngine
from genrec.errors import ConfigError, MissingDependencyError, ModelError
from genrec.recommender import Recommender
from genrec.trie import ItemTrie
from genrec.vocabulary import SidVocabulary

pytest.importorskip("vllm", reason="vllm is not installed (docs/install.md)")
pytestmark = pytest.mark.xdist_group("vllm")

from genrec.decoding.vllm_engine import VllmEngine  # noqa: E402  # behind the skip

SMALL_CACHE = {"kv_cache_memory_bytes": 1 << 26}


def test_folders_that_vllm_cannot_serve_are_refused_with_the_reason(vllm_folder: Path, tmp_path: Path) -> None:
    def load(changed: Path, **options: Any) -> None:
        VllmEngine.load(changed, vocabulary=SidVocabulary.load(vllm_folder), options=SMALL_CACHE | options).close()

    with pytest.raises(ModelError, match=r"has no config\.json"):
        load(tmp_path)
    other = shutil.copytree(vllm_folder, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"head_dim": 8}))
    with pytest.raises(ModelError, match=r"vLLM cannot load .*other: Attempted to load weight"):
        load(other)
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"vLLM cannot load .*other: .*dtype"):
        load(other, dtype="int4")
    SidVocabulary((4, 4), (30, 34)).save(other)
    with pytest.raises(ModelError, match="other semantic IDs"):
        load(other)


def test_an_option_that_vllm_does_not_have_is_named_beside_those_that_it_has(
    vllm_folder: Path, tiny_run: Path, tmp_path: Path, genrec: Callable[..., Any]
) -> None:
    with pytest.raises(ConfigError, match=r"no engine option 'max_modle_len'.*max_model_len.*max_num_seqs"):
        VllmEngine.load(vllm_folder, vocabulary=SidVocabulary.load(vllm_folder), options={"max_modle_len": 64})
    (tmp_path / "users.jsonl").write_text('{"history": ["i3"]}\n')
    files = ("--input", tmp_path / "users.jsonl", "--output", tmp_path / "out.jsonl")
    done = genrec("recommend", tiny_run, *files, "--engine", "vllm", "--engine-option", "max_modle_len=64")
    assert done.status == 2
    assert "no engine option 'max_modle_len'" in done.err


def test_heads_without_a_kernel_are_refused_when_the_engine_is_loaded(vllm_folder: Path, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = shutil.copytree(vllm_folder, tmp_path / "narrow")
    narrow = AutoConfig.from_pretrained(folder, head_dim=16)
    AutoModelForCausalLM.from_config(narrow).save_pretrained(folder)
    with pytest.raises(ModelError, match=r"vLLM cannot load .*narrow: "):
        VllmEngine.load(folder, vocabulary=SidVocabulary.load(vllm_folder), options=SMALL_CACHE)


def test_without_the_package_the_error_names_the_extra(tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)  # what Python does for a package that is not there
    with pytest.raises(MissingDependencyError, match="Install the extra `vllm`"):
        Recommender.load(tiny_run, "vllm")


def test_an_engine_loaded_by_a_thread_serves_others_and_closed_says_so(vllm_folder: Path) -> None:
    def load() -> VllmEngine:  # as a server does, whose page is there before its model
        return VllmEngine.load(vllm_folder, vocabulary=SidVocabulary.load(vllm_folder), options=SMALL_CACHE)

    trie = ItemTrie.build([[0, 0]], (4, 4))
    with ThreadPoolExecutor(1) as pool:
        closed = pool.submit(load).result()
    shapes: list[tuple[int, ...]] = []
    hook = torch.nn.modules.module.register_module_forward_hook(
        lambda module, _, logits: shapes.append(logits.shape) if type(module).__name__ == "CodeHead" else None
    )
    assert [item.item_index for item in closed.rank([[1]], trie, beam_width=1, k=1)[0]] == [0]
    assert shapes == [(1, 8), (1, 8)]  # no more rows of the output matrix than the codes of both levels
    assert len(closed.generate([[1]], max_new_tokens=2)[0].token_ids) == 2
    assert shapes[2][1] > 8
    hook.remove()
    closed.close()
    closed.close()
    with pytest.raises(ModelError, match="the engine is closed"):
        closed.rank([[1]], trie, beam_width=1, k=1)


def test_logits_are_scaled_where_only_the_rows_of_codes_are_multiplied(vllm_folder: Path, tmp_path: Path) -> None:
    from transformers import GraniteConfig, GraniteForCausalLM

    folder = shutil.copytree(vllm_folder, tmp_path / "granite")
    torch.manual_seed(1)
    shape = {"vocab_size": 48, "hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 32}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64}
    ends = {"bos_token_id": None, "eos_token_id": 2, "pad_token_id": None}
    model = GraniteForCausalLM(GraniteConfig(**shape, **heads, **ends, logits_scaling=4.0, attention_multiplier=0.2))
    for parameter in model.parameters():
        parameter.data.mul_(8.0) if parameter.dim() > 1 else None
    model.save_pretrained(folder)
    vocabulary = SidVocabulary.load(vllm_folder)
    trie = ItemTrie.build([[a, b] for a in range(4) for b in range(4)], (4, 4))
    [expected] = TransformersEngine.load(folder, vocabulary=vocabulary).rank([[1, 2, 3]], trie, beam_width=16, k=16)
    engine = VllmEngine.load(folder, vocabulary=vocabulary, options=SMALL_CACHE)
    [found] = engine.rank([[1, 2, 3]], trie, beam_width=16, k=16)
    engine.close()
    assert [item.item_index for item in found] == [item.item_index for item in expected]
    assert [item.score for item in found] == pytest.approx([item.score for item in expected], abs=1e-4)


def test_a_run_is_evaluated_and_recommends_the_same_on_both_engines(
    tiny_copy: Path, tiny_files: Path, genrec: Callable[..., Any]
) -> None:
    config = (tiny_files / "train.yaml").read_text().replace("heads: 2", "heads: 1")  # heads of 32, as vLLM needs
    (tiny_copy / "train.yaml").write_text(config)
    assert genrec("train", tiny_copy, "--config", tiny_copy / "train.yaml").status == 0
    (tiny_copy / "users.jsonl").write_text(
        '{"history": ["i3", "i6"]}\n{"history": [], "allow": {"genres": "Western"}}\n'
    )
    answers = {}
    for engine in ("transformers", "vllm"):
        output = tiny_copy / f"{engine}.jsonl"
        done = genrec(
            *("recommend", tiny_copy, "--input", tiny_copy / "users.jsonl", "--output", output, "--engine", engine)
        )
        assert done.status == 0, done.err
        lines = [json.loads(line) for line in output.read_text().splitlines()]
        answers[engine] = [[item["item_id"] for item in line["items"]] for line in lines]
    assert answers["vllm"] == answers["transformers"]
    done = genrec("evaluate", tiny_copy, "--engine", "vllm", "--config", tiny_files / "evaluate.yaml")
    assert done.status == 0, done.err


def test_an_adapter_with_rows_of_its_own_is_merged_before_vllm_sees_it(vllm_folder: Path, tmp_path: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from genrec.decoding.opening import open_engine

    vocabulary = SidVocabulary.load(vllm_folder)
    rows = [first + code for first, size in zip((40, 44), (4, 4), strict=True) for code in range(size)]
    assert vocabulary.first_token_ids == (40, 44)
    torch.manual_seed(3)
    config = LoraConfig(
        r=4, target_modules=["q_proj", "down_proj"], trainable_token_indices=rows, init_lora_weights=False
    )
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(vllm_folder), config)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "trainable_tokens_delta" in name:
                weight.add_(0.5 * torch.randn_like(weight))
    adapted.save_pretrained(tmp_path / "adapter")
    trie = ItemTrie.build([[a, b] for a in range(4) for b in range(4)], (4, 4))
    scores = {}
    for name, adapter in (
        ("transformers", tmp_path / "adapter"),
        ("vllm", tmp_path / "adapter"),
        ("transformers", None),
    ):
        engine = open_engine(name, vllm_folder, vocabulary=vocabulary, adapter=adapter)
        (ranked,) = engine.rank([[1, 2, 3]], trie, beam_width=16, k=16)
        scores[name, adapter is None] = {item.item_index: item.score for item in ranked}
        engine.close()
    assert scores["vllm", False] == pytest.approx(scores["transformers", False], abs=2e-4)
    assert scores["vllm", False] != pytest.approx(scores["transformers", True], abs=0.05)
