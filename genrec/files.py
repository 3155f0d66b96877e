"""Files and folders that are whole at every moment: written beside their place, then renamed into it.

What a person names as an output may be something else than a file's place (a pipe, a device, a link): `output_file`.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import IO, cast

from genrec.errors import RunError

# polars, safetensors and tokenizers are written in Rust: a full disk is an exception of their own, whose text
# ends in "No space left on device (os error 28)".
_RUST_OS_ERROR = re.compile(r"\(os error (\d+)\)")


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it takes `path`'s place, on failure it vanishes.

    A full disk raises RunError and leaves the old file whole.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        os.close(handle)
    except OSError as error:
        raise _write_error(path, error) from error
    temporary = Path(name)
    try:
        yield temporary
        _sync(temporary)
        temporary.chmod(0o644)
        temporary.replace(path)
    except Exception as error:
        raise _write_error(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def output_file(path: Path) -> Iterator[Path]:
    """`atomic_file` for an output that a person names: a link stays, and what it leads to is replaced.

    A pipe, a device or /dev/stdout is no file whose place could be taken: there `path` itself is to be written.
    """
    if not is_stream(path):
        with atomic_file(Path(os.path.realpath(path))) as temporary:
            yield temporary
        return
    try:
        yield path
    except OSError as error:
        raise stream_error(path, error) from error


def is_stream(path: Path) -> bool:
    """Whether what is written there goes on to somebody: a pipe, a device, an open descriptor of a process."""
    if str(path.absolute()).startswith(("/dev/std", "/dev/fd/", "/proc/")):
        return True  # also where the shell has led them into a file: that is the shell's
    try:
        mode = path.stat().st_mode
    except OSError:  # nothing is there, or nothing can be: writing will tell
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def stream_error(path: Path, error: OSError) -> RunError:
    """What to raise where a stream could not be written."""
    reason = error.strerror or str(error)
    return RunError(f"{path} could not be written: {reason}.", "Whoever reads it has to stay until the end.")


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on success it takes `path`'s place, on failure it vanishes.

    A folder cannot take another's place at once. What was there is kept under a name of its own until the new one
    stands; where something fails in between it comes back, after a kill with the next look (`restore_folder`). Where
    `path` is a link, it stays, and what it leads to is replaced.
    """
    path = Path(os.path.realpath(path))
    restore_folder(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    except OSError as error:
        raise _write_error(path, error) from error
    old = _old_folder(path)
    try:
        yield temporary
        temporary.chmod(0o755)
        if path.exists():
            path.replace(old)
        temporary.replace(path)
        shutil.rmtree(old, ignore_errors=True)
    except Exception as error:
        restore_folder(path)
        raise _write_error(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def restore_folder(path: Path) -> None:
    """Bring back the folder of before where a kill came between its two renames in `atomic_folder`."""
    path = Path(os.path.realpath(path))
    old = _old_folder(path)
    if not old.exists():
        return
    if path.exists():
        shutil.rmtree(old, ignore_errors=True)
    else:
        old.replace(path)


def _old_folder(path: Path) -> Path:
    return path.with_name(f".{path.name}.before")


@contextmanager
def array_stream(path: Path) -> Iterator[IO[bytes]]:
    """Open `path` for np.save. Raises OSError on a full disk.

    Given a real file, np.save writes through a C stream and ignores what closing it answers: on a full disk up
    to 4 KiB are lost without an error.
    """
    with path.open("wb") as stream:
        yield cast(IO[bytes], SimpleNamespace(write=stream.write))


def _sync(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def _write_error(path: Path, error: Exception) -> Exception:
    """What to raise where a write ended with `error`: itself unless the operating system is behind it."""
    if isinstance(error, OSError):
        reason = error.strerror or str(error)
    elif found := _RUST_OS_ERROR.search(str(error)):
        reason = os.strerror(int(found[1]))
    else:
        return error
    return RunError(
        f"{path} could not be written: {reason}.",
        "What was there before is untouched. Free some disk space or choose another folder, then try again.",
    )
