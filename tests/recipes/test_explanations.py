"""The recipes that score explanations: the second opinion agrees with the check, and finds what is made wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from genrec.explanation.explainer import Wording
from genrec.explanation_batch import ExplainJob, explain_file

ROOT = Path(__file__).resolve().parents[2]


def recipe(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "eval" / name, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


@pytest.fixture
def explained(tiny_run: Path, tmp_path: Path) -> Path:
    """200 texts about a tiny run, in every style that the second opinion reads."""
    lines = [
        {"user_id": f"u{n % 40}", "history": [f"i{n % 30}", f"i{(n * 7 + 3) % 30}"], "item_id": f"i{(n + 6) % 30}"}
        for n in range(200)
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    explain_file(
        ExplainJob(tiny_run, Wording("bullets", "en", "warm"), "pairs.jsonl"),
        tmp_path / "pairs.jsonl",
        tmp_path / "out.jsonl",
    )
    return tmp_path


def test_the_second_opinion_supports_every_sentence_and_shares_no_code(tiny_run: Path, explained: Path) -> None:
    checked = recipe("check_explanations.py", tiny_run, explained / "pairs.jsonl", explained / "out.jsonl")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "every sentence is supported" in checked.stdout
    assert all(f"sentences: {kind}" in checked.stdout for kind in ("shared", "people", "empty"))
    source = (ROOT / "eval" / "check_explanations.py").read_text(encoding="utf-8")
    assert "import genrec" not in source
    assert "from genrec" not in source


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("3 of 7 people who chose", "4 of 7 people who chose"),
        ("have the same genres: Comedy and Mood 0.", "have the same genres: Comedy and Western."),
        ("have the same genres: Comedy and Mood 0.", "have the same brand: Comedy."),
        ("Perhaps have a look at it!", "It is a masterpiece!"),
    ],
)
def test_the_second_opinion_finds_what_is_made_wrong(tiny_run: Path, explained: Path, right: str, wrong: str) -> None:
    answers = (explained / "out.jsonl").read_text(encoding="utf-8")
    assert right in answers
    (explained / "out.jsonl").write_text(answers.replace(right, wrong, 1), encoding="utf-8")
    checked = recipe("check_explanations.py", tiny_run, explained / "pairs.jsonl", explained / "out.jsonl")
    assert checked.returncode == 1
    assert "1  unsupported" in checked.stdout


def test_lines_that_are_missing_or_changed_places_are_found(tiny_run: Path, explained: Path) -> None:
    lines = (explained / "out.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (explained / "out.jsonl").write_text("".join([*lines[1:2], *lines[:1], *lines[2:-1]]), encoding="utf-8")
    checked = recipe("check_explanations.py", tiny_run, explained / "pairs.jsonl", explained / "out.jsonl")
    assert checked.returncode == 1
    assert "200 lines in, 199 lines out" in checked.stdout
    assert "line 1: the answer to another line" in checked.stdout


def test_scores_stand_beside_texts_that_say_nothing(explained: Path) -> None:
    support = recipe("explanations.py", "run", explained / "out.jsonl")
    assert "100.00 % of the claims supported" in support.stdout, support.stderr
    rows = [
        {"pred": f"it is number {chr(97 + n)}x", "ref": f"number {chr(97 + n)}x", "template": "it"} for n in range(20)
    ]
    (explained / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    scored = recipe("explanations.py", "pairs", explained / "texts.jsonl", "--constant", "it is a number")
    assert all(f"| {name} |" in scored.stdout for name in ("system", "shuffled", "template", "constant")), scored.stderr
    assert "| rare-word recall | " in scored.stdout
    assert recipe("explanations.py", "pairs", explained / "texts.jsonl").returncode == 2
