"""A model folder small enough for tests and large enough for vLLM."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import WordLevel
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from genrec.data.catalog import Catalog
from genrec.run import Run, StageReport
from genrec.trie import ItemTrie
from genrec.vocabulary import SidVocabulary, sid_token


@pytest.fixture(scope="session")
def vllm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen3 with 40 letters and two levels of four codes, and a tokenizer that writes them one after the other."""
    folder = tmp_path_factory.mktemp("vllm") / "model"
    torch.manual_seed(1)
    shape = {"vocab_size": 48, "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 32}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32}
    model = Qwen3ForCausalLM(Qwen3Config(**shape, **heads, max_position_embeddings=64, eos_token_id=2))
    for parameter in model.parameters():
        parameter.data.mul_(8.0) if parameter.dim() > 1 else None
    # What vLLM would obey if it were let: greedy text of another kind, and scores of three codes.
    model.generation_config = GenerationConfig(eos_token_id=2, do_sample=True, top_k=3, repetition_penalty=5.0)
    model.save_pretrained(folder)
    words = {chr(ord("A") + index): index for index in range(40)}
    words |= {sid_token(level, code): 40 + 4 * level + code for level in range(2) for code in range(4)}
    raw = Tokenizer(WordLevel(words, unk_token="A"))
    raw.decoder = Fuse()
    PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="C").save_pretrained(folder)
    SidVocabulary((4, 4), (40, 44)).save(folder)
    return folder


def run_with_trie(folder: Path, codes: NDArray[np.int64], sizes: tuple[int, ...]) -> ItemTrie:
    """A run of which there is the catalogue and the trie; the genre of an item is A, B or C, in turns."""
    run = write_catalogue(folder, len(codes))
    trie = ItemTrie.build(codes, sizes, order_checksum=Catalog.load(run).order_checksum)
    trie.save(folder / "trie")
    return trie


def write_catalogue(folder: Path, number: int, *, genre: str | None = None) -> Run:
    """The catalogue of a run, all of one genre where one is given."""
    run, numbers = Run.create(folder), range(number)
    table = {"item_id": [f"i{n}" for n in numbers], "title": [f"Film {n}" for n in numbers]}
    table |= {"genres": [[genre or "ABC"[n % 3]] for n in numbers], "year": [1990 + n % 2 for n in numbers]}
    pl.DataFrame(table).write_parquet(folder / "items.parquet")
    files = [folder / "items.parquet"]
    run.record(StageReport("ingest", {}, []), config={}, seed=0, inputs=[], outputs=files, started=run.begin())
    return run
