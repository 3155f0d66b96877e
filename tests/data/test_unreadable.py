"""What cannot be read is named with its file and what to do: no traceback, and no letters where words should be."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from genrec.config import IngestConfig
from genrec.data.catalog import Catalog
from genrec.data.dialogues import read_turns
from genrec.data.ingest import ingest
from genrec.data.text_source import TextSource
from genrec.encoders.precomputed import read_vectors
from genrec.errors import DataError
from genrec.run import Run

TURN = {"dialog_id": 1, "context": ["hi"], "entity": [], "rec": ["Heat"]}
DEEP = "[" * 900 + "]" * 900


def cut_off(text: str) -> bytes:
    """A packed file that lost its end."""
    return gzip.compress(text.encode(), mtime=0)[:-9]


def damaged_parquet() -> bytes:
    """A file whose data page names an encoding that does not exist, at which polars panics."""
    buffer = io.BytesIO()
    pl.DataFrame({"item_id": ["a", "b"], "v": [[1.0], [2.0]]}).write_parquet(buffer)
    damaged = buffer.getvalue().replace(b"\x15\x04\x15\x10\x15\x06", b"\x15\x04\x15\x70\x15\x06", 1)
    assert damaged != buffer.getvalue()
    return damaged


def turns(file: Path) -> None:
    list(read_turns(file))


def lines(file: Path) -> None:
    list(TextSource.parse(str(file)).documents())


def fields(file: Path) -> None:
    list(TextSource.parse(f"{file}:a").documents())


def items(file: Path) -> None:
    (file.parent / "log.csv").write_text("user_id,item_id\nu,a\n")
    ingest(Run.create(file.parent / "run"), "tables", [file, file.parent / "log.csv"], IngestConfig(min_interactions=1))


def plots(file: Path) -> None:
    (file.parent / "movies.csv").write_text("movieId,title,genres\n1,Heat (1995),Drama\n")
    (file.parent / "ratings.csv").write_text("userId,movieId,rating,timestamp\n7,1,4,5\n")
    ingest(Run.create(file.parent / "run"), "movielens", [file.parent], IngestConfig(min_interactions=1))


def vectors(file: Path) -> None:
    read_vectors(file, Catalog(pl.DataFrame({"item_id": ["a", "b"], "title": ["A", "B"]})))


GOOD_ITEM = '{"item_id": "a", "title": "A"}\n'
GOOD_PLOT = '{"movieId": 1, "plot": "A chase."}\n'
UNREADABLE: list[tuple[Callable[[Path], None], str, str | bytes, str]] = [
    (turns, "d.jsonl.gz", cut_off(json.dumps(TURN) + "\n"), r"d\.jsonl\.gz is truncated or damaged"),
    (turns, "d.jsonl", json.dumps(TURN | {"context": "hello you"}), "line 1: .*`context` is not a list of texts"),
    (turns, "d.jsonl", json.dumps(TURN | {"rec": "Heat"}), "line 1: .*`rec` is not a list of texts"),
    (turns, "d.jsonl", json.dumps(TURN | {"entity": [1]}), "line 1: .*`entity` is not a list of texts"),
    (turns, "d.jsonl", "[" * 100_000, "line 1: not a turn"),
    (lines, "t.txt.gz", cut_off("one\ntwo\n"), r"t\.txt\.gz is truncated or damaged"),
    (fields, "t.jsonl", '{"a": ' + "[" * 100_000, "line 1: not JSON"),
    (items, "items.jsonl", GOOD_ITEM + f'{{"item_id": "b", "title": "B", "x": {DEEP}}}', "line 2: is nested too"),
    (items, "items.jsonl", GOOD_ITEM + f'{{"item_id": {DEEP}, "title": "B"}}', "line 2: is nested too deeply"),
    (items, "items.jsonl", GOOD_ITEM + "{'item_id': 'b', 'title': 'B', [1]: 2}", "line 2: is not valid JSON"),
    (items, "items.jsonl", GOOD_ITEM + "{'item_id': 'b', 'title': 'B', 1: 2}", "line 2: .*a key is not text"),
    (items, "items.csv", f"item_id,title,genres\na,A,{DEEP}\n", 'line 2, column "genres": is nested too deeply'),
    (items, "items.csv", f"item_id,title,genres\na,A,{'[' * 99_999}\n", 'column "genres": is nested too deeply'),
    (plots, "omdb_text.jsonl", GOOD_PLOT + '{"plot": "B"}', 'line 2, column "movieId": is empty'),
    (plots, "omdb_text.jsonl", GOOD_PLOT + '{"movieId": 1, "plot": {}}', 'line 2, column "plot": {} is not text'),
    (plots, "omdb_text.jsonl", GOOD_PLOT + '{"movieId": 1, "actors": 5}', 'line 2, column "actors": 5 is not a list'),
    (vectors, "v.parquet", damaged_parquet(), r"v\.parquet cannot be read"),
]


@pytest.mark.parametrize(("read", "name", "content", "message"), UNREADABLE)
def test_what_cannot_be_read_is_named_never_a_traceback(
    tmp_path: Path, read: Callable[[Path], None], name: str, content: str | bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path / name)
    assert caught.value.hint
