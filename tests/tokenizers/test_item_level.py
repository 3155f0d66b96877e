"""The last level in which an item has a code of its own; and codes that are used, not owned, equally often."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from genrec import Recommender, pipeline
from genrec.catalogue_changes import add_items
from genrec.config import TokenizeConfig, TrainConfig, load_config
from genrec.data.catalog import Catalog
from genrec.errors import RunError
from genrec.run import Run
from genrec.tokenizers.base import Makeup
from genrec.tokenizers.codes import SemanticIds
from genrec.tokenizers.files import tokenizer_checksum
from genrec.tokenizers.item_level import ItemLevel
from genrec.tokenizers.residual_kmeans import ResidualKMeans
from genrec.tokenizers.rqvae import RQVAE
from genrec.tokenizers.rqvae_training import RQVAEOptions
from genrec.tokenizers.stage import load_tokenizer

WHEN = "2026-01-02T03:04:05+00:00"


def clustered(num_items: int = 60) -> NDArray[np.float32]:
    rng = np.random.default_rng(0)
    return (4 * np.eye(8)[np.arange(num_items) % 6] + rng.normal(size=(num_items, 8))).astype(np.float32)


def fitted(most_codes: int = 100, makeup: Makeup | None = None) -> ItemLevel:
    made = ItemLevel(ResidualKMeans(codebook_sizes=(6,)), most_codes=most_codes)
    made.fit(clustered(), seed=0, makeup=makeup or Makeup())
    return made


def test_every_item_has_a_last_code_of_its_own_behind_codes_that_it_shares(tmp_path: Path) -> None:
    level, vectors = fitted(), clustered()
    codes = level.encode(vectors)
    assert level.codebook_sizes == (6, 60)
    assert codes[:, -1].tolist() == list(range(60))
    np.testing.assert_array_equal(codes[:, :-1], level.inside.encode(vectors))
    np.testing.assert_array_equal(level.reconstruct(codes), vectors)
    np.testing.assert_array_equal(level.reconstruct(codes[:, :1]), level.inside.reconstruct(codes[:, :1]))
    level.save(tmp_path)
    again = ItemLevel.around(ResidualKMeans.load(tmp_path), tmp_path)
    assert again is not None
    np.testing.assert_array_equal(again.encode(vectors), codes)
    with (tmp_path / "items.safetensors").open("r+b") as stream:
        stream.truncate(20)
    with pytest.raises(RunError, match=r"items\.safetensors cannot be read"):
        ItemLevel.around(level.inside, tmp_path)


def test_a_new_item_borrows_the_code_of_the_one_most_like_it() -> None:
    level, vectors = fitted(), clustered()
    assert level.encode(vectors[[7, 31]] + 0.01)[:, -1].tolist() == [7, 31]
    assert level.last_costs(vectors[[7]], level.encode(vectors[[7]])).argsort()[0, 0] == 7


def test_where_items_are_more_than_codes_the_most_used_have_their_own() -> None:
    uses = np.zeros(60, dtype=np.int64)
    uses[[50, 3, 20, 8]] = [9, 8, 7, 7]
    level = fitted(4, Makeup(uses=uses))
    assert level.codebook_sizes == (6, 4)
    assert level.encode(clustered()[[3, 8, 20, 50]])[:, -1].tolist() == [0, 1, 2, 3]
    assert set(level.encode(clustered())[:, -1].tolist()) <= {0, 1, 2, 3}


def test_codes_are_used_about_equally_often_where_uses_count() -> None:
    vectors, rng = clustered(400), np.random.default_rng(1)
    uses = np.where(rng.random(400) < 0.15, 40, 1)
    uneven = {}
    for balance in (0.0, 1.0):
        options = RQVAEOptions(latent_width=8, hidden_width=8, epochs=2, balance=balance, separate=False)
        tokenizer = RQVAE(codebook_sizes=(16,), options=options)
        tokenizer.fit(vectors, seed=0, makeup=Makeup(uses=uses))
        codes = tokenizer.encode(vectors)[:, 0]
        assert len(np.unique(codes)) == 16
        shares = np.bincount(codes, uses + 1, minlength=16) / (uses + 1).sum()
        uneven[balance] = float(np.square(shares).sum()) - 1 / 16  # how likely two uses share a code
    assert uneven[1.0] < 0.7 * uneven[0.0]


def test_a_run_with_the_level_trains_recommends_and_takes_new_items(
    tiny_copy: Path, tiny_files: Path, tmp_path: Path
) -> None:
    run = Run.open(tiny_copy)
    report = pipeline.tokenize(run, TokenizeConfig(levels=1, codebook_size=8, item_codes=100))
    assert [level["used"] for level in report.facts["levels"]] == [8, 30]
    assert report.facts["colliding_before"] == 0
    assert tokenizer_checksum(run.path / "semantic_ids" / "tokenizer")
    pipeline.train(run, load_config(TrainConfig, tiny_files / "train.yaml"))
    recommender = Recommender.load(run.path, beam_width=30)
    assert len(recommender.recommend(["i0", "i3"], k=28)) == 28
    before = SemanticIds.load(run, catalog=Catalog.load(run)).codes
    vectors = np.load(tiny_files / "vectors.npy")
    rows = [{"item_id": "n0", "title": "New", "year": 2020, "genres": ["Comedy"]}]
    (tmp_path / "new.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "vectors.jsonl").write_text(json.dumps({"item_id": "n0", "vector": vectors[4].tolist()}) + "\n")
    add_items(run, tmp_path / "new.jsonl", when=WHEN, precomputed={"text": tmp_path / "vectors.jsonl"})
    after = SemanticIds.load(run, catalog=Catalog.load(run)).codes
    np.testing.assert_array_equal(after[:30], before)
    assert len(np.unique(after, axis=0)) == 31
    assert after[30, 0] == before[4, 0]
    assert isinstance(load_tokenizer(run), ItemLevel)
    assert recommender.refresh()
    assert "n0" in [item.item_id for item in recommender.recommend(["i0", "i3"], k=29)]
