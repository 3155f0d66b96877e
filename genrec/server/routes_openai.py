"""`/v1/chat/completions` and `/v1/models`: what clients of OpenAI's API call, unchanged.

The conversation comes with every request, so nothing is stored. The reply is Markdown; the recommended items come
beside it as `genrec` (`items`, `act`, `trace`), in the last chunk of a stream. What else such clients send
(temperature, tools, …) is read and has no effect: the words are the service's own.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, model_validator

from genrec.chat import ChatState
from genrec.chat.replay import Said, markdown, plain
from genrec.server.problems import ProblemError
from genrec.server.schemas import History, ModelInfo, ModelList, check_text
from genrec.server.service import Service, service_of
from genrec.server.views import turn_view
from genrec.server.work import Turn

if TYPE_CHECKING:
    from genrec.chat import ChatTurn

_MAX_TEXT = 4000
router = APIRouter(prefix="/v1", tags=["chat (OpenAI)"])


class ContentPart(BaseModel):
    """A part of a message; only text is read."""

    type: str
    text: str = ""


class ChatMessage(BaseModel):
    """One message. Messages of other roles than user and assistant are not acted on."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[ContentPart] | None = None

    @property
    def plain(self) -> str:
        """The text of the message."""
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content if part.type == "text")
        return self.content or ""


class GenrecOptions(BaseModel):
    """What this service reads beyond OpenAI's API."""

    history: History = Field(default_factory=list, description="item ids that the user had used before")


class ChatCompletionRequest(BaseModel):
    """OpenAI's request; unknown keys are ignored, as clients send many."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={
            "examples": [
                {"model": "genrec", "messages": [{"role": "user", "content": "Something like Alien, but older"}]}
            ]
        },
    )

    model: str = Field(max_length=200)
    messages: list[ChatMessage] = Field(min_length=1, max_length=400)
    stream: bool = False
    n: int | None = Field(None, ge=1, le=1)
    genrec: GenrecOptions = GenrecOptions()

    @model_validator(mode="before")
    @classmethod
    def _encodable(cls, values: Any) -> Any:
        check_text(values)
        return values


@router.get("/models")
async def models(request: Request) -> ModelList:
    """The one model of this service."""
    service = service_of(request)
    return ModelList(data=[_model(service)])


@router.get("/models/{name}")
async def model(name: str, request: Request) -> ModelInfo:
    """The model of this service by its name."""
    service = service_of(request)
    _check_model(service, name)
    return _model(service)


@router.post("/chat/completions", response_model=None)
async def completions(body: ChatCompletionRequest, request: Request) -> Response:
    """The next turn of a conversation that the client keeps. Other models than this one's are answered with 404."""
    service = service_of(request)
    _check_model(service, body.model)
    said = [Said(one.role, plain(one.plain)) for one in body.messages if one.role in {"user", "assistant"}]
    if not said or said[-1].role != "user" or not said[-1].text.strip():
        raise ProblemError(422, "Unprocessable Content", "The last message has to be the user's, and has to hold text.")
    if any(len(one.text) > _MAX_TEXT for one in said if one.role == "user"):
        raise ProblemError(422, "Unprocessable Content", f"A message may have {_MAX_TEXT:,} characters.")
    service.dialogue.recommender.catalog.indices(body.genrec.history)  # an unknown id is an error, not a new user
    state = ChatState(history=tuple(body.genrec.history))
    turn = await service.run(request, Turn(state, said[-1].text, said[:-1]))
    service.monitor.turns.labels(turn.act).inc()
    head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": service.name}
    if body.stream:
        return StreamingResponse(_chunks(service, turn, head), media_type="text/event-stream")
    message = {"role": "assistant", "content": markdown(turn.segments)}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    answer = {**head, "object": "chat.completion", "choices": [choice], "genrec": _extra(service, turn)}
    return JSONResponse(answer)


async def _chunks(service: Service, turn: ChatTurn, head: dict[str, Any]) -> AsyncIterator[str]:
    def chunk(delta: dict[str, str], finish: str | None = None, **extra: Any) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return f"data: {json.dumps({**head, 'object': 'chat.completion.chunk', 'choices': [choice], **extra})}\n\n"

    yield chunk({"role": "assistant", "content": ""})
    for word in re.findall(r"\S*\s*", markdown(turn.segments)):
        if word:
            yield chunk({"content": word})
    yield chunk({}, "stop", genrec=_extra(service, turn))
    yield "data: [DONE]\n\n"


def _extra(service: Service, turn: ChatTurn) -> dict[str, Any]:
    view = turn_view(service.dialogue, turn)
    return view.model_dump(include={"act", "items", "trace", "catalog_version"})


def _model(service: Service) -> ModelInfo:
    return ModelInfo(id=service.name, created=service.started)


def _check_model(service: Service, name: str) -> None:
    if name not in {service.name, "genrec"}:
        raise ProblemError(404, "Not Found", f"There is no such model here; the name of this one is {service.name!r}.")
