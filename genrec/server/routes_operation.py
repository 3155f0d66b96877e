"""`/health`, `/ready`, `/metrics`, and the files of the chat page."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, Response

from genrec.server.opening import PAGE
from genrec.server.schemas import Health, PageInfo
from genrec.server.service import service_of

router = APIRouter(tags=["operation"])


@router.get("/health")
async def health() -> Health:
    """The process is alive."""
    return Health(status="alive")


@router.get("/ready", responses={503: {"description": "still loading, or the model cannot be loaded"}})
async def ready(request: Request) -> Health:
    """Model and catalogue are loaded. `detail` says so where the run on disk can no longer be followed."""
    service = service_of(request)
    dialogue = service.dialogue
    return Health(status="ready", detail=service.worker.failure, catalog_version=dialogue.recommender.trie.version)


@router.get("/metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    """Figures in Prometheus' text format."""
    service = service_of(request)
    service.monitor.waiting.set(service.worker.waiting)
    service.monitor.ready.set(service.worker.dialogue is not None)
    return Response(service.monitor.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/v1/page")
async def page_info(request: Request) -> PageInfo:
    """What the chat page needs to begin; it is answered while the model is still loading."""
    service = service_of(request)
    dialogue = service.worker.dialogue
    names = [] if dialogue is None else dialogue.index.facet_names()[:1]
    return PageInfo(
        model=service.name,
        ready=dialogue is not None,
        detail=service.worker.failure,
        people=service.people,
        suggestions=[value for name in names for value in dialogue.index.common_values(name, 6)] if dialogue else [],
    )


@router.get("/", include_in_schema=False)
async def index() -> FileResponse:
    """The chat page."""
    return FileResponse(PAGE / "index.html", headers={"Cache-Control": "no-cache"})
