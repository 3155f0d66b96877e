"""The database, on SQLite and on a real PostgreSQL: what was returned is stored, two writers are noticed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from genrec.chat import ChatState
from genrec.errors import ConfigError
from genrec.server.records import ConflictError
from genrec.server.store import Store
from genrec.server.tables import METADATA
from tests.server.conftest import ROOT


def postgres_folder() -> Path | None:
    """The newest PostgreSQL of Debian's packages, which keep their programs off PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL that is started for the tests and listens on a socket file only."""
    programs = postgres_folder()
    if programs is None:
        pytest.skip("no PostgreSQL is installed (Debian: apt-get install postgresql)")
    as_user: list[str] = []
    # Not pytest's folder: that is closed to other users, and PostgreSQL refuses to run as root.
    with TemporaryDirectory(prefix="genrec-postgres-", ignore_cleanup_errors=True) as name:
        if os.geteuid() == 0:  # the package has made the user `postgres`
            as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
            shutil.chown(name, "postgres", "postgres")
        yield from running(programs, Path(name), as_user)


def running(programs: Path, folder: Path, as_user: list[str]) -> Iterator[str]:
    data = folder / "data"

    def call(program: str, *arguments: str) -> None:
        done = subprocess.run(
            [*as_user, str(programs / program), *arguments], capture_output=True, text=True, cwd=folder, check=False
        )
        assert done.returncode == 0, done.stderr + done.stdout

    call("initdb", "-D", str(data), "-U", "postgres", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C")
    options = f"-c listen_addresses='' -c unix_socket_directories='{folder}' -c fsync=off"
    call("pg_ctl", "-D", str(data), "-w", "-t", "60", "-l", str(folder / "log"), "-o", options, "start")
    yield f"postgresql://postgres@/postgres?host={folder}"
    call("pg_ctl", "-D", str(data), "-m", "immediate", "stop")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'folder' / 'c.sqlite'}"
    return str(request.getfixturevalue("postgres"))


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    opened = Store.open(url)
    yield opened
    for user in ("ada", "alan"):
        opened.delete_user(user)
    opened.close()


def test_what_was_stored_is_there_when_the_database_is_opened_again(store: Store, url: str):
    state = ChatState(liked=("a", "ä", "\U0001f47d"), turns=3)
    conversation = store.create("ada", state)
    store.accept(conversation.id, "m-1", "one")
    store.accept(conversation.id, "m-2", "<b>two</b> \U0001f3ac")
    store.answer(conversation, "m-1", reply='{"text": "yes"}', state=state.judge(["a"], "disliked"))
    again = Store.open(url)
    read = again.read(conversation.id)
    assert read is not None
    assert [(one.client_id, one.text, one.reply) for one in read.messages] == [
        ("m-1", "one", '{"text": "yes"}'),
        ("m-2", "<b>two</b> \U0001f3ac", None),
    ]
    assert (read.user_id, read.version, read.state.disliked) == ("ada", 1, ("a",))
    again.close()


def test_a_message_is_stored_once_however_often_it_is_sent(store: Store):
    conversation = store.create("ada", ChatState())
    first = store.accept(conversation.id, "m-1", "one")
    assert store.accept(conversation.id, "m-1", "another text") == first
    other = store.create("ada", ChatState())
    assert store.accept(other.id, "m-1", "elsewhere") is not None
    assert store.accept("0" * 32, "m-1", "nowhere") is None


def test_two_writers_at_once_are_noticed(store: Store):
    conversation = store.create("ada", ChatState())
    store.change(conversation, ChatState(turns=1))
    with pytest.raises(ConflictError):
        store.change(conversation, ChatState(turns=2))
    read = store.read(conversation.id)
    assert read is not None
    assert read.state.turns == 1


def test_deleting_a_user_deletes_all_of_theirs_and_nothing_else(store: Store):
    before = store.counts()
    mine, other = store.create("ada", ChatState()), store.create("alan", ChatState())
    for conversation in (mine, other):
        store.accept(conversation.id, "m-1", "one")
        store.change(conversation, ChatState(), {"item_id": "i", "kind": "liked", "catalog_version": "v"})
    assert store.delete_user("ada") == 1
    assert {name: count - before[name] for name, count in store.counts().items()} == dict.fromkeys(before, 1)
    assert store.read(mine.id) is None
    assert store.read(other.id) is not None


OPEN = """
import sys
from genrec.server.store import Store
print("imported", flush=True)
sys.stdin.readline()
Store.open(sys.argv[1]).close()
"""


def test_processes_that_start_at_once_make_the_tables_once(tmp_path: Path):
    command = [sys.executable, "-c", OPEN, f"sqlite:///{tmp_path / 'c.sqlite'}"]
    started = [
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
        )
        for _ in range(3)
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "imported\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    ended = [process.communicate(timeout=60) for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], ended


def test_migrations_lead_to_the_tables_of_the_code(store: Store, url: str):
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, METADATA) == []
        assert context.get_current_revision() == "0001"
    engine.dispose()


@pytest.mark.parametrize(
    "wrong",
    [
        "nonsense",
        "postgresql://nobody@127.0.0.1:1/x",
        "postgresql://user:password@host:no-port/x",
        "sqlite:////proc/nothing/x.db",
        "sqlite:////tmp/x.sqlite?timeout=long",
        "sqlite://",
        "oracle://x",
    ],
)
def test_a_database_that_cannot_be_used_is_said_in_one_line(wrong: str):
    with pytest.raises(ConfigError, match="the database cannot be used"):
        Store.open(wrong)


def test_a_database_of_a_newer_release_is_refused_and_left_as_it_is(tmp_path: Path):
    url = f"sqlite:///{tmp_path / 'c.sqlite'}"
    Store.open(url).close()
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(ConfigError, match=r"the database cannot be used: .*'9999'"):
        Store.open(url)
    with engine.connect() as connection:
        assert MigrationContext.configure(connection).get_current_revision() == "9999"
    engine.dispose()
