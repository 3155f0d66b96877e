"""A run as an HTTP service: settings in, FastAPI application out.

The application is there at once; the model is loaded by the worker's thread, and until then every route that
needs it answers 503. `genrec serve` runs it under uvicorn, which ends it gracefully on SIGTERM.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import Response
from fastapi.staticfiles import StaticFiles

from genrec.recommender import Recommender
from genrec.server import problems, routes_catalogue, routes_conversations, routes_openai, routes_operation
from genrec.server.demo import demo_people, item_images
from genrec.server.guards import Guard
from genrec.server.monitoring import Monitor, MonitorRequests
from genrec.server.service import ClientGoneError, Service
from genrec.server.settings import ServeConfig, check_settings
from genrec.server.store import Store
from genrec.server.worker import BatchWorker

_DESCRIPTION = """Recommendations, explanations and conversations over one catalogue. Every item that is named exists.

Errors are RFC 9457 problems (`application/problem+json`). 429 comes with `Retry-After`."""


def create_app(run: Path, settings: ServeConfig, *, load: Callable[[], Recommender] | None = None) -> FastAPI:
    """The application over a run. `load` opens the recommender; by default the run with the settings' engine.

    Raises ConfigError for settings that must not be served and for a database that cannot be used.
    """
    check_settings(settings)
    monitor = Monitor()
    store = Store.open(settings.database or f"sqlite:///{run.resolve() / 'service' / 'conversations.sqlite'}")
    opening = load or (lambda: Recommender.load(run, settings.engine, beam_width=settings.beam_width))

    def load_all() -> Recommender:
        recommender = opening()
        service.people = demo_people(run)
        service.images = item_images(run, settings.media_root)
        return recommender

    worker = BatchWorker(
        load_all,
        monitor,
        number=settings.number,
        queue_size=settings.queue_size,
        batch_size=settings.batch_size,
        timeout=settings.timeout,
        refresh=settings.refresh,
    )
    service = Service(run.resolve().name, int(time.time()), worker, store, monitor)
    return _assembled(service, settings)


def _assembled(service: Service, settings: ServeConfig) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.worker.start()
        yield
        # uvicorn has answered what it accepted by now, or given up on it.
        await asyncio.to_thread(service.worker.stop, seconds=settings.grace)
        service.store.close()

    app = FastAPI(
        title="genrec",
        version=importlib.metadata.version("genrec-toolkit"),
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # their pages load scripts from a CDN
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.service = service
    problems.install(app)
    app.add_exception_handler(ClientGoneError, _nobody)
    for module in (routes_catalogue, routes_openai, routes_conversations, routes_operation):
        app.include_router(module.router)
    app.mount("/page", StaticFiles(directory=routes_operation.PAGE), name="page")
    # No CORS middleware: without its headers, browsers keep pages of other sites out.
    app.add_middleware(MonitorRequests, monitor=service.monitor)
    app.add_middleware(Guard, keys=settings.api_keys, host_names=settings.host_names, max_body=settings.max_body)
    return app


async def _nobody(_: Request, __: Exception) -> Response:
    return Response(status_code=499)  # never read: the client is gone
