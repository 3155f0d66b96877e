"""The three layouts of Amazon Reviews tell the same story."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from genrec.config import IngestConfig
from genrec.data.catalog import Catalog
from genrec.data.ingest import ingest
from genrec.data.interactions import load_interactions
from genrec.errors import BadRowsError, DataError
from genrec.run import Run

EVERY_ITEM = IngestConfig(min_interactions=1)
OLD = [
    {"reviewerID": "A1", "asin": "B2", "overall": 5.0, "reviewText": "Good\n", "unixReviewTime": 200, "summary": "x"},
    {"reviewerID": "A1", "asin": "B1", "overall": 3.0, "reviewText": "", "unixReviewTime": 100, "verified": True},
    {"reviewerID": "A2", "asin": "B9", "overall": 1.0, "unixReviewTime": 300},
]
NEW = [
    {
        "user_id": row["reviewerID"],
        "parent_asin": row["asin"],
        "asin": "variant",
        "rating": row["overall"],
        "timestamp": int(str(row["unixReviewTime"])) * 1000,
        "text": row.get("reviewText"),
        "title": "A review's title",
    }
    for row in OLD
]
LAYOUTS: dict[str, tuple[list[dict[str, Any]], list[str]]] = {
    "2014": (
        OLD,
        [
            "{'asin': 'B1', 'title': 'Rock &amp; Roll', 'brand': 'Ac\\'me', 'price': 3.5,"
            " 'categories': [['Music', 'Rock'], ['Music', 'CDs']], 'related': {'also_bought': ['B2']}}",
            "{'asin': 'B2', 'description': \"It's fine\"}",
        ],
    ),
    "2018": (
        OLD,
        [
            '{"asin": "B1", "title": "Rock &amp; Roll", "brand": "Ac\'me", "price": 3.5,'
            ' "category": ["Music", "Rock", "CDs"], "description": [], "also_buy": ["B2"]}',
            '{"asin": "B2", "title": "", "category": [], "description": ["It\'s", "fine"]}',
            '{"asin": "B2", "title": "", "category": [], "description": ["It\'s", "fine"]}',
        ],
    ),
    "2023": (
        NEW,
        [
            '{"parent_asin": "B1", "title": "Rock & Roll", "store": "Ac\'me", "price": 3.5,'
            ' "categories": ["Music", "Rock", "CDs"], "description": [], "average_rating": 4.1, "images": [{}]}',
            '{"parent_asin": "B2", "title": null, "store": null, "categories": [], "description": ["It\'s", "fine"]}',
        ],
    ),
}


def write(folder: Path, layout: str) -> list[Path]:
    reviews, metadata = LAYOUTS[layout]
    paths = [folder / "reviews.json.gz", folder / "meta.jsonl"]
    paths[0].write_bytes(gzip.compress("\n".join(json.dumps(row) for row in reviews).encode()))
    paths[1].write_text("\n".join(metadata))
    return paths


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_recognised_by_its_keys(tmp_path: Path, layout: str, backwards: bool) -> None:
    paths = write(tmp_path, layout)
    run = Run.create(tmp_path / "run")
    report = ingest(run, "amazon", paths[::-1] if backwards else paths, EVERY_ITEM)
    assert all(
        name.startswith("2014/2018" if name.endswith("reviews") and layout < "2020" else layout)
        for name in report.facts["layout"]
    )
    items = Catalog.load(run).table
    assert items["item_id"].to_list() == ["B1", "B2", "B9"]
    assert items["title"].to_list() == ["Rock & Roll", "B2", "B9"]
    assert items["brand"].to_list() == ["Ac'me", None, None]
    assert items["categories"].to_list() == [["Music", "Rock", "CDs"], [], []]
    assert items["description"].to_list() == [None, "It's fine", None]
    assert not {"related", "also_buy", "average_rating", "images"} & set(items.columns)
    assert load_interactions(run).rows() == [
        ("A1", "B1", 100.0, 3.0, None, None),
        ("A1", "B2", 200.0, 5.0, "Good", None),
        ("A2", "B9", 300.0, 1.0, None, None),
    ]
    assert report.facts["num_items_without_title"] == 2
    assert report.facts["num_repeated_metadata_rows"] == (1 if layout == "2018" else 0)
    assert any(line.startswith("Left out of the metadata") for line in report.words)


def test_reviews_alone_give_items_in_the_order_of_their_ids(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")
    ingest(run, "amazon", write(tmp_path, "2023")[:1], EVERY_ITEM)
    assert Catalog.load(run).titles == ["B1", "B2", "B9"]


def test_two_files_of_a_kind_and_metadata_alone_are_errors(tmp_path: Path) -> None:
    reviews, metadata = write(tmp_path, "2018")
    run = Run.create(tmp_path / "run")
    with pytest.raises(DataError, match="both hold metadata"):
        ingest(run, "amazon", [metadata, metadata], EVERY_ITEM)
    with pytest.raises(DataError, match="holds metadata and no reviews"):
        ingest(run, "amazon", [metadata], EVERY_ITEM)
    assert reviews.exists()


def test_a_python_literal_runs_no_code_and_is_named_when_broken(tmp_path: Path) -> None:
    reviews, metadata = write(tmp_path, "2014")
    trap = tmp_path / "trap"
    with metadata.open("a") as stream:
        stream.write(f"\n{{'asin': open({str(trap)!r}, 'w')}}\n")
    with pytest.raises(BadRowsError, match=r"meta\.jsonl, line 3: is not valid JSON"):
        ingest(Run.create(tmp_path / "run"), "amazon", [reviews, metadata], EVERY_ITEM)
    assert not trap.exists()
