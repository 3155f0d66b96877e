"""eval/random_decodes.py: its searches are right, and its checks find what is wrong."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genrec.decoding.engine import RankedItem

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def recipe() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "eval" / "random_decodes.py"))


def test_ten_thousand_random_searches_equal_brute_force(recipe: dict[str, Any]) -> None:
    rng, exhaustive = np.random.default_rng(1), 0
    for _ in range(100):
        wrong, whole = recipe["searches"](rng, 100)
        assert not wrong
        exhaustive += whole
    assert 2_000 < exhaustive < 8_000


def test_random_models_over_random_vocabularies_name_valid_items(recipe: dict[str, Any]) -> None:
    rng = np.random.default_rng(2)
    for _ in range(3):
        assert not recipe["model_searches"](rng, 20)


def test_every_fault_is_found(recipe: dict[str, Any]) -> None:
    def answer(*pairs: tuple[int, float]) -> list[RankedItem]:
        return [RankedItem(item, score, "raw", score) for item, score in pairs]

    left, scores = np.array([True, True, True, False]), np.array([-1.0, -2.0, -3.0, 0.0], np.float32)
    faults = recipe["faults"]
    assert faults(answer((0, -1.0), (1, -2.0)), left, 2, scores) == []
    assert faults(answer((3, 0.0), (0, -1.0)), left, 2, scores) == ["not allowed"]
    assert faults(answer((0, -1.0), (0, -1.0)), left, 2, scores) == ["twice"]
    assert faults(answer((0, -1.0)), left, 2, scores) == ["too few"]
    assert faults(answer((1, -2.0), (0, -1.0)), left, 2, scores) == ["out of order"]
    assert faults(answer((0, -1.5), (1, -2.0)), left, 2, scores) == ["another score"]
