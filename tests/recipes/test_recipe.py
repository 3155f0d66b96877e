"""eval/recipe.py: every stage once per seed, nothing twice, and a table that is the mean of the reports."""

from __future__ import annotations

import runpy
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from genrec import pipeline
from genrec.config import (
    EmbedConfig,
    EvaluateConfig,
    IngestConfig,
    TokenizeConfig,
    TrainConfig,
    TuneConfig,
    load_config,
)
from genrec.progress import Progress
from genrec.run import Run, StageReport, read_json, write_json

SCRIPT = Path(__file__).resolve().parents[2] / "eval" / "recipe.py"


@pytest.fixture(scope="module")
def recipe() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT), run_name="recipe")


@pytest.fixture(scope="module")
def make(recipe: dict[str, Any], tiny_files: Path) -> Callable[..., dict[str, Any]]:
    """`make(folder, tune=…)`: the recipe of the tiny files, with other options where they are given."""
    small = recipe["Recipe"](
        load_config(TrainConfig, tiny_files / "train.yaml").model_copy(update={"seed": 3}),
        EvaluateConfig(baselines=("popularity", "evidence"), cutoffs=(5, 10), beam_width=30),
        ingest=load_config(IngestConfig, tiny_files / "ingest.yaml"),
        embed=load_config(EmbedConfig, tiny_files / "embed.yaml"),
        tokenize=TokenizeConfig(method="item-id"),
    )
    tables = [tiny_files / "items.jsonl", tiny_files / "interactions.csv"]

    def once(folder: Path, **options: Any) -> dict[str, Any]:
        found: dict[str, Any] = recipe["run_seed"](folder, "tables", tables, replace(small, **options))
        return found

    return once


@pytest.fixture(scope="module")
def made(make: Callable[..., dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A seed of the recipe, for reading only."""
    folder = tmp_path_factory.mktemp("recipe") / "seed-3"
    make(folder)
    return folder


def stages_of(folder: Path) -> dict[str, Any]:
    stages: dict[str, Any] = read_json(folder / "manifest.json")["stages"]
    return stages


def test_a_seed_is_made_once_and_its_table_is_the_report(
    recipe: dict[str, Any], make: Callable[..., dict[str, Any]], made: Path
) -> None:
    manifest = (made / "manifest.json").read_bytes()
    found = make(made)
    assert (made / "manifest.json").read_bytes() == manifest
    stages = stages_of(made)
    assert {stages[name]["seed"] for name in ("tokenize", "train", "evidence")} == {3}
    assert stages["tokenize"]["config"]["method"] == "item-id"
    report = read_json(made / "evaluation" / "test.json")
    assert found["methods"] == report["methods"]
    lines = recipe["table"]([found]).splitlines()
    assert lines[2].startswith(f"| model | {report['methods'][0]['metrics']['recall@5']['value']:.4f} |")
    assert [line.split(" | ")[0] for line in lines[2:6]] == ["| model", "| model alone", "| popularity", "| evidence"]
    assert lines[-1].startswith("Seconds per stage, per seed: ingest ")


def test_other_options_make_again_what_they_change_and_nothing_else(
    make: Callable[..., dict[str, Any]], made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(made, tmp_path / "seed-3"))
    before = stages_of(folder)
    evaluation = EvaluateConfig(baselines=("transitions",), cutoffs=(5, 10), beam_width=30)
    few = evaluation.model_copy(update={"max_users": 10})
    found = make(folder, evaluation=few)
    assert found["num_cases"] == 10
    assert [row["name"] for row in found["methods"]] == ["model", "model alone", "transitions"]

    tune = TuneConfig(baselines=("transitions",), trials=3, users=20)
    with monkeypatch.context() as killed:
        killed.setattr(pipeline, "evaluate", interrupt)
        with pytest.raises(KeyboardInterrupt):
            make(folder, evaluation=evaluation, tune=tune)
    found = make(folder, evaluation=evaluation, tune=tune)
    assert found["tuned"] == {"transitions": stages_of(folder)["tune"]["report"]["transitions"]["settings"]}
    assert found["num_cases"] > 10
    with monkeypatch.context() as killed:  # nothing but the order of the records says that the table is older
        killed.setattr(pipeline, "evaluate", interrupt)
        with pytest.raises(KeyboardInterrupt):
            make(folder, evaluation=evaluation, tune=tune.model_copy(update={"users": 10}))
    make(folder, evaluation=evaluation, tune=tune.model_copy(update={"users": 10}))
    assert list(stages_of(folder))[-2:] == ["tune", "evaluate:test"]
    assert {name: stages_of(folder)[name] for name in before if name != "evaluate:test"} == {
        name: record for name, record in before.items() if name != "evaluate:test"
    }


def test_networks_among_the_baselines_have_the_seed_of_the_training(
    make: Callable[..., dict[str, Any]], made: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(made, tmp_path / "seed-3"))
    assert make(folder)["seed"] == 3
    assert stages_of(folder)["evaluate:test"]["config"]["users_seed"] == 0


def interrupt(*_arguments: object, **_options: object) -> None:
    raise KeyboardInterrupt


def test_another_training_is_made_and_goes_on_unless_the_codes_are_others(
    make: Callable[..., dict[str, Any]], made: Path, tiny_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(made, tmp_path / "seed-3"))
    manifest = read_json(folder / "manifest.json")
    del manifest["stages"]["train"]["config"]["word_dropout"]  # as if the option were younger than the run
    write_json(folder / "manifest.json", manifest)
    make(folder)
    assert stages_of(folder) == manifest["stages"]

    resumed: list[bool] = []
    train = pipeline.train

    def watched(run: Run, config: TrainConfig, *, resume: bool, progress: Progress) -> StageReport:
        resumed.append(resume)
        return train(run, config, resume=resume, progress=progress)

    monkeypatch.setattr(pipeline, "train", watched)
    slow = load_config(TrainConfig, tiny_files / "train.yaml").model_copy(update={"seed": 3, "learning_rate": 1e-3})
    make(folder, training=slow)
    assert resumed == [True]
    stages = stages_of(folder)
    assert stages["train"]["config"]["learning_rate"] == 1e-3
    assert list(stages)[-3:] == ["train", "evidence", "evaluate:test"]
    make(folder, training=slow, tokenize=load_config(TokenizeConfig, tiny_files / "tokenize.yaml"))
    assert resumed == [True, False]
    assert stages_of(folder)["tokenize"]["config"]["method"] == "residual-kmeans"


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
        (["--method", "guess"], 2, "method: found 'guess', expected 'rqvae'"),
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
