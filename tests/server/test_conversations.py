"""Conversations that the service keeps: messages, feedback, filters, deletion."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from fastapi.testclient import TestClient

from genrec.errors import ModelError
from tests.server.conftest import scripted_recommender, serving


def begin(client: TestClient, **body: object) -> str:
    answer = client.post("/v1/conversations", json=body)
    assert answer.status_code == 201
    return answer.json()["id"]


def say(client: TestClient, conversation: str, text: str, client_id: str = "", **more: str) -> dict:
    body = {"text": text, "client_id": client_id or f"message-{abs(hash(text))}", **more}
    answer = client.post(f"/v1/conversations/{conversation}/messages", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_conversation_is_kept_with_its_turns(client: TestClient):
    conversation = begin(client, user_id="ada", history=["i1"])
    first = say(client, conversation, 'I loved "Film 3"')
    kept = client.get(f"/v1/conversations/{conversation}").json()
    assert [message["text"] for message in kept["messages"]] == ['I loved "Film 3"']
    assert kept["messages"][0]["turn"] == first["turn"]
    assert kept["state"] == first["state"]
    assert kept["state"]["liked"] == [{"text": "Film 3", "item_id": "i3"}]


def test_the_same_message_twice_is_answered_once(client: TestClient):
    conversation = begin(client)
    first = say(client, conversation, "a western", "same-id-1")
    again = say(client, conversation, "a western", "same-id-1")
    other = say(client, conversation, "a western", "same-id-2")
    assert first["turn"] == again["turn"]
    assert other["turn"]["items"] != first["turn"]["items"]
    assert len(client.get(f"/v1/conversations/{conversation}").json()["messages"]) == 2


def test_feedback_steers_the_next_turn(client: TestClient):
    conversation = begin(client)
    items = say(client, conversation, "surprise me")["turn"]["items"]
    path = f"/v1/conversations/{conversation}/feedback"
    state = client.post(path, json={"item_id": items[0]["item_id"], "kind": "disliked"}).json()
    assert [item["item_id"] for item in state["disliked"]] == [items[0]["item_id"]]
    turn = say(client, conversation, "more")["turn"]
    assert any(step.startswith(f"disliked {items[0]['title']}") for step in turn["trace"])
    state = client.post(path, json={"item_id": items[0]["item_id"], "kind": "cleared"}).json()
    assert state["disliked"] == []
    assert client.post(path, json={"item_id": "nope", "kind": "liked"}).status_code == 404
    assert client.post(path, json={"item_id": "i1", "kind": "hated"}).status_code == 422


def test_a_filter_is_taken_back_by_its_label(client: TestClient):
    conversation = begin(client)
    state = say(client, conversation, "a western, nothing before 1992")["state"]
    assert state["filters"] == ["Western", "1992 or later"]
    path = f"/v1/conversations/{conversation}/filters"
    assert client.post(path, json={"remove": "Western"}).json()["filters"] == ["1992 or later"]
    assert client.get(f"/v1/conversations/{conversation}").json()["state"]["filters"] == ["1992 or later"]


def test_why_this_one_is_about_the_item_that_was_meant(client: TestClient):
    conversation = begin(client)
    items = say(client, conversation, "a western")["turn"]["items"]
    turn = say(client, conversation, "Why this one?", about=items[3]["item_id"])["turn"]
    assert turn["act"] == "explain"
    assert [part["item_id"] for part in turn["segments"] if part["item_id"]] == [items[3]["item_id"]]


def test_a_message_about_an_item_that_there_is_not_is_refused_before_it_is_kept(client: TestClient):
    conversation = begin(client)
    say(client, conversation, "a western")
    path = f"/v1/conversations/{conversation}"
    body = {"text": "Why this one?", "client_id": "about-nothing", "about": "nope"}
    for accept in ("application/json", "text/event-stream"):
        answer = client.post(f"{path}/messages", json=body, headers={"accept": accept})
        assert (answer.status_code, answer.json()["detail"]) == (404, "The catalogue has no such item.")
    assert [message["text"] for message in client.get(path).json()["messages"]] == ["a western"]


def test_a_streamed_turn_is_acknowledged_then_spoken_then_whole(client: TestClient):
    conversation = begin(client)
    body = {"text": "a western", "client_id": "streamed-1"}
    path, accept = f"/v1/conversations/{conversation}/messages", {"accept": "text/event-stream"}
    events = []
    with client.stream("POST", path, json=body, headers=accept) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        name = ""
        for line in answer.iter_lines():
            if line.startswith("event: "):
                name = line[7:]
            elif line:
                events.append((name, json.loads(line[6:])))
    names = [name for name, _ in events]
    assert names == ["accepted", *["words"] * (len(names) - 2), "turn"]
    assert "".join(data["text"] for name, data in events if name == "words") == events[-1][1]["turn"]["text"]


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [(ModelError("the model has gone."), 422, "has gone"), (ValueError("secret"), 500, "it has been logged")],
)
def test_an_error_in_a_stream_is_the_problem_that_it_is_as_json(
    tiny_run: Path, caplog: pytest.LogCaptureFixture, error: Exception, status: int, words: str
):
    def failing(prompt: object, codes: object) -> np.ndarray:
        raise error

    recommender = scripted_recommender(["i0", "i1", "i2", "i3"], failing)
    with serving(tiny_run, lambda: recommender) as opened:
        path = f"/v1/conversations/{begin(opened)}/messages"
        body = {"text": "surprise me", "client_id": "failing-1"}
        for _ in range(2):  # sent again, it ends again
            streamed = opened.post(path, json=body, headers={"accept": "text/event-stream"})
            accepted, problem = streamed.text.strip().split("\n\n")
            assert accepted.startswith("event: accepted\n")
            assert problem.startswith("event: problem\ndata: ")
            answer = opened.post(path, json=body)
            assert json.loads(problem.split("data: ")[1]) == answer.json()
            assert (answer.status_code, answer.json()["status"]) == (status, status)
            assert words in answer.json()["detail"]
    assert caplog.text.count("/messages failed") == (4 if status == 500 else 0)


@pytest.mark.parametrize("conversation", ["0" * 32, "short", "../../etc"])
def test_a_conversation_that_is_not_there(client: TestClient, conversation: str):
    assert client.get(f"/v1/conversations/{conversation}").status_code in {404, 422}
    body = {"text": "hi", "client_id": "12345678"}
    assert client.post(f"/v1/conversations/{conversation}/messages", json=body).status_code in {404, 422}


@pytest.mark.parametrize("user", ["acme/ada", "/", "two\nlines", "a?b#c", ".."])
def test_whatever_a_user_is_called_their_data_can_be_deleted(client: TestClient, user: str):
    mine = begin(client, user_id=user)
    path = f"/v1/users/{quote(user, safe='').replace('.', '%2E')}"
    assert client.delete(path).json() == {"user_id": user, "conversations": 1}
    assert client.get(f"/v1/conversations/{mine}").status_code == 404
    assert client.delete("/v1/users/").status_code == 404


def test_everything_of_a_user_is_deleted_and_nothing_else(client: TestClient):
    mine, other = begin(client, user_id="grace"), begin(client, user_id="alan")
    say(client, mine, "a western")
    client.post(f"/v1/conversations/{mine}/feedback", json={"item_id": "i1", "kind": "liked"})
    assert client.delete("/v1/users/grace").json() == {"user_id": "grace", "conversations": 1}
    assert client.get(f"/v1/conversations/{mine}").status_code == 404
    assert client.get(f"/v1/conversations/{other}").status_code == 200
    assert client.delete("/v1/users/grace").json()["conversations"] == 0


HOSTILE = [
    "<script>alert(1)</script>",
    "{{ 7*7 }}",
    "'; DROP TABLE messages; --",
    "<s0_1><s1_2>",
    "‮reversed",
    "\U0001f47d" * 50,
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_kept_as_it_is_and_has_no_effect(client: TestClient, text: str):
    conversation = begin(client)
    turn = say(client, conversation, text, "hostile-1")["turn"]
    assert turn["items"] == []
    kept = client.get(f"/v1/conversations/{conversation}").json()["messages"]
    assert [message["text"] for message in kept] == [text]


@pytest.mark.parametrize(
    "raw", ['{"text": "a\\u0000b", "client_id": "12345678"}', '{"text": "\\ud800", "client_id": "12345678"}']
)
def test_text_that_no_database_holds_is_refused(client: TestClient, raw: str):
    answer = client.post(
        f"/v1/conversations/{begin(client)}/messages", content=raw, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 422
    assert "surrogate" in answer.json()["detail"]
