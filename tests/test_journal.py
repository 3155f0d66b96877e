"""Files that change together, against a process that is killed before each of its steps."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from genrec.errors import RunError
from genrec.journal import change_together, finish_change, is_changing

# Changes a folder and kills itself before its n-th rename; a child per n, so that Python starts once.
PROGRAM = """
import os, signal, sys
from pathlib import Path
from genrec.journal import change_together

def kill_before(number):
    replace, calls = Path.replace, []
    def deadly(path, target):
        calls.append(path)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return replace(path, target)
    Path.replace = deadly

for number, folder in enumerate(sys.argv[1:], start=1):
    child = os.fork()
    if child == 0:
        kill_before(number)
        with change_together(Path(folder), last=("z/last", "manifest")) as staging:
            (staging / "z").mkdir()
            for name in ("a", "b", "z/c", "z/last", "manifest"):
                (staging / name).write_text("new")
        os._exit(0)
    print(os.WIFSIGNALED(os.waitpid(child, 0)[1]), flush=True)
"""
NAMES = ("a", "z/last", "manifest")


def contents(folder: Path) -> dict[str, str]:
    return {name: (folder / name).read_text() for name in NAMES}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fill(tmp_path / "folder")


def fill(folder: Path) -> Path:
    (folder / "z").mkdir(parents=True)
    for name in NAMES:
        (folder / name).write_text("old")
    return folder


def test_killed_before_any_step_a_change_is_whole_or_has_not_happened(tmp_path: Path) -> None:
    folders = [fill(tmp_path / str(number)) for number in range(7)]
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, folders)], capture_output=True, text=True, check=True
    )
    assert finished.stdout.split() == ["True"] * 6 + ["False"]  # one decides, five move, the last child lives
    for number, folder in enumerate(folders):
        decided = is_changing(folder)
        assert decided == (1 <= number <= 5)
        if decided:
            assert (folder / "manifest").read_text() == "old"
        finish_change(folder)
        assert not is_changing(folder)
        assert set(contents(folder).values()) == {"old" if number == 0 else "new"}
        assert (folder / "z" / "c").exists() == (number > 0)
        with change_together(folder, last=()) as staging:
            (staging / "a").write_text("newer")
        assert (folder / "a").read_text() == "newer"
        assert not list(folder.glob(".change-*"))


def test_an_exception_leaves_everything_as_it_was(folder: Path) -> None:
    def fail() -> None:
        with change_together(folder, last=()) as staging:
            (staging / "a").write_text("new")
            raise KeyError("mine")

    with pytest.raises(KeyError):
        fail()
    assert set(contents(folder).values()) == {"old"}
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == [".change.lock"]


def test_two_changes_at_once_are_refused(folder: Path) -> None:
    with change_together(folder, last=()) as staging:
        (staging / "a").write_text("first")
        with pytest.raises(RunError, match="being changed by another process"), change_together(folder, last=()):
            pytest.fail("two changes at once")
    assert (folder / "a").read_text() == "first"


def test_nothing_to_finish_makes_no_file(folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    finish_change(folder)
    assert sorted(folder.rglob("*")) == before
