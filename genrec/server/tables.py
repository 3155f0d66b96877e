"""The tables of a service's database. `migrations/` brings a database here; a test compares the two."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, Index, Integer, MetaData, String, Table, Text, UniqueConstraint

METADATA = MetaData()

CONVERSATIONS = Table(
    "conversations",
    METADATA,
    Column("id", String(32), primary_key=True),
    Column("user_id", String(200), nullable=True),
    Column("created_at", String(40), nullable=False),  # ISO 8601, UTC
    Column("updated_at", String(40), nullable=False),
    Column("version", Integer, nullable=False),  # grows with every change: two writers at once are noticed
    Column("state", Text, nullable=False),  # ChatState as JSON
    Index("ix_conversations_user_id", "user_id"),
)
MESSAGES = Table(
    "messages",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("conversation_id", String(32), ForeignKey("conversations.id", ondelete="CASCADE"), nullable=False),
    Column("client_id", String(64), nullable=False),  # the sender's name for the message: sending it again is safe
    Column("created_at", String(40), nullable=False),
    Column("text", Text, nullable=False),
    Column("reply", Text, nullable=True),  # the turn as JSON; null while nobody has answered yet
    UniqueConstraint("conversation_id", "client_id", name="uq_messages_client_id"),
)
FEEDBACK = Table(
    "feedback",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("conversation_id", String(32), ForeignKey("conversations.id", ondelete="CASCADE"), nullable=False),
    Column("user_id", String(200), nullable=True),
    Column("item_id", Text, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("created_at", String(40), nullable=False),
    Column("catalog_version", String(80), nullable=False),
    Index("ix_feedback_conversation_id", "conversation_id"),
    Index("ix_feedback_user_id", "user_id"),
)
