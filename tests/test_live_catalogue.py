"""A recommender that follows the catalogue of its run: when it switches, when it refuses, what a request sees."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from genrec import Recommender, pipeline
from genrec.catalogue_changes import add_items, remove_items, update_items
from genrec.config import EvaluateConfig, TokenizeConfig, load_config
from genrec.errors import RunError
from genrec.live_catalogue import LiveCatalogue
from genrec.rank_request import RankRequest
from genrec.run import Run
from genrec.trie import ItemTrie


@pytest.fixture
def run(tiny_copy: Path) -> Run:
    return Run.open(tiny_copy)


def add(run: Run, numbers: Sequence[int]) -> None:
    file = run.path.parent / "new.jsonl"
    file.write_text("".join(json.dumps({"item_id": f"n{n}", "title": f"New {n}"}) + "\n" for n in numbers))
    add_items(run, file, when="2026-01-02T03:04:05+00:00")


def test_refresh_is_false_where_nothing_has_changed_also_after_an_evaluation(run: Run, tiny_files: Path) -> None:
    recommender = Recommender.load(run.path)
    assert not recommender.refresh()
    pipeline.evaluate(run, load_config(EvaluateConfig, tiny_files / "evaluate.yaml"))
    assert not recommender.refresh()
    add(run, [1])
    assert recommender.refresh()
    assert not recommender.refresh()


def test_refresh_notices_an_item_of_which_the_vectors_alone_have_changed(run: Run) -> None:
    recommender = Recommender.load(run.path)
    file, vectors = run.path.parent / "changed.jsonl", run.path.parent / "vectors.npy"
    file.write_text(json.dumps({"item_id": "i3"}) + "\n")
    np.save(vectors, np.full((1, 8), 9, np.float32))
    update_items(run, file, when="2026-01-02T03:04:05+00:00", precomputed={"text": vectors})
    assert recommender.refresh()  # evidence compares items by these vectors


def test_a_removal_changes_the_trie_alone_and_an_addition_keeps_what_is_known_of_ids(run: Run) -> None:
    recommender = Recommender.load(run.path)
    before = recommender.live
    assert recommender.filter({"genres": "Comedy"}).num_items
    explainer = recommender.explainer()
    gone = run.path.parent / "gone.txt"
    gone.write_text("i4\n")
    remove_items(run, gone, when="2026-01-02T03:04:05+00:00")
    assert recommender.refresh()
    after = recommender.live
    assert after.catalog is before.catalog  # nothing of a large catalogue is read or counted again
    assert after.item_tokens is before.item_tokens
    assert (before.trie.num_items, after.trie.num_items) == (30, 29)
    assert recommender.filter({"genres": "Comedy"}).trie is after.trie
    assert recommender.explainer().facts is explainer.facts
    assert recommender.explainer().catalog_version == after.trie.version != explainer.catalog_version
    add(run, [1, 2])
    assert recommender.refresh()
    assert len(recommender.explainer().facts.catalog) == 32
    added, fresh = recommender.live, Recommender.load(run.path).live
    assert added.catalog.item_ids == fresh.catalog.item_ids
    assert added.catalog.index == fresh.catalog.index
    assert added.catalog.titles == fresh.catalog.titles
    assert added.catalog.order_checksum == fresh.catalog.order_checksum
    assert len(before.catalog.item_ids) == len(before.catalog.index) == 30
    assert np.array_equal(added.item_tokens, fresh.item_tokens)
    assert np.array_equal(added.own_tokens, fresh.own_tokens)
    assert np.array_equal(added.new_items(), fresh.new_items())
    assert added.trie.version == fresh.trie.version
    change = run.path.parent / "changed.jsonl"
    change.write_text(json.dumps({"item_id": "i3", "title": "Another name"}) + "\n")
    update_items(run, change, when="2026-01-02T03:04:05+00:00")
    assert recommender.refresh()
    assert recommender.catalog.titles == Recommender.load(run.path).catalog.titles


def test_a_change_that_is_read_twice_is_followed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    recommender = Recommender.load(run.path)
    once = Run.read_unchanged

    def twice(self: Run, read: Callable[[], Any]) -> Any:  # as where an evaluation was recorded meanwhile
        once(self, read)
        return once(self, read)

    monkeypatch.setattr(Run, "read_unchanged", twice)
    add(run, [1])
    assert recommender.refresh()
    assert len(recommender.catalog) == 31


def test_refresh_refuses_a_run_that_was_tokenized_again(run: Run, tiny_files: Path) -> None:
    recommender = Recommender.load(run.path)
    config = load_config(TokenizeConfig, tiny_files / "tokenize.yaml").model_copy(update={"seed": 5})
    pipeline.tokenize(run, config)
    with pytest.raises(RunError, match="Load the recommender anew"):
        recommender.refresh()
    assert recommender.recommend(["i1"], k=3)  # the old one still answers


def test_a_pinned_recommender_stays_with_its_version(run: Run) -> None:
    recommender = Recommender.load(run.path)
    here = recommender.pinned()
    add(run, range(3))
    assert recommender.refresh()
    assert (len(here.catalog), len(recommender.catalog)) == (30, 33)
    assert here.trie.version != recommender.trie.version
    assert len(here.recommend(["i1"], k=40)) == 29


def test_requests_of_another_thread_never_fail_and_never_mix_versions_while_items_come(run: Run) -> None:
    recommender = Recommender.load(run.path)
    answers: list[set[str]] = []
    failures: list[BaseException] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set() or len(answers) < 5:
            try:
                found = recommender.recommend(["i1", "i4"], k=64, allow={"item_id": all_ids})
                answers.append({item.item_id for item in found})
            except BaseException as error:
                failures.append(error)
                return

    all_ids = [f"i{n}" for n in range(30)] + [f"n{n}" for n in range(12)]
    old = {f"i{n}" for n in range(30)} - {"i1", "i4"}
    thread = threading.Thread(target=ask)
    thread.start()
    try:
        for number in range(12):
            add(run, [number])
            assert recommender.refresh()
    finally:
        done.set()
        thread.join()
    assert not failures
    versions = [old | {f"n{n}" for n in range(count)} for count in range(13)]
    assert all(answer in versions for answer in answers)
    assert {item.item_id for item in recommender.recommend(["i1", "i4"], k=64)} == versions[-1]


def test_of_many_distinct_questions_only_the_newest_are_kept_and_all_are_answered(tiny_run: Path) -> None:
    recommender = Recommender.load(tiny_run)
    live = recommender.live
    first = recommender.recommend(["i1"], k=30, allow={"genres": "Drama"})
    for number in range(300):
        live.by_attribute.filter({"title": [f"Film {number % 30}", "x" * 1000, number]})
    assert len(live.by_attribute._filters) == 256
    assert max(map(len, live.by_attribute._filters)) < 100  # whatever was asked, its key is short
    assert recommender.recommend(["i1"], k=30, allow={"genres": "Drama"}) == first
    again = live.by_attribute.filter({"year": 1991, "genres": "Drama"})
    assert live.by_attribute.filter({"genres": "Drama", "year": 1991}) is again


def test_attributes_that_were_asked_for_are_read_again_before_the_new_catalogue_serves(run: Run) -> None:
    recommender = Recommender.load(run.path)
    recommender.recommend(["i1"], allow={"genres": "Drama"}, at_most={"year": 2})
    add(run, [1])
    assert recommender.refresh()
    assert set(recommender.live.by_attribute._attributes) == {"genres", "year"}
    assert len(recommender.live.by_attribute.attribute("year").row_starts) == 31 + 1


def test_what_speaks_for_items_is_told_of_one_catalogue_also_while_it_changes(run: Run) -> None:
    recommender, other = Recommender.load(run.path), Recommender.load(run.path)
    tries: list[ItemTrie] = []

    class Source:
        def shares(self, history: object, ranked: object, trie: ItemTrie) -> list[dict[str, float]]:
            tries.append(trie)
            return []

    class Changing(LiveCatalogue):
        def joining(self, in_dialogue: bool) -> Any:
            recommender._live = other.live  # as `refresh` of another thread does
            return Source()

    before = recommender.live
    recommender._live = Changing(before.catalog, before.trie, before.item_tokens)
    recommender.shares(np.array([1], np.int32), [])
    assert tries == [before.trie]


def test_a_recommender_that_was_not_loaded_cannot_refresh(run: Run) -> None:
    loaded = Recommender.load(run.path)
    made = Recommender(
        loaded.catalog,
        loaded.trie,
        engine=loaded.engine,
        prompt=loaded._prompt,
        item_tokens=loaded.item_tokens,
        max_history_items=6,
    )
    with pytest.raises(RunError, match=r"Recommender\.load"):
        made.refresh()


def test_reasons_are_of_the_moment_that_answers_or_say_to_refresh(run: Run) -> None:
    recommender = Recommender.load(run.path)
    add(run, [1])
    assert recommender.recommend(["i1"], k=3)  # the moment of before goes on
    with pytest.raises(RunError, match=r"has changed since its catalogue was read.*refresh\(\)"):
        recommender.explain(["i1"], "i2")
    earlier = recommender.pinned()
    assert recommender.refresh()
    assert recommender.explain(["i1"], "i2").item_id == "i2"
    with pytest.raises(RunError, match="has changed since"):
        earlier.explain(["i1"], "i2")


def test_evidence_without_weight_does_not_make_scores_a_product(run: Run) -> None:
    recommender = Recommender.load(run.path)
    asked = RankRequest(recommender.catalog.indices(["i1"]))
    for weight in (0.0, 2.0):
        source = SimpleNamespace(join="product", weight=weight)
        assert replace(recommender.live, evidence=source).multiplies(asked) is (weight > 0)  # type: ignore[arg-type]
