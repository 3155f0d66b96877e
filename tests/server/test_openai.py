"""The official client of OpenAI's API over a real socket; what it cannot know, it ignores."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from fastapi.testclient import TestClient

from genrec.recommender import Recommender
from tests.server.conftest import Listening


@pytest.fixture(scope="module")
def official(
    tiny_run: Path, tiny_recommender: Recommender, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[openai.OpenAI]:
    database = f"sqlite:///{tmp_path_factory.mktemp('openai') / 'c.sqlite'}"
    service = Listening(tiny_run, lambda: tiny_recommender, database=database)
    with openai.OpenAI(base_url=f"{service.address}/v1", api_key="unused", max_retries=0) as made:
        yield made
    service.end()


def test_the_official_client_lists_the_model_and_holds_a_conversation(official: openai.OpenAI):
    (model,) = official.models.list().data
    messages = [{"role": "user", "content": 'I loved "Film 3"'}]
    first = official.chat.completions.create(model=model.id, messages=messages, temperature=0.2, max_tokens=50)
    text = first.choices[0].message.content
    items = first.model_extra["genrec"]["items"]
    assert len(items) == 5
    assert all(f"{number}. {item['title']} — " in text for number, item in enumerate(items, start=1))
    messages += [{"role": "assistant", "content": text}, {"role": "user", "content": "I hated the second one"}]
    second = official.chat.completions.create(model=model.id, messages=messages)
    assert not {item["item_id"] for item in items} & {item["item_id"] for item in second.model_extra["genrec"]["items"]}
    assert f"the user dislikes {items[1]['title']}" in second.model_extra["genrec"]["trace"]


def test_the_official_client_streams_the_same_reply_in_words(official: openai.OpenAI):
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "a western"}]
    whole = official.chat.completions.create(model="genrec", messages=messages)
    chunks = list(official.chat.completions.create(model="genrec", messages=messages, stream=True))
    words = [chunk.choices[0].delta.content or "" for chunk in chunks]
    assert "".join(words) == whole.choices[0].message.content
    assert sum(map(bool, words)) > 10
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert chunks[-1].model_extra["genrec"]["items"] == whole.model_extra["genrec"]["items"]


def test_the_official_client_understands_the_errors(official: openai.OpenAI):
    with pytest.raises(openai.NotFoundError, match="no such model"):
        official.chat.completions.create(model="gpt-0", messages=[{"role": "user", "content": "hi"}])
    with pytest.raises(openai.UnprocessableEntityError, match="last message"):
        official.chat.completions.create(model="genrec", messages=[{"role": "assistant", "content": "hi"}])


def test_a_history_comes_along_in_the_body(client: TestClient):
    body = {"model": "genrec", "messages": [{"role": "user", "content": "recommend something"}]}
    asked = client.post("/v1/chat/completions", json=body).json()
    told = client.post("/v1/chat/completions", json={**body, "genrec": {"history": ["i3", "i6"]}}).json()
    assert (asked["genrec"]["act"], told["genrec"]["act"]) == ("ask", "recommend")
    unknown = client.post("/v1/chat/completions", json={**body, "genrec": {"history": ["nope"]}})
    assert unknown.status_code == 422


def test_content_in_parts_is_read(client: TestClient):
    parts = [{"type": "text", "text": "a western"}, {"type": "image_url", "image_url": {"url": "x"}}]
    answer = client.post(
        "/v1/chat/completions", json={"model": "genrec", "messages": [{"role": "user", "content": parts}]}
    )
    assert answer.json()["genrec"]["act"] == "recommend"
