"""Conversation: a message and a state in, an act, items and words out; no I/O. Start reading at `turn`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from genrec.chat.state import ChatState

if TYPE_CHECKING:
    from genrec.chat.turn import ChatTurn, Dialogue

__all__ = ["ChatState", "ChatTurn", "Dialogue"]


def __getattr__(name: str) -> Any:
    # Lazy: whoever reads or keeps a state must not wait for the model's libraries.
    if name in {"ChatTurn", "Dialogue"}:
        from genrec.chat import turn

        return getattr(turn, name)
    raise AttributeError(f"module 'genrec.chat' has no attribute {name!r}")
