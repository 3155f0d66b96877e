"""eval/transfer.py: the two pairs of catalogues, and that an item's text holds nothing of what is tested."""

from __future__ import annotations

import gzip
import json
import runpy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from genrec.config import Config, EmbedConfig, dump_config
from genrec.run import Run, StageReport

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def recipe() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "eval" / "transfer.py"))


def test_films_fall_into_two_halves_without_one_film_in_both(recipe: dict[str, Any], tmp_path: Path) -> None:
    source, target = recipe["films"](tmp_path)
    genres = [pl.read_parquet(run.path / "items.parquet")["genres"].to_list() for run in (source, target)]
    assert not any("Comedy" in of_item for of_item in genres[0] if of_item)
    assert all("Comedy" in of_item for of_item in genres[1])
    assert len(genres[0]) > len(genres[1]) > 1000
    again = recipe["films"](tmp_path)
    assert [run.stages["ingest"] for run in again] == [run.stages["ingest"] for run in (source, target)]


def test_the_text_of_an_instrument_is_that_of_its_training_reviews(recipe: dict[str, Any], tmp_path: Path) -> None:
    reviews = [
        {"reviewerID": f"u{user}", "asin": f"a{(user + step) % 8}", "unixReviewTime": 100 * step + user,
         "overall": 5.0, "reviewText": f"word-{user}-{step}"}
        for user in range(8)
        for step in range(6)
    ]  # fmt: skip
    for folder in ("amazon_beauty_2014", "amazon_musical_instruments_2014_reviews"):
        (tmp_path / folder).mkdir()
    with gzip.open(tmp_path / "amazon_musical_instruments_2014_reviews" / "r.json.gz", "wt") as stream:
        stream.writelines(json.dumps(review) + "\n" for review in reviews)
    with gzip.open(tmp_path / "amazon_beauty_2014" / "items.jsonl.gz", "wt") as stream:
        stream.writelines(json.dumps({"item_id": f"a{n}", "title": f"Soap {n}"}) + "\n" for n in range(8))
    with gzip.open(tmp_path / "amazon_beauty_2014" / "interactions.csv.gz", "wt") as stream:
        stream.write("user_id,item_id\n" + "".join(f"{r['reviewerID']},{r['asin']}\n" for r in reviews))
    _, target = recipe["amazon"](tmp_path / "out", tmp_path)
    items = dict(pl.read_parquet(target.path / "items.parquet").select("item_id", "description").iter_rows())
    # Leave-one-out: the last two of every user's six reviews validate and test.
    expected: dict[str, set[str]] = {}
    for review in reviews:
        if int(review["reviewText"].split("-")[2]) < 4:
            expected.setdefault(review["asin"], set()).add(review["reviewText"])
    assert {item: set(text.split()) for item, text in items.items()} == expected


def test_a_stage_is_made_again_where_its_options_have_changed(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = Run.create(tmp_path / "source"), Run.create(tmp_path / "target")
    made: list[tuple[str, str]] = []

    def stage(name: str) -> Callable[..., None]:
        def make(run: Run, config: Config, **_options: object) -> None:
            made.append((run.path.name, name))
            run.record(StageReport(name, {}, []), config=dump_config(config), seed=0, inputs=[], outputs=[],
                       started=run.begin())  # fmt: skip

        return make

    names = recipe["prepare"].__globals__
    monkeypatch.setitem(names, "embed", stage("embed"))
    monkeypatch.setitem(names, "pipeline", SimpleNamespace(tokenize=stage("tokenize"), train=stage("train")))
    for run in (source, target):
        stage("ingest")(run, EmbedConfig())
    made.clear()

    def prepare(**changes: Any) -> list[tuple[str, str]]:
        made.clear()
        training = recipe["TRAINING"].model_copy(update=changes)
        recipe["prepare"](source, target, texts=(EmbedConfig(), EmbedConfig()), training=training)
        return list(made)

    assert prepare() == [("source", "embed"), ("target", "embed"), ("source", "tokenize"), ("source", "train")]
    assert prepare() == []
    assert prepare(epochs=3) == [("source", "train")]
    assert prepare(epochs=3, seed=1) == [("source", "tokenize"), ("source", "train")]
