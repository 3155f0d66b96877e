"""Our beam search against Hugging Face `generate` with the same model: same answers, how much faster.

    python eval/bench_decoding.py

A random Qwen3 of 3.9 M parameters, 12,000 random items, 50 beams, a 250-token prompt, mode `raw` (what
Hugging Face computes). Then other ways to run the same search, and a check that every item returned in
10,000 random requests with random filters is valid. Prints Markdown.
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DynamicCache, PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from genrec.decoding.beam import Floats, Integers, beam_search
from genrec.decoding.engine import RankedItem
from genrec.decoding.transformers_engine import TransformersEngine
from genrec.trie import ItemTrie
from genrec.trie_filters import ItemFilter
from genrec.vocabulary import SidVocabulary

SIZES = (256, 256, 256, 256)
NUM_WORDS = 5_000
VOCABULARY = SidVocabulary(SIZES, (5_000, 5_256, 5_512, 5_768))
NUM_TOKENS = 6_024


def describe_machine() -> str:
    """CPU model, cores, threads and the load of the last minute (other work disturbs timings)."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return (
        f"{[*names, platform.machine()][0]}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"load {os.getloadavg()[0]:.1f}"
    )


def random_model(seed: int) -> PreTrainedModel:
    """A Qwen3 with random weights, 3.9 M parameters."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=NUM_TOKENS,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        initializer_range=0.05,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    model: Any = Qwen3ForCausalLM
    return model(config).eval()


def hugging_face(model: Any, codes: NDArray[np.int64], num_beams: int) -> Callable[[Sequence[int]], dict[int, float]]:
    """Constrained beam search by `generate`: item → score."""
    allowed: dict[tuple[int, ...], list[int]] = defaultdict(list)
    item_of = {}
    for item, tokens in enumerate(VOCABULARY.token_ids(codes).tolist()):
        item_of[tuple(tokens)] = item
        for level in range(len(SIZES)):
            allowed[tuple(tokens[:level])].append(tokens[level])
    children = {prefix: sorted(set(tokens)) for prefix, tokens in allowed.items()}

    def rank(prompt: Sequence[int]) -> dict[int, float]:
        with torch.no_grad():
            found = model.generate(
                torch.tensor([list(prompt)]),
                num_beams=num_beams,
                num_return_sequences=num_beams,
                max_new_tokens=len(SIZES),
                do_sample=False,
                length_penalty=0.0,
                return_dict_in_generate=True,
                output_scores=True,
                prefix_allowed_tokens_fn=lambda _, tokens: children[tuple(tokens[len(prompt) :].tolist())],
            )
        ends = found.sequences[:, len(prompt) :].tolist()
        return {item_of[tuple(end)]: score for end, score in zip(ends, found.sequences_scores.tolist(), strict=True)}

    return rank


class ExpandedCacheScorer:
    """The usual way, for comparison: the prompt's keys and values are copied per beam and reordered."""

    def __init__(self, model: Any, prompt: Sequence[int]) -> None:
        self._model, self._tokens, self._cache, self._level = model, torch.tensor([prompt]), DynamicCache(), 0

    def prefill(self) -> Floats:
        """See `Scorer.prefill`."""
        return np.asarray(self._values(self._tokens)[0])

    def step(self, parents: Integers, codes: Integers, counts: Integers) -> Floats:
        """See `Scorer.step`."""
        if self._level == 1:
            self._cache.batch_repeat_interleave(parents.shape[1])
        else:
            self._cache.reorder_cache(torch.LongTensor(parents[0]))
        tokens = codes[0] + VOCABULARY.first_token_ids[self._level - 1]
        return self._values(torch.from_numpy(tokens)[:, None])

    def _values(self, tokens: torch.Tensor) -> Floats:
        hidden = self._model.base_model(input_ids=tokens, past_key_values=self._cache, use_cache=True)
        first = VOCABULARY.first_token_ids[self._level]
        weight = self._model.lm_head.weight[first : first + SIZES[self._level]]
        self._level += 1
        values = (hidden.last_hidden_state[:, -1] @ weight.T).log_softmax(-1).numpy()
        return np.asarray(values.reshape(1, -1, values.shape[-1]))


def alternating(ways: dict[str, Callable[[], object]], repeats: int) -> dict[str, NDArray[np.float64]]:
    """Milliseconds (repeats,) of each way; the ways take turns, so that other load hits all of them."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, work in ways.items():
            start = time.perf_counter()
            work()
            if repeat:  # the first round warms up
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: np.array(values) for name, values in times.items()}


def compare(model: PreTrainedModel, options: argparse.Namespace, rng: np.random.Generator) -> None:
    """Same items, same scores, speed ratio against Hugging Face."""
    codes = np.unique(rng.integers(0, 256, (options.items, 4)), axis=0)
    trie = ItemTrie.build(codes, SIZES)
    engine = TransformersEngine(model, None, vocabulary=VOCABULARY, score_mode="raw")
    reference = hugging_face(model, codes, options.beams)
    prompts = rng.integers(0, NUM_WORDS, (options.prompts, options.prompt_tokens)).tolist()

    def ours(prompt: Sequence[int]) -> list[RankedItem]:
        return engine.rank([prompt], trie, beam_width=options.beams, k=options.beams)[0]

    same, error = 0, 0.0
    for prompt in prompts:
        theirs, found = reference(prompt), {item.item_index: item.score for item in ours(prompt)}
        same += theirs.keys() == found.keys()
        error = max([error, *(abs(theirs[item] - found[item]) for item in theirs.keys() & found.keys())])
    times = alternating({"theirs": lambda: reference(prompts[0]), "ours": lambda: ours(prompts[0])}, options.repeats)
    ratio = np.median(times["theirs"] / times["ours"])
    print(f"- same {options.beams} items: {same} of {len(prompts)} prompts; largest |Δ score| {error:.1e}")
    print(f"- Hugging Face {np.median(times['theirs']):.0f} ms, ours {np.median(times['ours']):.1f} ms; ", end="")
    print(f"median ratio of {options.repeats} alternating pairs: **{ratio:.1f}×**\n")
    alternatives(model, trie, prompts[0], options)


def alternatives(model: PreTrainedModel, trie: ItemTrie, prompt: list[int], options: argparse.Namespace) -> None:
    """Other ways to run the same search, mode `level`."""
    width = options.beams
    cast = copy.deepcopy(model).bfloat16()
    engines = {
        "shared prefix, float32 (default)": TransformersEngine(model, None, vocabulary=VOCABULARY),
        "shared prefix, bfloat16 autocast": TransformersEngine(
            model, None, vocabulary=VOCABULARY, dtype=torch.bfloat16
        ),
        "shared prefix, bfloat16 weights": TransformersEngine(cast, None, vocabulary=VOCABULARY),
    }
    ways: dict[str, Callable[[], object]] = {
        name: lambda engine=engine: engine.rank([prompt], trie, beam_width=width, k=width)  # type: ignore[misc]
        for name, engine in engines.items()
    }
    ways |= {
        f"batch of 16, per user: {name.split(', ')[1]}": lambda engine=engine: engine.rank(  # type: ignore[misc]
            [prompt] * 16, trie, beam_width=width, k=width
        )
        for name, engine in engines.items()
    }

    def expanded() -> object:
        with torch.no_grad():
            scorer = ExpandedCacheScorer(model, prompt)
            return beam_search(scorer, trie, num_users=1, beam_width=width, k=width, score_mode="level")

    ways["cache copied per beam, float32"] = expanded
    print("| way, mode `level` | ms per user |\n|---|---|")
    for name, values in alternating(ways, options.repeats).items():
        print(f"| {name} | {np.median(values) / (16 if 'batch' in name else 1):.1f} |")
    print()


def check_validity(model: PreTrainedModel, options: argparse.Namespace, rng: np.random.Generator) -> None:
    """Random requests with random filters: every returned item is allowed, none twice, none missing."""
    codes = rng.integers(0, 256, (options.items, 4)) // np.array([16, 8, 4, 2])
    trie = ItemTrie.build(codes, SIZES)
    engine = TransformersEngine(model, None, vocabulary=VOCABULARY, batch_size=50)
    invalid = short = total = 0
    for _ in range(options.requests // 100):
        mask = rng.random(options.items) < rng.random() ** 6
        base = ItemFilter.allowing(trie, mask)
        histories = rng.integers(0, options.items, (100, 20))
        prompts = [rng.integers(0, NUM_WORDS, rng.integers(1, 12)).tolist() for _ in range(100)]
        filters = [base.without(history) for history in histories]
        for history, answer in zip(
            histories, engine.rank(prompts, trie, beam_width=10, k=10, allowed=filters), strict=True
        ):
            valid = mask.copy()
            valid[history] = False
            items = {item.item_index for item in answer}
            total += len(answer)
            invalid += sum(not valid[item] for item in items) + len(answer) - len(items)
            short += len(answer) < min(10, int(valid.sum()))
    print(
        f"- {options.requests:,} random requests with random filters: {total:,} items returned, "
        f"{invalid} invalid or repeated, {short} answers shorter than they could be"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--items", type=int, default=12_000)
    parser.add_argument("--beams", type=int, default=50)
    parser.add_argument("--prompt-tokens", type=int, default=250)
    parser.add_argument("--prompts", type=int, default=10, help="prompts whose answers are compared")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rng, model = np.random.default_rng(options.seed), random_model(options.seed)
    print(
        f"Qwen3, {model.num_parameters() / 1e6:.1f} M parameters, {options.items:,} items, {options.beams} beams, "
        f"prompt of {options.prompt_tokens} tokens, float32, seed {options.seed}; {describe_machine()}\n"
    )
    compare(model, options, rng)
    check_validity(model, options, rng)


if __name__ == "__main__":
    main()
