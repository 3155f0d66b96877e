"""How fast constrained beam search is: ours beside others on one machine, and how far it is from the machine's limit.

    OMP_NUM_THREADS=1 python eval/bench_decoding.py [--models small large] [--users 1 64] [--beams 10 50 256] [--vllm]
    python eval/bench_decoding.py --device cuda --models 0.6b 1.7b --dtypes bfloat16

Qwen3 with random weights (timings depend on shapes): `small` of width 128 with four layers, `large` with 103 M
parameters and a vocabulary of 151,936, `0.6b` and `1.7b` as published; 12,101 random items of 4 x 256 codes. The ways
take turns, ratios are medians of pairs: ours, a dictionary as the trie in our loop, Hugging Face with a prefix
function; with `--vllm` our search on vLLM and its own, and both for the items of a grammar. A way whose products would
take longer than `--budget` is left out. With `--device cuda` all times are wall times until the GPU is done.

`of products`: our CPU time over that of the matrix products that the search cannot do without (prompts, levels, K rows
of output, attention), timed with the same shapes in the same run. `trie`: what the loop costs more on the same random
scores than one that knows no trie, in per cent of our time without the reading of prompts. `counted`: a batch's memory
by count. Prints Markdown.
"""

from __future__ import annotations

import argparse
import ctypes
import heapq
import itertools
import os
import platform
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from genrec.decoding.beam import Floats, beam_search, best
from genrec.decoding.shared_prefix import SharedPrefixScorer
from genrec.decoding.transformers_engine import TransformersEngine
from genrec.trie import ItemTrie
from genrec.vocabulary import SidVocabulary, sid_token

SIZES = (256, 256, 256, 256)
FIRST, NUM_TOKENS = 4, 1028
VOCABULARY = SidVocabulary(SIZES, tuple(range(FIRST, NUM_TOKENS, 256)))
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
BATCH, TOKENS_AT_ONCE = 16, 512  # of the engine: users searched together, prompt tokens read together

Prompts = Sequence[list[int]]
Answer = list[set[tuple[int, ...]]]  # per user the semantic IDs that came back


@dataclass(frozen=True)
class Way:
    """One way to search. `prepare` runs before it, outside of what is timed."""

    search: Callable[[Prompts], Answer]
    valid: set[tuple[int, ...]]
    prepare: Callable[[], object] = lambda: None


def describe_machine() -> str:
    """CPU model, cores, threads and the load of the last minute (other work disturbs timings)."""
    names = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    load = f"{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}"
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_initialized() else ""
    return f"{[*names, platform.machine()][0]}, {os.cpu_count()} cores, {load}{gpu}"


def random_model(name: str, dtype: torch.dtype, seed: int, device: str) -> PreTrainedModel:
    """A Qwen3 with random weights."""
    torch.manual_seed(seed)
    options: dict[str, Any] = SHAPES[name] | {"max_position_embeddings": 2048, "tie_word_embeddings": True}
    config = Qwen3Config(**options, initializer_range=0.05, bos_token_id=None, eos_token_id=None, pad_token_id=0)
    return cast(Any, Qwen3ForCausalLM)(config).to(device, dtype).eval()


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


def with_dictionary(model: PreTrainedModel, codes: NDArray[np.int64], width: int) -> Callable[[Prompts], Answer]:
    """Our loop and model, with a dictionary for a trie."""
    children = children_of(codes)

    def search(prompts: Prompts) -> Answer:
        answers: Answer = []
        for start in range(0, len(prompts), BATCH):
            batch = prompts[start : start + BATCH]
            with torch.no_grad():
                scorer = SharedPrefixScorer(model, batch, vocabulary=VOCABULARY, score_mode="level")
                values = scorer.prefill()[:, None]
                beams: list[list[tuple[float, tuple[int, ...]]]] = [[(0.0, ())] for _ in batch]
                for level in range(len(SIZES)):
                    kept = []
                    for before, rows in zip(beams, values.tolist(), strict=True):
                        candidates = [
                            (score + row[code], slot, (*prefix, code))
                            for slot, ((score, prefix), row) in enumerate(zip(before, rows, strict=False))
                            for code in children[prefix]
                        ]
                        kept.append(heapq.nlargest(width, candidates))
                    beams = [[(score, prefix) for score, _, prefix in own] for own in kept]
                    if level + 1 < len(SIZES):
                        slots = np.zeros((2, len(batch), max(map(len, kept))), dtype=np.int64)
                        for user, own in enumerate(kept):
                            slots[:, user, : len(own)] = np.array([(slot, prefix[-1]) for _, slot, prefix in own]).T
                        values = scorer.step(slots[0], slots[1], np.array([len(own) for own in kept]))
            answers += [{prefix for _, prefix in own} for own in beams]
        return answers

    return search


def hugging_face(model: Any, codes: NDArray[np.int64], width: int) -> Callable[[Prompts], Answer]:
    """`generate` with a prefix function, a prompt at a time."""
    children = children_of(codes)
    first = np.array(VOCABULARY.first_token_ids)

    def allowed(tokens: list[int]) -> list[int]:
        codes = tuple((np.array(tokens, dtype=np.int64) - first[: len(tokens)]).tolist())
        return [int(first[len(codes)]) + code for code in children[codes]]

    options = {"num_beams": width, "num_return_sequences": width, "max_new_tokens": len(SIZES), "do_sample": False}

    def search(prompts: Prompts) -> Answer:
        answers = []
        for prompt in prompts:
            with torch.no_grad():
                found = model.generate(
                    torch.tensor([prompt], device=model.device),
                    prefix_allowed_tokens_fn=lambda _, tokens, start=len(prompt): allowed(tokens[start:].tolist()),
                    length_penalty=0.0,
                    **options,
                )
            answers.append({tuple(row) for row in (found[:, len(prompt) :].cpu().numpy() - first).tolist()})
        return answers

    return search


def vllm_ways(model: PreTrainedModel, codes: NDArray[np.int64], options: argparse.Namespace) -> tuple[Any, Any]:
    """vLLM's engine, and width → ways on it."""
    from vllm.sampling_params import BeamSearchParams, StructuredOutputsParams
    from vllm.v1.structured_output.utils import choice_as_grammar

    from genrec.decoding.vllm_engine import VllmEngine

    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        names = [f"w{index}" for index in range(FIRST)]
        names += [sid_token(level, code) for level, size in enumerate(SIZES) for code in range(size)]
        raw = Tokenizer(WordLevel({name: index for index, name in enumerate(names)}, unk_token="w0"))
        PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="w2").save_pretrained(folder)
        VOCABULARY.save(Path(folder))
        # Log-probabilities for vLLM's own search; ours are log-probabilities already, which that leaves as they are.
        settings = {"logprobs_mode": "processed_logprobs", "max_logprobs": max(256, 2 * max(options.beams))}
        settings |= {"structured_outputs_config": {"backend": "xgrammar"}, "dtype": str(model.dtype)[len("torch.") :]}
        engine = VllmEngine.load(Path(folder), vocabulary=VOCABULARY, options=settings)
    few = codes[np.random.default_rng(options.seed).choice(len(codes), options.grammar_items, replace=False)]
    texts = ["".join(sid_token(level, code) for level, code in enumerate(row)) for row in few.tolist()]
    first = np.array(VOCABULARY.first_token_ids)

    def stock(width: int, grammar: Any = None) -> Callable[[Prompts], Answer]:
        params = BeamSearchParams(beam_width=width, max_tokens=len(SIZES), ignore_eos=True, structured_outputs=grammar)
        return lambda prompts: [
            {tuple((np.array(beam.tokens[len(prompt) :]) - first).tolist()) for beam in output.sequences}
            for prompt, output in zip(
                prompts, engine.llm.beam_search([{"prompt_token_ids": one} for one in prompts], params), strict=True
            )
        ]

    def ways(width: int) -> dict[str, Way]:
        tries = {len(some): ItemTrie.build(some, SIZES) for some in (codes, few)}
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


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """CPU seconds of this process and wall seconds of a call; wall seconds twice where a GPU is in use."""
    on_gpu = torch.cuda.is_initialized()
    wait: Callable[[], object] = torch.cuda.synchronize if on_gpu else lambda: None
    wait()
    start = time.process_time(), time.perf_counter()
    work()
    wait()
    cpu, wall = time.process_time() - start[0], time.perf_counter() - start[1]
    return (wall if on_gpu else cpu), wall


def peak_mb(work: Callable[[], object]) -> float:
    """Memory of a call at its peak, in MB above what is held before it (Linux); the GPU's where one is in use."""
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
        before, _ = torch.cuda.memory_allocated(), work()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    held = []
    for name, step in (("VmRSS", lambda: None), ("VmHWM", work)):
        step()
        held += re.findall(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    return (int(held[1]) - int(held[0])) / 1e3


def counted_mb(model: PreTrainedModel, users: int, width: int, length: int) -> float:
    """MB by count: keys and values, a layer's widest row of tokens, ancestors for every head, scores of one level."""
    config: Any = model.config
    batch, queries = min(users, BATCH), config.num_attention_heads * config.head_dim
    beams, keys = batch * width, config.num_key_value_heads * config.head_dim
    kept = 2 * config.num_hidden_layers * keys * (batch * length + beams * (len(SIZES) - 1))
    layer = 3 * config.intermediate_size + 4 * config.hidden_size + 3 * (queries + 2 * keys)
    layer *= max(beams, min(TOKENS_AT_ONCE, batch * length))
    return ((kept + layer + 2 * beams * len(SIZES) * queries) * model.dtype.itemsize + 24 * beams * SIZES[0]) / 1e6


def products(model: PreTrainedModel, users: int, width: int, length: int) -> Iterator[tuple[float, float, Any]]:
    """(how often, floating-point operations, the product) of every matrix product that a search cannot do without."""
    config: Any = model.config
    heads, groups, size = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    layers: list[Any] = list(model.base_model.layers)  # type: ignore[arg-type]
    inside = [one for layer in layers[:-1] for one in layer.modules() if isinstance(one, nn.Linear)]
    inside += [layers[-1].self_attn.k_proj, layers[-1].self_attn.v_proj]
    every = [one for layer in layers for one in layer.modules() if isinstance(one, nn.Linear)]
    steps, batch = len(SIZES) - 1, min(users, BATCH)
    kind: Any = {"dtype": model.dtype, "device": model.device}

    def linear(modules: list[nn.Linear], rows: int) -> tuple[float, Any]:
        given = {one.in_features: torch.randn(rows, one.in_features, **kind) for one in modules}
        flops = sum(2.0 * rows * one.in_features * one.out_features for one in modules)
        return flops, lambda: [nn.functional.linear(given[one.in_features], one.weight) for one in modules]

    def attention(queries: int, keys: int, batch: int) -> tuple[float, Any]:
        query, key = (torch.randn(batch, count, size, **kind) for count in (queries, keys))
        return 4.0 * batch * queries * keys * size, lambda: query @ key.transpose(1, 2) @ key

    rows = min(TOKENS_AT_ONCE, users * length)
    part = nn.Linear(config.hidden_size, SIZES[0], bias=False, **kind)
    yield users * length / rows, *linear(inside, rows)
    yield users / batch * steps, *linear(every, batch * width)
    yield users / batch * steps, *linear([part], batch * width)
    yield users * (len(layers) - 1), *attention(length, length // 2, heads)
    yield users * len(layers) * steps, *attention(heads // groups * width, length, groups)


def trie_seconds(trie: ItemTrie, users: int, width: int) -> float:
    """What the beam loop of a batch costs more than one that lets every code follow every code."""
    given = np.log(np.random.default_rng(0).random((len(SIZES), users, width, SIZES[0]), dtype=np.float32) + 1e-6)
    left: list[Floats] = []

    def prefill() -> Floats:
        left[:] = given[::-1]
        return left.pop()[:, 0]

    drawn: Any = SimpleNamespace(prefill=prefill, items=lambda: None, step=lambda *_: left.pop())  # without a model

    def free() -> None:
        score = np.zeros((users, 1), dtype=np.float32)
        for values in given:
            joined = (score[:, :, None] + values[:, : score.shape[1]]).reshape(users, -1)
            chosen = np.stack([best(row, width) for row in joined])
            score = np.take_along_axis(joined, chosen, axis=1)

    constrained = partial(beam_search, drawn, trie, num_users=users, beam_width=width, k=width, score_mode="level")
    return float(np.median([seconds(constrained)[0] - seconds(free)[0] for _ in range(7)]))


def measure(
    label: str, ways: dict[str, Way], model: PreTrainedModel, trie: ItemTrie, setting: tuple[int, ...], repeats: int
) -> None:
    """Let the ways take turns and print their rows. Of two ways beside each other, the first is ours."""
    users, width, length = setting
    prompts = np.random.default_rng(sum(setting)).integers(FIRST, NUM_TOKENS, (users, length)).tolist()
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    found, peaks, floors, reads, jobs = {}, {}, [], [], list(products(model, users, width, length))

    def read() -> None:  # what a search of ours does before its first step
        for start in range(0, users, BATCH):
            batch = prompts[start : start + BATCH]
            SharedPrefixScorer(model, batch, vocabulary=VOCABULARY, score_mode="level").prefill()

    for repeat in range(repeats + 1):
        for name, way in ways.items():
            way.prepare()
            if repeat:
                times[name].append(seconds(lambda way=way: way.search(prompts)))  # type: ignore[misc]
            else:  # the first round warms up
                peaks[name] = peak_mb(lambda way=way, name=name: found.update({name: way.search(prompts)}))  # type: ignore[misc]
        with torch.no_grad():
            floors.append(sum(often * seconds(work)[0] for often, _, work in jobs))
            reads.append(seconds(read)[0])
    cpu = {name: np.array(values)[:, 0] for name, values in times.items()}
    floor, reference = np.array(floors[1:]), next(iter(ways))
    for name, way in ways.items():
        reference = name if name.startswith("ours") else reference
        ratio, wall = np.median(cpu[name] / cpu[reference]), np.median(np.array(times[name])[:, 1])
        valid = np.mean([len(answer & way.valid) for answer in found[name]])
        extra, counted = "| | ", ""
        if name == "ours":
            batch, rate = min(users, BATCH), sum(often * one for often, one, _ in jobs) / np.median(floor) / 1e9
            share = trie_seconds(trie, batch, width) * users / batch / np.median(cpu[name] - np.array(reads[1:]))
            extra = f"| {np.median(cpu[name] / floor):.2f} ({rate:.0f} GFLOP/s) | {100 * share:+.1f} % "
            counted = f"{counted_mb(model, users, width, length):.0f}"
        print(
            f"| {label} | {users} | {width} | {length} | {name} | {1e3 * np.median(cpu[name]) / users:.1f} "
            f"| {1e3 * wall / users:.1f} | {ratio:.1f} | {valid:.0f} {extra}| {peaks[name]:.0f} | {counted} |",
            flush=True,
        )


def compare(name: str, dtype: torch.dtype, options: argparse.Namespace) -> None:
    """All settings of one model."""
    codes = np.unique(np.random.default_rng(options.seed).integers(0, 256, (options.items, 4)), axis=0)
    trie, valid = ItemTrie.build(codes, SIZES), set(map(tuple, codes.tolist()))
    model = random_model(name, dtype, options.seed, options.device)
    engine = TransformersEngine(model, None, vocabulary=VOCABULARY)
    other, on_vllm = vllm_ways(model, codes, options) if options.vllm else (None, None)
    label = f"{name}, {model.num_parameters() / 1e6:.0f} M, {str(dtype).removeprefix('torch.')}"
    for users, width, length in itertools.product(options.users, options.beams, options.prompt_tokens):
        jobs = list(products(model, users, width, length))
        with torch.no_grad():
            rate = jobs[0][1] / min(seconds(jobs[0][2])[0] for _ in range(3))
        if sum(often * operations for often, operations, _ in jobs) / rate > options.budget:
            continue
        copies = width * jobs[0][0] * jobs[0][1] / rate  # generate reads the prompt once per beam
        ours = Way(lambda p, width=width: ranked(engine, trie, codes, p, width), valid)  # type: ignore[misc]
        ways = {"ours": ours, "dictionary": Way(with_dictionary(model, codes, width), valid)}
        if users == 1 and copies < options.budget:
            ways["Hugging Face"] = Way(hugging_face(model, codes, width), valid)
        if on_vllm is not None:
            ways |= on_vllm(width)
        measure(label, ways, model, trie, (users, width, length), options.repeats)
    if other is not None:
        other.close()


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(SHAPES), default=["small", "large"])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtypes", nargs="+", choices=["float32", "bfloat16"], default=["float32"])
    for name, several in (("--users", [1, 64]), ("--beams", [10, 50, 256]), ("--prompt-tokens", [64, 256, 1000])):
        parser.add_argument(name, type=int, nargs="+", default=several)
    for name, one in (("--items", 12_101), ("--repeats", 5), ("--grammar-items", 1000), ("--seed", 0)):
        parser.add_argument(name, type=int, default=one)
    parser.add_argument("--budget", type=float, default=60.0, help="seconds of products that a way may need at most")
    parser.add_argument("--vllm", action="store_true", help="measure vLLM as well (`make vllm`)")
    options = parser.parse_args()
    torch.zeros(1, device=options.device)  # whether a GPU is in use is asked of PyTorch from here on
    print(f"{options.items:,} items, medians of {options.repeats} runs, seed {options.seed}; {describe_machine()}\n")
    print("| model | users | beams | prompt | way | CPU ms a user | wall ms a user | times ours | valid of K ", end="")
    print("| of products | trie | peak MB | counted |\n|" + "---|" * 13)
    for name, dtype in itertools.product(options.models, options.dtypes):
        compare(name, getattr(torch, dtype), options)


if __name__ == "__main__":
    main()
