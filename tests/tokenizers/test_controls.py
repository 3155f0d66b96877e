"""Random codes and item ids: what a control has to be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from genrec.errors import DataError, RunError
from genrec.tokenizers.controls import RandomCodes
from genrec.tokenizers.item_level import ItemIdCodes

VECTORS = np.random.default_rng(0).normal(size=(3000, 6)).astype(np.float32)


def fitted(seed: int = 0) -> RandomCodes:
    tokenizer = RandomCodes(codebook_sizes=(16, 8, 4))
    tokenizer.fit(VECTORS, seed=seed)
    return tokenizer


def test_random_codes_are_even_and_near_items_share_none_of_them() -> None:
    codes = fitted().encode(VECTORS)
    for level, size in enumerate((16, 8, 4)):
        counts = np.bincount(codes[:, level], minlength=size)
        assert len(counts) == size
        assert counts.min() > 0.7 * 3000 / size
    nearby = fitted().encode(VECTORS + np.float32(1e-4))
    assert (codes[:, 0] == nearby[:, 0]).mean() < 0.1


def test_random_codes_depend_on_vector_and_seed_alone(tmp_path: Path) -> None:
    codes = fitted().encode(VECTORS)
    np.testing.assert_array_equal(fitted().encode(VECTORS[::-1])[::-1], codes)
    assert (fitted(seed=1).encode(VECTORS) != codes).any()
    fitted().save(tmp_path)
    np.testing.assert_array_equal(RandomCodes.load(tmp_path).encode(VECTORS[5:6]), codes[5:6])
    costs = fitted().last_costs(VECTORS, codes)
    np.testing.assert_array_equal(costs.argmin(axis=1), codes[:, -1])
    assert len(np.unique(fitted().reconstruct(codes), axis=0)) == 1


def test_every_item_has_a_code_of_its_own_and_others_borrow_the_nearest_one(tmp_path: Path) -> None:
    tokenizer = ItemIdCodes()
    tokenizer.fit(VECTORS, seed=0)
    codes = tokenizer.encode(VECTORS)
    assert tokenizer.codebook_sizes == (3000,)
    assert codes[:, 0].tolist() == list(range(3000))
    assert tokenizer.reconstruct(codes).shape == VECTORS.shape
    assert tokenizer.last_costs(VECTORS[:4], codes[:4]).argmin(axis=1).tolist() == [0, 1, 2, 3]
    tokenizer.save(tmp_path)
    loaded = ItemIdCodes.load(tmp_path)
    np.testing.assert_array_equal(loaded.reconstruct(codes), VECTORS)
    new = VECTORS[[7, 3, 7]] + np.float32(1e-4)
    assert loaded.encode(new).tolist() == [[7], [3], [7]]
    twice = ItemIdCodes()
    twice.fit(VECTORS[[0, 0, 1]], seed=0)
    assert twice.encode(VECTORS[[0, 0, 1]]).tolist() == [[0], [1], [2]]  # equal items are still two
    (tmp_path / "items.safetensors").write_bytes(b"broken")
    with pytest.raises(RunError, match=r"items.safetensors cannot be read"):
        ItemIdCodes.load(tmp_path)
    with pytest.raises(DataError, match="more than 65,536 codes"):
        ItemIdCodes().fit(np.zeros((65_537, 1), np.float32), seed=0)


def test_unfitted_foreign_and_damaged_controls_are_refused(tmp_path: Path) -> None:
    for tokenizer in (RandomCodes(codebook_sizes=(4,)), ItemIdCodes()):
        with pytest.raises(RunError, match="not been fitted"):
            tokenizer.encode(VECTORS)
    fitted().save(tmp_path)
    with pytest.raises(RunError, match="holds a random tokenizer, expected item-id"):
        ItemIdCodes.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"method": "random"}')
    with pytest.raises(RunError, match="lacks codebook_sizes, seed, mean"):
        RandomCodes.load(tmp_path)
