"""Conversations and feedback in a database: SQLite by default, PostgreSQL through a URL.

What a method has returned from is on disk: SQLite writes through (`synchronous=FULL`), PostgreSQL does by itself.
A message is stored before it is answered, so that a process may be killed at any time without losing it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, create_engine, delete, event, func, insert, select, text, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, SQLAlchemyError

from genrec.chat.state import ChatState
from genrec.errors import ConfigError
from genrec.server.records import ConflictError, StoredConversation, StoredMessage
from genrec.server.tables import CONVERSATIONS, FEEDBACK, MESSAGES

_MIGRATION_LOCK = 7_302_951_417  # one number that all processes of this service agree on


def now_utc() -> str:
    """The time now, as the tables keep it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class Store:
    """A database that has been brought to the newest migration. Every method is one transaction."""

    def __init__(self, engine: Engine, *, clock: Callable[[], str] = now_utc) -> None:
        self._engine, self._clock = engine, clock

    @classmethod
    def open(cls, url: str, *, clock: Callable[[], str] = now_utc) -> Store:
        """Connect and migrate. Raises ConfigError where the URL is wrong or the database cannot be used."""
        try:
            parsed = make_url(url)
            if parsed.get_backend_name() == "postgresql" and "+" not in parsed.drivername:
                parsed = parsed.set(drivername="postgresql+psycopg")
            if parsed.get_backend_name() == "sqlite":
                if parsed.database in {None, "", ":memory:"}:
                    raise ArgumentError("SQLite in memory keeps nothing")
                Path(str(parsed.database)).parent.mkdir(parents=True, exist_ok=True)
            engine = create_engine(parsed, pool_pre_ping=True)
            if parsed.get_backend_name() == "sqlite":
                event.listen(engine, "connect", _prepare_sqlite)
            with engine.begin() as connection:
                _migrate(connection)
        # ValueError: a port or an option that is no number. CommandError: a newer release has migrated it.
        except (SQLAlchemyError, CommandError, OSError, ImportError, ValueError) as error:
            shown = str(error).splitlines()[0]
            raise ConfigError(
                f"the database cannot be used: {shown}.",
                "Give --database sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME.",
            ) from error
        return cls(engine, clock=clock)

    def create(self, user_id: str | None, state: ChatState) -> StoredConversation:
        """A new conversation. Its id cannot be guessed."""
        conversation = StoredConversation(secrets.token_hex(16), user_id, 0, state)
        now = self._clock()
        with self._engine.begin() as connection:
            connection.execute(
                insert(CONVERSATIONS).values(
                    id=conversation.id,
                    user_id=user_id,
                    created_at=now,
                    updated_at=now,
                    version=0,
                    state=state.model_dump_json(),
                )
            )
        return conversation

    def read(self, conversation_id: str) -> StoredConversation | None:
        """A conversation with all its messages, or None."""
        with self._engine.connect() as connection:
            row = connection.execute(select(CONVERSATIONS).where(CONVERSATIONS.c.id == conversation_id)).first()
            if row is None:
                return None
            found = connection.execute(
                select(MESSAGES).where(MESSAGES.c.conversation_id == conversation_id).order_by(MESSAGES.c.id)
            ).all()
        messages = tuple(StoredMessage(one.client_id, one.text, one.reply, one.created_at) for one in found)
        return StoredConversation(row.id, row.user_id, row.version, ChatState.model_validate_json(row.state), messages)

    def accept(self, conversation_id: str, client_id: str, message: str) -> StoredMessage | None:
        """Keep a message before it is answered. The same `client_id` again gives what is stored; None: no such
        conversation."""
        try:
            with self._engine.begin() as connection:
                known = select(CONVERSATIONS.c.id).where(CONVERSATIONS.c.id == conversation_id)
                if connection.execute(known).first() is None:
                    return None
                now = self._clock()
                values = {"conversation_id": conversation_id, "client_id": client_id, "created_at": now}
                connection.execute(insert(MESSAGES).values(**values, text=message))
                return StoredMessage(client_id, message, None, now)
        except IntegrityError:
            pass
        with self._engine.connect() as connection:
            row = connection.execute(
                select(MESSAGES).where(MESSAGES.c.conversation_id == conversation_id, MESSAGES.c.client_id == client_id)
            ).first()
        return None if row is None else StoredMessage(row.client_id, row.text, row.reply, row.created_at)

    def answer(self, before: StoredConversation, client_id: str, *, reply: str, state: ChatState) -> None:
        """Keep the reply to a message and the state after it. Raises ConflictError where another turn came first."""
        with self._engine.begin() as connection:
            self._advance(connection, before, state)
            connection.execute(
                update(MESSAGES)
                .where(MESSAGES.c.conversation_id == before.id, MESSAGES.c.client_id == client_id)
                .values(reply=reply)
            )

    def change(self, before: StoredConversation, state: ChatState, feedback: dict[str, Any] | None = None) -> None:
        """Keep a state that changed without a message, and the feedback that changed it. Raises ConflictError."""
        with self._engine.begin() as connection:
            self._advance(connection, before, state)
            if feedback is not None:
                told = {"conversation_id": before.id, "user_id": before.user_id, "created_at": self._clock()}
                connection.execute(insert(FEEDBACK).values(**told, **feedback))

    def delete_user(self, user_id: str) -> int:
        """Delete everything of a user; how many conversations that were."""
        with self._engine.begin() as connection:
            mine = select(CONVERSATIONS.c.id).where(CONVERSATIONS.c.user_id == user_id)
            connection.execute(delete(FEEDBACK).where(FEEDBACK.c.conversation_id.in_(mine)))
            connection.execute(delete(MESSAGES).where(MESSAGES.c.conversation_id.in_(mine)))
            done = connection.execute(delete(CONVERSATIONS).where(CONVERSATIONS.c.user_id == user_id))
            return int(done.rowcount)

    def counts(self) -> dict[str, int]:
        """Rows per table."""
        with self._engine.connect() as connection:
            return {
                table.name: int(connection.execute(select(func.count()).select_from(table)).scalar_one())
                for table in (CONVERSATIONS, MESSAGES, FEEDBACK)
            }

    def close(self) -> None:
        """Give back all connections."""
        self._engine.dispose()

    def _advance(self, connection: Connection, before: StoredConversation, state: ChatState) -> None:
        done = connection.execute(
            update(CONVERSATIONS)
            .where(CONVERSATIONS.c.id == before.id, CONVERSATIONS.c.version == before.version)
            .values(version=before.version + 1, state=state.model_dump_json(), updated_at=self._clock())
        )
        if done.rowcount != 1:
            raise ConflictError(before.id)


def _prepare_sqlite(connection: Any, _: Any) -> None:
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=10000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _migrate(connection: Connection) -> None:
    # Two processes that start at once take turns.
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
    elif connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    config = AlembicConfig()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
