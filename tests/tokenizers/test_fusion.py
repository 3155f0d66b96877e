"""Several modalities to one vector: balance, guesses where one is missing, and the way back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from genrec.errors import DataError, RunError
from genrec.tokenizers.fusion import Fusion

NUM_ITEMS = 300


def two_modalities(noise: float = 0.0, scale: float = 1.0):
    """Text and, as a linear map of it, image; the last 50 items have no image, the 10 before them no text."""
    rng = np.random.default_rng(0)
    text = rng.normal(size=(NUM_ITEMS, 5)).astype(np.float32)
    image = (scale * (text @ rng.normal(size=(5, 8)) + noise * rng.normal(size=(NUM_ITEMS, 8)) + 7)).astype(np.float32)
    masks = {"text": np.ones(NUM_ITEMS, bool), "image": np.ones(NUM_ITEMS, bool)}
    masks["image"][-50:] = False
    masks["text"][-60:-50] = False
    shown = {"text": np.where(masks["text"][:, None], text, 0), "image": np.where(masks["image"][:, None], image, 0)}
    return {"text": text, "image": image}, shown, masks


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_every_modality_brings_the_share_of_variance_that_its_weight_says(scale: float) -> None:
    _, shown, masks = two_modalities(scale=scale)
    fusion = Fusion.fit(shown, masks, weights={"image": 3.0}, seed=0)
    fused, _ = fusion.apply(shown, masks)
    assert fused.shape == (NUM_ITEMS, 13)
    for columns, name, weight in ((slice(0, 5), "text", 1.0), (slice(5, 13), "image", 3.0)):
        block = fused[masks[name], columns]
        assert np.abs(block.mean(axis=0)).max() < 1e-4
        assert float(np.square(block).sum(axis=1).mean()) == pytest.approx(weight, rel=1e-4)


def test_without_weights_vectors_stand_side_by_side_in_their_own_size() -> None:
    truth, shown, masks = two_modalities(scale=1000.0)
    fused, _ = Fusion.fit(shown, masks, weights=None, seed=0).apply(shown, masks)
    both = masks["text"] & masks["image"]
    for columns, name in ((slice(0, 5), "text"), (slice(5, 13), "image")):
        centred = truth[name] - truth[name][masks[name]].mean(axis=0)
        np.testing.assert_allclose(fused[both, columns], centred[both], rtol=1e-3, atol=1e-3 * np.abs(centred).max())


def test_a_missing_modality_is_guessed_from_the_others() -> None:
    truth, shown, masks = two_modalities()
    fusion = Fusion.fit(shown, masks, weights={}, seed=0)
    found = fusion.split(fusion.apply(shown, masks)[0])
    missing = ~masks["image"]
    error = np.square(found["image"][missing] - truth["image"][missing]).mean()
    assert error < 1e-3 * truth["image"][missing].var()  # it is a linear map of the text
    assert np.square(found["text"][~masks["text"]] - truth["text"][~masks["text"]]).mean() < 1e-3


def test_a_guess_of_what_cannot_be_known_is_the_mean() -> None:
    rng = np.random.default_rng(1)
    vectors = {name: rng.normal(size=(2000, 4)).astype(np.float32) for name in ("text", "image")}
    masks = {"text": np.ones(2000, bool), "image": np.arange(2000) < 1900}
    fused, guesses = Fusion.fit(vectors, masks, weights={}, seed=0).apply(vectors, masks)
    assert np.square(fused[1900:, 4:]).sum(axis=1).mean() < 0.02  # against 1 of a real one
    np.testing.assert_array_equal(fused[1900:, 4:], guesses[1][1900:])


def test_what_an_item_has_comes_back_as_it_was() -> None:
    _, shown, masks = two_modalities(noise=1.0)
    fusion = Fusion.fit(shown, masks, weights={"text": 0.2}, seed=0)
    found = fusion.split(fusion.apply(shown, masks)[0])
    for name, values in shown.items():
        np.testing.assert_allclose(found[name][masks[name]], values[masks[name]], rtol=1e-4, atol=1e-4)


def test_an_item_alone_is_fused_like_in_its_batch() -> None:
    _, shown, masks = two_modalities(noise=0.5)
    fusion = Fusion.fit(shown, masks, weights={}, seed=0)
    together, _ = fusion.apply(shown, masks)
    for row in (0, 245, 299):
        alone, _ = fusion.apply(
            {name: values[row : row + 1] for name, values in shown.items()},
            {name: mask[row : row + 1] for name, mask in masks.items()},
        )
        np.testing.assert_allclose(alone[0], together[row], atol=1e-5)


def test_one_modality_alone_is_centred_and_scaled_and_an_item_without_it_is_the_mean() -> None:
    _, shown, masks = two_modalities()
    one, mask = {"image": shown["image"]}, {"image": masks["image"]}
    fused, _ = Fusion.fit(one, mask, weights={}, seed=0).apply(one, mask)
    assert not fused[-50:].any()
    ratio = fused[:100] / (shown["image"][:100] - shown["image"][masks["image"]].mean(axis=0))
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-3)


@pytest.mark.parametrize("present", [1, 300])
def test_a_modality_that_tells_no_items_apart_has_no_say_in_what_comes_later(present: int) -> None:
    _, shown, masks = two_modalities()
    same = {**shown, "image": np.full_like(shown["image"], 0.1)}
    masks = {**masks, "image": np.arange(NUM_ITEMS) < present}
    fusion = Fusion.fit(same, masks, weights={}, seed=0)
    new = {"text": shown["text"][:1], "image": np.full((1, 8), 0.7, np.float32)}
    fused, _ = fusion.apply(new, {name: np.ones(1, bool) for name in new})
    assert not fused[0, 5:].any()
    assert all(np.isfinite(values).all() for values in fusion.split(fused).values())


def test_a_saved_fusion_is_the_same_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    _, shown, masks = two_modalities(noise=0.5)
    fusion = Fusion.fit(shown, masks, weights={}, seed=0)
    fusion.save(tmp_path)
    loaded = Fusion.load(tmp_path)
    assert (loaded.names, loaded.widths) == (("text", "image"), (5, 8))
    np.testing.assert_array_equal(loaded.apply(shown, masks)[0], fusion.apply(shown, masks)[0])
    (tmp_path / "fusion.safetensors").write_bytes(b"no")
    with pytest.raises(RunError, match="cannot be read"):
        Fusion.load(tmp_path)


def test_a_modality_that_no_item_has_and_one_of_another_width_are_refused() -> None:
    _, shown, masks = two_modalities()
    with pytest.raises(DataError, match="No item that teaches has a vector of modality 'image'"):
        Fusion.fit(shown, {**masks, "image": np.zeros(NUM_ITEMS, bool)}, weights={}, seed=0)
    fusion = Fusion.fit(shown, masks, weights={}, seed=0)
    with pytest.raises(DataError, match="reads image vectors of width 8, found 3"):
        fusion.apply({**shown, "image": shown["image"][:, :3]}, masks)
    with pytest.raises(DataError, match="reads image vectors of width 8, found none"):
        fusion.apply({"text": shown["text"]}, masks)
