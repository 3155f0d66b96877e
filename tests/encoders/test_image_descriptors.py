"""Descriptors without weights: what each block sees and what it does not, on pictures of which that is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from genrec.encoders.image_descriptors import WEIGHTS, WIDTHS, ImageDescriptors, describe
from genrec.encoders.media import MediaFile

PLACES = dict(
    zip(WIDTHS, np.split(np.arange(sum(WIDTHS.values())), np.cumsum(list(WIDTHS.values()))[:-1]), strict=True)
)


def stripes(first: tuple[int, int, int], second: tuple[int, int, int], *, upright: bool) -> np.ndarray:
    """Stripes of 16 pixels in two colours, (128, 128, 3)."""
    position = np.arange(128) // 16 % 2
    which = np.broadcast_to(position[None, :] if upright else position[:, None], (128, 128))
    return np.where(which[..., None] == 0, first, second).astype(np.uint8)


def differences(one: np.ndarray, other: np.ndarray) -> dict[str, float]:
    """Distance of two pictures in each block."""
    difference = describe(one) - describe(other)
    return {name: float(np.linalg.norm(difference[place])) for name, place in PLACES.items()}


def test_colours_change_the_colour_and_directions_the_edges() -> None:
    red = stripes((220, 20, 20), (60, 0, 0), upright=True)
    blue = stripes((20, 20, 220), (0, 0, 60), upright=True)
    turned = stripes((220, 20, 20), (60, 0, 0), upright=False)
    colours, directions = differences(red, blue), differences(red, turned)
    assert colours["colour"] > 0.5
    assert colours["edges"] < 0.1
    assert directions["edges"] > 1.0
    assert directions["colour"] < 1e-6


def test_blocks_of_histograms_have_their_fixed_length_and_an_empty_picture_has_no_edges() -> None:
    rng = np.random.default_rng(0)
    vector = describe(rng.integers(0, 256, (128, 128, 3), dtype=np.uint8))
    for name in ("colour", "edges", "texture"):
        assert np.linalg.norm(vector[PLACES[name]]) == pytest.approx(WEIGHTS[name], rel=1e-5)
    empty = describe(np.full((128, 128, 3), 255, np.uint8))
    assert np.isfinite(empty).all()
    assert (empty[PLACES["edges"]] == 0).all()


def test_a_batch_equals_single_pictures_and_size_hardly_matters(tmp_path: Path, draw: Callable[..., Path]) -> None:
    encoder = ImageDescriptors(max_megapixels=1)
    for seed in range(3):
        draw(tmp_path / f"{seed}.png", seed)
    read = [encoder.read(MediaFile(tmp_path.resolve(), f"{seed}.png")) for seed in range(3)]
    np.testing.assert_array_equal(encoder.encode(read), np.concatenate([encoder.encode([one]) for one in read]))
    assert encoder.encode(read).shape == (3, encoder.width)


@pytest.mark.benchmark_data
def test_neighbours_of_real_posters_share_more_genres_than_chance(data_folder: Path) -> None:
    folder = data_folder / "movielens_small" / "posters"
    if not folder.is_dir():
        pytest.skip(f"no posters in {folder}")
    films = pl.read_csv(data_folder / "movielens_small" / "movies.csv")
    genres = {str(film): set(names.split("|")) for film, _, names in films.iter_rows()}
    names = sorted(path.name for path in folder.glob("*.jpg"))[::10]
    assert len(names) > 250
    encoder = ImageDescriptors(max_megapixels=1)
    vectors = encoder.encode([encoder.read(MediaFile(folder.resolve(), name)) for name in names])
    centred = vectors - vectors.mean(axis=0)
    similarity = centred @ centred.T / np.outer(*[np.linalg.norm(centred, axis=1)] * 2)
    np.fill_diagonal(similarity, -np.inf)
    nearest = np.argsort(-similarity, axis=1)[:, :5]
    of = [genres[name.removesuffix(".jpg")] for name in names]
    overlap = lambda a, b: len(of[a] & of[b]) / len(of[a] | of[b])  # noqa: E731
    near = np.mean([overlap(row, other) for row in range(len(names)) for other in nearest[row]])
    rng = np.random.default_rng(0)
    chance = np.mean([overlap(*rng.choice(len(names), 2, replace=False)) for _ in range(20_000)])
    assert near > 1.15 * chance
