"""How alembic runs the steps: on the connection that the service opened, inside its transaction."""

from __future__ import annotations

from alembic import context

from genrec.server.tables import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
with context.begin_transaction():
    context.run_migrations()
