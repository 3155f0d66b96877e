"""train/pretrain_encoders.py: the recipe that `accelerate launch` starts does what `genrec embed --align` does."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from genrec.config import AlignConfig, load_config
from genrec.encoders.alignment import align
from genrec.run import Run

ROOT = Path(__file__).resolve().parents[2]


def recipe(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The exit status of the script, run in this process."""
    monkeypatch.setattr("sys.argv", ["pretrain_encoders.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as ending:
        runpy.run_path(str(ROOT / "train" / "pretrain_encoders.py"), run_name="__main__")
    return int(ending.value.code or 0)


def test_the_recipe_aligns_as_the_stage_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_copy: Path, tmp_path: Path
) -> None:
    options = tmp_path / "align.yaml"
    options.write_text("width: 8\nhidden_width: 8\nsteps: 4\nbatch_size: 8\n")
    assert recipe(monkeypatch, options, "--run", tiny_copy) == 0
    said = capsys.readouterr().out
    assert f"Next: genrec tokenize {tiny_copy} --modalities aligned" in said
    assert "No attribute text is used: the run was embedded without a text encoder." in said
    written = Run(tiny_copy).stages["align"].outputs
    align(Run(tiny_copy), load_config(AlignConfig, options))
    assert Run(tiny_copy).stages["align"].outputs == written


def test_errors_of_the_recipe_are_one_message_and_a_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert recipe(monkeypatch, "--run", tmp_path / "nothing") == 1
    assert "nothing is not a run" in capsys.readouterr().err
    assert recipe(monkeypatch, tmp_path / "missing.yaml", "--run", tmp_path) == 2
    assert "missing.yaml cannot be read" in capsys.readouterr().err
