"""The retriever on data whose answer is known, its scores against loops, and its file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from genrec.baselines.base import centred_directions
from genrec.baselines.two_tower import TwoTower, TwoTowerBaseline, TwoTowerSettings, train_two_tower
from genrec.data.sequences import Sequences
from genrec.errors import RunError

NUM_ITEMS, NUM_GROUPS, WIDTH = 41, 5, 8
NEW = 40  # nobody took it


def walks(seed: int = 0) -> Sequences:
    """Users who go from an item of group g to any item of group g + 1, and never to item NEW."""
    rng = np.random.default_rng(seed)
    histories = []
    for _ in range(300):
        groups = (rng.integers(NUM_GROUPS) + np.arange(rng.integers(3, 7))) % NUM_GROUPS
        histories.append([int(group + NUM_GROUPS * rng.integers(8)) for group in groups])
    return Sequences.from_lists([str(user) for user in range(len(histories))], histories)


def content(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Vectors that tell groups apart; item 3 has none, NEW looks like group 0."""
    rng = np.random.default_rng(seed)
    vectors = np.eye(NUM_GROUPS, WIDTH)[np.arange(NUM_ITEMS) % NUM_GROUPS] + 0.1 * rng.normal(size=(NUM_ITEMS, WIDTH))
    return vectors.astype(np.float32), np.arange(NUM_ITEMS) != 3


@pytest.fixture(scope="module")
def tower() -> TwoTower:
    vectors, mask = content()
    return train_two_tower(walks(), NUM_ITEMS, vectors=vectors, mask=mask, seed=0, settings=SMALL)


SMALL = TwoTowerSettings(width=16, batch_positions=128)


def test_it_learns_what_follows_and_finds_a_new_item_by_its_content(tower: TwoTower) -> None:
    chances = np.exp(tower.over(NUM_ITEMS, *content()).log_chances([np.array([2, 3, 14], np.int32)])[0])
    assert chances.sum() == pytest.approx(1, rel=1e-5)
    groups = np.bincount(np.arange(NUM_ITEMS) % NUM_GROUPS, weights=chances, minlength=NUM_GROUPS)
    assert groups[0] > 0.8  # 14 is of group 4
    others = np.flatnonzero(np.arange(NUM_ITEMS) % NUM_GROUPS != 0)
    assert chances[NEW] > 5 * chances[others].max()
    assert NEW not in tower.known
    assert len(tower.known) == NUM_ITEMS - 1


def test_scores_are_inner_products_of_the_last_items_with_every_item(tower: TwoTower) -> None:
    vectors, mask = content()
    directions = centred_directions(vectors, mask)
    free = {item: row for row, item in enumerate(tower.known)}

    def history_part(item: int) -> np.ndarray:
        own = tower.history_free[free[item]] if item in free else 0
        return np.asarray(directions[item] @ tower.history_map + own)

    history = [1, 7, 13, 4, 20, 31, 22]  # longer than the steps back
    state = sum(tower.recency[back] * history_part(item) for back, item in enumerate(history[::-1][:5]))
    expected = np.array(
        [
            state @ (directions[item] @ tower.item_map + (tower.item_free[free[item]] if item in free else 0))
            + (tower.bias[free[item]] if item in free else tower.new_bias)
            for item in range(NUM_ITEMS)
        ]
    )
    found = tower.over(NUM_ITEMS, vectors, mask).log_chances([np.array(history, np.int32), np.array([], np.int32)])
    np.testing.assert_allclose(found[0], expected - np.log(np.exp(expected).sum()), atol=1e-4)
    bias = np.full(NUM_ITEMS, tower.new_bias)
    bias[tower.known] = tower.bias
    np.testing.assert_allclose(found[1], bias - np.log(np.exp(bias).sum()), atol=1e-4)


def test_the_same_seed_gives_the_same_towers_and_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    first, again, other = (train_two_tower(walks(), NUM_ITEMS, seed=seed, settings=SMALL) for seed in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    np.testing.assert_array_equal(first.item_free, again.item_free)
    assert not np.array_equal(first.item_free, other.item_free)


def test_free_vectors_alone_learn_the_walk_too() -> None:
    settings = replace(SMALL, epochs=60)
    tower = train_two_tower(walks(), NUM_ITEMS, seed=0, settings=settings)
    best = tower.over(NUM_ITEMS).log_chances([np.array([14], np.int32)])[0].argsort()[::-1][:7]
    assert set(best % NUM_GROUPS) == {0}


def test_as_a_baseline_it_is_the_model_of_its_seed() -> None:
    vectors, mask = content()
    baseline = TwoTowerBaseline(vectors, mask)
    baseline.fit(walks(), NUM_ITEMS, seed=4)
    expected = train_two_tower(walks(), NUM_ITEMS, vectors=vectors, mask=mask, seed=4).over(NUM_ITEMS, vectors, mask)
    history = [np.array([14], np.int32)]
    np.testing.assert_array_equal(baseline.scores(history), expected.log_chances(history))


def test_a_trained_one_is_taken_as_it_is(tower: TwoTower) -> None:
    scores = tower.over(NUM_ITEMS, *content())
    baseline = TwoTowerBaseline(trained=scores)
    baseline.fit(walks(5), NUM_ITEMS, seed=9)
    history = [np.array([3], np.int32)]
    np.testing.assert_array_equal(baseline.scores(history), scores.log_chances(history))


def test_its_file_gives_it_back_and_a_damaged_one_is_named(tower: TwoTower, tmp_path: Path) -> None:
    file = tmp_path / "two_tower.safetensors"
    tower.save(file)
    loaded = TwoTower.load(file)
    for name, values in vars(tower).items():
        np.testing.assert_array_equal(getattr(loaded, name), values)
    save_file({"other": np.zeros(3)}, file)
    with pytest.raises(RunError, match="other"):
        TwoTower.load(file)
    file.write_bytes(b"no tensors")
    with pytest.raises(RunError, match=r"two_tower\.safetensors cannot be read"):
        TwoTower.load(file)


def test_items_added_later_change_no_score_between_the_others(tower: TwoTower) -> None:
    vectors, mask = content()
    more = np.concatenate([vectors, 100 * np.ones((7, WIDTH), np.float32)])
    history = [np.array([14], np.int32)]
    few = tower.over(NUM_ITEMS, vectors, mask).log_chances(history)[0]
    many = tower.over(NUM_ITEMS + 7, more, np.append(mask, np.ones(7, bool))).log_chances(history)[0]
    np.testing.assert_allclose(few - few[0], many[:NUM_ITEMS] - many[0], atol=1e-4)


def test_vectors_of_another_width_are_refused(tower: TwoTower) -> None:
    with pytest.raises(RunError, match="width 8, these have 0"):
        tower.over(NUM_ITEMS)


def test_an_item_that_has_become_another_is_taken_for_a_new_one(tower: TwoTower) -> None:
    vectors, mask = content()
    forgotten = np.arange(NUM_ITEMS) == tower.known[3]
    before, after = (tower.over(NUM_ITEMS, vectors, mask, forgotten=which) for which in (None, forgotten))
    [row] = np.flatnonzero(forgotten)
    assert after.bias[row] == tower.new_bias
    unknown = replace(
        tower,
        known=np.delete(tower.known, 3),
        history_free=np.delete(tower.history_free, 3, axis=0),
        item_free=np.delete(tower.item_free, 3, axis=0),
        bias=np.delete(tower.bias, 3),
    ).over(NUM_ITEMS, vectors, mask)
    for name in ("histories", "items", "bias"):
        np.testing.assert_array_equal(getattr(after, name), getattr(unknown, name))
        np.testing.assert_array_equal(getattr(after, name)[~forgotten], getattr(before, name)[~forgotten])
