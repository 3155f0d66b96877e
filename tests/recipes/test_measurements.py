"""The scripts of eval/ that measure: each one runs as its page says, on little, and its table says what happened."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

EVAL = Path(__file__).resolve().parents[2] / "eval"
Script = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def script() -> Script:
    def run(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(EVAL / name), *map(str, arguments)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=400)

    return run


def rows(table: str) -> list[list[str]]:
    """Cells of the lines of a Markdown table, without its heading."""
    lines = [line.strip().strip("|") for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.split("|")] for line in lines[2:]]


def test_every_way_to_search_a_random_model_finds_items_alone(script: Script) -> None:
    sizes = ("--users", 1, 3, "--beams", 4, "--prompt-tokens", 16, "--items", 300, "--repeats", 1)
    done = script("bench_decoding.py", "--models", "small", *sizes)
    assert done.returncode == 0, done.stderr
    found = rows(done.stdout)
    assert [row[4] for row in found] == 2 * ["ours", "dictionary", "Hugging Face"]
    assert {row[8] for row in found} == {"4"}  # all four answers of four beams are items


def test_every_way_to_search_a_trained_model_finds_items_alone(script: Script, tiny_run: Path) -> None:
    sizes = ("--users", 3, "--beams", 5, "--prompt-tokens", 400, "--repeats", 1)  # more than all histories have
    done = script("bench_decoding.py", "--run", tiny_run, *sizes)
    assert done.returncode == 0, done.stderr
    found = rows(done.stdout)
    assert [row[4] for row in found] == ["ours", "dictionary", "Hugging Face"]
    assert {row[8] for row in found} == {"5"}
    assert all(row[0].startswith("tiny, ") for row in found)


def test_an_adapter_is_refused_by_name(script: Script, tiny_copy: Path) -> None:
    manifest = json.loads((tiny_copy / "manifest.json").read_text())
    manifest["stages"]["train"]["config"]["adapter"] = "lora"
    (tiny_copy / "manifest.json").write_text(json.dumps(manifest))
    done = script("bench_decoding.py", "--run", tiny_copy)
    assert done.returncode != 0
    assert "has an adapter" in done.stderr
    assert "Traceback (most" not in done.stderr


def test_a_catalogue_is_swapped_under_load(script: Script) -> None:
    done = script("swap_under_load.py", "--items", 3000, "--rate", 20, "--seconds", 2, "--swaps", 1)
    assert done.returncode == 0, done.stderr
    assert [row[0] for row in rows(done.stdout)] == ["without changes", "between swaps", "around a swap"]
    assert re.search(r"^1 swaps, ", done.stdout, re.MULTILINE)
    assert done.stdout.rstrip().endswith("failed or mixed: 0")


def test_a_service_answers_its_clients_and_ends_when_asked_to(script: Script, tiny_run: Path) -> None:
    done = script("load.py", tiny_run, "--clients", 8, "--seconds", 3)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^8 clients, 3 s: \{200: [1-9]\d*\}$", done.stdout, re.MULTILINE)  # no other status
    assert re.search(r"^SIGTERM: on their way \{200: 8\}, ", done.stdout, re.MULTILINE)
