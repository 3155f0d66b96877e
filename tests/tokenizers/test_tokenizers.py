"""Both tokenizers under one set of promises, and what each promises alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from genrec.errors import DataError, RunError
from genrec.tokenizers.base import PLAIN, ItemTokenizer
from genrec.tokenizers.codes import colliding_items
from genrec.tokenizers.health import relative_error
from genrec.tokenizers.kmeans import fit_kmeans, squared_distances
from genrec.tokenizers.quantizer import separating_view
from genrec.tokenizers.residual_kmeans import ResidualKMeans
from genrec.tokenizers.rqvae import RQVAE
from genrec.tokenizers.rqvae_training import RQVAEOptions, RQVAEParts, TrainingData, _refresh
from genrec.tokenizers.sinkhorn import update_potentials

Vectors = NDArray[np.float32]
OPTIONS = RQVAEOptions(latent_width=12, hidden_width=16, epochs=4, batch_size=64)
MAKERS: dict[str, Callable[[], ResidualKMeans | RQVAE]] = {
    "residual-kmeans": lambda: ResidualKMeans(codebook_sizes=(8,) * 3),
    "rqvae": lambda: RQVAE(codebook_sizes=(8,) * 3, options=OPTIONS),
    "rqvae coarse to fine": lambda: RQVAE(codebook_sizes=(12, 8, 6), options=OPTIONS),
}


def clustered(num_items: int = 240, width: int = 12, seed: int = 0) -> Vectors:
    """Points around 6 far centres, each with nearer centres inside."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(6, width)) * 5
    inner = rng.normal(size=(6, 4, width))
    outer_of, inner_of = rng.integers(0, 6, num_items), rng.integers(0, 4, num_items)
    noise = rng.normal(size=(num_items, width)) * 0.3
    return (3.0 + centres[outer_of] + inner[outer_of, inner_of] + noise).astype(np.float32)


@pytest.fixture(scope="module", params=sorted(MAKERS))
def fitted(request: pytest.FixtureRequest) -> ItemTokenizer:
    tokenizer = MAKERS[request.param]()
    tokenizer.fit(clustered(), seed=1)
    return tokenizer


def test_a_batch_of_items_encodes_like_each_item_alone(fitted: ItemTokenizer) -> None:
    vectors = clustered(seed=2)[:20]
    codes = fitted.encode(vectors)
    assert codes.shape == (20, 3)
    assert codes.dtype == np.uint16
    alone = np.concatenate([fitted.encode(vectors[row : row + 1]) for row in range(20)])
    np.testing.assert_array_equal(codes, alone)


def test_a_saved_tokenizer_encodes_and_reconstructs_the_same(fitted: ItemTokenizer, tmp_path: Path) -> None:
    fitted.save(tmp_path)
    loaded = type(fitted).load(tmp_path)
    vectors = clustered()
    np.testing.assert_array_equal(loaded.encode(vectors), fitted.encode(vectors))
    codes = fitted.encode(vectors)
    np.testing.assert_array_equal(loaded.reconstruct(codes), fitted.reconstruct(codes))
    assert loaded.codebook_sizes == fitted.codebook_sizes


def test_every_further_level_lowers_the_reconstruction_error(fitted: ItemTokenizer) -> None:
    vectors = clustered()
    codes = fitted.encode(vectors)
    errors = [relative_error(vectors, fitted.reconstruct(codes[:, :length])) for length in (1, 2, 3)]
    assert errors[0] < 0.25
    assert errors == sorted(errors, reverse=True)


def test_the_code_that_an_item_has_costs_least_on_the_last_level(fitted: ItemTokenizer) -> None:
    vectors = clustered(seed=3)
    codes = fitted.encode(vectors)
    costs = fitted.last_costs(vectors, codes)
    assert costs.shape == (len(vectors), fitted.codebook_sizes[-1])
    np.testing.assert_array_equal(costs.argmin(axis=1), codes[:, -1])


def test_near_items_share_their_first_code(fitted: ItemTokenizer) -> None:
    vectors = clustered()
    first = fitted.encode(vectors)[:, 0]
    nearby = fitted.encode(vectors + np.float32(0.01))[:, 0]
    assert (first == nearby).mean() > 0.95


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_the_same_seed_gives_the_same_codes(name: str) -> None:
    codes = []
    for seed in (5, 5, 6):
        tokenizer = MAKERS[name]()
        tokenizer.fit(clustered(), seed=seed)
        codes.append(tokenizer.encode(clustered()))
    np.testing.assert_array_equal(codes[0], codes[1])
    assert (codes[0] != codes[2]).any()


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_fewer_items_than_codes_are_refused_with_a_size_that_fits(name: str) -> None:
    largest = max(MAKERS[name]().codebook_sizes)
    with pytest.raises(DataError, match=rf"7 items cannot fill a codebook of {largest} codes.*--codebook-size 2"):
        MAKERS[name]().fit(clustered(7), seed=0)
    with pytest.raises(DataError, match=r"1 item\(s\) cannot fill a codebook.*--method item-id"):
        MAKERS[name]().fit(clustered(1), seed=0)
    with pytest.raises(DataError, match="finite"):
        MAKERS[name]().fit(np.full((9, 3), np.nan, np.float32), seed=0)


@pytest.mark.parametrize("name", sorted(MAKERS))
@pytest.mark.parametrize("vectors", [clustered(12), np.ones((20, 12), np.float32), clustered(30)[:, :1]])
def test_tiny_and_degenerate_catalogues_get_finite_vectors_and_valid_codes(name: str, vectors: Vectors) -> None:
    tokenizer = MAKERS[name]()
    tokenizer.fit(vectors, seed=0)
    codes = tokenizer.encode(vectors)
    assert (codes < np.array(tokenizer.codebook_sizes)).all()
    assert np.isfinite(tokenizer.reconstruct(codes)).all()
    assert relative_error(vectors, tokenizer.reconstruct(codes)) < 0.5


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_an_unfitted_a_foreign_and_a_damaged_tokenizer_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not been fitted"):
        MAKERS[name]().encode(clustered())
    other = MAKERS[next(key for key in MAKERS if MAKERS[key]().method != MAKERS[name]().method)]()
    other.fit(clustered(), seed=0)
    other.save(tmp_path)
    with pytest.raises(RunError, match=f"expected {MAKERS[name]().method}"):
        type(MAKERS[name]()).load(tmp_path)
    (tmp_path / "tokenizer.safetensors").write_bytes(b"no")
    with pytest.raises(RunError, match="cannot be read"):
        type(other).load(tmp_path)


def test_rqvae_with_one_level_works() -> None:
    tokenizer = RQVAE(codebook_sizes=(8,) * 1, options=OPTIONS)
    tokenizer.fit(clustered(), seed=0)
    assert len(np.unique(tokenizer.encode(clustered()))) == 8


def test_rqvae_uses_its_codes_evenly_collides_less_and_reconstructs_as_well_as_residual_kmeans() -> None:
    spread = np.linspace(2.0, 0.2, 12)  # no clusters to find: what real item vectors look like within a topic
    vectors = (np.random.default_rng(0).normal(size=(400, 12)) * spread).astype(np.float32)
    plain = ResidualKMeans(codebook_sizes=(8,) * 3)
    learned = RQVAE(codebook_sizes=(8,) * 3, options=OPTIONS)
    plain.fit(vectors, seed=0)
    learned.fit(vectors, seed=0)
    codes = {tokenizer: tokenizer.encode(vectors) for tokenizer in (plain, learned)}
    assert all(len(np.unique(codes[learned][:, level])) == 8 for level in range(3))
    assert colliding_items(codes[learned]).mean() < colliding_items(codes[plain]).mean()
    errors = {each: relative_error(vectors, each.reconstruct(codes[each])) for each in (plain, learned)}
    assert errors[learned] < errors[plain] * 1.05


def test_training_stops_early_and_keeps_the_best_epoch() -> None:
    options = RQVAEOptions(latent_width=12, hidden_width=16, epochs=50, learning_rate=3.0, patience=2)
    tokenizer = RQVAE(codebook_sizes=(8,) * 2, options=options)
    tokenizer.fit(clustered(), seed=0)
    report = tokenizer.train_report
    assert report["epochs"] < 50
    vectors = clustered()
    kept = relative_error(vectors, tokenizer.reconstruct(tokenizer.encode(vectors)))
    assert kept == pytest.approx(report["best"], rel=1e-3)
    assert report["best"] <= report["start"]


def test_dead_codes_are_restarted_on_every_level() -> None:
    tokenizer = RQVAE(codebook_sizes=(8,) * 2, options=OPTIONS)
    vectors = clustered()
    tokenizer.fit(vectors, seed=0)
    parts = tokenizer._parts
    assert isinstance(parts, RQVAEParts)
    quantizer = parts.quantizer
    quantizer.codebooks[0][:4] = 1e6
    quantizer.keys[:3] = 1e6
    points = (torch.from_numpy(vectors) - parts.mean) / parts.scale
    data = TrainingData.of(points, PLAIN, mean=torch.zeros(()), scale=torch.ones(()))
    assert _refresh(parts, data, torch.Generator().manual_seed(0)) >= 7
    codes = tokenizer.encode(vectors)
    assert [len(np.unique(codes[:, level])) for level in range(2)] == [8, 8]


def test_kmeans_finds_clusters_that_are_far_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.arange(5).repeat_interleave(20)
    points = torch.randn(100, 3, generator=generator) * 0.01 + truth.unsqueeze(1) * 10.0
    found = fit_kmeans(points, 5, generator=generator, balanced=False)
    assert len(set(zip(truth.tolist(), found.assign(points).tolist(), strict=True))) == 5


def test_kmeans_ends_where_no_centre_is_unused_if_there_are_enough_points() -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.cat([torch.zeros(50, 2), torch.arange(1.0, 8.0).unsqueeze(1).repeat(1, 2)])
    found = fit_kmeans(points, 8, generator=generator, balanced=False)
    assert len(found.assign(points).unique()) == 8


def test_large_data_is_sampled_and_still_finds_its_clusters() -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(2000, 2, generator=generator) * 0.1 + (torch.arange(2000) % 2).unsqueeze(1) * 9.0
    centres = fit_kmeans(points, 2, generator=generator, balanced=False).centres
    assert sorted(centres.mean(dim=1).round().tolist()) == [0.0, 9.0]


def test_squared_distances_are_those_of_the_definition() -> None:
    points, centres = torch.randn(7, 3), torch.randn(4, 3)
    naive = ((points[:, None] - centres[None]) ** 2).sum(dim=2)
    torch.testing.assert_close(squared_distances(points, centres), naive, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_potentials_even_out_a_skewed_assignment_at_any_scale(scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(600, 2, generator=generator) ** 3
    distances = squared_distances(points, torch.randn(6, 2, generator=generator)) * scale
    potentials = update_potentials(distances, torch.zeros(6), iterations=300)
    assert torch.isfinite(potentials).all()
    before = torch.bincount(distances.argmin(dim=1), minlength=6)
    after = torch.bincount((distances - potentials).argmin(dim=1), minlength=6)
    assert before.min() < 40
    assert after.min() >= 60  # an even share is 100; the temperature leaves some of the skew
    assert update_potentials(torch.zeros(9, 3), torch.zeros(3)).tolist() == [0.0, 0.0, 0.0]


def test_the_separating_view_finds_the_direction_in_which_items_of_a_prefix_differ() -> None:
    generator = torch.Generator().manual_seed(0)
    prefixes = torch.arange(100).repeat_interleave(4).unsqueeze(1)
    shared = torch.randn(100, 20, generator=generator).repeat_interleave(4, dim=0) * 5.0
    residuals = shared.clone()
    residuals[:, 3] = torch.randn(400, generator=generator)  # only here do items of one prefix differ
    best = separating_view(residuals, prefixes)[:, -1]
    assert int(best.abs().argmax()) == 3
