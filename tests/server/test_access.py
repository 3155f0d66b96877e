"""Who may ask, under which name, and how much; and that no error shows how the service is made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from genrec.errors import ConfigError
from genrec.recommender import Recommender
from genrec.server.settings import ServeConfig, check_settings, is_loopback, read_keys
from tests.server.conftest import serving

KEYS = ("first-key-first-key", "second-key-second-key")


@pytest.fixture(scope="module")
def locked(tiny_run: Path, tiny_recommender: Recommender) -> Iterator[TestClient]:
    with serving(tiny_run, lambda: tiny_recommender, api_keys=KEYS, host="0.0.0.0") as opened:
        yield opened


@pytest.mark.parametrize("key", KEYS)
def test_each_key_opens_the_service(locked: TestClient, key: str):
    assert locked.get("/v1/models", headers={"authorization": f"Bearer {key}"}).status_code == 200


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Bearer first-key", f"Basic {KEYS[0]}", f"Bearer {KEYS[0]}x"]
)
def test_anything_else_does_not(locked: TestClient, header: str | None):
    headers = {} if header is None else {"authorization": header}
    for method, path in (
        ("GET", "/v1/models"),
        ("POST", "/v1/recommendations"),
        ("GET", "/metrics"),
        ("GET", "/openapi.json"),
    ):
        answer = locked.request(method, path, headers=headers, json={} if method == "POST" else None)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.json()["title"] == "Unauthorized"


def test_the_page_and_the_probes_need_no_key(locked: TestClient):
    for path in ("/", "/page/chat.js", "/health", "/ready"):
        assert locked.get(path).status_code == 200


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("192.168.1.5", False),
        ("shop", False),
    ],
)
def test_without_a_key_a_service_stays_on_its_machine(host: str, local: bool):
    assert is_loopback(host) is local
    if local:
        check_settings(ServeConfig(host=host))
    else:
        with pytest.raises(ConfigError, match="no API key"):
            check_settings(ServeConfig(host=host))
        check_settings(ServeConfig(host=host, api_keys=KEYS))


def test_a_page_of_another_site_cannot_reach_a_service_on_this_machine(client: TestClient):
    for name in ("evil.example", "127.0.0.1.evil.example", ""):
        assert client.get("/v1/models", headers={"host": name}).status_code == 421
    for name in ("localhost", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST"):
        assert client.get("/v1/models", headers={"host": name}).status_code == 200
    for site, status in (("cross-site", 403), ("same-site", 200), ("same-origin", 200), ("none", 200)):
        assert client.get("/v1/models", headers={"sec-fetch-site": site}).status_code == status
    assert client.get("/", headers={"sec-fetch-site": "cross-site"}).status_code == 200  # a link to the page
    asked = client.options(
        "/v1/models", headers={"origin": "https://evil.example", "access-control-request-method": "GET"}
    )
    assert not [name for name in asked.headers if name.startswith("access-control")]


def test_a_body_beyond_the_limit_is_refused_whether_it_says_its_size_or_not(
    tiny_run: Path, tiny_recommender: Recommender
):
    with serving(tiny_run, lambda: tiny_recommender, max_body=2000) as small:
        body = b'{"history": [' + b'"i1",' * 600 + b'"i1"]}'
        headers = {"content-type": "application/json"}
        assert small.post("/v1/recommendations", content=body, headers=headers).status_code == 413
        parts = (body[start : start + 500] for start in range(0, len(body), 500))
        assert small.post("/v1/recommendations", content=parts, headers=headers).status_code == 413
        assert small.post("/v1/recommendations", json={"history": ["i1"]}).status_code == 200


def test_an_error_inside_is_a_problem_without_its_trace(client: TestClient, monkeypatch: pytest.MonkeyPatch):
    service = client.app.state.service
    monkeypatch.setattr(service, "people", 3)  # what the route makes of it raises
    answer = client.get("/v1/page")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"] == "Something went wrong here; it has been logged."
    assert "Traceback" not in answer.text


def test_a_key_file_is_read_and_its_faults_are_named(tmp_path: Path):
    file = tmp_path / "keys"
    file.write_text(f"# shop\n{KEYS[0]}\n\n{KEYS[1]}\n")
    assert read_keys(file) == KEYS
    file.write_bytes(b"\xef\xbb\xbf" + "\n".join(KEYS).encode())  # as editors on Windows save it
    assert read_keys(file) == KEYS
    for text, words in (("# none\n", "holds no key"), ("short\n", "fewer than 16")):
        file.write_text(text)
        with pytest.raises(ConfigError, match=words):
            read_keys(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_keys(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("option", "value", "field", "expected"),
    [
        ("--host", "127.0.0.2", "host", "127.0.0.2"),
        ("--port", "8123", "port", 8123),
        ("--allowed-host", "films.example", "allowed_hosts", ("films.example",)),
        ("--database", "sqlite:///x.sqlite", "database", "sqlite:///x.sqlite"),
        ("--threads", "1", "threads", 1),
        ("--beam-width", "30", "beam_width", 30),
        ("--remember-mb", "64", "remember_mb", 64),
        ("--weights", "bfloat16", "weights", "bfloat16"),
        ("--queue-size", "7", "queue_size", 7),
        ("--timeout", "3", "timeout", 3.0),
    ],
)
def test_an_option_of_the_command_reaches_the_service(
    tiny_run: Path,
    genrec: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    option: str,
    value: str,
    field: str,
    expected: object,
) -> None:
    served: list[ServeConfig] = []
    monkeypatch.setattr("genrec.server.process.serve_run", lambda run, settings, **_: served.append(settings))
    done = genrec("serve", tiny_run, option, value)
    assert done.status == 0, done.err
    assert getattr(served[0], field) == expected != getattr(ServeConfig(), field)


def test_the_keys_of_a_file_are_asked_for_also_where_only_this_machine_can_ask(
    tiny_run: Path,
    tiny_recommender: Recommender,
    genrec: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    served: list[ServeConfig] = []
    monkeypatch.setattr("genrec.server.process.serve_run", lambda run, settings, **_: served.append(settings))
    (tmp_path / "keys").write_text("\n".join(KEYS))
    assert genrec("serve", tiny_run, "--api-key-file", tmp_path / "keys").status == 0
    assert served[0].api_keys == KEYS
    with serving(tiny_run, lambda: tiny_recommender, api_keys=served[0].api_keys) as client:
        assert client.get("/v1/models").status_code == 401
        assert client.get("/v1/models", headers={"authorization": f"Bearer {KEYS[1]}"}).status_code == 200
