"""`eval/enlarged.py`: more items and users than a run has, which `genrec ingest` reads again."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from genrec.config import IngestConfig
from genrec.data.catalog import Catalog
from genrec.data.ingest import ingest
from genrec.errors import ConfigError
from genrec.run import Run

SCRIPT = Path(__file__).parents[2] / "eval" / "enlarged.py"


@pytest.fixture(scope="module")
def recipe() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT), run_name="enlarged")


def test_items_are_doubled_and_users_taken_again(recipe: dict[str, Any], tiny_run: Path, tmp_path: Path) -> None:
    run = Run.open(tiny_run)
    size = len(Catalog.load(run))
    rows = recipe["enlarge"](run, tmp_path, num_items=size + 10, num_users=200, seed=0)
    larger = Run.create(tmp_path / "run")
    files = [tmp_path / "items.jsonl", tmp_path / "interactions.csv"]
    facts = ingest(larger, "tables", files, IngestConfig(min_interactions=1)).facts
    assert (facts["num_items"], facts["num_users"], facts["num_interactions"]) == (size + 10, 200, rows)
    assert sum(item.endswith("-2") for item in Catalog.load(larger).item_ids) == 10


def test_more_than_twice_the_items_is_refused_before_anything_is_written(
    recipe: dict[str, Any], tiny_run: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="--items 9,000"):
        recipe["enlarge"](Run.open(tiny_run), tmp_path / "out", num_items=9000, num_users=5, seed=0)
    assert not (tmp_path / "out").exists()
