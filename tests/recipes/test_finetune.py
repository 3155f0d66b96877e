"""train/finetune.py: the recipe that `accelerate launch` starts does what `genrec train` does."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from genrec.config import TrainConfig, load_config
from genrec.run import Run, file_checksum

ROOT = Path(__file__).resolve().parents[2]


def recipe(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The exit status of the script, run in this process."""
    monkeypatch.setattr("sys.argv", ["finetune.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as ending:
        runpy.run_path(str(ROOT / "train" / "finetune.py"), run_name="__main__")
    return int(ending.value.code or 0)


def test_the_recipe_trains_the_same_model_as_the_command(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tiny_run: Path,
    tiny_copy: Path,
    tiny_files: Path,
) -> None:
    (tiny_copy / "model" / "model.safetensors").unlink()
    assert recipe(monkeypatch, tiny_files / "train.yaml", "--run", tiny_copy) == 0
    assert f"Next: genrec evidence {tiny_copy}" in capsys.readouterr().out
    name = "model/model.safetensors"
    assert file_checksum(tiny_copy / name) == file_checksum(tiny_run / name)
    assert Run(tiny_copy).stages["train"].config == Run(tiny_run).stages["train"].config


def test_errors_of_the_recipe_are_one_message_and_a_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_files: Path
) -> None:
    assert recipe(monkeypatch, tiny_files / "train.yaml", "--run", tmp_path / "nothing") == 1
    assert "nothing is not a run" in capsys.readouterr().err
    assert recipe(monkeypatch, tmp_path / "missing.yaml", "--run", tmp_path) == 2
    assert "missing.yaml cannot be read" in capsys.readouterr().err
    assert recipe(monkeypatch, tiny_files / "train.yaml") == 2


def test_a_training_that_came_to_its_end_is_not_resumed_into_another(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_copy: Path, tiny_files: Path
) -> None:
    before = file_checksum(tiny_copy / "model" / "model.safetensors")
    assert recipe(monkeypatch, tiny_files / "train.yaml", "--run", tiny_copy, "--resume") == 1
    assert "has no training to go on with" in capsys.readouterr().err
    assert file_checksum(tiny_copy / "model" / "model.safetensors") == before


@pytest.mark.parametrize("file", sorted((ROOT / "train" / "configs").glob("*.yaml")), ids=lambda file: file.name)
def test_every_configuration_that_comes_with_the_recipes_is_valid(file: Path) -> None:
    assert load_config(TrainConfig, file).epochs >= 1
