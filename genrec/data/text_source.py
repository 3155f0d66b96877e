"""Text at hand, a file of lines or fields of JSON lines: documents, read one at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genrec.data.sources.rows import InputFile
from genrec.errors import DataError


@dataclass(frozen=True)
class TextSource:
    """A text file, of which each line is a document, or fields of a JSON-lines file; either may be `.gz`.

    A field is a path such as `messages.text`; where it leads through a list, all values are joined by line breaks.
    """

    path: Path
    fields: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> TextSource:
        """`FILE` or `FILE:field,field`. Raises DataError for a file that is not there and for JSON without fields."""
        name, _, fields = text.partition(":")
        source = cls(Path(name), tuple(field for field in fields.split(",") if field))
        if not source.path.is_file():
            raise DataError(f"{name} is not a file.", "Give text files, or JSON lines as FILE:field,field.")
        is_json = Path(name.removesuffix(".gz")).suffix in (".json", ".jsonl")
        if is_json != bool(source.fields):
            wanted = "the fields to read, as FILE:field,field" if is_json else "no fields: its lines are the documents"
            raise DataError(f"{text}: expected {wanted}.")
        return source

    def documents(self) -> Iterator[str]:
        """Its documents, the empty ones left out. Raises DataError for a file that cannot be read or is truncated, and
        naming the line that is not JSON or no object."""
        with InputFile(self.path).open() as (stream, _, _):
            for number, line in enumerate(stream, start=1):
                text = line.decode(errors="replace").strip()
                if self.fields and text:
                    text = self._joined(text, number)
                if text:
                    yield text

    def _joined(self, line: str, number: int) -> str:
        where = f"{self.path}, line {number}"
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise DataError(f"{where}: expected a JSON object, found {type(row).__name__}.")
            parts = [part for field in self.fields for part in _values(row, field.split("."))]
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: not JSON ({error}).", "Expected one JSON object per line.") from error
        # What is no text (a lone surrogate) cannot be tokenised.
        return "\n".join(parts).encode(errors="replace").decode().strip()


def _values(value: Any, path: list[str]) -> list[str]:
    """The texts at a path; lists on the way are walked through, what is missing is nothing."""
    if isinstance(value, list):
        return [text for one in value for text in _values(one, path)]
    if path:
        return _values(value.get(path[0]), path[1:]) if isinstance(value, dict) else []
    return [] if value is None or value == "" else [str(value)]
