"""Steps that bring a database to the tables of `genrec.server.tables`; alembic runs them when a service starts."""
