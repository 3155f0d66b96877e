"""eval/missing_posters.py: what it leaves out, spoils and keeps; and that `embed` names every spoiled file."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from genrec.config import EmbedConfig, IngestConfig
from genrec.data.catalog import Catalog
from genrec.data.ingest import ingest
from genrec.encoders.base import Embeddings
from genrec.encoders.embed import embed
from genrec.errors import DataError
from genrec.run import Run

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def recipe() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "eval" / "missing_posters.py"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty films with a poster each, and users who saw them."""
    source = tmp_path / "films"
    (source / "posters").mkdir(parents=True)
    films = "".join(f"{n},Film {n} (1999),Drama\n" for n in range(1, 21))
    (source / "movies.csv").write_text("movieId,title,genres\n" + films)
    rows = "".join(f"{user},{1 + (user + step) % 20},4.0,{step}\n" for user in range(12) for step in range(6))
    (source / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + rows)
    rng = np.random.default_rng(0)
    for n in range(1, 21):
        Image.fromarray(rng.integers(0, 255, (24, 16, 3), dtype=np.uint8)).save(source / "posters" / f"{n}.jpg")
    return source


def test_every_broken_poster_is_named_and_stops_nothing(recipe: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    left_out, broken = recipe["make_holes"](folder, tmp_path / "holes", missing=0.3, broken=5, seed=0)
    assert (left_out, len(set(broken))) == (6, 5)
    assert len(list((tmp_path / "holes" / "posters").iterdir())) == 14
    assert len(list((folder / "posters").iterdir())) == 20  # the source is untouched
    assert all(Image.open(path).size == (16, 24) for path in (folder / "posters").iterdir())
    run = Run.create(tmp_path / "run")
    ingest(run, "movielens", [tmp_path / "holes"], IngestConfig(min_interactions=1))
    report = embed(run, EmbedConfig(text_model=None, image_model="descriptors", behaviour_model=None))
    named = [name for name in broken if any(name in line for line in report.words)]
    assert sorted(named) == sorted(broken)
    assert Embeddings.load(run, "image", catalog=Catalog.load(run)).mask.sum() == 9


def test_wishes_that_cannot_be_are_refused(recipe: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="20 posters cannot lose 18 and break 5"):
        recipe["make_holes"](folder, tmp_path / "a", missing=0.9, broken=5, seed=0)
    with pytest.raises(DataError, match="is not empty"):
        recipe["make_holes"](folder, folder, missing=0.1, broken=1, seed=0)
    with pytest.raises(DataError, match="holds no posters"):
        recipe["make_holes"](tmp_path, tmp_path / "b", missing=0.1, broken=1, seed=0)
