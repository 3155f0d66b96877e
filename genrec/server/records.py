"""What the database gives back: plain values, there before the database is."""

from __future__ import annotations

from dataclasses import dataclass

from genrec.chat.state import ChatState


@dataclass(frozen=True)
class StoredMessage:
    """What a user said, and the turn that answered it, as JSON; None while it is unanswered."""

    client_id: str
    text: str
    reply: str | None
    created_at: str


@dataclass(frozen=True)
class StoredConversation:
    """A conversation as it was when it was read."""

    id: str
    user_id: str | None
    version: int
    state: ChatState
    messages: tuple[StoredMessage, ...] = ()


class ConflictError(Exception):
    """Somebody else changed the conversation in between."""
