"""What is there before the model: the page and the probes are answered with nothing heavy imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.server.conftest import ROOT

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


def test_a_database_that_cannot_be_used_ends_the_process_with_what_to_do(tiny_run: Path):
    command = [sys.executable, "-m", "genrec", "serve", str(tiny_run), "--port", "0", "--database", "nonsense"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=120)
    assert done.returncode == 2
    assert "the database cannot be used" in done.stderr
    assert "Traceback" not in done.stderr
