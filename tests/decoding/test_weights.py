"""Models that the engine holds in fewer bits, through bitsandbytes: what is quantised, and what a beam scores as."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from genrec.config import Weights
from genrec.decoding.engine import RankedItem
from genrec.decoding.opening import open_engine
from genrec.decoding.transformers_engine import TransformersEngine
from genrec.errors import ConfigError, MissingDependencyError, ModelError
from genrec.trie import ItemTrie
from genrec.vocabulary import SidVocabulary, sid_token

VOCABULARY = SidVocabulary((8, 8), (40, 48))
TRIE = ItemTrie.build([[a, b] for a in range(8) for b in range(8)], (8, 8))
PROMPTS = [[1, 2, 3, 4, 5], [6, 7], [9, 9, 30, 12]]


def make_folder(path: Path, *, width: int = 64) -> Path:
    """A Qwen3 of 40 letters and two levels of eight codes. Half of the tokens have one number far above the others."""
    torch.manual_seed(1)
    shape = {"vocab_size": 56, "hidden_size": width, "num_hidden_layers": 2, "intermediate_size": 128}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32}
    model: Any = Qwen3ForCausalLM(Qwen3Config(**shape, **heads, max_position_embeddings=64, eos_token_id=2))
    for parameter in model.parameters():
        parameter.data.mul_(4.0) if parameter.dim() > 1 else None
    model.get_input_embeddings().weight.data[::2, 3] = 3.0
    model.save_pretrained(path)
    words = {chr(ord("A") + index): index for index in range(40)}
    words |= {sid_token(level, code): 40 + 8 * level + code for level in range(2) for code in range(8)}
    PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel(words, unk_token="A")), eos_token="C").save_pretrained(
        path
    )
    VOCABULARY.save(path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("weights") / "model")


def scores(answer: list[RankedItem]) -> Any:
    return np.array([item.score for item in sorted(answer, key=lambda item: item.item_index)])


def ranked(engine: TransformersEngine, prompts: list[list[int]]) -> list[list[RankedItem]]:
    return engine.rank(prompts, TRIE, beam_width=64, k=64)


@pytest.mark.parametrize(
    ("weights", "kept"),
    [("bfloat16", torch.bfloat16), ("int8", torch.int8), ("nf4", torch.uint8)],
)
def test_layers_are_held_in_fewer_bits_and_score_nearly_the_same(
    folder: Path, weights: Weights, kept: torch.dtype
) -> None:
    exact = ranked(TransformersEngine.load(folder, vocabulary=VOCABULARY), PROMPTS)
    engine = TransformersEngine.load(folder, vocabulary=VOCABULARY, weights=weights)
    model: Any = engine._model
    assert Counter(layer.weight.dtype for layer in model.modules() if isinstance(layer, torch.nn.Linear)) == (
        Counter({kept: 14, torch.float32: 1}) if weights != "bfloat16" else Counter({kept: 15})
    )
    for one, other in zip(ranked(engine, PROMPTS), exact, strict=True):
        error = np.abs(scores(one) - scores(other))
        assert 0 < error.max() < (1.5 if weights == "nf4" else 0.3)
        assert len(one) == 64


@pytest.mark.parametrize("weights", ["int8", "nf4"])
def test_a_prompt_scores_the_same_in_every_batch(
    folder: Path, weights: Weights, caplog: pytest.LogCaptureFixture
) -> None:
    engine = TransformersEngine.load(folder, vocabulary=VOCABULARY, weights=weights)
    together = ranked(engine, PROMPTS)
    for prompt, answer in zip(PROMPTS, together, strict=True):
        (alone,) = ranked(engine, [prompt])
        np.testing.assert_allclose(scores(alone), scores(answer), atol=2e-4)
    assert not caplog.records  # bitsandbytes would say per layer and batch what it casts


def test_an_adapter_is_merged_before_weights_are_quantised(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(3)
    config = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    base = AutoModelForCausalLM.from_pretrained(folder)
    get_peft_model(base, config).save_pretrained(str(tmp_path / "adapter"))
    found = {}
    for weights, adapter in (("float32", tmp_path / "adapter"), ("int8", tmp_path / "adapter"), ("float32", None)):
        engine: Any = open_engine("transformers", folder, vocabulary=VOCABULARY, adapter=adapter, weights=weights)  # type: ignore[arg-type]
        found[weights, adapter is None] = scores(ranked(engine, PROMPTS[:1])[0])
    near = np.abs(found["int8", False] - found["float32", False]).max()
    far = np.abs(found["float32", True] - found["float32", False]).max()
    assert near < 0.3 < 1.0 < far
    with pytest.raises(ConfigError, match="cannot be merged into int8"):
        TransformersEngine.load(folder, vocabulary=VOCABULARY, adapter=tmp_path / "adapter", weights="int8")


def test_what_cannot_be_held_so_is_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="no weights 'int4'"):
        open_engine("transformers", folder, vocabulary=VOCABULARY, weights="int4")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="nf4 weights were asked for, but vLLM"):
        open_engine("vllm", folder, vocabulary=VOCABULARY, weights="nf4")
    narrow = make_folder(tmp_path / "narrow", width=32)
    with pytest.raises(ModelError, match="multiple of 64"):
        TransformersEngine.load(narrow, vocabulary=VOCABULARY, weights="nf4", device="cpu")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="bitsandbytes") as refused:
        TransformersEngine.load(folder, vocabulary=VOCABULARY, weights="int8")
    assert "quantized" in str(refused.value.hint)
