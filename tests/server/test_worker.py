"""The worker: batches equal single requests, a full queue refuses, a dropped request costs nothing."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from genrec.catalogue_changes import remove_items
from genrec.chat import Dialogue
from genrec.chat.steps import Pause, Steps
from genrec.errors import ConfigError, RunError
from genrec.explanation.explainer import Explainer
from genrec.recommender import Recommender
from genrec.run import Run
from genrec.server.monitoring import Monitor
from genrec.server.problems import ProblemError
from genrec.server.schemas import RecommendationsRequest
from genrec.server.threads import limit_threads
from genrec.server.work import Recommend
from genrec.server.worker import BatchWorker


def worker_of(load: Callable[[], Recommender], **options: float) -> BatchWorker:
    worker = BatchWorker(load, Monitor(), **options)  # type: ignore[arg-type]
    worker.start()
    assert worker.loaded.wait(60)
    return worker


def recommend(history: list[str], k: int = 5) -> Recommend:
    return Recommend(RecommendationsRequest(history=history, k=k), "m")


@dataclass
class Gate:
    """Work that holds the worker until it is opened, so that others wait behind it."""

    opened: threading.Event = field(default_factory=threading.Event)
    entered: threading.Event = field(default_factory=threading.Event)
    asked: int = 0

    def steps(self, dialogue: Dialogue) -> Steps[str]:
        self.asked += 1
        self.entered.set()
        assert self.opened.wait(30)
        yield from ()
        return "done"


def test_requests_that_are_ranked_together_get_what_each_gets_alone(tiny_recommender: Recommender):
    histories = [[f"i{number}", f"i{number + 3}"] for number in range(20)]

    async def together() -> list[list[str]]:
        gate = Gate()
        held = asyncio.ensure_future(worker.run(gate))
        await asyncio.to_thread(gate.entered.wait, 30)
        waiting = [asyncio.ensure_future(worker.run(recommend(one, k))) for k, one in enumerate(histories, start=1)]
        await asyncio.sleep(0)
        gate.opened.set()
        await held
        return [[item.item_id for item in (await one).items] for one in waiting]

    worker = worker_of(lambda: tiny_recommender)
    found = asyncio.run(together())
    worker.stop(seconds=30)
    expected = [
        [item.item_id for item in tiny_recommender.recommend(one, k)] for k, one in enumerate(histories, start=1)
    ]
    assert found == expected


def test_a_full_queue_refuses_with_a_time_to_come_again_and_the_others_are_served(tiny_recommender: Recommender):
    async def crowd() -> tuple[ProblemError, list[str]]:
        gate = Gate()
        held = asyncio.ensure_future(worker.run(gate))
        await asyncio.to_thread(gate.entered.wait, 30)
        waiting = [asyncio.ensure_future(worker.run(recommend(["i1"]))) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(ProblemError) as refused:
            await worker.run(recommend(["i1"]))
        gate.opened.set()
        await held
        return refused.value, [(await one).items[0].item_id for one in waiting]

    worker = worker_of(lambda: tiny_recommender, queue_size=3)
    problem, served = asyncio.run(crowd())
    worker.stop(seconds=30)
    assert problem.status == 429
    assert int(problem.headers["Retry-After"]) >= 1
    assert len(set(served)) == 1


def test_a_cancelled_request_is_never_worked_on(tiny_recommender: Recommender):
    async def leave() -> int:
        gate, left = Gate(), Gate()
        held = asyncio.ensure_future(worker.run(gate))
        await asyncio.to_thread(gate.entered.wait, 30)
        waiting = asyncio.ensure_future(worker.run(left))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        gate.opened.set()
        await held
        await worker.run(recommend(["i1"]))
        return left.asked

    worker = worker_of(lambda: tiny_recommender)
    assert asyncio.run(leave()) == 0
    worker.stop(seconds=30)


@dataclass
class Long:
    """Work that only pauses, and would do so for ever."""

    paused: int = 0

    def steps(self, dialogue: Dialogue) -> Steps[str]:
        while True:
            self.paused += 1
            yield Pause()


def test_work_that_pauses_is_left_when_nobody_waits_for_it_any_more(tiny_recommender: Recommender):
    async def leave() -> int:
        long = Long()
        with pytest.raises(ProblemError):
            await worker.run(long)
        worker.timeout = 30
        await worker.run(recommend(["i1"]))  # the worker is free
        return long.paused

    worker = worker_of(lambda: tiny_recommender, timeout=2.0)  # long enough for the worker to begin
    assert asyncio.run(leave()) > 0
    worker.stop(seconds=30)


@pytest.mark.parametrize("concurrent", [False, True])
def test_a_batch_waits_for_a_longer_one_only_where_the_engine_has_one_call_at_a_time(
    tiny_recommender: Recommender, monkeypatch: pytest.MonkeyPatch, concurrent: bool
):
    monkeypatch.setattr(type(tiny_recommender.engine), "concurrent", concurrent)

    async def both() -> bool:
        gate = Gate()
        held = asyncio.ensure_future(worker.run(gate))
        await asyncio.to_thread(gate.entered.wait, 30)
        waiting = asyncio.ensure_future(worker.run(recommend(["i1"])))
        done, _ = await asyncio.wait([waiting], timeout=10 if concurrent else 0.3)
        gate.opened.set()
        await held
        assert len((await waiting).items) == 5
        return bool(done)

    worker = worker_of(lambda: tiny_recommender)
    assert asyncio.run(both()) == concurrent
    worker.stop(seconds=30)
    assert not any(thread.name.startswith("genrec-worker") for thread in threading.enumerate())


def test_what_takes_too_long_is_answered_so(tiny_recommender: Recommender):
    async def slow() -> ProblemError:
        gate = Gate()
        with pytest.raises(ProblemError) as late:
            await worker.run(gate)
        gate.opened.set()
        return late.value

    worker = worker_of(lambda: tiny_recommender, timeout=0.05)
    assert asyncio.run(slow()).status == 503
    worker.stop(seconds=30)


def test_one_bad_request_does_not_spoil_the_batch(tiny_recommender: Recommender):
    async def mixed() -> list[object]:
        wanted = [worker.run(recommend(["i1"])), worker.run(recommend(["nope"])), worker.run(recommend(["i2"]))]
        return await asyncio.gather(*wanted, return_exceptions=True)

    worker = worker_of(lambda: tiny_recommender)
    good, bad, other = asyncio.run(mixed())
    worker.stop(seconds=30)
    assert len(good.items) == len(other.items) == 5
    assert "nope" in str(bad)


def test_stopping_finishes_what_waits_and_takes_nothing_new(tiny_recommender: Recommender):
    async def end() -> list[object]:
        gate = Gate()
        held = asyncio.ensure_future(worker.run(gate))
        await asyncio.to_thread(gate.entered.wait, 30)
        waiting = asyncio.ensure_future(worker.run(recommend(["i1"])))
        await asyncio.sleep(0)
        stopping = asyncio.ensure_future(asyncio.to_thread(worker.stop, seconds=30))
        gate.opened.set()
        await stopping
        return [await held, len((await waiting).items), *await asyncio.gather(worker.run(gate), return_exceptions=True)]

    worker = worker_of(lambda: tiny_recommender)
    held, served, refused = asyncio.run(end())
    assert (held, served) == ("done", 5)
    assert isinstance(refused, ProblemError)
    assert refused.status == 503


@pytest.mark.parametrize(
    ("error", "words"), [(RunError("it is broken."), "it is broken"), (ValueError("secret"), "the log")]
)
def test_a_model_that_cannot_be_loaded_is_said_without_details_of_ours(error: Exception, words: str):
    def load() -> Recommender:
        raise error

    worker = worker_of(load)
    with pytest.raises(ProblemError, match=words) as refused:
        asyncio.run(worker.run(recommend(["i1"])))
    assert "secret" not in refused.value.detail
    assert not isinstance(refused.value, ConfigError)


@pytest.mark.parametrize("error", [RunError("it is broken."), ValueError("a fault of ours")])
def test_whoever_started_the_worker_is_told_why_nothing_was_loaded(error: Exception):
    def load() -> Recommender:
        raise error

    told: list[Exception] = []
    worker = worker_of(load, refuse=told.append)
    assert (told, worker.dialogue) == ([error], None)


@pytest.mark.parametrize(("wanted", "said", "number"), [(3, None, 3), (None, None, 4), (None, "2", 5), (1, "4", 1)])
def test_the_engine_leaves_a_core_for_answering_unless_it_is_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, wanted: int | None, said: str | None, number: int
):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if said is not None:  # torch has read it long ago: what counts is that it is there
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    found: list[int] = []

    def compute() -> None:  # the limit is of one thread and must not outlive the test
        torch.set_num_threads(5)
        found.extend([limit_threads(wanted), torch.get_num_threads()])

    before = torch.get_num_threads()
    thread = threading.Thread(target=compute)
    thread.start()
    thread.join()
    torch.set_num_threads(before)
    assert found == [number, number]


def test_a_catalogue_that_takes_long_to_read_keeps_nobody_waiting(
    tiny_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recommender = Recommender.load(tiny_run)
    reading, read = threading.Event(), threading.Event()

    def slow() -> bool:
        reading.set()
        assert read.wait(30)
        return False

    monkeypatch.setattr(recommender, "refresh", slow)
    worker = worker_of(lambda: recommender, refresh=0.01, timeout=10.0)
    assert reading.wait(30)
    answer = asyncio.run(worker.run(recommend(recommender.catalog.item_ids[:2])))
    assert len(answer.items) == 5
    read.set()
    worker.stop(seconds=30)


def test_a_change_of_which_the_second_half_failed_once_is_served_all_the_same(
    tiny_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recommender = Recommender.load(tiny_copy)
    explain, failing = recommender.explainer, [2]
    worker = worker_of(lambda: recommender, refresh=0.05)

    def failing_twice() -> Explainer:
        failing[0] -= 1
        failures.append(worker.failure)  # what was said of the attempt before
        if failing[0] >= 0:
            raise OSError("a disk that sleeps")
        return explain()

    failures: list[str] = []
    monkeypatch.setattr(recommender, "explainer", failing_twice)
    (tiny_copy / "gone.txt").write_text("i4\n")
    remove_items(Run.open(tiny_copy), tiny_copy / "gone.txt", when="2026-01-02T03:04:05+00:00")
    until = time.monotonic() + 30
    while time.monotonic() < until:
        dialogue = worker.dialogue
        assert dialogue is not None
        if dialogue.recommender.trie.num_items == 29 and not worker.failure:
            break
        time.sleep(0.005)
    worker.stop(seconds=30)
    assert dialogue.recommender.trie.num_items == 29
    assert failing[0] < 0
    assert any("the log says why" in failure for failure in failures)
