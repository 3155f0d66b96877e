"""Many requests, one engine: threads that take what waits in a bounded queue and serve it together.

They alone touch the model. One thread serves batch after batch; where the engine computes calls of several threads
together (`Engine.concurrent`) there are several, so that a batch does not wait for a longer one. A batch is planned,
ranked and described with one catalogue. Requests are made in steps (`genrec.chat.steps`): all that wait for items are
ranked together, all that wait for a text are written together. A request that was cancelled or has timed out is
dropped before it costs anything.
"""

from __future__ import annotations

import asyncio
import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from genrec.chat.steps import Need, Pause, ProposalsName, Rank, Steps, Write
from genrec.errors import GenrecError
from genrec.server.problems import ProblemError, not_ready, too_busy

if TYPE_CHECKING:
    from genrec.chat import Dialogue
    from genrec.recommender import Recommender

_LOG = logging.getLogger("genrec.server")
_IDLE_SECONDS = 0.05
_BATCHES_AT_ONCE = 4  # of an engine that computes them together
ResultT_co = TypeVar("ResultT_co", covariant=True)
ResultT = TypeVar("ResultT")


class Work(Protocol[ResultT_co]):
    """What a request wants of the engine."""

    def steps(self, dialogue: Dialogue) -> Generator[Need, Any, ResultT_co]:
        """What is needed, one need after the other, then the result; runs in the worker's thread.

        Raises GenrecError for a request that cannot be served.
        """
        ...


class Observer(Protocol):
    """Who wants to know what the worker does."""

    def batch(self, size: int, seconds: float) -> None:
        """A batch of `size` requests took so long."""
        ...


@dataclass
class _Job:
    work: Work[Any]
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop
    dropped: bool = False


Outcome: TypeAlias = tuple[_Job, Any, BaseException | None]


@dataclass
class BatchWorker:
    """The threads and their queue. `load` opens the recommender, in the first, so that the page is there before it."""

    load: Callable[[], Recommender]
    observer: Observer
    number: int = 5
    proposals: ProposalsName = "auto"
    queue_size: int = 512
    batch_size: int = 64
    timeout: float = 30.0
    refresh: float = 1.0
    refuse: Callable[[Exception], None] | None = None  # is told why loading failed; else the log is
    dialogue: Dialogue | None = None  # the newest one; None while loading
    loaded: threading.Event = field(default_factory=threading.Event)  # set when loading ended, well or not
    failure: str = ""  # why loading failed, or why the catalogue could not be followed
    _stopping: bool = False
    _batches: int = 1  # at a time
    _per_second: float = 20.0  # a running mean of one batch, for Retry-After
    _stopped: threading.Event = field(default_factory=threading.Event)
    _recommender: Recommender | None = None
    _thread: threading.Thread | None = None
    _queue: queue.Queue[_Job] = field(default_factory=queue.Queue)

    def start(self) -> None:
        """Begin to load and then to serve."""
        self._queue = queue.Queue(self.queue_size)
        self._thread = threading.Thread(target=self._run, name="genrec-worker", daemon=True)
        self._thread.start()

    def stop(self, *, seconds: float) -> None:
        """Take nothing new, finish what waits, end; at most for so long."""
        self._stopping = True
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(seconds)

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return self._queue.qsize()

    def busy(self) -> ProblemError:
        """The answer to one request too many, with an honest guess at when to come again."""
        return too_busy(max(1, math.ceil(self.waiting / (self._batches * self._per_second))))

    async def run(self, work: Work[ResultT]) -> ResultT:
        """Have a piece of work done. Raises Problem 429 where the queue is full, 503 while loading or too late.

        Cancelling the caller drops the work.
        """
        if self._stopping:
            raise not_ready("The service is shutting down.")
        if self.dialogue is None:
            raise not_ready(self.failure or "The model is being loaded.")
        loop = asyncio.get_running_loop()
        job = _Job(work, loop.create_future(), loop)
        try:
            self._queue.put_nowait(job)
        except queue.Full:
            raise self.busy() from None
        try:
            result: ResultT = await asyncio.wait_for(job.future, self.timeout)
        except TimeoutError:
            raise not_ready(f"It took longer than {self.timeout:g} s.") from None
        finally:
            job.dropped = True
        return result

    def _run(self) -> None:
        try:
            self._open()
        finally:
            self.loaded.set()
        if self._recommender is not None and self._recommender.run is not None:  # else nothing could change
            follow = threading.Thread(target=self._follow_catalogue, name="genrec-catalogue", daemon=True)
            follow.start()
        if self._recommender is not None and self._recommender.engine.concurrent:
            self._batches = min(_BATCHES_AT_ONCE, self.batch_size)
        numbers = range(2, self._batches + 1)
        others = [threading.Thread(target=self._work, name=f"genrec-worker-{n}", daemon=True) for n in numbers]
        for other in others:
            other.start()
        self._work()
        for other in others:
            other.join()

    def _work(self) -> None:
        while self.dialogue is not None:
            jobs = self._next_jobs()
            if jobs:
                self._serve([job for job in jobs if not job.dropped])
            elif self._stopping:
                return

    def _open(self) -> None:
        try:
            self._recommender = self.load()
            from genrec.chat import Dialogue

            if self._recommender.run is not None:
                self._recommender.explainer()  # read now: the first "why?" should not wait for it
            self.dialogue = Dialogue.over(self._recommender, number=self.number, proposals=self.proposals)
        except Exception as error:
            known = isinstance(error, GenrecError)
            self.failure = str(error) if known else "The model cannot be loaded; the log says why."
            if self.refuse is not None:
                self.refuse(error)
            else:
                _LOG.error("the run cannot be loaded: %s", error, exc_info=None if known else error)

    def _next_jobs(self) -> list[_Job]:
        try:
            jobs = [self._queue.get(timeout=_IDLE_SECONDS)]
        except queue.Empty:
            return []
        while len(jobs) < self.batch_size // self._batches:  # so many together in all, and no more memory for them
            try:
                jobs.append(self._queue.get_nowait())
            except queue.Empty:
                break
        return jobs

    def _follow_catalogue(self) -> None:
        """Beside the serving: a large catalogue takes seconds to read, and nobody is to wait for it."""
        recommender = self._recommender
        assert recommender is not None
        while self.dialogue is not None and not self._stopped.wait(self.refresh):
            try:
                recommender.refresh()
                if self.dialogue.recommender.live is not recommender.live:  # also where the last try failed half-way
                    recommender.explainer()
                    self.dialogue = self.dialogue.following(recommender)  # requests under way keep the one they have
                self.failure = ""
            except GenrecError as error:
                # The run was trained again: this process goes on with what it has, and says so.
                self.failure = str(error)
            except Exception:
                self.failure = "The changed catalogue cannot be read; the log says why."
                _LOG.exception("the changed catalogue cannot be read")

    def _serve(self, jobs: Sequence[_Job]) -> None:
        if not jobs or self.dialogue is None:
            return
        started, dialogue = time.monotonic(), self.dialogue
        under_way = [(job, job.work.steps(dialogue)) for job in jobs]
        given: list[Any] = [None] * len(jobs)
        while under_way:
            outcomes: list[Outcome] = []
            waiting: list[tuple[_Job, Steps[Any], Need]] = []
            for (job, steps), value in zip(under_way, given, strict=True):
                if job.dropped:
                    continue
                try:
                    need = steps.throw(value) if isinstance(value, Exception) else steps.send(value)
                    waiting.append((job, steps, need))
                except StopIteration as done:
                    outcomes.append((job, done.value, None))
                except Exception as error:  # one request's fault must not end the thread
                    outcomes.append((job, None, error))
            if outcomes := [one for one in outcomes if not one[0].dropped]:
                jobs[0].loop.call_soon_threadsafe(_deliver, outcomes)
            under_way = [(job, steps) for job, steps, _ in waiting]
            given = _given(dialogue, [need for *_, need in waiting])
        seconds = time.monotonic() - started
        self._per_second = 0.8 * self._per_second + 0.2 * len(jobs) / max(seconds, 1e-3)
        self.observer.batch(len(jobs), seconds)


def _given(dialogue: Dialogue, needs: Sequence[Need]) -> list[Any]:
    """What each need asked for, or the error that it made; needs of one kind are met together.

    Needs of a wider beam are ranked apart: a beam's width changes answers.
    """
    width = dialogue.recommender.narrowest
    groups: dict[int, list[int]] = {}
    for place, need in enumerate(needs):
        if isinstance(need, Pause):
            continue
        groups.setdefault(0 if isinstance(need, Write) else max(width, need.k), []).append(place)
    given: list[Any] = [None] * len(needs)
    for places in groups.values():
        for place, value in zip(places, _met(dialogue, [needs[place] for place in places]), strict=True):
            given[place] = value
    return given


def _met(dialogue: Dialogue, needs: Sequence[Need]) -> list[Any]:
    """Needs of one kind, items or texts."""
    try:
        ranks = [need for need in needs if isinstance(need, Rank)]
        if ranks:
            found = dialogue.recommender.rank([need.request for need in ranks], max(need.k for need in ranks))
            return [ranked[: need.k] for need, ranked in zip(ranks, found, strict=True)]
        return dialogue.written([need for need in needs if isinstance(need, Write)])
    except Exception as error:
        if len(needs) == 1:
            return [error]
        return [value for need in needs for value in _met(dialogue, [need])]  # find out which is to blame


def _deliver(outcomes: Sequence[Outcome]) -> None:
    for job, result, error in outcomes:
        if job.future.done():
            continue
        if error is None:
            job.future.set_result(result)
        else:
            job.future.set_exception(error)
