"""What every route needs: the worker, the store, the run's name; and how a request waits for its answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast
from weakref import WeakValueDictionary

from anyio import to_thread
from fastapi import Request
from starlette.convertors import PathConvertor, register_url_convertor

from genrec.server.monitoring import Monitor
from genrec.server.problems import ProblemError, not_ready
from genrec.server.schemas import Person
from genrec.server.worker import BatchWorker, Work

if TYPE_CHECKING:
    from genrec.chat import Dialogue
    from genrec.encoders.media import MediaFile
    from genrec.server.store import Store

ResultT = TypeVar("ResultT")


class IdConvertor(PathConvertor):
    """`{name:id}` in a route: whatever an id may be, also with slashes or line breaks, but not empty."""

    regex = r"(?s:.+)"


register_url_convertor("id", IdConvertor())


class ClientGoneError(Exception):
    """Nobody waits for the answer any more."""


@dataclass
class Service:
    """One running service. `opened`, `people` and `images` are filled while the run is loaded."""

    name: str
    started: int  # Unix time
    worker: BatchWorker
    monitor: Monitor
    opened: Store | None = None
    people: list[Person] = field(default_factory=list)
    images: Callable[[Dialogue, int], MediaFile | None] = lambda dialogue, row: None
    _locks: WeakValueDictionary[str, asyncio.Lock] = field(default_factory=WeakValueDictionary)

    @property
    def dialogue(self) -> Dialogue:
        """The dialogue over the catalogue of now. Raises Problem 503 while loading."""
        if self.worker.dialogue is None:
            raise not_ready(self.worker.failure or "The model is being loaded.")
        return self.worker.dialogue

    @property
    def store(self) -> Store:
        """The database of conversations, migrated. Raises Problem 503 until it is."""
        if self.opened is None:
            raise not_ready(self.worker.failure or "The conversations are being opened.")
        return self.opened

    async def run(self, request: Request, work: Work[ResultT]) -> ResultT:
        """Have work done for a request; a client that goes away takes it along. Raises ClientGoneError then."""
        doing = asyncio.ensure_future(self.worker.run(work))
        gone = asyncio.ensure_future(_disconnected(request))
        try:
            await asyncio.wait({doing, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not doing.done():
                raise ClientGoneError
            return doing.result()
        finally:
            doing.cancel()
            gone.cancel()

    @asynccontextmanager
    async def alone(self, conversation_id: str) -> AsyncIterator[None]:
        """One turn of a conversation at a time; other processes are noticed by the version in the database."""
        lock = self._locks.setdefault(conversation_id, asyncio.Lock())
        async with lock:
            yield


async def stored(call: Callable[..., ResultT], *arguments: Any) -> ResultT:
    """Run a method of the store in a thread."""
    return await to_thread.run_sync(lambda: call(*arguments))


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def service_of(request: Request) -> Service:
    """The service of the application that a request came to.

    Called, not declared as a dependency: solving one costs a request a tenth of its CPU time (docs/experiments.md).
    """
    return cast(Service, request.app.state.service)


def row_of(dialogue: Dialogue, item_id: str) -> int:
    """The row of an item in a request. Raises Problem 404."""
    row = dialogue.index.catalog.index.get(item_id)
    if row is None:
        raise ProblemError(404, "Not Found", "The catalogue has no such item.")
    return row
