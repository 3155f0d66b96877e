"""Columns of a CSV are what all of their cells are: read from files, against types that were decided by hand."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from genrec.config import IngestConfig
from genrec.data.attributes import Attribute
from genrec.data.catalog import Catalog
from genrec.data.changes import read_changed_items, read_new_items, with_rows
from genrec.data.ingest import ingest
from genrec.data.sources.column_types import plain_number
from genrec.errors import BadRowsError, ConfigError
from genrec.run import Run, StageReport

COLUMNS = {
    "price": (["6.0", "", "19.5"], pl.Float64, [6.0, None, 19.5]),
    "year": (["1994", "2001", ""], pl.Int64, [1994, 2001, None]),
    "delta": (["-3", "0", "12"], pl.Int64, [-3, 0, 12]),
    "share": (["1e-05", "0.5", "1"], pl.Float64, [1e-05, 0.5, 1.0]),
    "vegan": (["True", "false", ""], pl.Boolean, [True, False, None]),
    "room": (["007", "12", "13"], pl.String, ["007", "12", "13"]),  # a leading zero: codes
    "postal": (["123", "4567", "89 B"], pl.String, ["123", "4567", "89 B"]),
    "dialled": (["+4930", "12", "13"], pl.String, ["+4930", "12", "13"]),
    "paid": (["1,000", "2", "3"], pl.String, ["1,000", "2", "3"]),
    "serial": (["1234567890123456", "1", "2"], pl.String, ["1234567890123456", "1", "2"]),  # no float holds more
    "size": (["1E5", "2", "3"], pl.String, ["1E5", "2", "3"]),
    "imdb_id": (["114709", "113497", "1"], pl.String, ["114709", "113497", "1"]),
    "movieId": (["1", "2", "3"], pl.String, ["1", "2", "3"]),
    "phone_number": (["5551234567", "1", ""], pl.String, ["5551234567", "1", None]),
    "ISBN13": (["9780306406157", "", ""], pl.String, ["9780306406157", None, None]),
    "brand": (["3", "7", "7"], pl.String, ["3", "7", "7"]),
    "empty": (["", "", ""], pl.String, [None, None, None]),
}


def csv_file(path: Path, columns: dict[str, Sequence[str]]) -> Path:
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def ingested(folder: Path, columns: dict[str, Sequence[str]], **options: Any) -> tuple[Run, StageReport]:
    number = len(next(iter(columns.values())))
    named = {"item_id": [f"{n:02}" for n in range(number)], "title": [str(n) for n in range(number)]}
    (folder / "log.csv").write_text("user_id,item_id\nu,00\n")
    run = Run.create(folder / "run")
    config = IngestConfig(min_interactions=1, **options)
    return run, ingest(run, "tables", [csv_file(folder / "items.csv", named | columns), folder / "log.csv"], config)


def test_a_column_is_what_all_of_its_filled_cells_are(tmp_path: Path) -> None:
    run, report = ingested(tmp_path, {name: cells for name, (cells, _, _) in COLUMNS.items()})
    table = Catalog.load(run).table
    for name, (_, dtype, values) in COLUMNS.items():
        assert (name, table.schema[name], table[name].to_list()) == (name, dtype, values)
    assert table["item_id"].to_list() == ["00", "01", "02"]
    assert table["title"].to_list() == ["0", "1", "2"]
    said = "items.csv: read as numbers: price, year, delta, share; as truth values: vegan (--text-column"
    assert any(line.startswith(said) for line in report.words), report.words


@pytest.mark.parametrize(("last", "dtype"), [("7", pl.Int64), ("none", pl.String)])
def test_the_last_of_many_rows_counts_as_much_as_the_first(tmp_path: Path, last: str, dtype: pl.DataType) -> None:
    run, _ = ingested(tmp_path, {"parts": ["6"] * 300 + [last]})
    assert Catalog.load(run).table.schema["parts"] == dtype


def test_a_csv_has_the_types_of_the_same_table_in_json_lines(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user_id,item_id\nu,00\n")
    rows = [
        {"item_id": "00", "title": "0", "price": 6.0, "year": 1994, "vegan": True},
        {"item_id": "01", "title": "1", "price": None, "year": 2001, "vegan": False},
        {"item_id": "02", "title": "2", "price": 19.5, "year": None, "vegan": None},
    ]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    other = Run.create(tmp_path / "other")
    ingest(other, "tables", [tmp_path / "items.jsonl", tmp_path / "log.csv"], IngestConfig(min_interactions=1))
    run, _ = ingested(tmp_path, {name: COLUMNS[name][0] for name in ("price", "year", "vegan")})
    assert Catalog.load(run).table.equals(Catalog.load(other).table)
    assert Catalog.load(run).table.schema == Catalog.load(other).table.schema


def test_a_column_that_is_named_as_text_stays_text(tmp_path: Path, genrec: Callable[..., Any]) -> None:
    columns = {"price": ["6.0", "7"], "year": ["1994", "2001"]}
    run, _ = ingested(tmp_path, columns, text_columns=("year",))
    assert Catalog.load(run).table["year"].to_list() == ["1994", "2001"]
    assert Catalog.load(run).table["price"].to_list() == [6.0, 7.0]
    out, tables = tmp_path / "again", (tmp_path / "items.csv", tmp_path / "log.csv")
    flags = ("--min-interactions", 1, "--text-column", "year", "--text-column", "price")
    done = genrec("ingest", "tables", *tables, "--out", out, *flags)
    assert done.status == 0, done.err
    assert Catalog.load(Run.open(out)).table["price"].to_list() == ["6.0", "7"]
    with pytest.raises(ConfigError, match=r"items\.csv has no column 'yaer'.*It has: item_id, title, price"):
        ingested(tmp_path, columns, text_columns=("yaer",))


def test_only_a_csv_can_be_told_what_is_text(tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text('{"item_id": "00", "title": "0", "year": 1994}\n')
    (tmp_path / "log.csv").write_text("user_id,item_id\nu,00\n")
    config = IngestConfig(min_interactions=1, text_columns=("year",))
    paths = [tmp_path / "items.jsonl", tmp_path / "log.csv"]
    with pytest.raises(ConfigError, match=r"items\.jsonl says itself what is text"):
        ingest(Run.create(tmp_path / "run"), "tables", paths, config)
    with pytest.raises(ConfigError, match="text_columns is for `tables`"):
        ingest(Run.create(tmp_path / "run"), "movielens", [tmp_path], config)


@pytest.mark.parametrize(
    ("text", "number"),
    [("6", 6), ("6.50", 6.5), ("-0.5", -0.5), ("1e+16", 1e16), ("0", 0)]
    + [(text, None) for text in ("", "007", "+6", "1,000", "1_000", "nan", "inf", "1e+999", " 6", "6.", "٣", "0x1")],
)
def test_a_plain_number_is_one_as_people_and_programs_write_it(text: str, number: float | None) -> None:
    assert plain_number(text) == number
    assert type(plain_number(text)) is type(number)


def test_a_filter_means_the_same_number_however_it_is_written() -> None:
    prices = Attribute.of("price", pl.Series([6.0, 6.5, None]))
    years = Attribute.of("year", pl.Series([1994, 6]))
    codes = Attribute.of("size", pl.Series(["6.0", "6"]))
    for wish in (6, 6.0, "6", "6.0", "6.00"):
        assert prices.mask(wish).tolist() == [True, False, False]
        assert years.mask(wish).tolist() == [False, True]
    assert prices.mask("6.50").tolist() == [False, True, False]
    assert codes.mask("6.0").tolist() == [True, False]  # text is text


CATALOG = Catalog(
    pl.DataFrame({"item_id": ["a"], "title": ["A"], "price": [6.0], "year": [1994], "vegan": [True], "room": ["007"]})
)
NOBODY = np.zeros(1, np.bool_)


def test_added_and_changed_rows_of_a_csv_take_the_types_that_the_catalogue_has(tmp_path: Path) -> None:
    rows = {"item_id": ["b", "c"], "title": ["B", "C"], "price": ["7", ""], "year": ["1995", ""]}
    file = csv_file(tmp_path / "new.csv", rows | {"vegan": ["FALSE", ""], "room": ["12", "008"]})
    items = read_new_items(file, CATALOG, removed=NOBODY, title_required=False, media_root=tmp_path)
    table = with_rows(CATALOG.table, dict(enumerate(items, start=1)))
    assert table.schema == CATALOG.table.schema
    assert table[1:].rows() == [("b", "B", 7.0, 1995, False, "12"), ("c", "C", None, None, None, "008")]
    file = csv_file(tmp_path / "changed.csv", {"item_id": ["a"], "price": ["6.50"], "room": ["9"]})
    changed = read_changed_items(file, CATALOG, removed=NOBODY, title_required=False, media_root=tmp_path)
    assert changed == [{"item_id": "a", "price": 6.5, "room": "9"}]


@pytest.mark.parametrize("read", [read_new_items, read_changed_items])
@pytest.mark.parametrize(
    ("column", "cell", "expected"),
    [
        ("price", "cheap", "a number, as in the catalogue, or an empty cell"),
        ("price", "$6", "a number, as in the catalogue, or an empty cell"),
        ("price", "1_000", "a number, as in the catalogue, or an empty cell"),
        ("year", "1994.5", "a whole number, as in the catalogue, or an empty cell"),
        ("year", "0094", "a whole number, as in the catalogue, or an empty cell"),
        ("vegan", "perhaps", "true or false, as in the catalogue"),
    ],
)
def test_a_cell_that_does_not_fit_is_named_with_its_file_its_line_and_what_to_write(
    tmp_path: Path, read: Callable[..., Any], column: str, cell: str, expected: str
) -> None:
    item_ids = ["b", "c"] if read is read_new_items else ["a"]
    cells = ["", cell][-len(item_ids) :]
    file = csv_file(tmp_path / "rows.csv", {"item_id": item_ids, "title": item_ids, column: cells})
    with pytest.raises(BadRowsError) as caught:
        read(file, CATALOG, removed=NOBODY, title_required=False, media_root=tmp_path)
    [problem] = caught.value.problems
    assert problem.startswith(f'rows.csv, line {len(item_ids) + 1}, column "{column}": "{cell}" is not')
    assert problem.endswith(f"Expected {expected}.")
