"""Recommendations, explanations and items over HTTP, against the recommender itself."""

from __future__ import annotations

import shutil
from pathlib import Path
from urllib.parse import quote

import numpy as np
import polars as pl
import pytest
from fastapi.testclient import TestClient

from genrec.recommender import Recommender
from genrec.server.demo import item_images
from tests.server.conftest import scripted_recommender, serving


def ids(answer) -> list[str]:
    return [item["item_id"] for item in answer.json()["items"]]


def test_recommendations_are_those_of_the_recommender(client: TestClient, tiny_recommender: Recommender):
    body = {"history": ["i1", "i4"], "k": 6, "exclude": ["i7"], "allow": {"genres": ["Drama", "Western"]}}
    answer = client.post("/v1/recommendations", json=body)
    expected = tiny_recommender.recommend(["i1", "i4"], 6, exclude=["i7"], allow={"genres": ["Drama", "Western"]})
    assert answer.status_code == 200
    assert ids(answer) == [item.item_id for item in expected]
    assert answer.json()["catalog_version"] == tiny_recommender.trie.version


def test_limits_and_a_share_of_new_items_can_be_asked_for(client: TestClient, tiny_recommender: Recommender):
    spread = client.post("/v1/recommendations", json={"history": ["i1"], "k": 6, "at_most": {"genres": 1}})
    assert ids(spread) == [item.item_id for item in tiny_recommender.recommend(["i1"], 6, at_most={"genres": 1})]
    fresh = client.post("/v1/recommendations", json={"history": ["i1"], "k": 6, "new_share": 0.5})
    assert ids(fresh) == [item.item_id for item in tiny_recommender.recommend(["i1"], 6, new_share=0.5)]
    for wrong in ({"at_most": {"genres": 0}}, {"new_share": 2}, {"at_most": {"colour": 1}}):
        assert client.post("/v1/recommendations", json={"history": ["i1"], **wrong}).status_code == 422


def test_ids_that_are_whole_numbers_are_those_of_the_table_in_decimal(tiny_run: Path):
    recommender = scripted_recommender([str(n) for n in range(9)], lambda prompt, codes: np.arange(3.0))
    with serving(tiny_run, lambda: recommender) as client:
        numbers = client.post("/v1/recommendations", json={"history": [1, 2], "k": 3, "exclude": [0]})
        texts = client.post("/v1/recommendations", json={"history": ["1", "2"], "k": 3, "exclude": ["0"]})
        assert (numbers.status_code, ids(numbers)) == (200, ids(texts))
        for wrong in (True, 1.0, None, [1]):
            assert client.post("/v1/recommendations", json={"history": [wrong]}).status_code == 422
        begun = client.post("/v1/conversations", json={"history": [1], "user_id": 7})
        assert begun.status_code == 201
        path = f"/v1/conversations/{begun.json()['id']}/feedback"
        assert client.post(path, json={"item_id": 3, "kind": "liked"}).status_code == 200


def test_a_new_user_has_an_empty_history(client: TestClient):
    assert len(ids(client.post("/v1/recommendations", json={"history": [], "k": 3}))) == 3


def test_an_unknown_item_and_an_unknown_attribute_are_problems_that_name_them(client: TestClient):
    for body, word in (({"history": ["nope"]}, "nope"), ({"history": [], "allow": {"colour": "red"}}, "colour")):
        answer = client.post("/v1/recommendations", json=body)
        assert answer.status_code == 422
        assert answer.headers["content-type"] == "application/problem+json"
        assert word in answer.json()["detail"]
        assert answer.json()["status"] == 422


def test_an_item_has_its_facts_and_says_whether_it_can_be_recommended(client: TestClient):
    answer = client.get("/v1/items/i3").json()
    assert (answer["title"], answer["facts"]["year"], answer["facts"]["genres"]) == (
        "Film 3",
        1993,
        ["Comedy", "Mood 1"],
    )
    assert answer["recommendable"] is True
    assert client.get("/v1/items/nope").status_code == 404


def test_similar_items_share_an_attribute_value_and_leave_the_item_out(
    client: TestClient, tiny_recommender: Recommender
):
    found = ids(client.get("/v1/items/i3/similar?k=5"))
    assert len(found) == 5
    assert "i3" not in found
    catalog = tiny_recommender.catalog
    values = {item: set(catalog.table["genres"][catalog.index[item]].to_list()) for item in [*found, "i3"]}
    assert all(values[item] & values["i3"] for item in found)


def test_an_explanation_is_that_of_the_recommender(client: TestClient, tiny_recommender: Recommender):
    body = {"history": ["i1", "i3"], "item_id": "i9", "style": "paragraph"}
    answer = client.post("/v1/explanations", json=body).json()
    told = tiny_recommender.explain(["i1", "i3"], "i9", style="paragraph")
    assert (answer["text"], answer["source"], answer["note"]) == (told.text, told.source, told.note)
    assert "“Film 3”" in answer["text"]
    assert all(one["verdict"] != "unsupported" for one in answer["statements"])
    for wrong in ({"style": "poem"}, {"language": "xx"}, {"item_id": "nope"}):
        assert client.post("/v1/explanations", json={**body, **wrong}).status_code == 422


def test_a_taste_needs_no_item_and_every_other_style_does(client: TestClient, tiny_recommender: Recommender):
    body = {"history": ["i0", "i3", "i1"], "style": "taste"}
    told = tiny_recommender.explain(["i0", "i3", "i1"], None, style="taste")
    for item in ({}, {"item_id": None}, {"item_id": "i9"}):  # of a taste the item is no part
        answer = client.post("/v1/explanations", json=body | item)
        assert answer.status_code == 200
        assert (answer.json()["text"], answer.json()["item_id"], answer.json()["title"]) == (told.text, None, None)
    assert told.text
    assert client.post("/v1/explanations", json=body | {"item_id": "nope"}).status_code == 422
    for style in ("line", "paragraph", "bullets", "for-whom", "headline", "description"):
        answer = client.post("/v1/explanations", json=body | {"style": style})
        assert answer.status_code == 422
        assert answer.json()["detail"].startswith(f"item_id is missing, and the style '{style}' is about an item.")
    assert client.post("/v1/explanations", json={"history": ["i0"]}).status_code == 422


def test_a_picture_is_served_from_inside_the_media_folder_only(
    tiny_copy: Path, tiny_recommender: Recommender, tmp_path: Path
):
    media = tmp_path / "media"
    media.mkdir()
    (media / "a.png").write_bytes(b"\x89PNG fake")
    (media / "page.svg").write_text("<svg/>")
    (tmp_path / "secret.png").write_bytes(b"secret")
    (media / "link.png").symlink_to(tmp_path / "secret.png")
    names = ["a.png", "../secret.png", "link.png", str(tmp_path / "secret.png"), "page.svg", "gone.png", None]
    run = Path(shutil.copytree(tiny_copy, tmp_path / "pictures"))
    table = pl.read_parquet(run / "items.parquet")
    pictures = names + [None] * (table.height - len(names))
    dialogue_table = table.with_columns(pl.Series("image", pictures, dtype=pl.String))
    with serving(run, lambda: tiny_recommender) as opened:
        service = opened.app.state.service
        index = service.worker.dialogue.index
        catalog = type(index.catalog)(dialogue_table)
        found = type(index).build(catalog)
        service.worker.dialogue = type(service.worker.dialogue)(service.worker.dialogue.recommender, found)
        service.images = item_images(run, media)
        statuses = [opened.get(f"/v1/items/{item}/image").status_code for item in catalog.item_ids[:7]]
        assert statuses == [200, 404, 404, 404, 404, 404, 404]
        shown = opened.get(f"/v1/items/{catalog.item_ids[0]}/image")
        assert (shown.content, shown.headers["content-type"]) == (b"\x89PNG fake", "image/png")
        assert opened.get("/v1/items/..%2F..%2Fsecret/image").status_code == 404
        assert opened.get("/page/..%2f..%2fsettings.py").status_code == 404


@pytest.mark.parametrize("item", ["a/b", "/a", "a/", "a//b", "two\nlines", "similar", "image"])
def test_an_item_is_found_whatever_its_id_is(tiny_run: Path, tmp_path: Path, item: str):
    (tmp_path / "a.png").write_bytes(b"\x89PNG fake")
    ids_of_all = [item, "i1", "i2"]
    recommender = scripted_recommender(ids_of_all, lambda prompt, codes: np.zeros(3), image=["a.png", None, None])
    path = f"/v1/items/{quote(item, safe='')}"
    with serving(tiny_run, lambda: recommender, media_root=tmp_path) as opened:
        assert opened.get(path).json()["item_id"] == item
        assert ids(opened.get(f"{path}/similar")) == ["i1", "i2"]
        assert opened.get(f"{path}/image").content == b"\x89PNG fake"
        for nothing in ("/v1/items/", "/v1/items//similar", "/v1/items//image", "/v1/items/no/such"):
            assert opened.get(nothing).status_code == 404
        routes = {line.split('"')[1] for line in opened.get("/metrics").text.splitlines() if "_total{route=" in line}
    assert {"/v1/items/{item_id}", "/v1/items/{item_id}/similar", "/v1/items/{item_id}/image"} < routes


def test_the_page_and_its_files_are_there_and_load_nothing_from_elsewhere(client: TestClient):
    page = client.get("/")
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    for name in ("chat.js", "view.js", "api.js", "memory.js", "chat.css", "icon.svg"):
        text = client.get(f"/page/{name}")
        assert text.status_code == 200
        assert "https://" not in text.text
        assert "innerHTML" not in text.text
