"""How fast constrained beam search is: ours beside others on one machine, and how far it is from the machine's limit.

    OMP_NUM_THREADS=1 python eval/bench_decoding.py [--models small large] [--users 1 64] [--beams 10 50 256] [--vllm]
    OMP_NUM_THREADS=1 python eval/bench_decoding.py --run runs/beauty [--users 1 64] [--vllm]
    python eval/bench_decoding.py --device cuda --models 0.6b 1.7b --dtypes bfloat16

Either the trained model of a run, with its items and its test users' prompts, or Qwen3 with random weights: `small` of
width 128 with four layers, `large` with 103 M parameters and a vocabulary of 151,936, `0.6b` and `1.7b` as published;
12,101 random items of 4 x 256 codes. The ways take turns, ratios are medians of pairs: ours, a dictionary as the trie
in our loop, Hugging Face with a prefix function; with `--vllm` our search on vLLM and its own, and both for the items
of a grammar. A way whose products would take longer than `--budget` is left out. With `--device cuda` all times are
wall times until the GPU is done.

`of products`: our CPU time over that of the matrix products that the search cannot do without (prompts, levels, K rows
of output, attention), timed with the same shapes in the same run. `trie`: what the loop costs more on the same random
scores than one that knows no trie, in per cent of our time without the reading of prompts. `counted`: a batch's memory
by count. Prints Markdown.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn

from decoding_ways import (
    SHAPES,
    Subject,
    Way,
    hugging_face,
    random_subject,
    ranked,
    trained_subject,
    vllm_ways,
    with_dictionary,
)
from genrec.decoding.beam import Floats, beam_search, best
from genrec.decoding.shared_prefix import SharedPrefixScorer
from genrec.decoding.transformers_engine import TransformersEngine, users_together
from genrec.errors import GenrecError
from genrec.trie import ItemTrie

TOKENS_AT_ONCE = 512  # of the engine: prompt tokens read together


def describe_machine() -> str:
    """CPU model, cores, threads and the load of the last minute (other work disturbs timings)."""
    names = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    load = f"{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}"
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_initialized() else ""
    return f"{[*names, platform.machine()][0]}, {os.cpu_count()} cores, {load}{gpu}"


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


def counted_mb(subject: Subject, users: int, width: int, length: int, *, together: int) -> float:
    """MB by count: keys and values, a layer's widest row of tokens, ancestors for every head, scores of one level."""
    config: Any = subject.model.config
    levels, codes = len(subject.sizes), max(subject.sizes)
    batch, queries = min(users, together), config.num_attention_heads * config.head_dim
    beams, keys = batch * width, config.num_key_value_heads * config.head_dim
    kept = 2 * config.num_hidden_layers * keys * (batch * length + beams * (levels - 1))
    layer = 3 * config.intermediate_size + 4 * config.hidden_size + 3 * (queries + 2 * keys)
    layer *= max(beams, min(TOKENS_AT_ONCE, batch * length))
    return ((kept + layer + 2 * beams * levels * queries) * subject.model.dtype.itemsize + 24 * beams * codes) / 1e6


def products(
    subject: Subject, users: int, width: int, length: int, *, together: int
) -> Iterator[tuple[float, float, Any]]:
    """(how often, floating-point operations, the product) of every matrix product that a search cannot do without."""
    model, config = subject.model, subject.model.config
    heads, groups, size = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    layers: list[Any] = list(model.base_model.layers)  # type: ignore[arg-type]
    inside = [one for layer in layers[:-1] for one in layer.modules() if isinstance(one, nn.Linear)]
    inside += [layers[-1].self_attn.k_proj, layers[-1].self_attn.v_proj]
    every = [one for layer in layers for one in layer.modules() if isinstance(one, nn.Linear)]
    steps, batch = len(subject.sizes) - 1, min(users, together)
    kind: Any = {"dtype": model.dtype, "device": model.device}

    def linear(modules: list[nn.Linear], rows: int) -> tuple[float, Any]:
        given = {one.in_features: torch.randn(rows, one.in_features, **kind) for one in modules}
        flops = sum(2.0 * rows * one.in_features * one.out_features for one in modules)
        return flops, lambda: [nn.functional.linear(given[one.in_features], one.weight) for one in modules]

    def attention(queries: int, keys: int, batch: int) -> tuple[float, Any]:
        query, key = (torch.randn(batch, count, size, **kind) for count in (queries, keys))
        return 4.0 * batch * queries * keys * size, lambda: query @ key.transpose(1, 2) @ key

    rows = min(TOKENS_AT_ONCE, users * length)
    part = nn.Linear(config.hidden_size, max(subject.sizes), bias=False, **kind)
    yield users * length / rows, *linear(inside, rows)
    yield users / batch * steps, *linear(every, batch * width)
    yield users / batch * steps, *linear([part], batch * width)
    yield users * (len(layers) - 1), *attention(length, length // 2, heads)
    yield users * len(layers) * steps, *attention(heads // groups * width, length, groups)


def trie_seconds(trie: ItemTrie, users: int, width: int) -> float:
    """What the beam loop of a batch costs more than one that lets every code follow every code."""
    shape = (trie.num_levels, users, width, max(trie.codebook_sizes))
    given = np.log(np.random.default_rng(0).random(shape, dtype=np.float32) + 1e-6)
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
    return float(np.median([seconds(constrained)[0] - seconds(free)[0] for _ in range(25)]))


def measure(
    subject: Subject, ways: dict[str, Way], trie: ItemTrie, setting: tuple[int, int, int], repeats: int
) -> None:
    """Let the ways take turns and print their rows. Of two ways beside each other, the first is ours."""
    users, width, length = setting
    label = f"{subject.name}, {str(subject.model.dtype).removeprefix('torch.')}"
    prompts, together = subject.prompts(users, length), users_together(subject.model, trie, width)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    found, peaks, floors, reads, jobs = {}, {}, [], [], list(products(subject, users, width, length, together=together))

    def read() -> None:  # what a search of ours does before its first step
        for start in range(0, users, together):
            batch = prompts[start : start + together]
            SharedPrefixScorer(subject.model, batch, vocabulary=subject.vocabulary, score_mode="level").prefill()

    for repeat in range(repeats + 1):
        for name, way in ways.items():
            way.prepare()
            if repeat:
                times[name].append(seconds(lambda way=way: way.search(prompts)))  # type: ignore[misc]
            else:  # the first round warms up
                peaks[name] = peak_mb(lambda way=way, name=name: found.update({name: way.search(prompts)}))  # type: ignore[misc]
        with torch.inference_mode():
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
            batch, rate = min(users, together), sum(often * one for often, one, _ in jobs) / np.median(floor) / 1e9
            share = trie_seconds(trie, batch, width) * users / batch / np.median(cpu[name] - np.array(reads[1:]))
            extra = f"| {np.median(cpu[name] / floor):.2f} ({rate:.0f} GFLOP/s) | {100 * share:+.1f} % "
            counted = f"{counted_mb(subject, users, width, length, together=together):.0f}"
        print(
            f"| {label} | {users} | {width} | {length} | {name} | {1e3 * np.median(cpu[name]) / users:.1f} "
            f"| {1e3 * wall / users:.1f} | {ratio:.1f} | {valid:.0f} {extra}| {peaks[name]:.0f} | {counted} |",
            flush=True,
        )


def compare(subject: Subject, options: argparse.Namespace) -> None:
    """All settings of one model."""
    trie, valid = ItemTrie.build(subject.codes, subject.sizes), set(map(tuple, subject.codes.tolist()))
    engine = TransformersEngine(subject.model, None, vocabulary=subject.vocabulary, frozen=True)
    other, on_vllm = vllm_ways(subject, options) if options.vllm else (None, None)
    for users, width, length in itertools.product(options.users, options.beams, options.prompt_tokens):
        together = users_together(subject.model, trie, width)
        jobs = list(products(subject, users, width, length, together=together))
        with torch.inference_mode():
            rate = jobs[0][1] / min(seconds(jobs[0][2])[0] for _ in range(3))
        if sum(often * operations for often, operations, _ in jobs) / rate > options.budget:
            continue
        copies = width * jobs[0][0] * jobs[0][1] / rate  # generate reads the prompt once per beam
        ours = Way(lambda p, width=width: ranked(engine, trie, subject.codes, p, width), valid)  # type: ignore[misc]
        ways = {"ours": ours, "dictionary": Way(with_dictionary(subject, width, together), valid)}
        if copies < options.budget:
            ways["Hugging Face"] = Way(hugging_face(subject, width), valid)
        if on_vllm is not None:
            ways |= on_vllm(width)
        measure(subject, ways, trie, (users, width, length), options.repeats)
    if other is not None:
        other.close()


def subjects(options: argparse.Namespace) -> Iterator[Subject]:
    """What is measured, one after the other."""
    for name in options.dtypes:
        dtype = getattr(torch, name)
        if options.run is not None:
            yield trained_subject(options.run, dtype, options.device, seed=options.seed)
            continue
        for model in options.models:
            yield random_subject(model, dtype, options.device, items=options.items, seed=options.seed)


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(SHAPES), default=["small", "large"])
    parser.add_argument("--run", type=Path, help="a trained run, in place of random models and items")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtypes", nargs="+", choices=["float32", "bfloat16"], default=["float32"])
    for name, several in (("--users", [1, 64]), ("--beams", [10, 50, 256]), ("--prompt-tokens", [64, 256, 1000])):
        parser.add_argument(name, type=int, nargs="+", default=several)
    for name, one in (("--items", 12_101), ("--repeats", 5), ("--grammar-items", 1000), ("--seed", 0)):
        parser.add_argument(name, type=int, default=one)
    parser.add_argument("--budget", type=float, default=60.0, help="seconds of products that a way may need at most")
    parser.add_argument("--vllm", action="store_true", help="measure vLLM as well (`make vllm`)")
    options = parser.parse_args(arguments)
    torch.zeros(1, device=options.device)  # whether a GPU is in use is asked of PyTorch from here on
    print(f"Medians of {options.repeats} runs, seed {options.seed}; {describe_machine()}\n")
    print("| model | users | beams | prompt | way | CPU ms a user | wall ms a user | times ours | valid of K ", end="")
    print("| of products | trie | peak MB | counted |\n|" + "---|" * 13)
    try:
        for subject in subjects(options):
            compare(subject, options)
    except GenrecError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
