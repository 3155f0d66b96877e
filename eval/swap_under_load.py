"""A catalogue of a million items changes its version while requests come: what each one sees, and how long it takes.

    OMP_NUM_THREADS=1 python eval/swap_under_load.py [--items 1000000] [--rate 100] [--seconds 40] [--swaps 4]

A process of its own builds and saves each next version of the trie, with other rows left out, as `genrec items` does.
This process maps, checks and prepares the new version in a thread beside the requests, and puts it in the old one's
place by one assignment, as the service does. Requests come `--rate` times a second whatever became of the others; one
thread answers all that wait at once, over a small random model. Each one excludes a history; its answer must be items
of the version that it began with. Latencies around a swap, from the moment that the new version is on disk until a
second after it serves, stand beside those of the other seconds, in which versions are built as well, and of as long
without any change. Prints Markdown; status 1 where a request failed or mixed versions.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import queue
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from genrec.trie import ItemTrie
from genrec.trie_filters import ItemFilter
from genrec.vocabulary import SidVocabulary

if TYPE_CHECKING:
    from genrec.decoding.transformers_engine import TransformersEngine

SIZES = (256, 256, 256, 256)
VOCABULARY = SidVocabulary(SIZES, (8, 264, 520, 776))
BEAMS, K, PROMPT, TOGETHER = 10, 10, 24, 16


def codes_of(num_items: int, seed: int) -> NDArray[np.uint8]:
    """Codes (R, L)."""
    return np.random.default_rng(seed).integers(0, 256, (num_items, 4), dtype=np.uint8)


def is_live(rows: NDArray[np.int64], number: int) -> NDArray[np.bool_]:
    """Whether rows are in a version: one in fifty is left out, others in every version."""
    return rows % 50 != number % 50


def write_version(folder: Path, num_items: int, seed: int, number: int) -> None:
    """What the changing process does."""
    ItemTrie.build(codes_of(num_items, seed), SIZES, live=is_live(np.arange(num_items), number)).save(folder)


def small_engine(seed: int) -> TransformersEngine:
    """A random Qwen3 that leaves a core time for 100 requests a second."""
    import torch  # here: the changing process reads this file, too, and needs none of it
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from genrec.decoding.transformers_engine import TransformersEngine

    torch.manual_seed(seed)
    shape: dict[str, Any] = {"vocab_size": 1032, "hidden_size": 32, "num_hidden_layers": 1, "intermediate_size": 64}
    heads: dict[str, Any] = {"num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 32}
    made: Any = Qwen3ForCausalLM
    return TransformersEngine(made(Qwen3Config(**shape, **heads)).eval(), None, vocabulary=VOCABULARY)


@dataclass
class Service:
    """A trie that is served from, and what happened."""

    folder: Path
    trie: ItemTrie
    seen: list[tuple[float, float, float]] = field(default_factory=list)  # start, wall and CPU seconds
    wrong: list[str] = field(default_factory=list)
    swaps: list[tuple[float, float, float]] = field(default_factory=list)  # on disk, served, CPU seconds between

    def __post_init__(self) -> None:
        self._numbers = {self.trie.version: 0}

    def answer(self, engine: TransformersEngine, waiting: list[tuple[NDArray[np.int64], float]]) -> None:
        """Requests together: (history, the moment at which it was due) each."""
        trie, started = self.trie, time.thread_time()
        histories = [history for history, _ in waiting]
        try:
            filters = [ItemFilter.excluding(trie, history) for history in histories]
            prompts = [(8 + history[:PROMPT] % 1024).tolist() for history in histories]
            answers = engine.rank(prompts, trie, beam_width=BEAMS, k=K, allowed=filters)
            number = self._numbers[trie.version]
            for history, answer in zip(histories, answers, strict=True):
                items = np.array([item.item_index for item in answer])
                if len(items) != K or not is_live(items, number).all() or np.isin(items, history).any():
                    self.wrong.append(f"version {number}: {items.tolist()}")
        except Exception as error:
            self.wrong += [repr(error)] * len(waiting)
        spent = (time.thread_time() - started) / len(waiting)
        self.seen += [(due, time.monotonic() - due, spent) for _, due in waiting]

    def follow(self, number: int) -> None:
        """Put the version that is on disk now in place of the one before."""
        on_disk, started = time.monotonic(), time.thread_time()
        loaded = ItemTrie.load(self.folder).prepare()
        self._numbers[loaded.version] = number
        self.trie = loaded
        self.swaps.append((on_disk, time.monotonic(), time.thread_time() - started))


def load(service: Service, engine: TransformersEngine, options: argparse.Namespace, *, swaps: int) -> None:
    """Requests at a fixed rate for `options.seconds`, and `swaps` between them."""
    rng = np.random.default_rng(options.seed)
    histories = rng.integers(0, options.items, (256, 50))
    waiting: queue.SimpleQueue[tuple[NDArray[np.int64], float] | None] = queue.SimpleQueue()
    done = threading.Event()

    def change() -> None:
        context = multiprocessing.get_context("spawn")
        for number in range(1, swaps + 1):
            done.wait(options.seconds / (swaps + 1) / 2)
            arguments = (service.folder, options.items, options.seed, number)
            writer = context.Process(target=write_version, args=arguments)
            writer.start()
            writer.join()
            service.follow(number)

    def serve() -> None:
        while (first := waiting.get()) is not None:
            batch = [first]
            while not waiting.empty() and len(batch) < TOGETHER:
                if (another := waiting.get()) is None:
                    waiting.put(None)
                    break
                batch.append(another)
            service.answer(engine, batch)

    changing, serving = threading.Thread(target=change), threading.Thread(target=serve)
    begin = time.monotonic()
    changing.start()
    serving.start()
    for number in itertools.count():
        due = begin + number / options.rate
        if due > begin + options.seconds and not changing.is_alive():
            break
        time.sleep(max(0.0, due - time.monotonic()))
        waiting.put((histories[number % 256], due))
    waiting.put(None)
    serving.join()
    changing.join()


def report(service: Service, unchanged: Service, options: argparse.Namespace) -> None:
    """Latencies without changes, around swaps and between them."""
    seen, alone = np.array(service.seen), np.array(unchanged.seen)
    around = np.zeros(len(seen), dtype=np.bool_)
    for on_disk, served, _ in service.swaps:
        around |= (seen[:, 0] + seen[:, 1] > on_disk) & (seen[:, 0] < served + 1)
    rows = {"without changes": alone, "between swaps": seen[~around], "around a swap": seen[around]}
    median = float(np.median(alone[:, 1]))
    print("| | requests | wall ms: median, p99, largest | above twice the median | CPU ms: median, p99, largest |")
    print("|---|---|---|---|---|")
    for name, chosen in rows.items():
        wall, cpu = (
            " / ".join(f"{1e3 * value:.1f}" for value in (*np.percentile(column, [50, 99]), column.max()))
            for column in chosen[:, 1:].T
        )
        late = int((chosen[:, 1] > 2 * median).sum())
        print(f"| {name} | {len(chosen)} | {wall} | {late} ({late / len(chosen):.1%}) | {cpu} |")
    spans = ", ".join(f"{served - on_disk:.2f} s ({cpu:.2f} s of CPU)" for on_disk, served, cpu in service.swaps)
    print(f"\n{len(service.swaps)} swaps, each noticed, mapped, checked and prepared in {spans}")
    wrong = len(service.wrong) + len(unchanged.wrong)
    print(f"{len(seen) + len(alone)} requests at {options.rate:g}/s; failed or mixed: {wrong}")


def main() -> int:
    """Build, serve, swap, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--rate", type=float, default=100.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--swaps", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    engine = small_engine(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        write_version(Path(folder), options.items, options.seed, 0)
        unchanged, service = (Service(Path(folder), ItemTrie.load(Path(folder)).prepare()) for _ in range(2))
        print(f"{options.items:,} items, {BEAMS} beams, seed {options.seed}; load {os.getloadavg()[0]:.1f}\n")
        load(unchanged, engine, options, swaps=0)
        load(service, engine, options, swaps=options.swaps)
        report(service, unchanged, options)
    wrong = unchanged.wrong + service.wrong
    for fault in wrong[:5]:
        print(fault, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
