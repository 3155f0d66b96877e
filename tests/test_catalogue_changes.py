"""Items added, removed and updated in a trained run: IDs, trie, vectors, manifest, and a running recommender."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genrec import Recommender, pipeline
from genrec.catalogue_changes import add_items, remove_items, update_items
from genrec.config import EvaluateConfig, TokenizeConfig, TrainConfig, load_config
from genrec.data.catalog import Catalog
from genrec.encoders.base import Embeddings
from genrec.errors import BadRowsError, ConfigError, DataError, RunError, TrieError
from genrec.inspection import inspect_run
from genrec.report import EvaluationResult
from genrec.run import Run, file_checksum, read_json
from genrec.tokenizers.codes import SemanticIds
from genrec.tokenizers.placement import place_items
from genrec.tokenizers.stage import load_fusion, load_tokenizer
from genrec.trie import ItemTrie
from genrec.vocabulary import SidVocabulary

WHEN = "2026-01-02T03:04:05+00:00"
STAGES = ["ingest", "embed", "tokenize", "trie", "train"]


@pytest.fixture
def run(tiny_copy: Path) -> Run:
    return Run.open(tiny_copy)


def new_rows(numbers: Sequence[int]) -> list[dict[str, Any]]:
    return [{"item_id": f"n{n}", "title": f"New {n}", "year": 2020, "genres": ["Comedy", "Fresh"]} for n in numbers]


def table(run: Run, rows: Sequence[dict[str, Any]]) -> Path:
    file = run.path.parent / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def ids_file(run: Run, item_ids: Sequence[str]) -> Path:
    file = run.path.parent / "ids.txt"
    file.write_text("".join(f"{item_id}\n" for item_id in item_ids))
    return file


def vectors_file(run: Run, item_ids: Sequence[str], seed: int = 0) -> Path:
    vectors = np.random.default_rng(seed).normal(size=(len(item_ids), 8)).round(4)
    rows = [{"item_id": item_id, "vector": row.tolist()} for item_id, row in zip(item_ids, vectors, strict=True)]
    file = run.path.parent / "more.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def codes(run: Run) -> dict[str, tuple[int, ...]]:
    catalog = Catalog.load(run)
    rows = SemanticIds.load(run, catalog=catalog).codes.tolist()
    return dict(zip(catalog.item_ids, map(tuple, rows), strict=True))


def live_ids(run: Run) -> set[str]:
    ids = Catalog.load(run).item_ids
    return {ids[item] for item in ItemTrie.load(run.path / "trie").items}


def add(run: Run, numbers: Sequence[int], *, with_vectors: bool = True) -> None:
    precomputed = {"text": vectors_file(run, [f"n{n}" for n in numbers])} if with_vectors else {}
    add_items(run, table(run, new_rows(numbers)), when=WHEN, precomputed=precomputed)


def snapshot(run: Run) -> dict[str, str]:
    files = [file for file in run.path.rglob("*") if file.is_file() and file.suffix != ".lock"]
    return {file.relative_to(run.path).as_posix(): file_checksum(file) for file in files}


def test_added_items_get_ids_of_their_own_and_nobody_elses_changes(run: Run) -> None:
    before, old = codes(run), Catalog.load(run)
    report = add_items(
        run,
        table(run, new_rows(range(20))),
        when=WHEN,
        precomputed={"text": vectors_file(run, [f"n{n}" for n in range(20)])},
    )
    after, catalog = codes(run), Catalog.load(run)
    assert catalog.item_ids[:30] == old.item_ids
    assert catalog.item_ids[30:] == [f"n{n}" for n in range(20)]
    assert {item: after[item] for item in before} == before
    assert len(set(after.values())) == 50
    assert live_ids(run) == set(after)
    assert (report.facts["num_added"], report.facts["num_items"], report.facts["missing"]) == (20, 50, {"text": 0})
    assert catalog.table.row(30, named=True)["genres"] == ["Comedy", "Fresh"]


def test_the_trie_of_a_run_knows_the_tokenizer_that_its_model_knows_also_after_a_change(run: Run) -> None:
    known = SidVocabulary.load(run.path / "model").tokenizer_checksum
    assert known
    assert ItemTrie.load(run.path / "trie").tokenizer_checksum == known
    remove_items(run, ids_file(run, ["i1"]), when=WHEN)
    assert ItemTrie.load(run.path / "trie").tokenizer_checksum == known


def test_the_codes_of_added_items_are_what_the_frozen_tokenizer_places(run: Run) -> None:
    taken = np.array(list(codes(run).values()), dtype=np.uint16)
    add(run, range(12))
    text = Embeddings.load(run, "text", catalog=Catalog.load(run))
    fused, _ = load_fusion(run).apply({"text": text.vectors[30:]}, {"text": text.mask[30:]})
    expected = place_items(load_tokenizer(run), fused, taken=taken, sizes=(8, 8), policy="reassign")
    assert [codes(run)[f"n{n}"] for n in range(12)] == [tuple(row) for row in expected.tolist()]


def test_adding_together_equals_adding_one_by_one(run: Run, tmp_path: Path) -> None:
    other = Run(shutil.copytree(run.path, tmp_path / "other" / "run"))
    file = vectors_file(run, [f"n{n}" for n in range(6)])
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    add(run, range(6))
    for number in range(6):
        one = other.path.parent / "one.jsonl"
        one.write_text(json.dumps(rows[number]) + "\n")
        add_items(other, table(other, new_rows([number])), when=WHEN, precomputed={"text": one})
    assert codes(run) == codes(other)
    assert ItemTrie.live_version(run.path / "trie") == ItemTrie.live_version(other.path / "trie")


def test_added_items_are_recommended_at_once_and_alone_where_a_filter_allows_only_them(run: Run) -> None:
    recommender = Recommender.load(run.path)
    add(run, range(5))
    assert recommender.refresh()
    everything = recommender.recommend(["i1", "i4"], k=40)
    assert {item.item_id for item in everything} == live_ids(run) - {"i1", "i4"}
    fresh = recommender.recommend(["i1"], k=40, allow={"genres": "Fresh"})
    assert {item.item_id for item in fresh} == {f"n{n}" for n in range(5)}
    assert recommender.recommend(["i1"], k=40) == Recommender.load(run.path).recommend(["i1"], k=40)
    assert recommender.recommend(["n0", "n3"], k=3)  # and they may stand in a history


def test_items_without_a_vector_are_placed_and_counted(run: Run) -> None:
    report = add_items(run, table(run, new_rows(range(3))), when=WHEN)
    assert report.facts["missing"] == {"text": 3}
    assert "text: 3 of them have no vector." in report.words
    assert len(set(codes(run).values())) == 33
    assert Embeddings.load(run, "text", catalog=Catalog.load(run)).mask.tolist() == [True] * 30 + [False] * 3


def test_the_stages_stay_valid_and_the_evaluation_goes(run: Run, tiny_files: Path) -> None:
    pipeline.evaluate(run, load_config(EvaluateConfig, tiny_files / "evaluate.yaml"))
    before = run.stages
    add(run, range(2))
    assert list(run.stages) == STAGES
    for stage in STAGES:
        run.require(stage)
        assert run.stages[stage].config == before[stage].config
    (entry,) = run.amendments
    assert (entry["change"], entry["when"], entry["dropped"]) == ("items add", WHEN, ["evaluate:test"])
    assert (entry["facts"]["num_added"], entry["facts"]["num_rows"]) == (2, 32)
    assert any("items add: num_added 2" in line for line in inspect_run(run).words)
    pipeline.evaluate(run, load_config(EvaluateConfig, tiny_files / "evaluate.yaml"))
    assert "evaluate:test" in run.stages


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        ([{"item_id": "i3", "title": "again"}, *new_rows([1, 1])], r"line 1(.|\n)*line 3"),
        ([], "not one item|is empty"),
        ([{"item_id": "x", "title": "X", "year": "then"}], "whole number"),
    ],
)
def test_bad_rows_are_all_named_and_nothing_is_written(run: Run, rows: list[dict[str, Any]], error: str) -> None:
    before = snapshot(run)
    with pytest.raises((BadRowsError, DataError), match=error):
        add_items(run, table(run, rows), when=WHEN)
    assert snapshot(run) == before


def test_wrong_vectors_are_refused_before_anything_is_written(run: Run) -> None:
    before = snapshot(run)
    file = table(run, new_rows([1]))
    narrow = run.path.parent / "narrow.jsonl"
    narrow.write_text('{"item_id": "n1", "vector": [1.0, 2.0]}\n')
    with pytest.raises(ConfigError, match=r"no vectors of modality image.*It has text"):
        add_items(run, file, when=WHEN, precomputed={"image": narrow})
    with pytest.raises(DataError, match="have width 2, the run's 8"):
        add_items(run, file, when=WHEN, precomputed={"text": narrow})
    with pytest.raises(BadRowsError, match="'n7' is not in the catalogue"):
        add_items(run, file, when=WHEN, precomputed={"text": vectors_file(run, ["n1", "n7"])})
    assert snapshot(run) == before


def test_more_items_than_there_are_ids_are_refused_and_as_many_as_there_are_fit(run: Run) -> None:
    before = snapshot(run)
    with pytest.raises(DataError, match="All 64 semantic IDs are taken"):
        add(run, range(35))
    assert snapshot(run) == before
    add(run, range(34))
    assert len(set(codes(run).values())) == 64


def test_a_removed_item_is_recommended_to_nobody_but_may_stand_in_a_history(run: Run) -> None:
    recommender = Recommender.load(run.path)
    before = codes(run)
    remove_items(run, ids_file(run, ["i4", "i7"]), when=WHEN)
    assert recommender.refresh()
    assert codes(run) == before
    assert live_ids(run) == set(before) - {"i4", "i7"}
    answer = recommender.recommend(["i4", "i1"], k=30, exclude=["i7"])
    assert {item.item_id for item in answer} == set(before) - {"i1", "i4", "i7"}
    assert recommender.recommend(["i1"], k=5, allow={"item_id": ["i4", "i7"]}) == []
    assert run.require("trie").report  # and the manifest vouches for the new version


def test_an_item_that_comes_back_has_its_old_id_row_and_place(run: Run) -> None:
    before, version = codes(run), ItemTrie.live_version(run.path / "trie")
    remove_items(run, ids_file(run, ["i4", "i7"]), when=WHEN)
    add(run, range(10))  # takes no code of a removed item
    later = codes(run)
    report = add_items(run, table(run, [{"item_id": "i4", "title": "Film 4, again"}]), when=WHEN)
    assert report.facts["num_again"] == 1
    assert codes(run) == later
    assert {item: later[item] for item in before} == before
    assert Catalog.load(run).titles[4] == "Film 4, again"
    remove_items(run, ids_file(run, [f"n{n}" for n in range(10)]), when=WHEN)
    add_items(run, table(run, [{"item_id": "i7", "title": "Film 7"}]), when=WHEN)
    trie = ItemTrie.load(run.path / "trie")
    assert trie.num_items == 30
    verbs = ["remove", "add", "add", "remove", "add"]
    assert [entry["change"] for entry in run.amendments] == [f"items {verb}" for verb in verbs]
    assert trie.version != version  # another catalogue: ten more rows


def test_removing_and_adding_the_same_items_gives_the_trie_of_before(run: Run) -> None:
    version = ItemTrie.live_version(run.path / "trie")
    rows = [{"item_id": "i4", "title": "Film 4"}, {"item_id": "i7", "title": "Film 7"}]
    remove_items(run, ids_file(run, ["i4", "i7"]), when=WHEN)
    assert ItemTrie.live_version(run.path / "trie") != version
    add_items(run, table(run, rows), when=WHEN)
    assert ItemTrie.live_version(run.path / "trie") == version
    assert "removed_items.parquet" not in run.require("ingest").outputs


def test_nobody_can_remove_everything_or_what_is_not_there(run: Run) -> None:
    before = snapshot(run)
    with pytest.raises(TrieError, match="no item is left"):
        remove_items(run, ids_file(run, [f"i{n}" for n in range(30)]), when=WHEN)
    with pytest.raises(BadRowsError, match=r"line 2: .nobody. is not in the catalogue"):
        remove_items(run, ids_file(run, ["i3", "nobody"]), when=WHEN)
    assert snapshot(run) == before


def test_tokenizing_again_does_not_bring_removed_items_back(run: Run, tiny_files: Path) -> None:
    remove_items(run, ids_file(run, ["i4"]), when=WHEN)
    pipeline.tokenize(run, load_config(TokenizeConfig, tiny_files / "tokenize.yaml"))
    assert "i4" not in live_ids(run)


def test_where_every_code_is_an_items_own_a_new_item_shares_that_of_the_nearest_one(run: Run, tiny_files: Path) -> None:
    pipeline.tokenize(run, TokenizeConfig(method="item-id"))
    pipeline.train(run, load_config(TrainConfig, tiny_files / "train.yaml"))
    recommender, before = Recommender.load(run.path, beam_width=30), codes(run)
    assert sorted(before.values()) == [(n,) for n in range(30)]
    text = Embeddings.load(run, "text", catalog=Catalog.load(run)).vectors
    near = run.path.parent / "near.jsonl"
    near.write_text(json.dumps({"item_id": "n1", "vector": (text[3] + 1e-3).tolist()}) + "\n")
    add_items(run, table(run, new_rows([1])), when=WHEN, precomputed={"text": near})
    assert codes(run) == {**before, "n1": before["i3"]}
    assert recommender.refresh()
    ranked = {item.item_id: item for item in recommender.recommend(["i1"], k=30)}
    assert len(ranked) == 30
    assert ranked["n1"].score == ranked["i3"].score
    assert {item.item_id for item in recommender.recommend(["n1"], k=30)} == {f"i{n}" for n in range(30)}
    only = recommender.recommend(["i1"], k=3, allow={"genres": "Fresh"})
    assert [item.item_id for item in only] == ["n1"]


def test_an_evaluation_leaves_out_targets_that_were_removed_and_says_so(run: Run, tiny_files: Path) -> None:
    config = load_config(EvaluateConfig, tiny_files / "evaluate.yaml")
    whole = pipeline.evaluate(run, config).facts["num_cases"]
    remove_items(run, ids_file(run, ["i4", "i7", "i13"]), when=WHEN)
    report = pipeline.evaluate(run, config)
    data = read_json(run.path / "evaluation" / "test.json")
    assert data["num_removed_targets"] > 0
    assert data["num_cases"] + data["num_removed_targets"] == whole
    assert data["num_items"] == 27
    assert any("what they took was removed since" in line for line in report.words)
    assert EvaluationResult.__dataclass_fields__["num_removed_targets"].default == 0


def test_an_update_changes_attributes_and_titles_and_no_id(run: Run) -> None:
    recommender = Recommender.load(run.path)
    before, version, vectors = codes(run), recommender.trie.version, snapshot(run)["embeddings/text.npy"]
    rows = [{"item_id": "i3", "title": "Renamed", "year": 2030}, {"item_id": "i9", "genres": ["Opera"]}]
    report = update_items(run, table(run, rows), when=WHEN)
    assert report.facts["num_updated"] == 2
    assert codes(run) == before
    assert ItemTrie.live_version(run.path / "trie") == version
    assert snapshot(run)["embeddings/text.npy"] == vectors
    assert recommender.refresh()
    assert [item.item_id for item in recommender.recommend(["i1"], k=3, allow={"genres": "Opera"})] == ["i9"]
    assert [item.title for item in recommender.recommend(["i1"], k=3, allow={"year": 2030})] == ["Renamed"]
    row = Catalog.load(run).table.row(9, named=True)
    assert (row["title"], row["year"]) == ("Film 9", 1994)


def test_a_new_vector_changes_an_id_only_where_that_is_asked_for(run: Run) -> None:
    before = codes(run)
    file = table(run, [{"item_id": "i3", "title": "Other"}])
    far = run.path.parent / "far.jsonl"
    far.write_text(json.dumps({"item_id": "i3", "vector": [-9.0, 5.0, 0, 0, 0, 0, 0, 7.0]}) + "\n")
    update_items(run, file, when=WHEN, precomputed={"text": far})
    assert codes(run) == before
    assert Embeddings.load(run, "text", catalog=Catalog.load(run)).vectors[3].tolist() == [-9, 5, 0, 0, 0, 0, 0, 7]
    report = update_items(run, file, when=WHEN, reencode=True)
    after = codes(run)
    assert after["i3"] != before["i3"]
    assert report.facts["num_new_ids"] == 1
    assert {item: code for item, code in after.items() if item != "i3"} == {
        item: code for item, code in before.items() if item != "i3"
    }
    assert len(set(after.values())) == 30


def test_a_change_before_the_items_have_ids_is_refused(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")
    with pytest.raises(RunError, match="ingest"):
        add_items(run, table(run, new_rows([1])), when=WHEN)


def test_the_command_line_adds_updates_and_removes(run: Run, genrec: Callable[..., Any]) -> None:
    file = table(run, new_rows(range(3)))
    done = genrec("items", "add", run.path, file, "--precomputed", f"text={vectors_file(run, ['n0', 'n1', 'n2'])}")
    assert (done.status, done.out.splitlines()[0]) == (0, "Added 3 items."), done.err
    users = run.path.parent / "users.jsonl"
    users.write_text('{"history": ["n0"], "allow": {"genres": "Fresh"}}\n')
    out = run.path.parent / "recs.jsonl"
    assert genrec("recommend", run.path, "--input", users, "--output", out).status == 0
    answer = json.loads(out.read_text())
    assert {item["item_id"] for item in answer["items"]} == {"n1", "n2"}
    assert answer["catalog_version"] == ItemTrie.live_version(run.path / "trie")
    changed = table(run, [{"item_id": "n1", "year": 1800}])
    done = genrec("items", "update", run.path, changed, "--json")
    assert json.loads(done.out)["num_updated"] == 1
    done = genrec("items", "remove", run.path, ids_file(run, ["n0", "i3"]))
    assert done.out.splitlines()[0] == "Removed 2 items."
    done = genrec("items", "remove", run.path, ids_file(run, ["i3"]))
    assert done.status == 1
    assert "was removed before" in done.err
    assert genrec("items", "add", run.path, file, "--precomputed", "text").status == 2
