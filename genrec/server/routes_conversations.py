"""`/v1/conversations`: conversations that the service keeps, for the chat page and for whoever builds another one.

A message is stored, acknowledged, answered, stored again with its reply and sent, in this order. The same
`client_id` again is the same message: what was answered comes again, what was not is answered now.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from genrec.chat import ChatState
from genrec.server.handlers import as_problem
from genrec.server.problems import ProblemError, not_found
from genrec.server.records import ConflictError, StoredConversation
from genrec.server.schemas import (
    ConversationView,
    DeletedUser,
    FilterChange,
    MessageView,
    NewConversation,
    NewFeedback,
    NewMessage,
    StateView,
    TurnAnswer,
    TurnView,
)
from genrec.server.service import ClientGoneError, Service, row_of, service_of, stored
from genrec.server.views import state_view, turn_view
from genrec.server.work import Turn

router = APIRouter(prefix="/v1", tags=["conversations"])
ConversationId = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]
UserPath = Annotated[str, Path(pattern=r"^[^\x00]{1,200}$")]


@router.post("/conversations", status_code=201)
async def begin(body: NewConversation, request: Request) -> ConversationView:
    """A new conversation, with what the user had used before."""
    service = service_of(request)
    service.dialogue.recommender.catalog.indices(body.history)
    state = ChatState(history=tuple(body.history))
    return _view(service, await stored(service.store.create, body.user_id, state))


@router.get("/conversations/{conversation_id}")
async def conversation(conversation_id: ConversationId, request: Request) -> ConversationView:
    """A conversation with all its messages."""
    service = service_of(request)
    return _view(service, await _read(service, conversation_id))


@router.post("/conversations/{conversation_id}/messages", response_model=TurnAnswer)
async def say(conversation_id: ConversationId, body: NewMessage, request: Request) -> Response:
    """Say something. As JSON the answer is the whole turn; with `Accept: text/event-stream` it is streamed as the
    events `accepted`, `words` (many), `turn`, or `problem`."""
    service = service_of(request)
    if service.worker.waiting >= service.worker.queue_size:
        raise service.worker.busy()
    dialogue = service.dialogue  # 503 while loading, before anything is stored
    if body.about is not None:
        row_of(dialogue, body.about)  # "it" is never another item than the one that was meant
    if await stored(service.store.accept, conversation_id, body.client_id, body.text) is None:
        raise not_found("This conversation")
    if "text/event-stream" in request.headers.get("accept", ""):
        return StreamingResponse(_events(service, request, conversation_id, body), media_type="text/event-stream")
    return JSONResponse((await _answer(service, request, conversation_id, body)).model_dump())


@router.post("/conversations/{conversation_id}/feedback")
async def feedback(conversation_id: ConversationId, body: NewFeedback, request: Request) -> StateView:
    """An opinion about an item, which the next turn heeds."""
    service = service_of(request)
    dialogue = service.dialogue
    row_of(dialogue, body.item_id)
    told = {**body.model_dump(), "catalog_version": dialogue.recommender.trie.version}
    async with service.alone(conversation_id):
        before = await _read(service, conversation_id)
        state = before.state.judge([body.item_id], body.kind)
        await _changed(service, before, state, told)
    return state_view(dialogue, state)


@router.post("/conversations/{conversation_id}/filters")
async def filters(conversation_id: ConversationId, body: FilterChange, request: Request) -> StateView:
    """Take a filter back, by its label."""
    service = service_of(request)
    dialogue = service.dialogue
    from genrec.chat.filters import without_constraint  # loaded with the dialogue

    async with service.alone(conversation_id):
        before = await _read(service, conversation_id)
        constraints = without_constraint(before.state.constraints, body.remove)
        state = before.state.model_copy(update={"constraints": constraints})
        await _changed(service, before, state, None)
    return state_view(dialogue, state)


@router.delete("/users/{user_id:id}")
async def forget(user_id: UserPath, request: Request) -> DeletedUser:
    """Delete everything that is kept of a user."""
    service = service_of(request)
    return DeletedUser(user_id=user_id, conversations=await stored(service.store.delete_user, user_id))


async def _answer(service: Service, request: Request, conversation_id: str, body: NewMessage) -> TurnAnswer:
    """The reply to a stored message: the one that it has, or a new one, stored before it is returned."""
    async with service.alone(conversation_id):
        before = await _read(service, conversation_id)
        message = next(one for one in before.messages if one.client_id == body.client_id)
        if message.reply is not None:
            turn = TurnView.model_validate_json(message.reply)
            return TurnAnswer(turn=turn, state=state_view(service.dialogue, before.state))
        state = before.state if body.about is None else before.state.model_copy(update={"focus": body.about})
        done = await service.run(request, Turn(state, message.text))
        service.monitor.turns.labels(done.act).inc()
        turn = turn_view(service.dialogue, done)
        try:
            await stored(_keep, service, before, body.client_id, turn, done.state)
        except ConflictError:
            raise _conflict() from None
    return TurnAnswer(turn=turn, state=state_view(service.dialogue, done.state))


def _keep(service: Service, before: StoredConversation, client_id: str, turn: TurnView, state: ChatState) -> None:
    service.store.answer(before, client_id, reply=turn.model_dump_json(), state=state)


async def _events(service: Service, request: Request, conversation_id: str, body: NewMessage) -> AsyncIterator[str]:
    yield _event("accepted", {"client_id": body.client_id})
    try:
        answer = await _answer(service, request, conversation_id, body)
    except ClientGoneError:
        return
    except Exception as error:  # the headers are sent: what would have been the answer is an event
        yield _event("problem", json.loads(as_problem(request, error).body()))
        return
    for word in re.findall(r"\S*\s*", answer.turn.text):
        if word:
            yield _event("words", {"text": word})
    yield _event("turn", answer.model_dump())


def _event(name: str, data: dict[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


async def _read(service: Service, conversation_id: str) -> StoredConversation:
    found = await stored(service.store.read, conversation_id)
    if found is None:
        raise not_found("This conversation")
    return found


async def _changed(service: Service, before: StoredConversation, state: ChatState, told: dict[str, Any] | None) -> None:
    try:
        await stored(service.store.change, before, state, told)
    except ConflictError:
        raise _conflict() from None


def _conflict() -> ProblemError:
    return ProblemError(409, "Conflict", "The conversation was changed by another request. Read it again and repeat.")


def _view(service: Service, found: StoredConversation) -> ConversationView:
    messages = [
        MessageView(
            client_id=one.client_id,
            text=one.text,
            created_at=one.created_at,
            turn=None if one.reply is None else TurnView.model_validate_json(one.reply),
        )
        for one in found.messages
    ]
    return ConversationView(
        id=found.id, user_id=found.user_id, messages=messages, state=state_view(service.dialogue, found.state)
    )
