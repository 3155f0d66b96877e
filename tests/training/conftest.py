"""Tiny bases of real families, each with a trained tokenizer of its family's kind, as a hub folder has them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GemmaConfig,
    GemmaTokenizer,
    GenerationConfig,
    LlamaConfig,
    LlamaTokenizer,
    MistralConfig,
    Qwen2Config,
    Qwen2Tokenizer,
    Qwen3Config,
    SmolLM3Config,
)

TEXTS = [f"Film {number}: Comedy, Drama, Western, Mood {number % 2}" for number in range(30)] + ["Items:"] * 5
BASES = ["qwen2", "qwen3", "qwen3-untied", "llama", "mistral", "smollm3", "gemma", "gemma3"]
_BYTE_LEVEL = {"qwen2", "qwen3", "qwen3-untied", "smollm3"}
_SIZES = {
    "hidden_size": 64,  # bitsandbytes wants whole blocks of 64
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
}


# SmolLM3's configuration names tokens of a vocabulary of its own size.
_TOKENS = {"pad_token_id": None, "bos_token_id": None, "eos_token_id": None}


def _without(sizes: dict[str, int], name: str) -> dict[str, int]:
    return {key: size for key, size in sizes.items() if key != name}


def _model_config(family: str, num_rows: int) -> Any:
    sizes = {"vocab_size": num_rows, **_SIZES}
    configs = {
        "qwen2": lambda: Qwen2Config(**_without(sizes, "head_dim"), tie_word_embeddings=True),
        "qwen3": lambda: Qwen3Config(**sizes, tie_word_embeddings=True),
        "qwen3-untied": lambda: Qwen3Config(**sizes, tie_word_embeddings=False),
        "llama": lambda: LlamaConfig(**sizes, tie_word_embeddings=False),
        "mistral": lambda: MistralConfig(**sizes, sliding_window=None, tie_word_embeddings=False),
        # Every second layer without rotary positions, as every fourth of the large model.
        "smollm3": lambda: SmolLM3Config(**_without(sizes, "head_dim"), **_TOKENS, no_rope_layer_interval=2),
        "gemma": lambda: GemmaConfig(**sizes),
        "gemma3": lambda: Gemma3TextConfig(**sizes, sliding_window=128),
    }
    return configs[family]()


def _tokenizer(family: str) -> Any:
    """Byte-level BPE as Qwen's and SmolLM3's, or SentencePiece-like BPE with byte fallback as that of the others."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    if family in _BYTE_LEVEL:
        backend = Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, show_progress=False)
    else:
        backend = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
        backend.normalizer = normalizers.Replace(" ", "▁")
        single_bytes = [f"<0x{byte:02X}>" for byte in range(256)]
        names = ["<pad>", "<eos>", "<bos>", "<unk>"] if family.startswith("gemma") else ["<unk>", "<s>", "</s>"]
        trainer = trainers.BpeTrainer(vocab_size=360, special_tokens=[*names, *single_bytes], show_progress=False)
    backend.train_from_iterator(TEXTS, trainer)
    trained = json.loads(backend.to_str())["model"]
    kind = Qwen2Tokenizer if family in _BYTE_LEVEL else GemmaTokenizer if family.startswith("gemma") else LlamaTokenizer
    begins = {} if family in _BYTE_LEVEL else {"add_bos_token": True}  # as the published ones have it
    return kind(vocab=trained["vocab"], merges=[tuple(pair) for pair in trained["merges"]], **begins)


def save_base(folder: Path, family: str) -> Path:
    """A folder with a random model of a family, its tokenizer and sampling defaults that nobody asked for."""
    tokenizer = _tokenizer(family)
    torch.manual_seed(0)
    # More rows than tokens, as Qwen's models have them: the new tokens take the spare rows first.
    model = AutoModelForCausalLM.from_config(_model_config(family, len(tokenizer) + 7), dtype=torch.float32)
    model.generation_config = GenerationConfig(
        do_sample=True, top_k=20, temperature=0.6, repetition_penalty=1.3, eos_token_id=tokenizer.eos_token_id
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`base_folder("llama")`: the folder of a tiny base, made once. For reading only."""
    made: dict[str, Path] = {}

    def base(family: str) -> Path:
        if family not in made:
            made[family] = save_base(tmp_path_factory.mktemp("base") / family, family)
        return made[family]

    return base
