"""`genrec serve` as a process: a kill loses nothing that was acknowledged, SIGTERM finishes what was accepted."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from genrec.server.store import Store
from tests.server.conftest import Process


def test_a_kill_under_load_loses_no_acknowledged_message_and_sigterm_finishes_what_was_accepted(
    serve: Callable[..., Process], tiny_run: Path, tmp_path: Path
):
    database = f"sqlite:///{tmp_path / 'c.sqlite'}"
    started = time.monotonic()
    process = serve(tiny_run, "--port", "0", "--database", database)
    assert httpx.get(process.address, timeout=30).status_code == 200  # the page is there before the model
    process.wait_until_ready()
    acknowledged: list[tuple[str, str]] = []
    stop, enough = threading.Event(), threading.Event()

    def talk(number: int) -> None:
        with httpx.Client(base_url=process.address, timeout=30) as client:
            conversation = client.post("/v1/conversations", json={"user_id": f"u{number}"}).json()["id"]
            for turn in range(1000):
                if stop.is_set():
                    return
                body = {"text": "a western", "client_id": f"m-{number:02}-{turn:05}"}
                path, accept = f"/v1/conversations/{conversation}/messages", {"accept": "text/event-stream"}
                try:
                    with client.stream("POST", path, json=body, headers=accept) as answer:
                        for line in answer.iter_lines():
                            if line == "event: accepted":
                                acknowledged.append((conversation, body["client_id"]))
                                if len(acknowledged) > 60:
                                    enough.set()
                except httpx.HTTPError:
                    return

    threads = [threading.Thread(target=talk, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    assert enough.wait(120)
    process.end(signal.SIGKILL)
    stop.set()
    for thread in threads:
        thread.join(30)
    store = Store.open(database)
    kept = {
        (conversation, message.client_id)
        for conversation in {conversation for conversation, _ in acknowledged}
        for message in store.read(conversation).messages
    }
    store.close()
    assert set(acknowledged) <= kept

    again = serve(tiny_run, "--port", "0", "--database", database)
    again.wait_until_ready()
    answers: list[int] = []

    def ask() -> None:
        body = {"history": ["i1", "i2"], "k": 10}
        answers.append(httpx.post(f"{again.address}/v1/recommendations", json=body, timeout=60).status_code)

    accepted = [threading.Thread(target=ask) for _ in range(24)]
    for thread in accepted:
        thread.start()
    pause = threading.Event()
    until = time.monotonic() + 120
    while _asked(again.address) < len(accepted):
        assert time.monotonic() < until, answers
        pause.wait(0.02)
    assert again.end(signal.SIGTERM) in {0, -signal.SIGTERM}
    for thread in accepted:
        thread.join(60)
    assert answers == [200] * len(accepted)
    assert time.monotonic() - started < 600


def _asked(address: str) -> float:
    """How many requests have reached the service: those that are open, without this one, and those answered."""
    lines = [line.split() for line in httpx.get(f"{address}/metrics", timeout=30).text.splitlines()]
    figures = {words[0]: float(words[1]) for words in lines if len(words) == 2 and not words[0].startswith("#")}
    return figures["genrec_open_requests"] - 1 + figures.get(_DONE, 0)


_DONE = 'genrec_requests_total{route="/v1/recommendations",status="200"}'


def test_what_the_openapi_document_promises_has_examples(tiny_run: Path):
    from genrec.server.app import create_app
    from genrec.server.settings import ServeConfig

    document = create_app(tiny_run, ServeConfig(database=f"sqlite:///{tiny_run.parent / 'x.sqlite'}")).openapi()
    text = json.dumps(document)
    bodies = [
        route["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[-1]
        for route in document["paths"].values()
        if "post" in route
    ]
    assert len(bodies) >= 7
    assert all("examples" in document["components"]["schemas"][name] for name in bodies)
    assert "/v1/chat/completions" in text
