"""A catalogue of a million items changes its version while requests come: what each one sees, and how long it takes.

    OMP_NUM_THREADS=1 python eval/swap_under_load.py [--items 1000000] [--rate 100] [--seconds 40] [--swaps 4]

The run is made up: random codes, and a small random model. A process of its own takes out one item in fifty with what
`genrec items remove` runs. This process calls `Recommender.refresh` in a thread beside the requests, as `genrec serve`
does, as soon as the new version is on disk. Requests come `--rate` times a second whatever became of the others; one
thread answers all that wait at once. Each one has a history of 50; its answer must be items of the version that it
began with. Latencies around a swap, from the moment that the new version is on disk until a second after it serves,
stand beside those of the other seconds, in which versions are made as well, and of as long without any change. Prints
Markdown; status 1 where a request failed or mixed versions.
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
import polars as pl
from numpy.typing import NDArray

from genrec.data.catalog import Catalog
from genrec.rank_request import RankRequest
from genrec.run import Run, StageReport
from genrec.tokenizers.codes import SemanticIds
from genrec.tokenizers.files import write_tokenizer
from genrec.trie import ItemTrie

if TYPE_CHECKING:
    from genrec.recommender import Recommender

SIZES = (256, 256, 256, 256)
BEAMS, K, PROMPT_ITEMS, TOGETHER = 10, 10, 6, 16


def is_live(rows: NDArray[np.int64], number: int) -> NDArray[np.bool_]:
    """Whether rows are in a version: each one has a fiftieth of the items less than the one before."""
    return (rows % 50 == 0) | (rows % 50 > number)


def make_run(folder: Path, num_items: int, seed: int) -> Run:
    """A run with items, random semantic IDs and their trie, and one interaction; its model is the caller's."""
    run = Run.create(folder)
    ids = [f"i{row}" for row in range(num_items)]
    pl.DataFrame({"item_id": ids, "title": ids}).write_parquet(folder / "items.parquet")
    splits = {"user_id": ["u"], "item_id": ids[:1], "split": ["train"]}
    pl.DataFrame(splits).write_parquet(folder / "splits.parquet")
    _record(run, "ingest", folder / "items.parquet", folder / "splits.parquet")
    _record(run, "embed")
    codes = np.random.default_rng(seed).integers(0, 256, (num_items, 4), dtype=np.uint16)
    checksum = Catalog.load(run).order_checksum
    files = SemanticIds(codes, SIZES, checksum).save(run)
    tokenizer = folder / "semantic_ids" / "tokenizer"
    tokenizer.mkdir()
    write_tokenizer(tokenizer, facts={"method": "random"}, tensors={})
    _record(run, "tokenize", *files, *tokenizer.iterdir())
    _record(run, "trie", *ItemTrie.build(codes, SIZES, order_checksum=checksum).save(folder / "trie"))
    return run


def _record(run: Run, stage: str, *outputs: Path) -> None:
    run.record(StageReport(stage, {}, []), config={}, seed=0, inputs=[], outputs=outputs, started=run.begin())


def remove(folder: Path, num_items: int, number: int) -> None:
    """What the changing process does: version `number` from the one before."""
    from genrec.catalogue_changes import remove_items

    gone = folder.parent / "gone.txt"
    gone.write_text("\n".join(f"i{row}" for row in range(number, num_items, 50)), encoding="utf-8")
    remove_items(Run.open(folder), gone, when="2026-01-01T00:00:00+00:00")


def small_recommender(run: Run, seed: int) -> Recommender:
    """The run with a random Qwen3 that leaves a core time for 100 requests a second."""
    import torch  # here: the changing process reads this file, too, and needs none of it
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from genrec.decoding.transformers_engine import TransformersEngine
    from genrec.prompting import HistoryPrompt
    from genrec.recommender import Recommender
    from genrec.vocabulary import SidVocabulary

    torch.manual_seed(seed)
    vocabulary = SidVocabulary(SIZES, (8, 264, 520, 776))
    shape: dict[str, Any] = {"vocab_size": 1032, "hidden_size": 32, "num_hidden_layers": 1, "intermediate_size": 64}
    heads: dict[str, Any] = {"num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 32}
    made: Any = Qwen3ForCausalLM
    model = made(Qwen3Config(**shape, **heads)).eval()
    engine = TransformersEngine(model, None, vocabulary=vocabulary, frozen=True)
    prompt = HistoryPrompt((1,))
    options: dict[str, Any] = {"max_history_items": PROMPT_ITEMS, "beam_width": BEAMS}
    return Recommender.assemble(run, engine=engine, vocabulary=vocabulary, prompt=prompt, **options)


@dataclass
class Service:
    """A recommender that is asked, and what happened."""

    recommender: Recommender
    seen: list[tuple[float, float, float]] = field(default_factory=list)  # start, wall and CPU seconds
    wrong: list[str] = field(default_factory=list)
    swaps: list[tuple[float, float, float]] = field(default_factory=list)  # on disk, served, CPU seconds between

    def __post_init__(self) -> None:
        self._numbers = {self.recommender.trie.version: 0}

    def answer(self, waiting: list[tuple[NDArray[np.int32], float]]) -> None:
        """Requests together: (history, the moment at which it was due) each."""
        here, started = self.recommender.pinned(), time.thread_time()
        histories = [history for history, _ in waiting]
        try:
            answers = here.rank([RankRequest(history) for history in histories], K)
            number = self._numbers.get(here.trie.version, len(self._numbers))  # not noted yet: it is the next
            for history, answer in zip(histories, answers, strict=True):
                items = np.array([item.item_index for item in answer])
                if len(items) != K or not is_live(items, number).all() or np.isin(items, history).any():
                    self.wrong.append(f"version {number}: {items.tolist()}")
        except Exception as error:
            self.wrong += [repr(error)] * len(waiting)
        spent = (time.thread_time() - started) / len(waiting)
        self.seen += [(due, time.monotonic() - due, spent) for _, due in waiting]

    def follow(self, number: int) -> None:
        """Switch to the version that is on disk now."""
        on_disk, started = time.monotonic(), time.thread_time()
        if not self.recommender.refresh():
            self.wrong.append(f"version {number} was not noticed")
        self._numbers[self.recommender.trie.version] = number
        self.swaps.append((on_disk, time.monotonic(), time.thread_time() - started))


def load(service: Service, options: argparse.Namespace, *, folder: Path, swaps: int) -> None:
    """Requests at a fixed rate for `options.seconds`, and `swaps` between them."""
    rng = np.random.default_rng(options.seed)
    histories = rng.integers(0, options.items, (256, 50)).astype(np.int32)
    waiting: queue.SimpleQueue[tuple[NDArray[np.int32], float] | None] = queue.SimpleQueue()
    done = threading.Event()

    def change() -> None:
        context = multiprocessing.get_context("spawn")
        for number in range(1, swaps + 1):
            done.wait(options.seconds / (swaps + 1) / 2)
            writer = context.Process(target=remove, args=(folder, options.items, number))
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
            service.answer(batch)

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
    print(f"\n{len(service.swaps)} swaps, each noticed, read, checked and prepared in {spans}")
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
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "run"
        recommender = small_recommender(make_run(folder, options.items, options.seed), options.seed)
        unchanged, service = Service(recommender), Service(recommender)
        print(f"{options.items:,} items, {BEAMS} beams, seed {options.seed}; load {os.getloadavg()[0]:.1f}\n")
        load(unchanged, options, folder=folder, swaps=0)
        load(service, options, folder=folder, swaps=options.swaps)
        report(service, unchanged, options)
    wrong = unchanged.wrong + service.wrong
    for fault in wrong[:5]:
        print(fault, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
