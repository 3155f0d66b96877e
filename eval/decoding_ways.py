"""The ways to search that `bench_decoding.py` compares, and what they search with: models, items, prompts.

N items, L levels, K codes of a level.
"""

from __future__ import annotations

import argparse
import heapq
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from genrec.adapter import adapter_folder
from genrec.data.splits import evaluation_cases
from genrec.decoding.shared_prefix import SharedPrefixScorer
from genrec.errors import ConfigError
from genrec.recommender import Recommender
from genrec.run import Run
from genrec.tokenizers.codes import SemanticIds
from genrec.trie import ItemTrie
from genrec.vocabulary import SidVocabulary, sid_token

FIRST, RANDOM_SIZES = 4, (256, 256, 256, 256)  # of models with random weights: their first code, their codebooks
NUM_TOKENS = FIRST + sum(RANDOM_SIZES)
SHAPES = {
    "small": {"vocab_size": NUM_TOKENS, "hidden_size": 128, "num_hidden_layers": 4, "intermediate_size": 512}
    | {"num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 32},
    "large": {"vocab_size": 151_936, "hidden_size": 512, "num_hidden_layers": 8, "intermediate_size": 1536}
    | {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 64},
}
for _name, _width in (("0.6b", 1024), ("1.7b", 2048)):
    SHAPES[_name] = {"vocab_size": 151_936, "hidden_size": _width, "num_hidden_layers": 28}
    SHAPES[_name] |= {
        "intermediate_size": 3 * _width,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
    }
HUGGING_FACE_ROWS = 512  # beams that `generate` moves together, of several users where one has fewer

Prompts = Sequence[list[int]]
Answer = list[set[tuple[int, ...]]]  # per user the semantic IDs that came back


@dataclass(frozen=True)
class Subject:
    """A model, the items that it may name, and tokens to make prompts of."""

    name: str
    model: PreTrainedModel
    codes: NDArray[np.int64]  # (N, L)
    vocabulary: SidVocabulary
    stream: NDArray[np.int64]  # prompts are pieces of it
    folder: Path | None = None  # where the model was read from

    @property
    def sizes(self) -> tuple[int, ...]:
        """Codes of every level, (L,)."""
        return self.vocabulary.codebook_sizes

    @cached_property
    def first(self) -> NDArray[np.int64]:
        """Token of code 0 on every level, (L,)."""
        return np.array(self.vocabulary.first_token_ids)

    def prompts(self, users: int, length: int) -> list[list[int]]:
        """So many prompts of so many tokens, drawn by these numbers; a short stream is gone through again."""
        stream = np.resize(self.stream, max(len(self.stream), length + 1))
        starts = np.random.default_rng(users + length).integers(0, len(stream) - length, users)
        return [stream[start : start + length].tolist() for start in starts]


def random_subject(name: str, dtype: torch.dtype, device: str, *, items: int, seed: int) -> Subject:
    """A Qwen3 with random weights, and random items."""
    torch.manual_seed(seed)
    shape: dict[str, Any] = SHAPES[name] | {"max_position_embeddings": 2048, "tie_word_embeddings": True}
    config = Qwen3Config(**shape, initializer_range=0.05, bos_token_id=None, eos_token_id=None, pad_token_id=0)
    model = cast(Any, Qwen3ForCausalLM)(config).to(device, dtype).eval()
    rng = np.random.default_rng(seed)
    codes = np.unique(rng.integers(0, 256, (items, 4)), axis=0)
    stream = rng.integers(FIRST, NUM_TOKENS, 1_000_000)
    vocabulary = SidVocabulary(RANDOM_SIZES, tuple(range(FIRST, NUM_TOKENS, 256)))
    return Subject(f"{name}, {model.num_parameters() / 1e6:.0f} M", model, codes, vocabulary, stream)


def trained_subject(path: Path, dtype: torch.dtype, device: str, *, seed: int) -> Subject:
    """The model of a run, its items, and the prompts of its test users one after the other. Items' own tokens are left
    out: no other way knows them. Raises ConfigError where the model is an adapter."""
    run = Run.open(path)
    if adapter_folder(run) is not None:
        raise ConfigError(f"{path} has an adapter.", "Use a run that was trained as a whole (`adapter: none`).")
    folder = path / "model"
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, use_safetensors=True)
    vocabulary = replace(SidVocabulary.load(folder), item_rows=(), items_checksum="", item_share=0.0)
    recommender = Recommender.load(path)
    cases = evaluation_cases(run, "test").sample(10_000, seed=seed)
    stream = np.concatenate([recommender.prompt_tokens(history) for history in cases.histories])
    codes = SemanticIds.load(run, catalog=recommender.catalog).codes.astype(np.int64)
    name = f"{path.name}, {model.num_parameters() / 1e6:.1f} M"
    return Subject(name, model.to(device).eval(), codes, vocabulary, stream, folder)


@dataclass(frozen=True)
class Way:
    """One way to search. `prepare` runs before it, outside of what is timed."""

    search: Callable[[Prompts], Answer]
    valid: set[tuple[int, ...]]
    prepare: Callable[[], object] = lambda: None


def children_of(codes: NDArray[np.int64]) -> dict[tuple[int, ...], list[int]]:
    """The usual trie: a dictionary from a prefix of codes to the codes that may follow."""
    found: dict[tuple[int, ...], set[int]] = {}
    for row in codes.tolist():
        for level, code in enumerate(row):
            found.setdefault(tuple(row[:level]), set()).add(code)
    return {prefix: sorted(following) for prefix, following in found.items()}


def ranked(engine: Any, trie: ItemTrie, codes: NDArray[np.int64], prompts: Prompts, width: int) -> Answer:
    """What an engine of ours answers, as semantic IDs."""
    found = engine.rank(prompts, trie, beam_width=width, k=width)
    return [{tuple(codes[item.item_index].tolist()) for item in answer} for answer in found]


def with_dictionary(subject: Subject, width: int, together: int) -> Callable[[Prompts], Answer]:
    """Our loop and model, so many users together, with a dictionary for a trie."""
    children, levels = children_of(subject.codes), len(subject.sizes)

    def search(prompts: Prompts) -> Answer:
        answers: Answer = []
        for start in range(0, len(prompts), together):
            batch = prompts[start : start + together]
            with torch.inference_mode():
                scorer = SharedPrefixScorer(subject.model, batch, vocabulary=subject.vocabulary, score_mode="level")
                values = scorer.prefill()[:, None]
                beams: list[list[tuple[float, tuple[int, ...]]]] = [[(0.0, ())] for _ in batch]
                for level in range(levels):
                    kept = []
                    for before, rows in zip(beams, values.tolist(), strict=True):
                        candidates = [
                            (score + row[code], slot, (*prefix, code))
                            for slot, ((score, prefix), row) in enumerate(zip(before, rows, strict=False))
                            for code in children[prefix]
                        ]
                        kept.append(heapq.nlargest(width, candidates))
                    beams = [[(score, prefix) for score, _, prefix in own] for own in kept]
                    if level + 1 < levels:
                        slots = np.zeros((2, len(batch), max(map(len, kept))), dtype=np.int64)
                        for user, own in enumerate(kept):
                            slots[:, user, : len(own)] = np.array([(slot, prefix[-1]) for _, slot, prefix in own]).T
                        values = scorer.step(slots[0], slots[1], np.array([len(own) for own in kept]))
            answers += [{prefix for _, prefix in own} for own in beams]
        return answers

    return search


def hugging_face(subject: Subject, width: int) -> Callable[[Prompts], Answer]:
    """`generate` with a prefix function, several prompts at a time where these have few beams."""
    children, first, model = children_of(subject.codes), subject.first, cast(Any, subject.model)

    def allowed(tokens: list[int]) -> list[int]:
        codes = tuple((np.array(tokens, dtype=np.int64) - first[: len(tokens)]).tolist())
        return [int(first[len(codes)]) + code for code in children[codes]]

    options = {"num_beams": width, "num_return_sequences": width, "max_new_tokens": len(first), "do_sample": False}
    together = max(1, HUGGING_FACE_ROWS // width)

    def search(prompts: Prompts) -> Answer:
        answers: Answer = []
        for start in range(0, len(prompts), together):
            batch = torch.tensor(prompts[start : start + together], device=model.device)
            length = batch.shape[1]
            with torch.inference_mode():
                found = model.generate(
                    batch,
                    attention_mask=torch.ones_like(batch),
                    prefix_allowed_tokens_fn=lambda _, tokens, length=length: allowed(tokens[length:].tolist()),
                    length_penalty=0.0,
                    **options,
                )
            rows = (found[:, length:].cpu().numpy() - first).reshape(len(batch), width, len(first))
            answers += [set(map(tuple, own.tolist())) for own in rows]
        return answers

    return search


def vllm_ways(subject: Subject, options: argparse.Namespace) -> tuple[Any, Any]:
    """vLLM's engine, and width → ways on it."""
    from vllm.sampling_params import BeamSearchParams, StructuredOutputsParams
    from vllm.v1.structured_output.utils import choice_as_grammar

    engine, codes, first = _vllm_engine(subject, options), subject.codes, subject.first
    num_few = min(options.grammar_items, len(codes) - 1)  # fewer than all: the two are told apart by how many
    few = codes[np.random.default_rng(options.seed).choice(len(codes), num_few, replace=False)]
    texts = ["".join(sid_token(level, code) for level, code in enumerate(row)) for row in few.tolist()]

    def stock(width: int, grammar: Any = None) -> Callable[[Prompts], Answer]:
        params = BeamSearchParams(beam_width=width, max_tokens=len(first), ignore_eos=True, structured_outputs=grammar)
        return lambda prompts: [
            {tuple((np.array(beam.tokens[len(prompt) :]) - first).tolist()) for beam in output.sequences}
            for prompt, output in zip(
                prompts, engine.llm.beam_search([{"prompt_token_ids": one} for one in prompts], params), strict=True
            )
        ]

    def ways(width: int) -> dict[str, Way]:
        tries = {len(some): ItemTrie.build(some, subject.sizes) for some in (codes, few)}
        grammar = StructuredOutputsParams(grammar=choice_as_grammar(texts))
        everything, some = (set(map(tuple, c.tolist())) for c in (codes, few))
        mine = [lambda p, c=c: ranked(engine, tries[len(c)], c, p, width) for c in (codes, few)]
        clear = engine.llm.reset_prefix_cache  # a user is new to every search
        return {
            "ours on vLLM": Way(mine[0], everything, clear),
            "`LLM.beam_search`": Way(stock(width), everything, clear),
            f"ours on vLLM, {len(few):,} items": Way(mine[1], some, clear),
            f"`LLM.beam_search`, grammar of {len(few):,}": Way(stock(width, grammar), some, clear),
        }

    return engine, ways


def _vllm_engine(subject: Subject, options: argparse.Namespace) -> Any:
    from genrec.decoding.vllm_engine import VllmEngine

    # Log-probabilities for vLLM's own search; ours are log-probabilities already, which that leaves as they are.
    settings = {"logprobs_mode": "processed_logprobs", "max_logprobs": max(256, 2 * max(options.beams))}
    settings |= {"structured_outputs_config": {"backend": "xgrammar"}}
    settings |= {"dtype": str(subject.model.dtype).removeprefix("torch.")}
    if subject.folder is not None:
        return VllmEngine.load(subject.folder, vocabulary=subject.vocabulary, options=settings)
    with tempfile.TemporaryDirectory() as folder:
        subject.model.save_pretrained(folder)
        names = [f"w{index}" for index in range(FIRST)]
        names += [sid_token(level, code) for level, size in enumerate(subject.sizes) for code in range(size)]
        raw = Tokenizer(WordLevel({name: index for index, name in enumerate(names)}, unk_token="w0"))
        PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="w2").save_pretrained(folder)
        subject.vocabulary.save(Path(folder))
        return VllmEngine.load(Path(folder), vocabulary=subject.vocabulary, options=settings)
