"""A million constrained searches against brute force: random tries, filters, widths, score modes and vocabularies.

    OMP_NUM_THREADS=1 python eval/random_decodes.py [--decodes 1000000] [--model-decodes 20000] [--seed 0]

The first part searches with made-up scores, a hash of user, prefix and code with some codes impossible (−inf), so that
every item's score can be computed by itself: tries of 1 to 60 items, 1 to 4 levels of 1 to 9 codes, items that share an
ID, rows that are not in the trie, filters that leave everything, something, one item or nothing. An answer must hold
allowed items only, none twice, in order, each with its own score, and as many as there are up to `k`; where the beam
is as wide as the catalogue it must be the best of all items. The second part runs the transformers engine with a new
random model and vocabulary every 100 searches and checks the same but for the scores. Prints what was found; status 1
where anything is wrong.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import Qwen3Config, Qwen3ForCausalLM

from genrec.decoding.beam import Floats, Integers, Scorer, answerable, beam_search
from genrec.decoding.engine import RankedItem, ScoreMode
from genrec.decoding.transformers_engine import TransformersEngine
from genrec.trie import ItemTrie
from genrec.trie_filters import ItemFilter
from genrec.vocabulary import SidVocabulary

USERS = 200  # searches over one trie
MODEL_USERS = 100


class HashScorer(Scorer):
    """A `Scorer` that makes its scores up: (B, W, K) from a number per user, the codes so far, and the code."""

    def __init__(self, users: NDArray[np.uint64], sizes: Sequence[int]) -> None:
        self._prefixes = users[:, None]  # (B, W)
        self._sizes, self._level = sizes, 0

    def prefill(self) -> Floats:
        """See `Scorer.prefill`."""
        return self._values()[:, 0]

    def step(self, parents: Integers, codes: Integers, counts: Integers) -> Floats:
        """See `Scorer.step`."""
        self._prefixes = mixed(np.take_along_axis(self._prefixes, parents, axis=1), codes)
        self._level += 1
        return self._values()

    def _values(self) -> Floats:
        return made_up(self._prefixes[..., None], np.arange(self._sizes[self._level]))


def mixed(prefix: NDArray[np.uint64], code: NDArray[np.int64]) -> NDArray[np.uint64]:
    """The number of a prefix with one more code (splitmix64)."""
    value = prefix + (code.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def made_up(prefix: NDArray[np.uint64], code: NDArray[np.int64]) -> Floats:
    """The score of a code after a prefix: up to 0 in steps of 1/64, exact in float32; one in twenty is −inf."""
    steps = mixed(prefix, code) % np.uint64(512)
    return np.where(steps < 26, -np.inf, -(steps.astype(np.float32)) / 64).astype(np.float32)


def random_trie(rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.bool_], ItemTrie]:
    """Codes (R, L), which rows are valid, and their trie: prefixes of up to 20 bits, half of them beyond its table."""
    sizes = rng.integers(1, rng.choice([10, 33]), rng.integers(1, 5)).tolist()
    rows = int(rng.integers(1, 61))
    codes = np.stack([rng.integers(0, size, rows) for size in sizes], axis=1)
    live = rng.random(rows) < rng.choice([1.0, 0.7])
    live[rng.integers(rows)] = True
    return codes, live, ItemTrie.build(codes, sizes, live=live)


def random_filter(rng: np.random.Generator, trie: ItemTrie, live: NDArray[np.bool_]) -> tuple[Any, NDArray[np.bool_]]:
    """A filter, or None, and the rows that it leaves, (R,)."""
    rows = trie.num_rows
    kind = rng.integers(5)
    if kind == 0:
        return None, live
    history = rng.integers(0, rows, rng.integers(0, 6))
    mask = rng.random(rows) < rng.random()
    if kind == 1:
        mask = np.arange(rows) == rng.integers(rows)
    if kind == 2:
        made, mask = ItemFilter.excluding(trie, history), np.ones(rows, dtype=np.bool_)
    else:
        made = ItemFilter.allowing(trie, mask).without(history)
    left = mask & live
    left[history] = False
    return made, left


def faults(found: Sequence[RankedItem], left: NDArray[np.bool_], k: int, scores: Floats | None) -> list[str]:
    """What is wrong with an answer; `scores` are those of all rows, (R,), or None where they are not known."""
    items = [item.item_index for item in found]
    wrong = ["not allowed"] * sum(not left[item] for item in items)
    wrong += ["twice"] * (len(items) - len(set(items)))
    wrong += ["too few"] * (len(items) != min(k, int(left.sum())))
    keys = [(-item.score, item.item_index) for item in found]
    wrong += ["out of order"] * (keys != sorted(keys))
    if scores is not None:
        wrong += ["another score"] * sum(item.score != scores[item.item_index] for item in found)
    return wrong


def searches(rng: np.random.Generator, users: int) -> tuple[Counter[str], int]:
    """Searches of many users over one random trie with made-up scores: what was wrong, and how many were exhaustive."""
    codes, live, trie = random_trie(rng)
    filters, left = zip(*(random_filter(rng, trie, live) for _ in range(users)), strict=True)
    exhaustive = bool(rng.random() < 0.5)
    width = trie.num_items if exhaustive else int(rng.integers(1, trie.num_items + 1))
    k = int(rng.integers(1, width + 1))
    asked = answerable(filters)
    numbers = rng.integers(0, 2**63, users).astype(np.uint64)
    mode: ScoreMode = "raw" if rng.random() < 0.8 else "renormalised"
    answers: list[list[RankedItem]] = [[] for _ in range(users)]
    if asked:
        found = beam_search(
            HashScorer(numbers[asked], trie.codebook_sizes),
            trie,
            num_users=len(asked),
            beam_width=width,
            k=k,
            score_mode=mode,
            allowed=[filters[user] for user in asked],
        )
        for user, answer in zip(asked, found, strict=True):
            answers[user] = answer
    scores, prefix = np.zeros((users, len(codes)), dtype=np.float32), np.repeat(numbers[:, None], len(codes), axis=1)
    for column in codes.T:
        scores += made_up(prefix, column)
        prefix = mixed(prefix, column)
    wrong: Counter[str] = Counter()
    for answer, own, rest in zip(answers, scores, left, strict=True):
        wrong.update(faults(answer, rest, k, own if mode == "raw" else None))
        if exhaustive and mode == "raw":
            rows = np.flatnonzero(rest)
            expected = rows[np.lexsort((rows, -own[rows]))][:k].tolist()
            wrong.update(["not the best"] * ([item.item_index for item in answer] != expected))
    return wrong, users * (exhaustive and mode == "raw")


def model_searches(rng: np.random.Generator, users: int) -> Counter[str]:
    """Searches of the transformers engine with a random model over a random vocabulary: what was wrong."""
    _, live, trie = random_trie(rng)
    gaps = rng.integers(0, 5, trie.num_levels + 1)
    starts = np.cumsum([3 + gaps[0], *(np.array(trie.codebook_sizes) + gaps[1:])])
    vocabulary = SidVocabulary(trie.codebook_sizes, tuple(starts[:-1].tolist()))
    torch.manual_seed(int(rng.integers(2**31)))
    shape: dict[str, Any] = {
        "vocab_size": int(starts[-1]),
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "intermediate_size": 24,
    }
    heads: dict[str, Any] = {
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 64,
    }
    made: Any = Qwen3ForCausalLM
    model = made(Qwen3Config(**shape, **heads, initializer_range=0.5)).eval()
    mode: ScoreMode = ("level", "raw", "renormalised")[rng.integers(3)]
    engine = TransformersEngine(
        model, None, vocabulary=vocabulary, score_mode=mode, batch_size=int(rng.integers(1, 30))
    )
    filters, left = zip(*(random_filter(rng, trie, live) for _ in range(users)), strict=True)
    width = int(rng.integers(1, trie.num_items + 1))
    k = int(rng.integers(1, width + 1))
    prompts = [rng.integers(0, starts[-1], rng.integers(1, 40)).tolist() for _ in range(users)]
    answers = engine.rank(prompts, trie, beam_width=width, k=k, allowed=filters)
    wrong: Counter[str] = Counter()
    for answer, rest in zip(answers, left, strict=True):
        wrong.update(faults(answer, rest, k, None))
    return wrong


def main() -> int:
    """Search, count, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--decodes", type=int, default=1_000_000)
    parser.add_argument("--model-decodes", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, start = np.random.default_rng(options.seed), time.process_time()
    wrong, exhaustive = Counter[str](), 0
    for _ in range(-(-options.decodes // USERS)):
        found, whole = searches(rng, USERS)
        wrong, exhaustive = wrong + found, exhaustive + whole
    made_up_seconds = time.process_time() - start
    for _ in range(-(-options.model_decodes // MODEL_USERS)):
        wrong += model_searches(rng, MODEL_USERS)
    print(
        f"{options.decodes:,} searches with made-up scores, {exhaustive:,} with a beam as wide as the catalogue, in "
        f" {made_up_seconds:.0f} s of CPU; {options.model_decodes:,} with random models; seed {options.seed}\n"
        f"wrong: {dict(wrong) or 'nothing'}"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
