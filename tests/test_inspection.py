"""inspect: what a run holds and what an item looks like, against codes and tables read by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from genrec.data.catalog import Catalog
from genrec.errors import RunError, UnknownItemError
from genrec.inspection import inspect_item, inspect_run
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
