"""A service over the tiny run: its real model, worker and database, in this process or in one of its own."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
import pytest
import uvicorn
from fastapi.testclient import TestClient

from genrec.data.catalog import Catalog
from genrec.decoding.scripted import Script, ScriptedEngine
from genrec.prompting import HistoryPrompt
from genrec.recommender import Recommender
from genrec.server.app import create_app
from genrec.server.process import listen
from genrec.server.settings import ServeConfig
from genrec.trie import ItemTrie

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def tiny_recommender(tiny_run: Path) -> Recommender:
    return Recommender.load(tiny_run)


def scripted_recommender(item_ids: Sequence[str], script: Script, **columns: Sequence[object]) -> Recommender:
    """A recommender over up to nine items whose model is a function; all items are comedies."""
    number = len(item_ids)
    titles, genres = [f"Film {n}" for n in range(number)], [["Comedy"]] * number
    codes = np.array([[n // 3, n % 3] for n in range(number)])
    return Recommender(
        Catalog(pl.DataFrame({"item_id": item_ids, "title": titles, "genres": genres, **columns})),
        ItemTrie.build(codes, (3, 3)),
        engine=ScriptedEngine(script),
        prompt=HistoryPrompt((1,)),
        item_tokens=codes + np.array([10, 13]),
        max_history_items=5,
    )


@contextmanager
def serving(run: Path, load: Callable[[], Recommender], **settings: object) -> Iterator[TestClient]:
    """A client of an application in this process, once the model is loaded."""
    with TemporaryDirectory() as folder:
        settings.setdefault("database", f"sqlite:///{folder}/c.sqlite")
        app = create_app(run, ServeConfig(**settings), load=load)
        with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as client:
            assert app.state.service.worker.loaded.wait(60)
            yield client


@pytest.fixture(scope="module")
def client(tiny_run: Path, tiny_recommender: Recommender) -> Iterator[TestClient]:
    with serving(tiny_run, lambda: tiny_recommender) as opened:
        yield opened


class Listening:
    """The application behind a real socket, in a thread of this process: what takes seconds is loaded already."""

    def __init__(
        self, run: Path, load: Callable[[], Recommender], port: int = 0, *, wait: bool = True, **settings: object
    ) -> None:
        self.app = create_app(run, ServeConfig(**settings), load=load)
        self._socket = listen("127.0.0.1", port)
        self.port = int(self._socket.getsockname()[1])
        self.address = f"http://127.0.0.1:{self.port}"
        config = uvicorn.Config(self.app, log_level="warning", access_log=False, timeout_graceful_shutdown=2)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True)
        self._thread.start()
        assert not wait or self.app.state.service.worker.loaded.wait(60)

    def end(self) -> None:
        self._server.should_exit = True
        self._thread.join(30)
        assert not self._thread.is_alive()


class Process:
    """`genrec serve` in a process of its own; `address` is where it listens."""

    def __init__(self, run: Path, *options: str) -> None:
        command = [sys.executable, "-m", "genrec", "serve", str(run), *options]
        self.popen = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
        assert self.popen.stdout is not None
        line = self.popen.stdout.readline()
        found = re.match(r"(http://\S+)", line)
        assert found, line + str(self.popen.stderr and self.popen.stderr.read())
        self.address = found[1]

    def wait_until_ready(self, seconds: float = 120) -> None:
        import httpx

        pause = threading.Event()
        for _ in range(int(seconds / 0.1)):
            if httpx.get(f"{self.address}/ready", timeout=30).status_code == 200:
                return
            pause.wait(0.1)
        raise AssertionError("the service did not become ready")

    def end(self, sign: signal.Signals = signal.SIGTERM, seconds: float = 60) -> int:
        if self.popen.poll() is None:
            self.popen.send_signal(sign)
        return self.popen.wait(seconds)


@pytest.fixture
def serve() -> Iterator[Callable[..., Process]]:
    """`serve(run, "--port", "0")` starts a process, which is ended with the test."""
    started: list[Process] = []

    def start(run: Path, *options: str) -> Process:
        started.append(Process(run, *options))
        return started[-1]

    yield start
    for process in started:
        process.end(signal.SIGKILL)
