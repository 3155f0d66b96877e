"""`/v1/recommendations`, `/v1/explanations`, `/v1/items/…`: what a shop calls."""

from __future__ import annotations

from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import FileResponse

from genrec.errors import UnreadableInputError
from genrec.server.problems import not_found
from genrec.server.schemas import (
    ExplanationsRequest,
    ExplanationsResponse,
    ItemResponse,
    RecommendationsRequest,
    RecommendationsResponse,
)
from genrec.server.service import row_of, service_of
from genrec.server.views import card
from genrec.server.work import Explain, Recommend, Similar

# What a browser shows as a picture and never runs; an SVG may hold scripts.
_PICTURES = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".avif": "image/avif",
}
router = APIRouter(prefix="/v1", tags=["catalogue"])
ItemPath = Annotated[str, Path(max_length=500, examples=["260"])]


@router.post("/recommendations")
async def recommendations(body: RecommendationsRequest, request: Request) -> RecommendationsResponse:
    """Items for a history: valid ones only, never one of the history, best first."""
    service = service_of(request)
    return await service.run(request, Recommend(body, service.name))


@router.post("/explanations")
async def explanations(body: ExplanationsRequest, request: Request) -> ExplanationsResponse:
    """Why an item, for a history: the items of the history that share something with it; or its taste.

    Every style but those of taste needs an `item_id`.
    """
    service = service_of(request)
    return await service.run(request, Explain(body))


@router.get("/items/{item_id:id}/similar")
async def similar(
    item_id: ItemPath, request: Request, k: Annotated[int, Query(ge=1, le=100)] = 10
) -> RecommendationsResponse:
    """Items that go with one: ranked after it, sharing an attribute value with it where it has one."""
    service = service_of(request)
    row_of(service.dialogue, item_id)
    return await service.run(request, Similar(item_id, k, service.name))


@router.get("/items/{item_id:id}/image", response_class=FileResponse)
async def image(item_id: ItemPath, request: Request) -> FileResponse:
    """The picture of an item: a file inside the folder that the catalogue's table came from, and nothing else."""
    service = service_of(request)
    dialogue = service.dialogue
    file = service.images(dialogue, row_of(dialogue, item_id))
    if file is None:
        raise not_found("A picture of this item")
    try:
        path = await to_thread.run_sync(file.locate)
    except UnreadableInputError:
        raise not_found("A picture of this item") from None
    kind = _PICTURES.get(path.suffix.lower())
    if kind is None:
        raise not_found("A picture of this item")
    return FileResponse(path, media_type=kind, headers={"Cache-Control": "private, max-age=3600"})


# Behind the two above: an id may hold slashes, so this one takes whatever they leave.
@router.get("/items/{item_id:id}")
async def item(item_id: ItemPath, request: Request) -> ItemResponse:
    """One item with everything that the catalogue says of it."""
    service = service_of(request)
    dialogue = service.dialogue
    row = row_of(dialogue, item_id)
    trie = dialogue.recommender.trie
    return ItemResponse(
        **card(dialogue, row).model_dump(),
        recommendable=bool(trie.positions([row])[0] >= 0),
        catalog_version=trie.version,
    )
