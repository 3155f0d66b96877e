"""Outputs that are no plain file: a pipe and a device are written to, a link is followed, and stays what it is."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from genrec.batch import recommend_file
from genrec.errors import ConfigError, RunError
from genrec.explanation.explainer import Wording
from genrec.explanation_batch import ExplainJob, explain_file
from genrec.files import output_file
from tests.test_batch import make_recommender

ROOT = Path(__file__).resolve().parents[1]
Write = Callable[[Path, Path], Any]
LINES = '{"history": ["i1"], "item_id": "i4"}\n{"history": ["i2"], "item_id": "i5"}\n'


@pytest.fixture(params=["recommend", "explain"])
def write_answers(request: pytest.FixtureRequest, tiny_run: Path) -> Write:
    """`write_answers(source, target)`, by either of the two commands that have an `--output`."""
    if request.param == "recommend":
        return lambda source, target: recommend_file(make_recommender(), source, target, k=2)
    return lambda source, target: explain_file(ExplainJob(tiny_run, Wording(), source.name), source, target)


@pytest.fixture
def source(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    (tmp_path / "in.jsonl").write_text(LINES.replace(', "item_id": "i4"', "").replace(', "item_id": "i5"', ""))
    if "explain" in request.node.name:
        (tmp_path / "in.jsonl").write_text(LINES)
    return tmp_path / "in.jsonl"


def test_a_named_pipe_gets_what_a_file_gets_and_stays_a_pipe(write_answers: Write, source: Path, tmp_path: Path):
    write_answers(source, tmp_path / "out.jsonl")
    os.mkfifo(tmp_path / "pipe")
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_text()))
    reader.start()
    write_answers(source, tmp_path / "pipe")
    reader.join(30)
    assert read == [(tmp_path / "out.jsonl").read_text()]
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl", "pipe"]


def test_through_a_link_the_file_behind_it_is_replaced(write_answers: Write, source: Path, tmp_path: Path):
    (tmp_path / "disk").mkdir()
    behind = tmp_path / "disk" / "real.jsonl"
    for content in (None, "what was here before\n"):
        behind.unlink(missing_ok=True)
        if content is not None:
            behind.write_text(content)
        link = tmp_path / "out.jsonl"
        link.unlink(missing_ok=True)
        link.symlink_to("disk/real.jsonl")
        write_answers(source, link)
        assert os.readlink(link) == "disk/real.jsonl"
        assert len(behind.read_text().splitlines()) == 2
        assert not behind.is_symlink()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["disk", "in.jsonl", "out.jsonl", "real.jsonl"]


def test_a_device_stays_a_device_and_one_that_is_full_is_said(write_answers: Write, source: Path):
    write_answers(source, Path("/dev/null"))
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    assert not Path("/dev/null.part").exists()
    with pytest.raises(RunError, match=r"/dev/full could not be written: No space left"):
        write_answers(source, Path("/dev/full"))


def test_a_reader_that_goes_away_is_an_error_that_says_so(tmp_path: Path):
    reading, writing = os.pipe()
    os.close(reading)
    with (
        pytest.raises(RunError, match="could not be written: Broken pipe"),
        output_file(Path(f"/dev/fd/{writing}")) as path,
        path.open("w") as stream,
    ):
        stream.write("somebody there?")
    os.close(writing)


def test_nothing_can_be_gone_on_with_in_a_pipe(tiny_run: Path, tmp_path: Path):
    (tmp_path / "in.jsonl").write_text(LINES)
    with pytest.raises(ConfigError, match="keeps no lines to go on from"):
        explain_file(ExplainJob(tiny_run, Wording(), "in.jsonl"), tmp_path / "in.jsonl", Path("/dev/null"), resume=True)


@pytest.mark.parametrize("verb", ["recommend", "explain"])
def test_on_standard_output_there_are_the_lines_alone_and_the_summary_is_beside_it(
    verb: str, tiny_run: Path, tmp_path: Path
):
    (tmp_path / "in.jsonl").write_text(LINES if verb == "explain" else '{"history": ["i1"]}\n{"history": []}\n')
    command = [sys.executable, "-m", "genrec", verb, str(tiny_run), "--input", str(tmp_path / "in.jsonl"), "--output"]
    done = subprocess.run([*command, "/dev/stdout"], capture_output=True, text=True, check=True, cwd=ROOT)
    assert [set(json.loads(line)) > {"user_id"} for line in done.stdout.splitlines()] == [True, True]
    assert "2 of 2 lines served: /dev/stdout" in done.stderr
    into = tmp_path / "all.txt"
    with into.open("w") as stream:
        subprocess.run(
            [*command, "/dev/stdout", "--json"], stdout=stream, stderr=subprocess.DEVNULL, check=True, cwd=ROOT
        )
    assert into.read_text() == done.stdout
