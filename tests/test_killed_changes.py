"""`genrec items` killed (SIGKILL) before each of its renames and at many times: a run is old or new, never both."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from genrec import Recommender
from genrec.catalogue_changes import add_items
from genrec.encoders.base import Embeddings
from genrec.errors import BadRowsError
from genrec.live_catalogue import LiveCatalogue
from genrec.run import Run
from genrec.vocabulary import SidVocabulary

# Forks one child per run: it dies before its n-th rename, or its parent kills it after some milliseconds.
PROGRAM = r"""
import json, os, select, signal, sys
from pathlib import Path
from genrec.catalogue_changes import add_items
from genrec.run import Run


def kill_before(number):
    replace, calls = Path.replace, []

    def deadly(path, target):
        calls.append(path)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return replace(path, target)

    Path.replace = deadly


results = []
for scenario in json.load(sys.stdin):
    child = os.fork()
    if child == 0:
        if "renames" in scenario:
            kill_before(scenario["renames"])
        try:
            add_items(Run.open(scenario["run"]), Path(scenario["new"]), when="2026-01-02T03:04:05+00:00")
        finally:
            os._exit(0)
    if "milliseconds" in scenario:
        select.select([os.pidfd_open(child)], [], [], scenario["milliseconds"] / 1000)
        try:
            os.kill(child, signal.SIGKILL)
        except ProcessLookupError:
            pass
    results.append(os.WIFSIGNALED(os.waitpid(child, 0)[1]))
json.dump(results, sys.stdout)
"""
OLD = {f"i{n}" for n in range(30)}
NEW = {f"n{n}" for n in range(4)}


def play(tiny_run: Path, folder: Path, scenarios: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows = [{"item_id": item, "title": item} for item in sorted(NEW)]
    (folder / "new.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for number, scenario in enumerate(scenarios):
        copied = shutil.copytree(tiny_run, folder / f"run{number}")
        scenario |= {"run": str(copied), "new": str(folder / "new.jsonl")}
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM], input=json.dumps(scenarios), capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    return [
        scenario | {"killed": killed} for scenario, killed in zip(scenarios, json.loads(finished.stdout), strict=True)
    ]


def live_ids(run: Run) -> set[str]:
    """What can be recommended, after a look whether all files belong together."""
    for stage in ("ingest", "embed", "tokenize", "trie", "train"):
        run.require(stage)
    live = LiveCatalogue.load(run, SidVocabulary.load(run.path / "model"))
    Embeddings.load(run, "text", catalog=live.catalog)
    return {live.catalog.item_ids[item] for item in live.trie.items}


def check(scenario: dict[str, Any]) -> bool:
    """That the run is whole and the change can be made; whether it had been made."""
    run = Run.open(scenario["run"])
    found = live_ids(run)
    assert found in (OLD, OLD | NEW)
    made = found != OLD
    assert len(run.amendments) == made
    if made:
        with pytest.raises(BadRowsError, match="in the catalogue already"):
            add_items(run, Path(scenario["new"]), when="later")
    else:
        add_items(run, Path(scenario["new"]), when="later")
    assert live_ids(run) == OLD | NEW
    assert not list(run.path.glob(".change-*"))
    return made


def test_killed_before_any_rename_a_run_is_as_before_or_as_after(tiny_run: Path, tmp_path: Path) -> None:
    played = play(tiny_run, tmp_path, [{"renames": number} for number in range(1, 22)])
    killed = [scenario["killed"] for scenario in played]
    assert killed == sorted(killed, reverse=True)
    assert 15 <= sum(killed) < 21  # each rename had its turn, and the last ones found none left to die before
    made = [check(scenario) for scenario in played]
    assert made == sorted(made)
    # Decided is decided: at some rename the change begins to count, and all later kills find it made.
    assert {*made[: sum(killed)]} == {False, True}


def test_killed_at_random_times_a_run_is_as_before_or_as_after(tiny_run: Path, tmp_path: Path) -> None:
    played = play(tiny_run, tmp_path, [{"milliseconds": 15 * number} for number in range(1, 11)])
    assert any(scenario["killed"] for scenario in played)
    for scenario in played:
        check(scenario)
    assert len(Recommender.load(played[0]["run"]).recommend([], k=64)) == 34
