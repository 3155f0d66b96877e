"""Media paths of the catalogue to files that may be read: pictures, sounds and clips find them the same way.

The catalogue has paths relative to the table of items; ingest keeps that table's folder in its report. A path
is followed only to a file inside that folder, whatever a symbolic link says by now.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from genrec.data.catalog import Catalog
from genrec.errors import DataError, MissingDependencyError, UnreadableInputError
from genrec.run import Run

DESCRIPTORS = "descriptors"  # the model name, in every modality of files, of features that need no weights


@dataclass(frozen=True)
class MediaFile:
    """A file of one item: `name` is its path as the catalogue has it, below `root` (resolved)."""

    root: Path
    name: str

    def locate(self) -> Path:
        """The file's absolute path. Raises UnreadableInputError where it is no file inside `root`, or empty."""
        try:
            path = (self.root / self.name).resolve()
            if not path.is_relative_to(self.root.resolve()):
                raise UnreadableInputError(f"leads outside {self.root}")
            if not path.exists():
                raise UnreadableInputError("does not exist")
            if not path.is_file():
                raise UnreadableInputError("is not a file")
            if path.stat().st_size == 0:
                raise UnreadableInputError("is empty")
        except (OSError, RuntimeError, ValueError) as error:
            raise UnreadableInputError(f"cannot be found: {error}") from error
        return path

    def content(self) -> bytes:
        """SHA-256 (32 bytes) of the file. Raises UnreadableInputError where it cannot be read."""
        path = self.locate()
        try:
            with path.open("rb") as stream:
                return hashlib.file_digest(stream, "sha256").digest()
        except OSError as error:
            raise UnreadableInputError(f"cannot be read: {error.strerror or error}") from error


def media_files(run: Run, catalog: Catalog, column: str, *, root: Path | None) -> list[MediaFile | None]:
    """One file per item, (I,), None where the item names none. `root` replaces the folder that ingest noted.

    Raises DataError where the catalogue has no such column, names no file in it, or the folder is not there.
    """
    names: Sequence[str | None] = catalog.table[column].to_list() if column in catalog.table.columns else []
    if not any(names):
        raise DataError(
            f"No item of the catalogue has a path in the column {column!r}.",
            f"Ingest a table of items with a column {column!r} of paths relative to the table.",
        )
    folder = root if root is not None else _ingested_root(run)
    if not folder.is_dir():
        raise DataError(
            f"The folder of the media files, {folder}, is not there.",
            "Put it back, or name where it is now: `genrec embed RUN … --media-root FOLDER` with the old options; "
            "it takes known files from the cache, and what later stages read of it may have to be made again.",
        )
    folder = folder.resolve()
    return [MediaFile(folder, name) if name else None for name in names]


def require_extra(package: str, *, extra: str, what: str) -> None:
    """Raise MissingDependencyError, naming the extra, unless `package` can be imported."""
    if importlib.util.find_spec(package) is None:
        raise MissingDependencyError(
            f"{what} needs the package {package}, which is not installed.",
            f"Install the extra `{extra}` (docs/install.md).",
        )


def _ingested_root(run: Run) -> Path:
    root = run.require("ingest", verify=False).report.get("media_root")
    if root is None:
        raise DataError(
            f"{run.path} does not know which folder its media paths are relative to.",
            "Name it: `genrec embed RUN … --media-root FOLDER`.",
        )
    return Path(root)
