"""eval/tokenizer_ablation.py: cells that are made once, the same users for all, and a table over the seeds."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

from genrec import pipeline
from genrec.config import EmbedConfig, EvaluateConfig, IngestConfig, TokenizeConfig, TrainConfig, load_config
from genrec.data.ingest import ingest
from genrec.encoders.embed import embed
from genrec.run import Run

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = str(ROOT / "eval" / "tokenizer_ablation.py")


@pytest.fixture(scope="module")
def recipe() -> dict[str, Any]:
    return runpy.run_path(SCRIPT, run_name="ablation")


def test_every_modality_that_is_there_takes_part_in_the_ways_that_it_allows(recipe: dict[str, Any]) -> None:
    names = [variant.name for variant in recipe["variants"](("text", "image", "behaviour"))]
    assert names[:4] == ["text", "image", "text+image", "text+image as they are"]
    assert {"text+image, behaviour as a loss", "text+behaviour", "streams of text, image, behaviour"} <= set(names)
    assert {"residual k-means text+behaviour", "item-id", "random"} <= set(names)
    assert len(names) == len(set(names))
    assert "aligned with behaviour" in [one.name for one in recipe["variants"](("text", "image", "aligned"))]
    alone = [variant.name for variant in recipe["variants"](("text",))]
    assert alone == [
        "text",
        "text, behaviour as a loss",
        "text and items' own tokens",
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

    # Other users: what was made for these is not in that table, and is made again.
    monkeypatch.setattr(sys, "argv", ["tokenizer_ablation.py", *arguments, "--max-users", "20", "--report-only"])
    with pytest.raises(SystemExit):
        runpy.run_path(SCRIPT, run_name="__main__")
    assert capsys.readouterr().out == ""

    # Another default: what it made is made again.
    monkeypatch.setattr("genrec.tokenizers.stage.SHARES", {"behaviour": 3.0})
    monkeypatch.setattr(sys, "argv", ["tokenizer_ablation.py", *arguments, "--report-only"])
    with pytest.raises(SystemExit):
        runpy.run_path(SCRIPT, run_name="__main__")
    assert capsys.readouterr().out == ""
    monkeypatch.undo()

    # Beside itself: the same figures under another name, and no difference.
    for beside, status in ((f"again={out}", 0), (f"again={tmp_path}", 2), (str(out), 2)):
        monkeypatch.setattr(sys, "argv", ["tokenizer_ablation.py", *arguments, "--report-only", "--beside", beside])
        with pytest.raises(SystemExit) as ending:
            runpy.run_path(SCRIPT, run_name="__main__")
        assert ending.value.code == status
        written = capsys.readouterr()
        if status == 0:
            twin = next(line for line in written.out.splitlines() if line.startswith("| item-id, again"))
            assert twin.split("|")[2:6] == row.split("|")[2:6]
            assert "+0.0000 (+0.0000 to +0.0000)" in twin
        else:
            assert "names no ablation" in written.err


def test_the_table_compares_users_in_pairs_over_the_seeds(recipe: dict[str, Any]) -> None:
    health = [{"levels": [{"used": 3, "size": 4}], "prefix_lift": [2.0, 5.0], "colliding_before": 0.1}]
    ranks = {("a", 0): [1.0, None], ("a", 1): [1.0, None], ("b", 0): [1.0, 1.0], ("b", 1): [1.0, None]}
    results = [
        {"variant": name, "seed": seed, "health": health, "test": of_users, "validation": of_users}
        for (name, seed), of_users in ranks.items()
    ]
    lines = recipe["table"](results, "a").splitlines()
    assert lines[2].startswith("| a | 0, 1 | 0.5000 | 0.5000 | 0.0000 | – | 0.5000 | 2.0, 5.0 | 75% | 10.0% |")
    assert lines[3].startswith("| b | 0, 1 | 0.7500 | 0.7500 | 0.5000 | +0.2500 (+0.0000 to +0.5000), +50% | 0.7500")
    alone = [one for one in results if (one["variant"], one["seed"]) != ("a", 1)]  # seed 1 of b is in no difference
    lines = recipe["table"](alone, "a").splitlines()
    assert lines[3].startswith("| b | 0, 1 | 0.7500 | 0.7500 | 0.5000 | +0.5000 (+0.0000 to +1.0000), +100%, seeds [0]")


def test_held_out_items_have_figures_of_their_own_beside_chance(recipe: dict[str, Any]) -> None:
    health = [{"levels": [{"used": 3, "size": 4}], "prefix_lift": [2.0, 5.0], "colliding_before": 0.1}]
    cells = [
        {
            "variant": "a",
            "seed": seed,
            "health": health,
            "test": [1.0],
            "validation": [1.0],
            "cold": {"random": {"all": 0.01, "cold": 0.25}, "model": {"all": 0.1 * seed, "cold": 0.5}},
        }
        for seed in (1, 3)
    ]
    lines = recipe["table"](cells, "a").splitlines()
    assert "cold R@50 of all (random 0.0100) | cold R@50 of cold (random 0.2500) |" in lines[0]
    assert lines[0].count("|") == lines[1].count("|") == lines[2].count("|")
    assert lines[2].endswith("| 0.2000 (0.1000 to 0.3000) | 0.5000 (0.5000 to 0.5000) |")


def test_cold_recall_of_a_cell_is_what_evaluate_reports(
    recipe: dict[str, Any], tiny_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = "recall@10"  # of 30 items, fifty are no question
    monkeypatch.setitem(recipe["measure"].__globals__, "_COLD_FIGURE", figure)
    run = Run.create(tmp_path / "held-out")
    tables = [tiny_files / "items.jsonl", tiny_files / "interactions.csv"]
    held_out = load_config(IngestConfig, tiny_files / "ingest.yaml").model_copy(update={"cold_fraction": 0.2})
    ingest(run, "tables", tables, held_out)
    embed(run, load_config(EmbedConfig, tiny_files / "embed.yaml"))
    tokenize = load_config(TokenizeConfig, tiny_files / "tokenize.yaml")
    training = load_config(TrainConfig, tiny_files / "train.yaml")
    options = tokenize.model_dump(exclude={"seed"}, exclude_unset=True)
    cell = recipe["measure"](run.path, tmp_path / "out", recipe["Variant"]("a", (options,)), 0, training, 1000)
    pipeline.tokenize(run, tokenize.model_copy(update={"seed": 0}))
    pipeline.train(run, training.model_copy(update={"seed": 0}))
    report = pipeline.evaluate(run, EvaluateConfig(baselines=("popularity",), beam_width=50))
    expected = {method["name"]: method for method in report.facts["cold"]["methods"]}
    found = json.loads(cell.read_text())["cold"]
    assert set(found) == {"model", "random"}
    for name, figures in found.items():
        assert figures["all"] == pytest.approx(expected[name]["among_all"][figure]["value"])
        assert figures["cold"] == pytest.approx(expected[name]["among_cold"][figure]["value"])
