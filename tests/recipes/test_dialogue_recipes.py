"""The recipes that measure conversation, on the tiny run: every row is there, and a leak would be an error."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from genrec.chat.learning import learn_dialogues
from genrec.config import DialoguesConfig, EvidenceConfig
from genrec.run import Run
from genrec.weighing import weigh_evidence
from tests.dialogues import write_tiny_dialogues

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def talked(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("talked")
    path = Path(shutil.copytree(tiny_run, folder / "run"))
    learn_dialogues(Run.open(path), [write_tiny_dialogues(folder / "turns.jsonl")], DialoguesConfig())
    weigh_evidence(Run.open(path), EvidenceConfig(learn_from="dialogues"))
    return path


def rows(run: Path, name: str, *options: object) -> tuple[dict[str, list[str]], str]:
    """First cells of the printed table to the others, and all that was printed."""
    command = [sys.executable, ROOT / "eval" / name, run, *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
    return {first: rest for first, *rest in lines}, done.stdout


def test_redial_shows_what_dialogues_taught_beside_baselines(talked: Path):
    table, said = rows(talked, "redial.py", "--validation", "--conversation", 5)
    recall = {name: float(cells[1]) for name, cells in table.items() if name != "R@1"}
    assert set(recall) >= {"popularity", "item-kNN on mentioned films", "popularity in dialogues", "the model alone"}
    assert "the model with evidence of dialogues" not in recall  # it has learned from what is asked about here
    for fault in ("invalid items: 0", "replies with an item twice: 0", "ungrounded titles: 0", "asked back: 7 of 7"):
        assert fault in said


def test_evidence_of_dialogues_is_a_row_where_others_are_asked_about(talked: Path):
    table, _ = rows(talked, "redial.py", talked.parent / "turns.jsonl")
    assert float(table["the model with evidence of dialogues"][1]) > float(table["popularity"][1])


def test_simulated_users_talk_to_every_method_and_leak_nothing(talked: Path):
    table, said = rows(talked, "simulated_user.py", "--users", 6, "--turns", 3, "--least", 4)
    assert {"the model with evidence", "the model alone", "item-kNN", "popularity"} <= set(table)
    assert ": 0 leaks" in said
