"""Rows of new, changed and removed items: what is taken, what is named, against tables written by hand."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from genrec.data.catalog import Catalog
from genrec.data.changes import read_changed_items, read_new_items, read_removed_ids, with_rows
from genrec.errors import BadRowsError, DataError
from genrec.progress import SilentProgress

TABLE = pl.DataFrame(
    {
        "item_id": ["a", "b", "c"],
        "title": ["A", "B", "C"],
        "genres": [["x"], [], ["x", "y"]],
        "image": ["a.png", None, None],
        "year": [1990, None, 1992],
        "price": [1.5, 2.0, None],
        "sold_out": [True, False, None],
        "note": ["n", None, "m"],
    },
    schema_overrides={"genres": pl.List(pl.String)},
)
CATALOG = Catalog(TABLE)
REMOVED = np.array([False, False, True])


def write(folder: Path, rows: Sequence[dict[str, Any]], name: str = "new.jsonl") -> Path:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / name


def new(file: Path, *, title_required: bool = False, media_root: Path | None = None) -> list[dict[str, Any]]:
    return read_new_items(
        file, CATALOG, removed=REMOVED, title_required=title_required, media_root=media_root or file.parent
    )


def changed(file: Path) -> list[dict[str, Any]]:
    return read_changed_items(file, CATALOG, removed=REMOVED, title_required=False, media_root=file.parent)


def test_rows_get_the_types_of_the_catalogue_from_json_and_from_csv(tmp_path: Path) -> None:
    rows = [
        {"item_id": "d", "title": "D", "genres": ["z"], "year": 2001, "price": 3, "sold_out": False, "note": 5},
        {"item_id": 7, "title": "", "year": 2002.0},
    ]
    (tmp_path / "new.csv").write_text(
        "item_id,title,genres,year,price,sold_out,note\nd,D,z,2001,3,false,5\n7,,,2002,,,\n"
    )
    for file in (write(tmp_path, rows), tmp_path / "new.csv"):
        table = with_rows(TABLE, dict(enumerate(new(file), start=3)))
        assert table.schema == TABLE.schema
        assert table[:3].equals(TABLE)
        assert table[3:].rows() == [
            ("d", "D", ["z"], None, 2001, 3.0, False, "5"),
            ("7", "7", [], None, 2002, None, None, None),
        ]


def test_every_bad_row_is_named_and_none_is_taken(tmp_path: Path) -> None:
    rows = [
        {"item_id": "a", "title": "again"},
        {"item_id": "d", "title": "D", "year": "soon"},
        {"item_id": "d", "title": "D"},
        {"item_id": "", "title": "no id"},
        {"item_id": "e", "title": "E", "colour": "red"},
        {"item_id": "f", "title": "F", "image": "gone.png"},
        {"item_id": "g", "title": "G", "sold_out": "perhaps", "price": True},
        {"item_id": "h", "title": "H", "colour": ""},
    ]
    with pytest.raises(BadRowsError) as caught:
        new(write(tmp_path, rows))
    found = caught.value.problems
    assert [problem.split(": ")[0] for problem in found] == [
        'new.jsonl, line 1, column "item_id"',
        'new.jsonl, line 2, column "year"',
        'new.jsonl, line 3, column "item_id"',
        'new.jsonl, line 4, column "item_id"',
        'new.jsonl, line 5, column "colour"',
        'new.jsonl, line 6, column "image"',
        'new.jsonl, line 7, column "sold_out"',
        'new.jsonl, line 7, column "price"',
    ]
    assert '"a" is in the catalogue already' in found[0]
    assert "is already on line 2" in found[2]
    assert "a column that the catalogue does not have. Expected one of item_id, title" in found[4]


def test_an_item_that_was_removed_may_come_again_and_one_that_is_there_may_not(tmp_path: Path) -> None:
    assert [item["item_id"] for item in new(write(tmp_path, [{"item_id": "c", "title": "C2"}]))] == ["c"]
    with pytest.raises(BadRowsError, match="genrec items update"):
        new(write(tmp_path, [{"item_id": "b", "title": "B2"}]))


def test_a_title_is_demanded_where_ingest_demanded_it(tmp_path: Path) -> None:
    file = write(tmp_path, [{"item_id": "d"}, {"item_id": "e", "title": ""}])
    assert [item["title"] for item in new(file)] == ["d", "e"]
    with pytest.raises(BadRowsError, match=r'line 1, column "title"(.|\n)*line 2, column "title"'):
        new(file, title_required=True)


def test_a_change_holds_what_its_row_names_and_nothing_else(tmp_path: Path) -> None:
    rows = [{"item_id": "b", "year": "1999"}, {"item_id": "a", "title": None, "note": None, "genres": None}]
    assert changed(write(tmp_path, rows)) == [
        {"item_id": "b", "year": 1999},
        {"item_id": "a", "title": "a", "note": None, "genres": []},
    ]
    with pytest.raises(BadRowsError, match=r'"c" was removed(.|\n)*"d" is not in the catalogue'):
        changed(write(tmp_path, [{"item_id": "c", "year": 1}, {"item_id": "d", "year": 1}]))


def test_ids_to_remove_are_read_one_a_line(tmp_path: Path) -> None:
    file = tmp_path / "ids.txt"
    file.write_text("\ufeffb\r\n\n a\na\n", encoding="utf-8")
    with pytest.raises(BadRowsError, match='line 3: " a" is not in the catalogue'):
        read_removed_ids(file, CATALOG, removed=REMOVED)
    file.write_text("b\r\n\na\n", encoding="utf-8")
    assert read_removed_ids(file, CATALOG, removed=REMOVED) == ["b", "a"]
    file.write_text("a\na\nc\n", encoding="utf-8")
    with pytest.raises(BadRowsError, match=r'line 2: "a" is already on line 1(.|\n)*line 3: "c" was removed before'):
        read_removed_ids(file, CATALOG, removed=REMOVED)
    file.write_text("\n", encoding="utf-8")
    with pytest.raises(DataError, match="not one item"):
        read_removed_ids(file, CATALOG, removed=REMOVED)
    with pytest.raises(DataError, match="cannot be read"):
        read_removed_ids(tmp_path / "none.txt", CATALOG, removed=REMOVED)


def test_rows_are_replaced_in_place_and_appended_in_order() -> None:
    table = with_rows(TABLE, {4: {"item_id": "e"}, 1: {"item_id": "b", "title": "B2"}, 3: {"item_id": "d"}})
    assert table["item_id"].to_list() == ["a", "b", "c", "d", "e"]
    assert table["title"].to_list() == ["A", "B2", "C", None, None]
    assert table.filter(pl.col("item_id").is_in(["a", "c"])).equals(TABLE[[0, 2]])


def test_a_column_of_any_name_survives_a_change() -> None:
    table = TABLE.with_columns(_row=pl.Series(["x", "y", "z"]))
    assert with_rows(table, {1: {"item_id": "b", "_row": "new"}})["_row"].to_list() == ["x", "new", "z"]


@pytest.mark.parametrize("cell", ["x|z", "['x', 'z']", '["x", "z"]'])
def test_a_list_is_read_from_text_as_ingest_reads_it(tmp_path: Path, cell: str) -> None:
    with (tmp_path / "new.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["item_id", "title", "genres", "tags"], ["d", "D", cell, ""]])
    assert new(tmp_path / "new.csv")[0]["genres"] == ["x", "z"]
    assert changed(write(tmp_path, [{"item_id": "b", "genres": cell}]))[0]["genres"] == ["x", "z"]


def test_a_web_address_takes_no_file_away(tmp_path: Path) -> None:
    address = "https://example.org/a.png"
    with pytest.raises(BadRowsError, match=r'column "image": .* is an address, and nothing is fetched'):
        changed(write(tmp_path, [{"item_id": "a", "image": address}]))
    said: list[str] = []

    class Heard(SilentProgress):
        def say(self, text: str) -> None:
            said.append(text)

    file = write(tmp_path, [{"item_id": "d", "title": "D", "image": address}])
    [item] = read_new_items(file, CATALOG, removed=REMOVED, title_required=False, media_root=tmp_path, progress=Heard())
    assert item["image"] is None
    assert said == ["1 media cells are web addresses; nothing is fetched, they count as missing."]


def test_media_paths_become_relative_to_the_folder_of_the_first_table(tmp_path: Path) -> None:
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / "d.png").write_bytes(b"x")
    file = write(tmp_path / "later", [{"item_id": "d", "title": "D", "image": "d.png"}])
    assert new(file, media_root=tmp_path)[0]["image"] == "later/d.png"
    with pytest.raises(BadRowsError, match=r'column "image": "d.png" lies outside the folder .*elsewhere'):
        new(file, media_root=tmp_path / "elsewhere")
