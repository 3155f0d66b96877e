"""Bad input through the command line: a clear message, an exit status, and a run that is as it was."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from genrec import Recommender
from genrec.data.catalog import Catalog
from genrec.run import Run

Genrec = Callable[..., "tuple[int, str, str]"]
ITEMS = "item_id,title\na,A\nb,B\n"
INTERACTIONS = "user_id,item_id,timestamp\nu,a,1\nu,b,2\n"


def parquet(table: pl.DataFrame, folder: Path) -> bytes:
    table.write_parquet(folder / "whole.parquet")
    return (folder / "whole.parquet").read_bytes()


BAD_TABLES = {
    "a missing column of items": ("items.csv", "item_id,name\na,A\n", "items.csv lacks the column title"),
    "a missing column of interactions": (
        "interactions.csv",
        "user_id,film\nu,a\n",
        "interactions.csv lacks the column",
    ),
    "a duplicate item id": ("items.csv", ITEMS + "a,C\n", "items.csv, line 4"),
    "an unknown item": ("interactions.csv", INTERACTIONS + "u,zebra,3\n", "zebra"),
    "an unparsable timestamp": ("interactions.csv", INTERACTIONS + "u,a,yesterday\n", "interactions.csv, line 4"),
    "a table without rows": ("interactions.csv", "user_id,item_id\n", "not one interaction"),
    "a table without items": ("items.csv", "item_id,title\n", "not one item"),
    "an empty file": ("items.csv", "", "items.csv"),
    "bytes that are not text": ("items.csv", b"item_id,title\na,\xff\xfe\n", "items.csv"),
    "JSON lines that are none": ("items.jsonl", '{"item_id": "a", "title"\n', "items.jsonl"),
    "a truncated Parquet file": ("items.parquet", "truncated", "items.parquet"),
    "a missing file": ("items.csv", None, "items.csv"),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_a_bad_table_is_named_and_the_run_stays_as_it_was(
    genrec: Genrec, tiny_copy: Path, tmp_path: Path, name: str
) -> None:
    file, content, expected = BAD_TABLES[name]
    (tmp_path / "items.csv").write_text(ITEMS)
    (tmp_path / "interactions.csv").write_text(INTERACTIONS)
    if content == "truncated":
        content = parquet(pl.DataFrame({"item_id": ["a"], "title": ["A"]}), tmp_path)[:-20]
    if content is None:
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_bytes(content.encode() if isinstance(content, str) else content)
    items = file if file.startswith("items") else "items.csv"
    before = Run.open(tiny_copy).stages
    status, out, err = genrec("ingest", "tables", tmp_path / items, tmp_path / "interactions.csv", "--out", tiny_copy)
    assert status == 1
    assert expected in err
    assert out == ""
    run = Run.open(tiny_copy)
    assert run.stages == before
    for stage in before:
        run.require(stage)


def test_ingest_refuses_a_folder_that_holds_something_else(genrec: Genrec, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("ten years of work")
    status, _, err = genrec("ingest", "tables", "a.csv", "b.csv", "--out", tmp_path)
    assert status == 1
    assert "exists and is not a run" in err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


HOSTILE = [
    "<s0_1>",
    "<s0_17><s1_3>",
    "<|im_start|>system",
    "<|endoftext|>",
    "[red]x[/red]",
    "a\u202eb",
    "{{ history }}",
]


def test_titles_that_look_like_tokens_markup_or_templates_go_the_whole_way_unchanged(
    genrec: Genrec, tiny_files: Path, tmp_path: Path
) -> None:
    lines = (tiny_files / "items.jsonl").read_text().splitlines()
    items = [json.loads(line) for line in lines]
    for item, title in zip(items, HOSTILE, strict=False):
        item["title"] = title
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    run, tables = tmp_path / "run", (tmp_path / "items.jsonl", tiny_files / "interactions.csv")
    for stage in ("ingest", "embed", "tokenize", "train"):
        arguments = ("tables", *tables, "--out", run) if stage == "ingest" else (run,)
        status, _, err = genrec(stage, *arguments, "--config", tiny_files / f"{stage}.yaml")
        assert status == 0, err
    recommender = Recommender.load(run)
    assert recommender.catalog.titles[: len(HOSTILE)] == HOSTILE
    answer = recommender.recommend(["i20"], k=29)
    assert {item.title for item in answer} >= set(HOSTILE)
    # The history is the same items by their tokens, one semantic ID each, whatever their titles say.
    tokens = recommender.prompt_tokens(np.arange(3, dtype=np.int32))
    assert len(tokens) == len(recommender.prompt_tokens(np.array([], dtype=np.int32))) + 3 * recommender.trie.num_levels
    for item, title in enumerate(HOSTILE):
        status, out, _ = genrec("inspect", run, f"i{item}")
        assert status == 0
        assert out.startswith(f"{title}  (i{item})\n")


def test_a_batch_with_unknown_items_and_too_large_k_serves_what_there_is(
    genrec: Genrec, tiny_run: Path, tmp_path: Path
) -> None:
    lines = ['{"history": ["unheard-of"]}', '{"history": ["i0"], "allow": {"year": 1990, "genres": "Comedy"}}']
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    arguments = ("--input", tmp_path / "in.jsonl", "--output", tmp_path / "out.jsonl", "-k", 1000)
    status, out, _ = genrec("recommend", tiny_run, *arguments)
    assert status == 1
    assert "unheard-of" in out
    bad, good = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert "line 1" in bad["error"]
    assert {item["item_id"] for item in good["items"]} == {"i15"}  # of i0 and i15, the only comedies of 1990
    assert good["note"].startswith("1 of 1000")


@pytest.fixture
def other_run(genrec: Genrec, tiny_files: Path, tmp_path: Path) -> Path:
    """A run of another catalogue of the same size, up to its semantic IDs."""
    files = Path(shutil.copytree(tiny_files, tmp_path / "other-files"))
    for name in ("items.jsonl", "interactions.csv"):
        text = (
            (files / name).read_text().replace('"i', '"j').replace(",i", ",j").replace("item_id,jtem", "item_id,item")
        )
        (files / name).write_text(text.replace('"jtem_id"', '"item_id"').replace("user_id,jtem_id", "user_id,item_id"))
    run = tmp_path / "other"
    tables = (files / "items.jsonl", files / "interactions.csv")
    for stage in ("ingest", "embed", "tokenize"):
        arguments = ("tables", *tables, "--out", run) if stage == "ingest" else (run,)
        status, _, err = genrec(stage, *arguments, "--config", files / f"{stage}.yaml")
        assert status == 0, err
    return run


@pytest.mark.parametrize(
    ("folder", "verb", "expected"),
    [("embeddings", "tokenize", "genrec embed"), ("semantic_ids", "train", "genrec"), ("trie", "train", "tokenize")],
)
def test_files_of_another_catalogue_are_refused(
    genrec: Genrec, tiny_copy: Path, other_run: Path, folder: str, verb: str, expected: str
) -> None:
    shutil.rmtree(tiny_copy / folder)
    shutil.copytree(other_run / folder, tiny_copy / folder)
    status, _, err = genrec(verb, tiny_copy)
    assert status == 1
    assert expected in err
    assert list(Run.open(tiny_copy).stages) == ["ingest", "embed", "tokenize", "trie", "train"]


def test_vectors_of_the_catalogue_of_before_are_refused_after_a_new_ingest(
    genrec: Genrec, other_run: Path, tiny_files: Path
) -> None:
    tables = (tiny_files / "items.jsonl", tiny_files / "interactions.csv")
    status, _, err = genrec("ingest", "tables", *tables, "--out", other_run, "--config", tiny_files / "ingest.yaml")
    assert status == 0, err
    assert list(Run.open(other_run).stages) == ["ingest"]
    status, _, err = genrec("tokenize", other_run)
    assert status == 1
    assert "genrec embed" in err


def test_a_model_older_than_the_semantic_ids_is_not_used(genrec: Genrec, tiny_copy: Path, tiny_files: Path) -> None:
    assert genrec("tokenize", tiny_copy, "--config", tiny_files / "tokenize.yaml", "--seed", 11)[0] == 0
    (tiny_copy / "in.jsonl").write_text('{"history": []}\n')
    arguments = ("--input", tiny_copy / "in.jsonl", "--output", tiny_copy / "out.jsonl")
    for command in (("recommend", tiny_copy, *arguments), ("evaluate", tiny_copy)):
        status, _, err = genrec(*command)
        assert status == 1
        assert "no stage 'train' yet" in err
        assert "genrec train" in err
    assert not (tiny_copy / "out.jsonl").exists()


@pytest.mark.parametrize(
    ("pattern", "verb"),
    [
        ("items.parquet", "ingest"),
        ("semantic_ids/codes.npy", "tokenize"),
        ("semantic_ids/semantic_ids.json", "tokenize"),
        ("trie/*/keys.npy", "tokenize"),
        ("trie/CURRENT", "tokenize"),
        ("model/model.safetensors", "train"),
        ("model/tokenizer.json", "train"),
        ("model/semantic_id_vocabulary.json", "train"),
        ("prompts/next_item.yaml", "train"),
    ],
)
@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_a_damaged_file_is_named_with_the_verb_that_mends_it(
    genrec: Genrec, tiny_copy: Path, pattern: str, verb: str, damage: str
) -> None:
    (file,) = tiny_copy.glob(pattern)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(content if damage == "flipped" else content[: len(content) // 2])
    (tiny_copy / "in.jsonl").write_text('{"history": []}\n')
    arguments = ("--input", tiny_copy / "in.jsonl", "--output", tiny_copy / "out.jsonl")
    status, _, err = genrec("recommend", tiny_copy, *arguments)
    assert status == 1
    assert file.name in err or str(file.parent) in err
    assert f"genrec {verb}" in err
    assert genrec("inspect", tiny_copy)[0] == 0


@pytest.mark.parametrize("content", ["{", "[]", '{"format_version": 99, "stages": {}}'])
def test_a_manifest_that_cannot_be_used_is_said(genrec: Genrec, tiny_copy: Path, content: str) -> None:
    (tiny_copy / "manifest.json").write_text(content)
    status, _, err = genrec("inspect", tiny_copy)
    assert status == 1
    assert "manifest.json" in err


def test_the_catalogue_of_a_damaged_run_can_be_ingested_again(
    genrec: Genrec, tiny_copy: Path, tiny_files: Path
) -> None:
    (tiny_copy / "items.parquet").write_bytes(b"PAR1")
    tables = (tiny_files / "items.jsonl", tiny_files / "interactions.csv")
    assert genrec("ingest", "tables", *tables, "--out", tiny_copy, "--config", tiny_files / "ingest.yaml")[0] == 0
    assert len(Catalog.load(Run.open(tiny_copy))) == 30
