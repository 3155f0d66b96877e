"""inspect: what a run holds and what an item looks like, against codes and tables read by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from genrec.config import TrainConfig
from genrec.data.catalog import Catalog
from genrec.errors import RunError, UnknownItemError
from genrec.inspection import TRAINED_ON, example_lines, inspect_examples, inspect_item, inspect_run
from genrec.run import Run


def test_a_run_shows_every_finished_stage_in_order_with_its_figures(tiny_run: Path) -> None:
    report = inspect_run(Run(tiny_run))
    assert list(report.facts) == ["ingest", "embed", "tokenize", "trie", "train"]
    assert report.facts["ingest"]["report"]["num_items"] == 30
    assert report.facts["train"]["config"]["epochs"] == 2
    assert "5 finished" in report.words[0]
    assert [line.split()[0] for line in report.words[1:]] == list(report.facts)
    assert "num_items 30" in report.words[1]


def test_a_new_run_shows_that_it_is_empty(tmp_path: Path) -> None:
    report = inspect_run(Run.create(tmp_path / "new"))
    assert report.facts == {}
    assert "0 finished" in report.words[0]


@pytest.mark.parametrize("row", [0, 13, 29])
def test_the_neighbours_of_an_item_are_all_items_with_the_same_prefix(tiny_run: Path, row: int) -> None:
    codes = np.load(tiny_run / "semantic_ids" / "codes.npy")
    report = inspect_item(Run(tiny_run), f"i{row}")
    assert report.facts["codes"] == codes[row].tolist()
    assert report.facts["record"]["title"] == f"Film {row}"
    assert [len(entry["prefix"]) for entry in report.facts["prefixes"]] == list(range(codes.shape[1], 0, -1))
    for entry in report.facts["prefixes"]:
        length = len(entry["prefix"])
        assert entry["prefix"] == [f"<s{level}_{codes[row, level]}>" for level in range(length)]
        same = [f"i{n}" for n in range(30) if (codes[n, :length] == codes[row, :length]).all()]
        assert entry["num_items"] == len(same)
        assert entry["neighbours"] == [item for item in same if item != f"i{row}"][:5]
    words = "\n".join(report.words)
    assert f"Film {row}  (i{row})" in words
    assert f"year: {1990 + row % 5}" in words
    assert "genres: " in words


def test_crowded_and_lonely_prefixes_are_said_in_words(tiny_run: Path) -> None:
    reports = [inspect_item(Run(tiny_run), item) for item in Catalog.load(Run(tiny_run)).item_ids]
    lines = [line for report in reports for line in report.words]
    assert any(line.endswith("nobody else") for line in lines)
    assert any(line.endswith(" more") for line in lines)


def test_an_unknown_item_is_named(tiny_run: Path) -> None:
    with pytest.raises(UnknownItemError, match="nobody"):
        inspect_item(Run(tiny_run), "nobody")


def test_an_item_of_a_run_without_semantic_ids_says_what_to_run(tiny_copy: Path) -> None:
    (tiny_copy / "semantic_ids" / "semantic_ids.json").unlink()
    with pytest.raises(RunError, match="genrec tokenize"):
        inspect_item(Run(tiny_copy), "i0")


def test_ten_examples_show_their_tokens_and_which_are_trained_on(tiny_run: Path) -> None:
    config = TrainConfig(tasks={"A1": 0.5, "B1": 0.25, "B2": 0.25}, max_history_items=6)
    report = inspect_examples(Run(tiny_run), config)
    examples = report.facts["examples"]
    assert [example["task"] for example in examples] == ["A1", "B1", "B2"] * 3 + ["A1"]
    tokenizer = AutoTokenizer.from_pretrained(tiny_run / "model")
    for example in examples:
        assert len(example["token_ids"]) == len(example["trained_on"])
        text = tokenizer.decode(example["token_ids"])
        assert "".join(span["text"] for span in example["spans"]) == text
        answers = [span["text"] for span in example["spans"] if span["trained_on"]]
        trained = [t for t, on in zip(example["token_ids"], example["trained_on"], strict=True) if on]
        assert answers == [tokenizer.decode(trained)]
        assert f"⟦{answers[0]}⟧" in "\n".join(example_lines(example, marks=TRAINED_ON)).replace("\n  ", "\n")
    assert "B1, " in "\n".join(report.words)


def test_without_a_configuration_the_examples_are_those_of_the_training(tiny_run: Path) -> None:
    examples = inspect_examples(Run(tiny_run)).facts["examples"]
    assert {example["task"] for example in examples} == {"A1"}
    assert len(examples) == 10


def test_a_mark_in_a_title_is_not_one_of_ours() -> None:
    example = {"task": "B1", "token_ids": [1], "spans": [{"text": "⟦x⟧", "trained_on": False}]}
    assert example_lines(example, marks=TRAINED_ON)[1] == "  [x]"


def test_examples_of_a_run_that_is_not_trained_say_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="genrec train"):
        inspect_examples(Run.create(tmp_path / "new"))
