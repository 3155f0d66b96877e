"""What is there before the model: the page at once, and then the probes, with nothing heavy imported."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient

from genrec.server.opening import answering
from genrec.server.process import listen
from tests.server.conftest import ROOT

Genrec = Callable[..., "tuple[int, str, str]"]
HEAVY = ("torch", "transformers", "numpy", "scipy", "polars", "sqlalchemy", "alembic", "rapidfuzz", "jinja2")
# The application as `genrec serve` makes it, before its worker has begun: the client starts no lifespan.
ASK = """
import json, pathlib, sys
from fastapi.testclient import TestClient
import genrec.cli
from genrec.server.app import create_app
from genrec.server.process import serve_run
from genrec.server.settings import ServeConfig

client = TestClient(create_app(pathlib.Path(sys.argv[1]), ServeConfig()), base_url="http://localhost")
hello = {"role": "user", "content": "hello"}
asked = {
    "page": client.get("/"), "script": client.get("/page/chat.js"), "health": client.get("/health"),
    "info": client.get("/v1/page"), "metrics": client.get("/metrics"), "ready": client.get("/ready"),
    "recommendations": client.post("/v1/recommendations", json={"history": ["i1"]}),
    "chat": client.post("/v1/chat/completions", json={"model": "genrec", "messages": [hello]}),
    "begin": client.post("/v1/conversations", json={}),
    "message": client.post(f"/v1/conversations/{'0' * 32}/messages", json={"text": "hello", "client_id": "m-0000001"}),
    "filters": client.post(f"/v1/conversations/{'0' * 32}/filters", json={"remove": "no Comedy"}),
    "read": client.get(f"/v1/conversations/{'0' * 32}"),
    "forget": client.delete("/v1/users/ada"),
}
answers = {name: [answer.status_code, answer.headers.get("retry-after")] for name, answer in asked.items()}
print(json.dumps({"answers": answers, "imported": sorted(sys.modules)}))
"""


def test_the_page_and_the_probes_answer_before_anything_heavy_is_imported_and_the_rest_says_when_to_come_again(
    tiny_run: Path,
):
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(tiny_run)], capture_output=True, text=True, check=True, cwd=ROOT
    )
    said = json.loads(done.stdout)
    assert [name for name in HEAVY if name in said["imported"]] == []
    there = {name for name, (status, _) in said["answers"].items() if status == 200}
    assert there == {"page", "script", "health", "info", "metrics"}
    later = {name: answer for name, answer in said["answers"].items() if name not in there}
    assert len(later) == 8
    assert all(answer == [503, "1"] for answer in later.values()), later


# What `genrec serve` has imported when it says its address: `say` is called inside it, and asks for the page.
FIRST = """
import http.client, json, pathlib, sys
import genrec.cli
from genrec.server.process import serve_run
from genrec.server.settings import ServeConfig

def say(line):
    host, port = line.split()[0].removeprefix("http://").split(":")
    found = {}
    for path in ("/", "/page/chat.js", "/health", "/v1/page"):
        connection = http.client.HTTPConnection(host, int(port), timeout=20)
        connection.request("GET", path)
        found[path] = connection.getresponse().status
    print(json.dumps({"found": found, "imported": sorted(sys.modules)}))
    sys.exit()

serve_run(pathlib.Path(sys.argv[1]), ServeConfig(port=0), say=say)
"""


def test_the_page_is_there_before_even_the_web_framework_is_imported(tiny_run: Path):
    done = subprocess.run(
        [sys.executable, "-c", FIRST, str(tiny_run)], capture_output=True, text=True, check=True, cwd=ROOT
    )
    said = json.loads(done.stdout)
    assert said["found"] == {"/": 200, "/page/chat.js": 200, "/health": 200, "/v1/page": 503}
    late = (*HEAVY, "fastapi", "starlette", "uvicorn", "prometheus_client", "genrec.server.app", "genrec.chat.turn")
    assert [name for name in late if name in said["imported"]] == []


@pytest.fixture
def opening() -> Iterator[tuple[str, int, socket.socket]]:
    listening = listen("127.0.0.1", 0)
    with answering(listening, ("localhost", "127.0.0.1")):
        yield "127.0.0.1", listening.getsockname()[1], listening
    listening.close()


def asked(address: tuple[str, int, socket.socket], method: str, path: str, **headers: str) -> httpx.Response:
    return httpx.request(method, f"http://{address[0]}:{address[1]}{path}", headers=headers, timeout=20)


def test_the_first_answers_are_those_of_the_application(opening: tuple[str, int, socket.socket], client: TestClient):
    for path in ("/", "/page/chat.js", "/page/chat.css", "/page/icon.svg", "/health"):
        first, later = asked(opening, "GET", path), client.get(path)
        assert (first.status_code, first.content) == (later.status_code, later.content)
        assert first.headers["content-type"].split(";")[0] == later.headers["content-type"].split(";")[0]
        for name in ("content-security-policy", "x-content-type-options", "referrer-policy"):
            assert first.headers[name] == later.headers[name]
    wrong, later = asked(opening, "GET", "/", host="evil.example"), client.get("/", headers={"host": "evil.example"})
    assert (wrong.status_code, wrong.json()) == (later.status_code, later.json()) == (421, later.json())
    assert asked(opening, "HEAD", "/").content == b""


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/page"),
        ("POST", "/v1/conversations"),
        ("GET", "/page/../settings.py"),
        ("GET", "/page/%2e%2e/app.py"),
        ("GET", "//etc/passwd"),
        ("OPTIONS", "/"),
        ("DELETE", "/v1/users/ada"),
    ],
)
def test_everything_else_is_told_to_come_again(opening: tuple[str, int, socket.socket], method: str, path: str):
    answer = asked(opening, method, path)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"] == "The service is starting."


def test_the_socket_outlives_the_opening_and_a_silent_client_does_not_hold_it_up():
    listening = listen("127.0.0.1", 0)
    address = listening.getsockname()
    with answering(listening, ()):
        silent = socket.create_connection(address, timeout=20)
        assert (
            httpx.get(f"http://127.0.0.1:{address[1]}/health", timeout=20).status_code == 200
        )  # behind the silent one
    listening.settimeout(20)
    with socket.create_connection(address, timeout=20) as late:
        late.sendall(b"hello")
        accepted, _ = listening.accept()
        assert accepted.recv(5) == b"hello"
        accepted.close()
    silent.close()
    listening.close()


def test_a_database_that_cannot_be_used_ends_the_process_with_what_to_do(tiny_run: Path):
    command = [sys.executable, "-m", "genrec", "serve", str(tiny_run), "--port", "0", "--database", "nonsense"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=120)
    assert done.returncode == 2
    assert "the database cannot be used" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_that_is_not_trained_is_refused_before_anything_listens(genrec: Genrec, tiny_copy: Path):
    manifest = json.loads((tiny_copy / "manifest.json").read_text())
    del manifest["stages"]["train"]
    (tiny_copy / "manifest.json").write_text(json.dumps(manifest))
    status, out, err = genrec("serve", tiny_copy, "--port", "0")
    assert (status, out) == (1, "")
    assert "has no stage 'train' yet" in err


def test_a_run_that_cannot_be_loaded_ends_the_process_with_what_is_wrong(tiny_copy: Path):
    (tiny_copy / "model" / "model.safetensors").write_bytes(b"damaged")
    command = [sys.executable, "-m", "genrec", "serve", str(tiny_copy), "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=240)
    assert done.returncode == 1
    assert "model.safetensors is not what stage 'train' wrote" in done.stderr
    assert "Run `genrec train" in done.stderr
    assert "Traceback" not in done.stderr
