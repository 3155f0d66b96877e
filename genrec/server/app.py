"""A run as an HTTP service: settings in, FastAPI application out.

Until this module is imported, `opening` answers for the page. Then the application is there: database, catalogue
and model are imported and opened by the worker's thread, and until then every route that needs them answers 503. So no
module of this package imports them at its top but `store`, `tables` and `demo`, which that thread imports; a test
holds this. `genrec serve` runs the application under uvicorn, which ends it gracefully on SIGTERM.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request
from fastapi.responses import Response
from fastapi.staticfiles import StaticFiles

from genrec.server import handlers, routes_catalogue, routes_conversations, routes_openai, routes_operation
from genrec.server.guards import Guard
from genrec.server.monitoring import Monitor, MonitorRequests
from genrec.server.opening import PAGE
from genrec.server.service import ClientGoneError, Service
from genrec.server.settings import ServeConfig, check_settings
from genrec.server.worker import BatchWorker

if TYPE_CHECKING:
    from genrec.recommender import Recommender

_DESCRIPTION = """Recommendations, explanations and conversations over one catalogue. Every item that is named exists.

Errors are RFC 9457 problems (`application/problem+json`). 429 comes with `Retry-After`."""


def create_app(
    run: Path,
    settings: ServeConfig,
    *,
    load: Callable[[], Recommender] | None = None,
    refuse: Callable[[Exception], None] | None = None,
) -> FastAPI:
    """The application over a run. `load` opens the recommender; by default the run with the settings' engine.

    `refuse` is told, in the worker's thread, of what keeps database or run from being opened: nothing tries again, so
    the process may as well end. Without it every route says so. Raises ConfigError for settings that must not be
    served.
    """
    check_settings(settings)
    monitor = Monitor()

    def load_all() -> Recommender:
        from genrec.server.store import Store
        from genrec.server.threads import limit_threads

        limit_threads(settings.threads)  # in the thread that will compute

        service.opened = Store.open(
            settings.database or f"sqlite:///{run.resolve() / 'service' / 'conversations.sqlite'}"
        )
        from genrec.server.demo import demo_people, item_images

        recommender = load() if load is not None else _load(run, settings)
        service.people = demo_people(run)
        service.images = item_images(run, settings.media_root)
        return recommender

    worker = BatchWorker(
        load_all,
        monitor,
        number=settings.number,
        proposals=settings.proposals,
        queue_size=settings.queue_size,
        batch_size=settings.batch_size,
        timeout=settings.timeout,
        refresh=settings.refresh,
        refuse=refuse,
    )
    service = Service(run.resolve().name, int(time.time()), worker, monitor)
    return _assembled(service, settings)


def _load(run: Path, settings: ServeConfig) -> Recommender:
    from genrec.recommender import Recommender

    return Recommender.load(
        run,
        settings.engine,
        beam_width=settings.beam_width,
        weights=settings.weights,
        remembered_bytes=settings.remember_mb << 20,
        engine_options=settings.engine_options,
    )


def _assembled(service: Service, settings: ServeConfig) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.worker.start()
        yield
        # uvicorn has answered what it accepted by now, or given up on it.
        await asyncio.to_thread(service.worker.stop, seconds=settings.grace)
        if service.opened is not None:
            service.opened.close()

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
    handlers.install(app)
    app.add_exception_handler(ClientGoneError, _nobody)
    for module in (routes_catalogue, routes_openai, routes_conversations, routes_operation):
        app.include_router(module.router)
    app.mount("/page", StaticFiles(directory=PAGE), name="page")
    # No CORS middleware: without its headers, browsers keep pages of other sites out.
    app.add_middleware(MonitorRequests, monitor=service.monitor)
    app.add_middleware(Guard, keys=settings.api_keys, host_names=settings.host_names, max_body=settings.max_body)
    return app


async def _nobody(_: Request, __: Exception) -> Response:
    return Response(status_code=499)  # never read: the client is gone
