"""Conversation: a message and a state in, an act, items and words out; no I/O. Start reading at `turn`."""

from __future__ import annotations

from genrec.chat.state import ChatState
from genrec.chat.turn import ChatTurn, Dialogue

__all__ = ["ChatState", "ChatTurn", "Dialogue"]
