"""Our beam search on vLLM against vLLM's own, one engine for all of them: throughput, and how much of the K is real.

    python eval/bench_vllm.py RUN [--users 1 16] [--beam-width 50] [--repeats 5] [--grammar-items 1000] [--seed 0]

Test users of a trained run, float32. The ways take turns. Everything runs in this process, so its CPU time is the
work done; wall time also counts what other load takes. The grammar is the choice of `--grammar-items` items, drawn with
the seed; ours has the trie of the same items there. Prints Markdown.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from vllm.sampling_params import BeamSearchParams, StructuredOutputsParams
from vllm.v1.structured_output.utils import choice_as_grammar

from genrec.data.catalog import Catalog
from genrec.data.splits import evaluation_cases
from genrec.decoding.vllm_engine import VllmEngine
from genrec.errors import GenrecError
from genrec.recommender import Recommender
from genrec.run import Run
from genrec.tokenizers.codes import SemanticIds
from genrec.trie import ItemTrie
from genrec.vocabulary import SidVocabulary, sid_token

Answer = list[set[tuple[int, ...]]]  # per user: the token sequences that came back
Way = Callable[[Sequence[list[int]]], Answer]


def ways(engine: VllmEngine, codes: NDArray[np.int64], vocabulary: SidVocabulary, options: argparse.Namespace) -> Any:
    """Name → (way to search, its valid answers), for all items and for a grammar's."""
    width, levels = options.beam_width, len(vocabulary.codebook_sizes)
    few = np.random.default_rng(options.seed).choice(len(codes), min(options.grammar_items, len(codes)), replace=False)

    def ours(chosen: NDArray[np.int64]) -> Way:
        trie = ItemTrie.build(codes[chosen], vocabulary.codebook_sizes)
        tokens = vocabulary.token_ids(codes[chosen])

        def search(prompts: Sequence[list[int]]) -> Answer:
            found = engine.rank(prompts, trie, beam_width=width, k=width)
            return [{tuple(tokens[item.item_index].tolist()) for item in answer} for answer in found]

        return search

    def stock(grammar: StructuredOutputsParams | None) -> Way:
        params = BeamSearchParams(beam_width=width, max_tokens=levels, ignore_eos=True, structured_outputs=grammar)

        def search(prompts: Sequence[list[int]]) -> Answer:
            found = engine.llm.beam_search([{"prompt_token_ids": prompt} for prompt in prompts], params)
            return [
                {tuple(beam.tokens[len(prompt) :]) for beam in output.sequences}
                for prompt, output in zip(prompts, found, strict=True)
            ]

        return search

    def valid(chosen: NDArray[np.int64]) -> set[tuple[int, ...]]:
        return set(map(tuple, vocabulary.token_ids(codes[chosen]).tolist()))

    texts = ["".join(sid_token(level, code) for level, code in enumerate(row)) for row in codes[few].tolist()]
    everything = np.arange(len(codes))
    return {
        "ours": (ours(everything), valid(everything)),
        "`LLM.beam_search`": (stock(None), valid(everything)),
        f"ours, {len(few):,} items": (ours(few), valid(few)),
        f"`LLM.beam_search`, grammar of {len(few):,} items": (
            stock(StructuredOutputsParams(grammar=choice_as_grammar(texts))),
            valid(few),
        ),
    }


def measure(run: Run, options: argparse.Namespace) -> None:
    """Load once, take turns, print a table per number of users."""
    recommender = Recommender.load(run.path)
    cases = evaluation_cases(run, "test").sample(max(options.users), seed=options.seed)
    prompts = [recommender.prompt_tokens(history) for history in cases.histories]
    vocabulary = SidVocabulary.load(run.path / "model")
    codes = SemanticIds.load(run, catalog=Catalog.load(run)).codes.astype(np.int64)
    # Log-probabilities for vLLM's own search; ours are log-probabilities already, which that leaves as they are.
    settings = {
        "logprobs_mode": "processed_logprobs",
        "max_logprobs": max(*vocabulary.codebook_sizes, 2 * options.beam_width),
        "structured_outputs_config": {"backend": "xgrammar"},
    }
    engine = VllmEngine.load(run.path / "model", vocabulary=vocabulary, options=settings)
    lengths = [len(prompt) for prompt in prompts]
    print(
        f"{options.beam_width} beams, prompts of {min(lengths)} to {max(lengths)} tokens (median "
        f"{np.median(lengths):.0f}), float32, seed {options.seed}; {os.cpu_count()} cores, "
        f"{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}\n"
    )
    print("| users at once | search | CPU ms per user | ratio | wall ms per user | ratio | valid, of K asked |")
    print("|---|---|---|---|---|---|---|")
    all_ways = ways(engine, codes, vocabulary, options)
    for users in options.users:
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in all_ways}
        batch, share = prompts[:users], {}
        for repeat in range(options.repeats + 1):
            for name, (search, valid) in all_ways.items():
                engine.llm.reset_prefix_cache()  # a user is new to every search
                start = time.process_time(), time.perf_counter()
                found = search(batch)
                if repeat:  # the first round warms up
                    times[name].append((time.process_time() - start[0], time.perf_counter() - start[1]))
                share[name] = np.mean([len(answer & valid) for answer in found])
        names = list(all_ways)
        for index, name in enumerate(names):
            reference = np.array(times[names[index // 2 * 2 + 1]])
            ratio = np.median(reference / np.array(times[name]), axis=0)
            cpu, wall = 1e3 / users * np.median(times[name], axis=0)
            print(
                f"| {users} | {name} | {cpu:.0f} | {ratio[0]:.1f}× | {wall:.0f} | {ratio[1]:.1f}× | {share[name]:.1f} |"
            )
    engine.close()


def main() -> int:
    """Read the command line, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--users", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--beam-width", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--grammar-items", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    try:
        measure(Run.open(options.run), options)
    except GenrecError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
