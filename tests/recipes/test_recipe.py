"""eval/recipe.py: every stage once per seed, nothing twice, and a table that is the mean of the reports."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from genrec.config import EmbedConfig, EvaluateConfig, IngestConfig, TokenizeConfig, TrainConfig, load_config
from genrec.run import read_json

SCRIPT = Path(__file__).resolve().parents[2] / "eval" / "recipe.py"


@pytest.fixture(scope="module")
def recipe() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT), run_name="recipe")


def test_a_seed_is_made_once_and_its_table_is_the_report(
    recipe: dict[str, Any], tiny_files: Path, tmp_path: Path
) -> None:
    small = recipe["Recipe"](
        load_config(TrainConfig, tiny_files / "train.yaml").model_copy(update={"seed": 3}),
        EvaluateConfig(baselines=("popularity", "evidence"), cutoffs=(5, 10), beam_width=30),
        ingest=load_config(IngestConfig, tiny_files / "ingest.yaml"),
        embed=load_config(EmbedConfig, tiny_files / "embed.yaml"),
        tokenize=TokenizeConfig(method="item-id"),
    )

    def once() -> dict[str, Any]:
        tables = [tiny_files / "items.jsonl", tiny_files / "interactions.csv"]
        found: dict[str, Any] = recipe["run_seed"](tmp_path / "seed-3", "tables", tables, small)
        return found

    found = once()
    manifest = (tmp_path / "seed-3" / "manifest.json").read_bytes()
    assert once() == found
    assert (tmp_path / "seed-3" / "manifest.json").read_bytes() == manifest
    stages = read_json(tmp_path / "seed-3" / "manifest.json")["stages"]
    assert {stages[name]["seed"] for name in ("tokenize", "train", "evidence")} == {3}
    assert stages["tokenize"]["config"]["method"] == "item-id"
    report = read_json(tmp_path / "seed-3" / "evaluation" / "test.json")
    lines = recipe["table"]([found]).splitlines()
    assert lines[2].startswith(f"| model | {report['methods'][0]['metrics']['recall@5']['value']:.4f} |")
    assert [line.split(" | ")[0] for line in lines[2:6]] == ["| model", "| model alone", "| popularity", "| evidence"]
    assert lines[-1].startswith("Seconds per stage, per seed: ingest ")


def test_several_seeds_show_their_mean_and_range(recipe: dict[str, Any]) -> None:
    def result(value: float) -> dict[str, Any]:
        metrics = {name: {"value": value} for name in recipe["METRICS"]}
        difference = {"value": value, "low": 0.0, "high": 1.0}
        return {
            "methods": [{"name": name, "metrics": metrics, "coverage": 0.5} for name in ("model", "hybrid")],
            "comparisons": [{"baseline": "hybrid", "difference": difference}],
            "stage_seconds": {"train": 7},
        }

    lines = recipe["table"]([result(0.1), result(0.3)]).splitlines()
    assert lines[3].startswith("| hybrid | 0.2000 (0.1000 to 0.3000) |")
    assert "- hybrid: +0.1000 [+0.0000, +1.0000], +0.3000 [+0.0000, +1.0000]" in lines
    assert lines[-1].endswith("train 7; train 7")


@pytest.mark.parametrize(
    ("option", "status", "words"),
    [
        (["--baselines", "nobody"], 2, "Unknown baseline nobody"),
        (["--seeds", "0,x"], 2, "argument --seeds: invalid"),
        (["--tune", "2", "--tune-names", "popularity"], 2, "popularity cannot be tuned"),
        (["--tune-names", "hybrid"], 2, "give both"),
        (["--method", "guess"], 2, "method: Input should be 'rqvae'"),
    ],
)
def test_what_could_only_fail_after_the_training_is_refused_before_it(
    option: list[str],
    status: int,
    words: str,
    tiny_files: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    files = [str(tiny_files / name) for name in ("items.jsonl", "interactions.csv")]
    monkeypatch.setattr("sys.argv", ["recipe.py", "tables", *files, "--out", str(tmp_path / "out"), *option])
    with pytest.raises(SystemExit) as ending:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert ending.value.code == status
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
