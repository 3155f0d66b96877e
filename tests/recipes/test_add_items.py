"""`eval/add_items.py` on the tiny run."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from genrec.data.catalog import Catalog
from genrec.run import Run


def test_items_are_added_to_a_copy_and_the_ids_of_before_stay(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main = runpy.run_path(str(Path(__file__).parents[2] / "eval" / "add_items.py"), run_name="add_items")["main"]
    before = len(Catalog.load(Run(tiny_run)))
    monkeypatch.setattr("sys.argv", ["add_items.py", str(tiny_run), "--out", str(tmp_path / "copy"), "--items", "5"])
    assert main() == 0
    assert f"| {before} of {before} | {before + 5} of {before + 5} |" in capsys.readouterr().out
    assert len(Catalog.load(Run(tmp_path / "copy"))) == before + 5
    assert len(Catalog.load(Run(tiny_run))) == before
    assert main() > 0
    assert "exists" in capsys.readouterr().err
