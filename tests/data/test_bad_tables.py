"""Every way in which tables can be wrong is said clearly, all at once, and leaves the run as it was."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import polars as pl
import pytest

from genrec.config import IngestConfig
from genrec.data.catalog import Catalog
from genrec.data.ingest import ingest
from genrec.errors import BadRowsError, ConfigError, DataError, GenrecError
from genrec.run import Run

ITEMS = "item_id,title\na,Alpha\nb,Beta\n"
LOG = "user_id,item_id,timestamp,rating\nu,a,1,5\nu,b,2,\n"


def ingest_text(
    folder: Path, items: str | bytes = ITEMS, log: str | bytes = LOG, *, ending: str = ".csv", skip: bool = False
) -> Run:
    paths = [folder / f"items{ending}", folder / f"log{ending}"]
    for path, text in zip(paths, (items, log), strict=True):
        path.write_bytes(text.encode() if isinstance(text, str) else text)
    run = Run.create(folder / "run")
    config = IngestConfig(min_interactions=1, empty_title="stop", on_bad_row="skip" if skip else "stop")
    ingest(run, "tables", paths, config)
    return run


BAD_ROWS = [
    ("items", "a,Again", 'items.csv, line 4, column "item_id": "a" is already on line 2. Expected every item'),
    ("items", ",Nameless", 'items.csv, line 4, column "item_id": is empty. Expected an id'),
    ("items", "c,  ", 'items.csv, line 4, column "title": is empty. Expected a title'),
    ("items", "c,Gamma,3", "items.csv, line 4: has 3 field(s). Expected 2, as in the header"),
    ("items", 'c,"Gam"ma', "items.csv, line 4: is not a CSV row"),
    ("items", 'c,"Gamma', "items.csv, line 4: is not a CSV row: unexpected end of data"),
    ("log", "u,zzz,3,", 'log.csv, line 4, column "item_id": "zzz" is not an item of items.csv'),
    ("log", "u,a,soon,", 'log.csv, line 4, column "timestamp": "soon" is not a timestamp. Expected Unix'),
    ("log", "u,a,,", 'log.csv, line 4, column "timestamp": is empty. Expected a timestamp, as other rows have one'),
    ("log", "u,a,1393545600000,", 'column "timestamp": "1393545600000" is too large. Expected Unix seconds'),
    ("log", "u,a,3,good", 'log.csv, line 4, column "rating": "good" is not a number'),
    ("log", "u,a,3,nan", 'column "rating": "nan" is not a number'),
    ("log", " ,a,3,1", 'log.csv, line 4, column "user_id": is empty'),
    ("log", "u\x07,a,3,1", 'column "user_id": "u\\u0007" holds a control character'),
]


@pytest.mark.parametrize(("table", "row", "message"), BAD_ROWS)
def test_a_bad_row_is_named_with_file_line_column_and_what_was_expected(
    tmp_path: Path, table: str, row: str, message: str
) -> None:
    items, log = (ITEMS + row, LOG) if table == "items" else (ITEMS, LOG + row)
    with pytest.raises(BadRowsError) as caught:
        ingest_text(tmp_path, items, log)
    assert [message in problem for problem in caught.value.problems] == [True]
    assert "--on-bad-row skip" in caught.value.hint
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"manifest.json", ".writer.lock"}


@pytest.mark.parametrize(("table", "row", "message"), BAD_ROWS)
def test_skipping_leaves_the_bad_row_out_and_writes_it_down(tmp_path: Path, table: str, row: str, message: str) -> None:
    items, log = (ITEMS + row, LOG) if table == "items" else (ITEMS, LOG + row)
    run = ingest_text(tmp_path, items, log, skip=True)
    assert Catalog.load(run).item_ids == ["a", "b"]
    rejected = [json.loads(line) for line in (run.path / "rejected.jsonl").read_text().splitlines()]
    assert [(entry["file"], entry["row"]) for entry in rejected] == [(f"{table}.csv", 4)]
    assert run.stages["ingest"].report["num_rejected_rows"] == 1
    assert run.stages["ingest"].report["num_interactions"] == 2
    ingest_text(tmp_path)
    assert not (run.path / "rejected.jsonl").exists()


def test_all_bad_cells_of_all_rows_and_tables_are_listed(tmp_path: Path) -> None:
    with pytest.raises(BadRowsError) as caught:
        ingest_text(tmp_path, ITEMS + ",\n", LOG + "u,x,later,much\n" * 30)
    assert len(caught.value.problems) == 2 + 3 * 30
    assert "and 72 more" in str(caught.value)


@pytest.mark.parametrize("rest", ["", 'd,"Delta"\n'])  # the quote is never closed, or in the middle of another cell
def test_rows_read_and_rows_left_out_are_all_rows_where_a_quote_is_not_closed(tmp_path: Path, rest: str) -> None:
    rows = "".join(f"i{number},Title {number}\n" for number in range(20))
    run = ingest_text(tmp_path, ITEMS + 'c,"Gamma\n' + rows + rest + "z,Zeta\n" * bool(rest), skip=True)
    rejected = [json.loads(line) for line in (run.path / "rejected.jsonl").read_text().splitlines()]
    last = 25 if rest else 24
    assert [entry["row"] for entry in rejected] == list(range(4, last + 1))
    assert {entry["found"] for entry in rejected[1:]} == {"stands inside a quote of the row that begins on line 4"}
    assert Catalog.load(run).item_ids == (["a", "b", "z"] if rest else ["a", "b"])
    assert run.stages["ingest"].report["num_rejected_rows"] == len(rejected)


def test_a_row_after_a_cell_with_line_breaks_keeps_its_line_number(tmp_path: Path) -> None:
    with pytest.raises(BadRowsError, match=r"items\.csv, line 7, column"):
        ingest_text(tmp_path, ITEMS + 'c,"three\nlines\nlong"\n,x\n')


BAD_JSON = [
    ('{"item_id": "c", "title": "x"', "is not valid JSON"),
    ('["c", "x"]', "is a JSON list. Expected one JSON object a line"),
    ('{"item_id": "c"}', 'column "title": is empty'),
    ('{"item_id": 1.5, "title": "x"}', 'column "item_id": 1.5 is not an id'),
    ('{"item_id": true, "title": "x"}', 'column "item_id": true is not an id'),
    ('{"item_id": "c", "title": {}}', 'column "title": {} is not text'),
    ('{"item_id": "c", "title": "x", "categories": 5}', 'column "categories": 5 is not a list'),
    ("[" * 100_000, "is not valid JSON"),
]


@pytest.mark.parametrize(("row", "message"), BAD_JSON)
def test_a_bad_json_line_is_named(tmp_path: Path, row: str, message: str) -> None:
    items = '{"item_id": "a", "title": "Alpha", "categories": null}\n\n' + row
    with pytest.raises(BadRowsError) as caught:
        ingest_text(tmp_path, items, '{"user_id": "u", "item_id": "a"}', ending=".jsonl")
    assert [message in problem and "line 3" in problem for problem in caught.value.problems] == [True]


def test_json_rows_have_all_a_timestamp_or_none(tmp_path: Path) -> None:
    items = '{"item_id": "a", "title": "Alpha"}'
    log = '{"user_id": "u", "item_id": "a"}\n{"user_id": "v", "item_id": "a", "timestamp": 5}'
    with pytest.raises(BadRowsError, match=r"^1 bad row(.|\n)*line 1, column \"timestamp\": is empty"):
        ingest_text(tmp_path, items, log, ending=".jsonl")


def test_one_row_without_a_time_is_the_bad_one_wherever_it_stands(tmp_path: Path) -> None:
    log = "".join(f"u,{item},{time}\n" for item, time in (("a", ""), ("b", 3), ("c", 2), ("d", 1)))
    (tmp_path / "items.csv").write_text("item_id,title\n" + "".join(f"{item},{item.upper()}\n" for item in "abcd"))
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\n" + log)
    run = Run.create(tmp_path / "run")
    config = IngestConfig(min_interactions=1, on_bad_row="skip")
    ingest(run, "tables", [tmp_path / "items.csv", tmp_path / "log.csv"], config)
    assert pl.read_parquet(run.path / "interactions.parquet")["item_id"].to_list() == ["d", "c", "b"]
    assert '"row": 2' in (run.path / "rejected.jsonl").read_text()


@pytest.mark.parametrize("times", [("2024-01-01", "20240102"), ("20240102", "2024-01-01"), ("2024", "2024-01-01")])
def test_digits_that_may_be_a_date_do_not_stand_beside_dates(tmp_path: Path, times: tuple[str, str]) -> None:
    log = "user_id,item_id,timestamp\n" + "".join(f"u,a,{time}\n" for time in times)
    with pytest.raises(BadRowsError, match=r"line 3.*written otherwise than other rows"):
        ingest_text(tmp_path, "item_id,title\na,Alpha", log)


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_bytes_that_are_not_utf_8_are_named_with_their_line(tmp_path: Path, ending: str) -> None:
    items = {
        ".csv": b"item_id,title\na,Alpha\nb,Beta\nc,Caf\xe9\nd,Delta\n",
        ".jsonl": b'{"item_id":"a","title":"A"}\n\n\n{"item_id":"c","title":"Caf\xe9"}\n',
    }
    log = {".csv": LOG, ".jsonl": '{"user_id": "u", "item_id": "a"}'}
    with pytest.raises(BadRowsError) as caught:
        ingest_text(tmp_path, items[ending], log[ending], ending=ending)
    assert len(caught.value.problems) == 1
    assert re.search(r"line 4: byte 0xe9 at position \d+ is not valid UTF-8", caught.value.problems[0])


def test_every_row_that_is_not_utf_8_is_named_by_its_own_line(tmp_path: Path) -> None:
    items = b'item_id,title\na,\xe9\nb,Beta\nc,"two\nlines \xe9"\nd,\xe9\ne,Eta\n'
    with pytest.raises(BadRowsError) as caught:
        ingest_text(tmp_path, items, "user_id,item_id\nu,b\n")
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        f"items.csv, line {line}" for line in (2, 5, 6)
    ]


@pytest.mark.parametrize("value", ["missing.png", "../secret.png", "/etc/hostname", "img", "a\0b", "x" * 5000])
def test_a_media_path_must_exist_inside_the_folder_of_the_table(tmp_path: Path, value: str) -> None:
    folder = tmp_path / "set"
    (folder / "img").mkdir(parents=True)
    (tmp_path / "secret.png").touch()
    items = json.dumps({"item_id": "a", "title": "A", "image": value})
    with pytest.raises(BadRowsError, match=r'column "image".*Expected a path relative to the table'):
        ingest_text(folder, items, '{"user_id": "u", "item_id": "a"}', ending=".jsonl")


WHOLE_FILE = [
    ("item_id,name\na,Alpha\n", LOG, "items.csv lacks the column title. Columns found: item_id, name"),
    (ITEMS, "user_id,item\nu,a\n", "log.csv lacks the column item_id. Columns found: user_id, item"),
    (ITEMS, "user,item_id\nu,a\n", "log.csv lacks the column user_id. Columns found: user, item_id"),
    (ITEMS, "user_id,item_id\n", "there is not one interaction"),
    ("item_id,title\n", LOG, "items.csv: there is not one item"),
    ("", LOG, "items.csv is empty"),
    ("item_id,title,title\na,b,c\n", LOG, "has the column 'title' twice"),
    ("item_id,title,\na,b,c\n", LOG, "column 3 has no name"),
    (b"item_id,\xff\xfe\n", LOG, "items.csv, line 1"),
]


@pytest.mark.parametrize(("items", "log", "message"), WHOLE_FILE)
def test_a_table_that_is_wrong_as_a_whole_is_named_with_what_was_found(
    tmp_path: Path, items: str | bytes, log: str, message: str
) -> None:
    with pytest.raises(DataError, match=message.replace("(", r"\(")) as caught:
        ingest_text(tmp_path, items, log)
    assert caught.value.hint


@pytest.mark.parametrize(("log", "message"), [("", "log.jsonl is empty"), ("u,a\n", "no row that can be read")])
def test_json_lines_without_any_object_are_named(tmp_path: Path, log: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        ingest_text(tmp_path, '{"item_id": "a", "title": "A"}', log, ending=".jsonl")


def test_when_all_rows_are_bad_skipping_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"not one item \(\d+ bad rows were skipped\)"):
        ingest_text(tmp_path, "item_id,title\n,\n", LOG, skip=True)


@pytest.mark.parametrize("cut", [1, 2, 10])
def test_truncated_files_are_named(tmp_path: Path, cut: int) -> None:
    run = Run.create(tmp_path / "run")
    log = tmp_path / "log.csv"
    log.write_text(LOG)
    whole = gzip.compress(ITEMS.encode() + b"".join(b"i%d,title %d\n" % (i, i * i) for i in range(5000)))
    packed = tmp_path / "items.csv.gz"
    packed.write_bytes(whole[: len(whole) - len(whole) // cut // 2])
    with pytest.raises(DataError, match=r"items\.csv\.gz is truncated or damaged"):
        ingest(run, "tables", [packed, log], IngestConfig())
    parquet = tmp_path / "items.parquet"
    pl.DataFrame({"item_id": ["a"] * 999, "title": ["x"] * 999}).write_parquet(parquet)
    parquet.write_bytes(parquet.read_bytes()[: -parquet.stat().st_size // cut // 2])
    with pytest.raises(DataError, match=r"items\.parquet is not a whole Parquet file"):
        ingest(run, "tables", [parquet, log], IngestConfig())


def test_a_parquet_row_is_named_by_its_number(tmp_path: Path) -> None:
    items, log = tmp_path / "items.parquet", tmp_path / "log.csv"
    pl.DataFrame({"item_id": ["a", "b", "a"], "title": ["A", "B", "C"]}).write_parquet(items)
    log.write_text(LOG)
    with pytest.raises(BadRowsError, match=r'items\.parquet, row 3, column "item_id": "a" is already on row 1'):
        ingest(Run.create(tmp_path / "run"), "tables", [items, log], IngestConfig())


@pytest.mark.parametrize(
    ("source", "names", "error", "message"),
    [
        ("table", ["items.csv", "log.csv"], ConfigError, "Known sources: tables, movielens, amazon"),
        ("tables", ["items.csv"], ConfigError, "reads two files and got 1"),
        ("tables", ["items.csv", "gone.csv"], DataError, "gone.csv cannot be read: No such file"),
        ("tables", ["items.csv", "log.xlsx"], DataError, "this ending cannot be read"),
        ("tables", ["items.csv", "."], DataError, "cannot be read"),
        ("movielens", ["items.csv"], DataError, "neither a folder nor a whole .zip"),
        ("movielens", ["gone"], DataError, "gone cannot be read"),
        ("movielens", ["."], DataError, "holds no ratings.csv"),
        ("movielens", [".", "."], ConfigError, "reads one folder"),
        ("amazon", ["items.csv"], DataError, "no known Amazon layout. Columns found: item_id, title"),
        ("amazon", [], ConfigError, "reads one or two files and got 0"),
    ],
)
def test_wrong_paths_say_what_to_do(
    tmp_path: Path, source: str, names: list[str], error: type[GenrecError], message: str
) -> None:
    (tmp_path / "items.csv").write_text(ITEMS)
    (tmp_path / "log.csv").write_text(LOG)
    with pytest.raises(error, match=message) as caught:
        ingest(Run.create(tmp_path / "run"), source, [tmp_path / name for name in names], IngestConfig())
    assert caught.value.hint


def test_a_cell_as_long_as_a_novel_is_read_and_one_beyond_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = f'item_id,title,description\na,Alpha,"{"long " * 40_000}"\nb,Beta,short\n'
    catalog = Catalog.load(ingest_text(tmp_path, items))
    assert sorted(map(len, catalog.table["description"])) == [5, 199_999]
    monkeypatch.setattr("genrec.data.sources.rows._LONGEST_CELL", 1000)
    (tmp_path / "other").mkdir()
    with pytest.raises(BadRowsError, match=r"items\.csv, line 2: .*at most 1,000 letters in a cell"):
        ingest_text(tmp_path / "other", items)
