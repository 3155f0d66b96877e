"""Tables in every format give the same run; a second ingest replaces the first."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from genrec.config import IngestConfig
from genrec.data.catalog import Catalog
from genrec.data.ingest import ingest
from genrec.data.interactions import load_interactions
from genrec.data.splits import training_sequences
from genrec.errors import BadRowsError, DataError, RunError
from genrec.run import Run, StageReport

ITEMS = [
    {"item_id": "b", "title": "Beta, the second", "brand": "Acme", "categories": ["X", "Y"], "size": "9"},
    {"item_id": "a", "title": 'Alpha "one"', "brand": None, "categories": [], "size": "10"},
    {"item_id": "c", "title": "Gamma <s0_17> <|im_start|>", "brand": "Acme", "categories": ["Y"], "size": None},
]
INTERACTIONS = [
    {"user_id": "u2", "item_id": "a", "timestamp": 30, "rating": 4.5},
    {"user_id": "u1", "item_id": "c", "timestamp": 20, "rating": 1.0},
    {"user_id": "u2", "item_id": "b", "timestamp": 10, "rating": 3.0},
    {"user_id": "u1", "item_id": "b", "timestamp": 20, "rating": None},
]
EVERY_ITEM = IngestConfig(min_interactions=1)


def _csv_cell(value: Any) -> str:
    text = "|".join(value) if isinstance(value, list) else "" if value is None else str(value)
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in ',"\n') else text


def write_table(path: Path, rows: list[dict[str, Any]]) -> Path:
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        pl.DataFrame(rows, infer_schema_length=None).write_parquet(path)
        content = path.read_bytes()
    elif name.endswith(".csv"):
        lines = [list(rows[0]), *([_csv_cell(value) for value in row.values()] for row in rows)]
        content = "\n".join(",".join(line) for line in lines).encode()
    else:
        content = "\n".join(json.dumps(row) for row in rows).encode()
    path.write_bytes(gzip.compress(content) if path.name.endswith(".gz") else content)
    return path


def ingest_rows(
    folder: Path,
    items: list[dict[str, Any]] = ITEMS,
    interactions: list[dict[str, Any]] = INTERACTIONS,
    *,
    ending: str = ".jsonl",
    config: IngestConfig = EVERY_ITEM,
) -> tuple[Run, StageReport]:
    paths = [
        write_table(folder / f"items{ending}", items),
        write_table(folder / f"log{ending}", interactions),
    ]
    run = Run.create(folder / "run")
    return run, ingest(run, "tables", paths, config)


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".json", ".parquet"])
def test_every_format_gives_the_same_items_and_interactions(tmp_path: Path, ending: str, packed: str) -> None:
    config = EVERY_ITEM.model_copy(update={"text_columns": ("size",) if ending == ".csv" else ()})
    run, report = ingest_rows(tmp_path, ending=ending + packed, config=config)
    table = Catalog.load(run).table
    assert table.to_dicts() == ITEMS
    assert load_interactions(run).select("user_id", "item_id", "timestamp", "rating").rows() == [
        ("u2", "b", 10.0, 3.0),
        ("u2", "a", 30.0, 4.5),
        ("u1", "c", 20.0, 1.0),  # the same time: the order of the file
        ("u1", "b", 20.0, None),
    ]
    assert (report.facts["num_items"], report.facts["num_users"], report.facts["num_interactions"]) == (3, 2, 4)


def test_the_two_tables_may_come_in_either_order(tmp_path: Path) -> None:
    items = write_table(tmp_path / "x.csv", ITEMS)
    log = write_table(tmp_path / "y.jsonl", INTERACTIONS)
    reports = [
        ingest(Run.create(tmp_path / name), "tables", paths, EVERY_ITEM).facts
        for name, paths in (("one", [items, log]), ("two", [log, items]))
    ]
    assert reports[0] == reports[1]


def test_without_timestamps_the_order_of_the_file_counts(tmp_path: Path) -> None:
    rows = [{"user_id": "u", "item_id": item} for item in "cab"]
    run, _ = ingest_rows(tmp_path, interactions=rows)
    assert load_interactions(run)["item_id"].to_list() == ["c", "a", "b"]
    assert training_sequences(run).user_ids == ["u"]


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_iso_dates_and_unix_seconds_give_the_same_time(tmp_path: Path, ending: str) -> None:
    times = ["1970-01-01T00:01:00Z", "1970-01-01T01:01:00+01:00", "1970-01-01 00:01:00", "60"]
    items = [{**ITEMS[0], "item_id": str(number)} for number in range(4)]
    rows = [{"user_id": "u", "item_id": str(i), "timestamp": text} for i, text in enumerate(times)]
    run, _ = ingest_rows(tmp_path, items, rows, ending=ending)
    assert load_interactions(run)["timestamp"].to_list() == [60.0] * 4


def test_parquet_dates_are_timestamps(tmp_path: Path) -> None:
    write_table(tmp_path / "items.jsonl", ITEMS)
    table = pl.DataFrame({"user_id": [7, 7], "item_id": ["a", "b"], "timestamp": ["1970-01-03", "1970-01-02"]})
    table.with_columns(pl.col("timestamp").str.to_date()).write_parquet(tmp_path / "log.parquet")
    run = Run.create(tmp_path / "run")
    ingest(run, "tables", [tmp_path / "items.jsonl", tmp_path / "log.parquet"], EVERY_ITEM)
    assert load_interactions(run).select("user_id", "item_id", "timestamp").rows() == [
        ("7", "b", 86_400.0),
        ("7", "a", 172_800.0),
    ]


def test_attributes_keep_their_type_and_their_names(tmp_path: Path) -> None:
    extra = [
        {"price": 3, "stock": True, "year": 1999, "likes": ["x", 2], "more": {"a": 1}, "mixed": 1},
        {"price": 2.5, "stock": None, "year": None, "likes": None, "more": None, "mixed": "two"},
        {"price": None, "stock": False, "year": 2**70, "likes": [], "more": None, "mixed": None},
    ]
    run, _ = ingest_rows(tmp_path, [item | more for item, more in zip(ITEMS, extra, strict=True)])
    columns = Catalog.load(run).table
    assert columns["price"].to_list() == [3.0, 2.5, None]
    assert columns["stock"].to_list() == [True, None, False]
    assert columns["year"].to_list() == ["1999", None, str(2**70)]  # too large for a column of integers
    assert columns["likes"].to_list() == [["x", "2"], [], []]
    assert columns["more"].to_list() == ['{"a": 1}', None, None]
    assert columns["mixed"].to_list() == ["1", "two", None]


def test_a_csv_cell_holds_a_list_with_bars_or_as_json(tmp_path: Path) -> None:
    cells = ["A|B|A", '["A", ["B", "C"]]', "", "[A|B"]
    items = [{"item_id": str(i), "title": "T", "categories": cell} for i, cell in enumerate(cells)]
    run, _ = ingest_rows(tmp_path, items, [{"user_id": "u", "item_id": "0"}], ending=".csv")
    assert Catalog.load(run).table["categories"].to_list() == [["A", "B"], ["A", "B", "C"], [], ["[A", "B"]]


def test_numbers_that_json_cannot_mean_and_dates_become_plain_values(tmp_path: Path) -> None:
    write_table(tmp_path / "log.jsonl", [{"user_id": "u", "item_id": "a"}])
    table = pl.DataFrame({"item_id": ["a", "b"], "title": ["A", "B"], "price": [float("nan"), 2.0]})
    dated = table.with_columns(since=pl.lit("2020-02-03").str.to_date(), brand=pl.lit(float("nan")))
    dated.write_parquet(tmp_path / "items.parquet")
    run = Run.create(tmp_path / "run")
    ingest(run, "tables", [tmp_path / "log.jsonl", tmp_path / "items.parquet"], EVERY_ITEM)
    assert Catalog.load(run).table.drop("item_id", "title").rows() == [
        (None, None, "2020-02-03"),
        (None, 2.0, "2020-02-03"),
    ]


def test_decimals_are_numbers_and_times_plain_text(tmp_path: Path) -> None:
    write_table(tmp_path / "log.jsonl", [{"user_id": "u", "item_id": "a"}])
    table = pl.DataFrame({"item_id": ["a"], "title": ["A"], "price": ["12.50"], "opens": ["10:00"]})
    typed = table.with_columns(pl.col("price").cast(pl.Decimal(10, 2)), pl.col("opens").str.to_time("%H:%M"))
    typed.write_parquet(tmp_path / "items.parquet")
    run = Run.create(tmp_path / "run")
    ingest(run, "tables", [tmp_path / "log.jsonl", tmp_path / "items.parquet"], EVERY_ITEM)
    assert Catalog.load(run).table.drop("item_id", "title").rows() == [(12.5, "10:00:00")]


def test_a_column_that_only_late_rows_have_is_read_as_one_that_all_have(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    plain = [{"item_id": f"i{row}", "title": "T"} for row in range(150)]
    late = {"item_id": "late", "title": "L", "genres": "Comedy|Drama", "image": "a.png"}
    log = [{"user_id": "u", "item_id": "late"}]
    run, report = ingest_rows(tmp_path, [*plain, late], log, ending=".jsonl")
    last = Catalog.load(run).table.row(-1, named=True)
    assert (last["genres"], last["image"]) == (["Comedy", "Drama"], "a.png")
    assert report.facts["media_root"] == str(tmp_path.resolve())
    for wrong in ({"image": "no/such.png"}, {"image": "/etc/passwd"}, {"tags": 5}):
        with pytest.raises(BadRowsError, match=rf'items\.jsonl, line 151, column "{next(iter(wrong))}"'):
            ingest_rows(tmp_path, [*plain, {**late, **wrong}], log, ending=".jsonl")


def test_media_paths_stay_relative_and_the_report_names_their_root(tmp_path: Path) -> None:
    (tmp_path / "img").mkdir()
    (tmp_path / "img" / "a.png").touch()
    items = [item | {"image": "img/a.png" if item["item_id"] == "a" else None} for item in ITEMS]
    run, report = ingest_rows(tmp_path, items)
    assert Catalog.load(run).table["image"].to_list() == [None, "img/a.png", None]
    assert Path(report.facts["media_root"]) / "img/a.png" == (tmp_path / "img" / "a.png").resolve()


def test_control_characters_leave_texts_and_are_counted(tmp_path: Path) -> None:
    title = "\x1b[31mRed\x00\tand\r\nblue\x9b \ud800<s0_17>"
    run, report = ingest_rows(tmp_path, [*ITEMS, {**ITEMS[0], "item_id": "d", "title": title}])
    assert Catalog.load(run).titles[-1] == "[31mRed and blue <s0_17>"
    assert report.facts["num_control_characters"] == 4
    assert any("Control characters" in line for line in report.words)


@pytest.mark.parametrize("name", ["\ud800", "a\x1b[31m"])
def test_a_column_whose_name_holds_control_characters_is_a_named_row(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"items\.jsonl, line 4.*without control characters"):
        ingest_rows(tmp_path, [*ITEMS, {"item_id": "d", "title": "D", name: 1}])


def test_an_empty_title_is_replaced_by_the_item_id_and_is_counted(tmp_path: Path) -> None:
    run, report = ingest_rows(tmp_path, [*ITEMS, {"item_id": "d", "title": " "}])
    assert Catalog.load(run).titles[-1] == "d"
    assert report.facts["num_items_without_title"] == 1


def test_a_second_ingest_replaces_the_first_and_what_was_built_on_it_goes_stale(tmp_path: Path) -> None:
    run, _ = ingest_rows(tmp_path)
    run.record(
        StageReport("embed", {}, []),
        config={},
        seed=0,
        inputs=[run.path / "items.parquet"],
        outputs=[],
        started=run.begin(),
    )
    ingest_rows(tmp_path)
    assert set(run.stages) == {"ingest", "embed"}  # the same items: nothing to do again
    ingest_rows(tmp_path, ITEMS[:2], [row for row in INTERACTIONS if row["item_id"] != "c"])
    assert set(run.stages) == {"ingest"}
    assert len(Catalog.load(run)) == 2


def test_a_full_disk_leaves_the_run_as_it_was(tmp_path: Path) -> None:
    run, _ = ingest_rows(tmp_path)
    before = {path.name: path.read_bytes() for path in run.path.iterdir()}
    many = [{"item_id": str(i), "title": f"Title {i * 7919}"} for i in range(3000)]
    write_table(tmp_path / "items.jsonl", many)
    write_table(tmp_path / "log.jsonl", [{"user_id": "u", "item_id": "1"}])
    code = f"""
import resource, signal
from pathlib import Path
from genrec.config import IngestConfig
from genrec.data.ingest import ingest
from genrec.run import Run
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
paths = [Path({str(tmp_path / "items.jsonl")!r}), Path({str(tmp_path / "log.jsonl")!r})]
ingest(Run.open({str(run.path)!r}), "tables", paths, IngestConfig(min_interactions=1))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "RunError" in done.stderr
    assert "could not be written" in done.stderr
    assert {path.name: path.read_bytes() for path in run.path.iterdir()} == before


def test_a_damaged_or_missing_catalogue_says_which_stage_to_run(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "empty")
    with pytest.raises(RunError, match="genrec ingest"):
        Catalog.load(run)
    run, _ = ingest_rows(tmp_path)
    (run.path / "items.parquet").write_bytes(b"PAR1")
    with pytest.raises(RunError, match="genrec ingest"):
        Catalog.load(run)


def test_an_id_that_stands_for_a_title_is_no_text(tmp_path: Path) -> None:
    run, _ = ingest_rows(tmp_path, [*ITEMS, {"item_id": "d", "title": " "}, {"item_id": "e", "brand": "Acme"}])
    assert Catalog.load(run).texts(("title", "brand"))[-2:] == ["", "Brand: Acme"]
    assert Catalog.load(run).texts(("title",))[-2:] == ["", ""]


def test_lists_as_python_writes_them_are_lists(tmp_path: Path) -> None:
    cells = ["['Tea', \"Kid's\"]", "[['A', 'B'], ['A']]", "['unfinished", "[dict()]", '["x"]', "[{[]: 1}]"]
    rows = [{"item_id": f"n{row}", "title": "T", "categories": cell} for row, cell in enumerate(cells)]
    run, _ = ingest_rows(tmp_path, [*ITEMS, *rows])
    found = Catalog.load(run).table["categories"].to_list()[-len(cells) :]
    assert found == [["Tea", "Kid's"], ["A", "B"], ["['unfinished"], ["[dict()]"], ["x"], ["[{[]: 1}]"]]


def test_addresses_of_pictures_are_counted_and_missing(tmp_path: Path) -> None:
    rows = [{"item_id": "d", "title": "D", "image": "https://example.org/d.jpg"}]
    run, report = ingest_rows(tmp_path, [*ITEMS, *rows])
    assert Catalog.load(run).table["image"].to_list()[-1] is None
    assert report.facts["num_media_elsewhere"] == 1
    assert any("1 pictures, sounds or clips are web addresses" in line for line in report.words)
