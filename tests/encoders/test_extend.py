"""Vectors of new and changed items of every kind of modality, beside vectors that stay to the bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genrec import pipeline
from genrec.catalogue_changes import add_items, update_items
from genrec.config import EmbedConfig, IngestConfig, TokenizeConfig
from genrec.data.catalog import Catalog
from genrec.data.ingest import ingest
from genrec.encoders.base import Embeddings
from genrec.encoders.embed import embed
from genrec.errors import BadRowsError
from genrec.run import Run

pytest.importorskip("PIL", reason="images need the extra `image`")
pytest.importorskip("skimage", reason="image descriptors need the extra `image`")
WHEN = "2026-01-02T03:04:05+00:00"


def picture(file: Path, seed: int) -> None:
    from PIL import Image

    pixels = np.random.default_rng(seed).integers(0, 256, (24, 24, 3)).astype(np.uint8)
    file.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(file)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """20 items with posters and behaviour vectors, tokenized from both; nothing is trained."""
    rows = []
    for number in range(20):
        picture(tmp_path / "posters" / f"{number}.png", number)
        rows.append({"item_id": f"i{number}", "title": f"Film {number}", "image": f"posters/{number}.png"})
    log = [f"u{user},i{(user + step) % 20}\n" for user in range(30) for step in range(6)]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "log.csv").write_text("user_id,item_id\n" + "".join(log))
    run = Run.create(tmp_path / "run")
    ingest(run, "tables", [tmp_path / "items.jsonl", tmp_path / "log.csv"], IngestConfig(min_interactions=1))
    embed(run, EmbedConfig(text_model=None, image_model="descriptors", behaviour_model="ppmi-svd", behaviour_width=4))
    pipeline.tokenize(run, TokenizeConfig(method="residual-kmeans", levels=2, codebook_size=6))
    return run


@pytest.fixture
def write(run: Run) -> Callable[..., Path]:
    def write(*rows: dict[str, Any], folder: str = ".") -> Path:
        file = run.path.parent / folder / "rows.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return file

    return write


def load(run: Run, modality: str) -> Embeddings:
    return Embeddings.load(run, modality, catalog=Catalog.load(run))


def test_new_pictures_are_encoded_broken_ones_masked_and_behaviour_is_missing(
    run: Run, write: Callable[..., Path]
) -> None:
    before = {name: load(run, name) for name in ("image", "behaviour")}
    folder = run.path.parent / "posters"
    picture(folder / "new.png", 99)
    (folder / "broken.png").write_bytes(b"no picture")
    rows = [
        {"item_id": "good", "title": "Good", "image": "new.png"},
        {"item_id": "broken", "title": "Broken", "image": "broken.png"},
        {"item_id": "bare", "title": "Bare"},
    ]
    report = add_items(run, write(*rows, folder="posters"), when=WHEN)
    assert report.facts["missing"] == {"behaviour": 3, "image": 2}
    image, behaviour = load(run, "image"), load(run, "behaviour")
    assert image.mask[20:].tolist() == [True, False, False]
    assert not behaviour.mask[20:].any()
    np.testing.assert_array_equal(image.vectors[:20], before["image"].vectors)
    np.testing.assert_array_equal(behaviour.vectors[:20], before["behaviour"].vectors)
    assert Catalog.load(run).table["image"].to_list()[20:] == ["posters/new.png", "posters/broken.png", None]
    # What an embed of the whole catalogue would have made, to the bit.
    embed(run, EmbedConfig(text_model=None, image_model="descriptors"))
    np.testing.assert_array_equal(load(run, "image").vectors, image.vectors)


def test_items_without_any_picture_can_be_added_alone_and_broken_ones_alone_too(
    run: Run, write: Callable[..., Path]
) -> None:
    (run.path.parent / "broken.png").write_bytes(b"no picture")
    assert add_items(run, write({"item_id": "a", "title": "A"}), when=WHEN).facts["missing"]["image"] == 1
    broken = write({"item_id": "b", "title": "B", "image": "broken.png"})
    assert add_items(run, broken, when=WHEN).facts["missing"]["image"] == 1


def test_a_picture_outside_the_folder_of_the_first_table_is_a_bad_row(run: Run, tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("elsewhere")
    picture(folder / "x.png", 1)
    (folder / "rows.jsonl").write_text('{"item_id": "x", "title": "X", "image": "x.png"}\n')
    with pytest.raises(BadRowsError, match="outside the folder of the catalogue's media"):
        add_items(run, folder / "rows.jsonl", when=WHEN)


def test_an_update_changes_the_picture_that_it_names_and_takes_away_the_one_that_it_empties(
    run: Run, write: Callable[..., Path]
) -> None:
    before = load(run, "image")
    changed = write({"item_id": "i3", "image": "posters/7.png"}, {"item_id": "i5", "title": "Other words"})
    # The title of i5 is read by no encoder of this run, so nobody looks for its poster, which is gone by now.
    (run.path.parent / "posters" / "5.png").unlink()
    report = update_items(run, changed, when=WHEN)
    assert (report.facts["num_encoded"], report.facts["missing"]) == (1, {"image": 0})
    after = load(run, "image")
    np.testing.assert_array_equal(after.vectors[3], before.vectors[7])
    others = np.arange(20) != 3
    np.testing.assert_array_equal(after.vectors[others], before.vectors[others])
    report = update_items(run, write({"item_id": "i3", "image": None}), when=WHEN)
    assert "image: 1 of these have no vector (now)." in report.words
    assert np.flatnonzero(~load(run, "image").mask).tolist() == [3]


def test_a_picture_that_was_replaced_under_its_old_name_is_read_again_where_the_change_names_it(
    run: Run, write: Callable[..., Path]
) -> None:
    before, folder = load(run, "image"), run.path.parent / "posters"
    (folder / "3.png").write_bytes((folder / "7.png").read_bytes())
    (folder / "4.png").write_bytes((folder / "7.png").read_bytes())
    changed = write({"item_id": "i3", "image": "posters/3.png"}, {"item_id": "i4", "title": "Other words"})
    assert update_items(run, changed, when=WHEN).facts["num_encoded"] == 1
    after = load(run, "image")
    np.testing.assert_array_equal(after.vectors[3], before.vectors[7])
    others = np.arange(20) != 3
    np.testing.assert_array_equal(after.vectors[others], before.vectors[others])
