"""eval/tokenizer_ablation.py: cells that are made once, the same users for all, and a table over the seeds."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

from genrec.config import EmbedConfig
from genrec.encoders.embed import embed
from genrec.run import Run

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = str(ROOT / "eval" / "tokenizer_ablation.py")


@pytest.fixture(scope="module")
def recipe() -> dict[str, Any]:
    return runpy.run_path(SCRIPT, run_name="ablation")


def test_every_modality_that_is_there_takes_part_in_the_ways_that_it_allows(recipe: dict[str, Any]) -> None:
    names = [variant.name for variant in recipe["variants"](("text", "image", "behaviour"))]
    assert names[:3] == ["text", "image", "text+image"]
    assert {"text+image, behaviour as a loss", "text+behaviour", "streams of text, image, behaviour"} <= set(names)
    assert {"residual k-means text+behaviour", "item-id", "random"} <= set(names)
    assert len(names) == len(set(names))
    alone = [variant.name for variant in recipe["variants"](("text",))]
    assert alone == [
        "text",
        "text, behaviour as a loss",
        "streams of text",
        "residual k-means text",
        "item-id",
        "random",
    ]


def test_a_small_ablation_end_to_end_and_again(
    tiny_copy: Path,
    tiny_files: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    vectors = {"text": tiny_files / "vectors.npy"}
    embed(Run.open(tiny_copy), EmbedConfig(text_model=None, precomputed=vectors, behaviour_model="spectral"))
    config = tmp_path / "train.yaml"
    config.write_text((tiny_files / "train.yaml").read_text().replace("epochs: 2", "epochs: 4"))
    out = tmp_path / "out"
    arguments = [str(tiny_copy), "--out", str(out), "--config", str(config), "--seeds", "0,1", "--jobs", "1"]
    # The tiny run has fewer items than the default codebooks; item-id codes fit any number.
    arguments += ["--variants", "item-id", "--reference", "item-id"]
    monkeypatch.setattr(sys, "argv", ["tokenizer_ablation.py", *arguments])
    tables = []
    for _ in range(2):
        with pytest.raises(SystemExit) as ending:
            runpy.run_path(SCRIPT, run_name="__main__")
        assert ending.value.code == 0
        tables.append(capsys.readouterr())
    files = sorted((out / "results").iterdir())
    assert [file.name for file in files] == ["item-id-0.json", "item-id-1.json"]
    assert tables[0].err.count(".json") == 2
    assert ".json" not in tables[1].err  # nothing is made twice
    assert tables[0].out == tables[1].out
    assert (out / "ablation.png").read_bytes().startswith(b"\x89PNG")
    cells = [json.loads(file.read_text()) for file in files]
    assert [len(cell["test"]) for cell in cells] == [40, 40]
    row = next(line for line in tables[0].out.splitlines() if line.startswith("| item-id"))
    hits = [sum(rank is not None for rank in cell["test"]) / 40 for cell in cells]
    assert row.split("|")[3].strip() == f"{sum(hits) / 2:.4f}"
    assert not (out / "cells").exists() or not list((out / "cells").iterdir())


def test_the_table_compares_users_in_pairs_over_the_seeds(recipe: dict[str, Any]) -> None:
    health = [{"levels": [{"used": 3, "size": 4}], "prefix_lift": [2.0, 5.0], "colliding_before": 0.1}]
    ranks = {("a", 0): [1.0, None], ("a", 1): [1.0, None], ("b", 0): [1.0, 1.0], ("b", 1): [1.0, None]}
    results = [
        {"variant": name, "seed": seed, "health": health, "test": of_users, "validation": of_users}
        for (name, seed), of_users in ranks.items()
    ]
    lines = recipe["table"](results, "a").splitlines()
    assert lines[2].startswith("| a | 2 | 0.5000 | 0.5000 | 0.0000 | – | 0.5000 | 2.0, 5.0 | 75% | 10.0% |")
    assert lines[3].startswith("| b | 2 | 0.7500 | 0.7500 | 0.5000 | +0.2500 (+0.0000 to +0.5000), +50% | 0.7500")
