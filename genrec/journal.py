"""Several files of a folder that change together: all of them or, whenever a process is killed, none.

New files are written into a staging folder that mirrors the folder. One rename to `.change` decides: from then
on the change counts, and whoever opens the folder next finishes it by moving what is left into place. A change
that was killed before that rename leaves rubbish and nothing else. A lock, which the operating system takes
back from a dead process, keeps two changes apart.

What takes hours and writes as it goes (a training) is no such change, and two of them would write over each other: it
holds a second lock, that of the folder's one writer, from beginning to end. Whoever reads needs neither.
"""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from genrec.errors import RunError

_DECIDED = ".change"
_STAGING = ".change-"
_LAST = ".last"  # in a staging folder: the files that are moved last, one a line
_LOCK = ".change.lock"
_WRITER = ".writer.lock"


@contextmanager
def change_together(folder: Path, *, last: Sequence[str]) -> Iterator[Path]:
    """Yield an empty folder; the files written there take their places in `folder` together, those of `last` last.

    An exception leaves `folder` as it was. Raises RunError where another process is changing it now, or where it
    cannot be written.
    """
    with _locked(folder, wait=False):
        with _errors(folder):
            _move(folder)  # what a killed process decided
            for rubbish in folder.glob(f"{_STAGING}*"):
                shutil.rmtree(rubbish, ignore_errors=True)
            staging = Path(tempfile.mkdtemp(dir=folder, prefix=_STAGING))
        try:
            yield staging
            with _errors(folder):
                (staging / _LAST).write_text("\n".join(last), encoding="utf-8")
                staging.replace(folder / _DECIDED)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        with _errors(folder):
            _move(folder)


@contextmanager
def sole_writer(folder: Path, command: str) -> Iterator[None]:
    """Keep every other writer of `folder` away until the block ends or this process does; `command` is what they hear.

    The processes of one distributed training are one writer: the first of them holds the lock. Raises RunError naming
    the process that writes now.
    """
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    with _errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / _WRITER, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        with _errors(folder):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                other = os.pread(handle, 1000, 0).decode(errors="replace") or "another process"
                raise RunError(
                    f"{folder} is being written by {other}.", "Wait until it has finished, or stop it."
                ) from error
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"`{command}` (process {os.getpid()} on {platform.node()})".encode(), 0)
        try:
            yield
        finally:
            with suppress(OSError):  # the lock is what counts; a name that stays misleads at most who reads the file
                os.ftruncate(handle, 0)
    finally:
        os.close(handle)  # and so unlocked


def is_changing(folder: Path) -> bool:
    """Whether a change is decided and not all of its files are in place yet."""
    return (folder / _DECIDED).is_dir()


def finish_change(folder: Path) -> None:
    """Put into place what a killed process had decided; waits for a living one. Raises RunError if it cannot."""
    if is_changing(folder):
        with changing(folder):
            pass


@contextmanager
def changing(folder: Path) -> Iterator[None]:
    """Wait until nobody else changes `folder`, finish what a killed process had decided, and keep others away."""
    with _locked(folder, wait=True):
        with _errors(folder):
            _move(folder)
        yield


def _move(folder: Path) -> None:
    """Move what is left of a decided change into place. Does nothing where there is none."""
    decided = folder / _DECIDED
    if not decided.is_dir():
        return
    last = (decided / _LAST).read_text(encoding="utf-8").split("\n") if (decided / _LAST).is_file() else []
    files = [file.relative_to(decided).as_posix() for file in sorted(decided.rglob("*")) if file.is_file()]
    ordered = [name for name in files if name not in last and name != _LAST]
    for name in [*ordered, *(name for name in last if name in files)]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (decided / name).replace(folder / name)
    shutil.rmtree(decided)


@contextmanager
def _locked(folder: Path, *, wait: bool) -> Iterator[None]:
    with _errors(folder):
        handle = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        _lock(handle, folder, wait=wait)
        yield
    finally:
        os.close(handle)  # and so unlocked


def _lock(handle: int, folder: Path, *, wait: bool) -> None:
    with _errors(folder):  # some network file systems have no locks
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(
                f"{folder} is being changed by another process.", "Wait until it has finished, then try again."
            ) from error


@contextmanager
def _errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(
            f"{folder} could not be changed: {error.strerror or error}.",
            "Free some disk space, or see whether the folder may be written, then try again.",
        ) from error
