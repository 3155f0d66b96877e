"""Files of vectors: every format gives the same numbers, every kind of bad row is named."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from genrec.data.catalog import Catalog
from genrec.encoders.precomputed import read_vectors
from genrec.errors import BadRowsError, DataError

VECTORS = np.array([[1.0, 2.0], [0.0, 0.0], [5.0, 6.0]], np.float32)  # item "7" in the middle has none


@pytest.fixture
def catalog() -> Catalog:
    return Catalog(pl.DataFrame({"item_id": ["a", "7", "c"], "title": ["A", "B", "C"]}))


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def tables(folder: Path) -> list[Path]:
    rows: list[dict[str, object]] = [{"item_id": "c", "v": [5, 6]}, {"item_id": "a", "v": [1, 2.0]}]
    plain = write(folder / "v.jsonl", rows)
    packed = folder / "v.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    empty = write(folder / "null.jsonl", [*rows, {"item_id": "7", "v": None}])
    frame = pl.DataFrame({"item_id": ["c", "a", "7"], "x": [5.0, 1.0, None], "y": [6, 2, None]})
    frame.write_csv(folder / "v.csv")
    frame.write_parquet(folder / "v.parquet")
    return [plain, packed, empty, folder / "v.csv", folder / "v.parquet"]


def test_every_table_format_gives_the_same_vectors_and_masks_what_is_missing(tmp_path: Path, catalog: Catalog) -> None:
    files = tables(tmp_path)
    assert len(files) == 5
    for file in files:
        vectors, mask = read_vectors(file, catalog)
        np.testing.assert_array_equal(vectors, VECTORS)
        assert mask.tolist() == [True, False, True]


def test_an_array_has_one_row_per_item(tmp_path: Path, catalog: Catalog) -> None:
    np.save(tmp_path / "v.npy", VECTORS.astype(np.float64))
    vectors, mask = read_vectors(tmp_path / "v.npy", catalog)
    np.testing.assert_array_equal(vectors, VECTORS)
    assert mask.all()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 4)), r"shape \(2, 4\)"),
        (np.zeros(3), r"shape \(3,\)"),
        (np.array([["a"], ["b"], ["c"]]), "holds <U1"),
        (np.array([[1.0, 2.0], [np.nan, 1.0], [0.0, np.inf]]), r"row 1 \(7\): holds a number that is not finite"),
    ],
)
def test_an_array_that_does_not_fit_is_refused(
    tmp_path: Path, catalog: Catalog, array: np.ndarray, message: str
) -> None:
    np.save(tmp_path / "v.npy", array)
    with pytest.raises(DataError, match=message):
        read_vectors(tmp_path / "v.npy", catalog)


def test_every_bad_row_is_named(tmp_path: Path, catalog: Catalog) -> None:
    rows: list[dict[str, object]] = [
        {"item_id": "a", "v": [1.0, 2.0]},
        {"item_id": "zz", "v": [1.0, 2.0]},
        {"item_id": "a", "v": [1.0, 2.0]},
        {"item_id": "7", "v": [1.0]},
        {"item_id": "c", "v": [1.0, None]},
        {"item_id": None, "v": [1.0, 2.0]},
    ]
    with pytest.raises(BadRowsError) as caught:
        read_vectors(write(tmp_path / "v.jsonl", rows), catalog)
    assert [problem.split(": ", 1)[0] for problem in caught.value.problems] == [
        f"v.jsonl, row {number}" for number in (2, 3, 4, 5, 6)
    ]
    for part in ("'zz' is not in the catalogue", "stands in row 1 already", "1 numbers. Expected 2", "not finite"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": "a", "v": [1]}], 'no column "item_id"'),
        ([{"item_id": "a", "v": [1], "w": 2}], "one column of lists"),
        ([{"item_id": "a", "v": "text"}], "one column of lists"),
        ([{"item_id": "a"}], "no column"),
        ([{"item_id": "a", "v": ["x"]}], "does not hold lists of numbers"),
        ([{"item_id": "a", "v": None}], "one column of lists"),
    ],
)
def test_a_table_of_another_shape_is_refused(
    tmp_path: Path, catalog: Catalog, rows: list[dict[str, object]], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_vectors(write(tmp_path / "v.jsonl", rows), catalog)


@pytest.mark.parametrize("name", ["v.npy", "v.parquet", "v.jsonl", "v.jsonl.gz"])
def test_a_file_that_is_cut_short_is_refused(tmp_path: Path, catalog: Catalog, name: str) -> None:
    tables(tmp_path)
    np.save(tmp_path / "v.npy", VECTORS)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-9])
    with pytest.raises(DataError, match=r"v\."):
        read_vectors(tmp_path / name, catalog)


def test_a_file_without_any_item_of_the_catalogue_or_of_unknown_kind_is_refused(
    tmp_path: Path, catalog: Catalog
) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_vectors(tmp_path / "no.npy", catalog)
    (tmp_path / "v.xlsx").write_text("x")
    with pytest.raises(DataError, match="unknown ending"):
        read_vectors(tmp_path / "v.xlsx", catalog)
    nothing = pl.DataFrame({"item_id": ["a"], "x": [None]}, schema={"item_id": pl.String, "x": pl.Float32})
    nothing.write_parquet(tmp_path / "none.parquet")
    with pytest.raises(DataError, match="for no item"):
        read_vectors(tmp_path / "none.parquet", catalog)


@pytest.mark.parametrize("name", ["v.jsonl", "v.jsonl.gz"])
def test_numbers_of_json_lines_that_are_not_finite_name_their_row_and_rows_of_nan_alone_are_missing(
    tmp_path: Path, catalog: Catalog, name: str
) -> None:
    def read(*rows: str) -> tuple[np.ndarray, np.ndarray]:
        content = "".join(f"{row}\n" for row in rows).encode()
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return read_vectors(tmp_path / name, catalog)

    good, missing = '{"item_id": "c", "v": [5, 6]}', '{"item_id": 7, "v": [NaN, NaN]}'
    vectors, mask = read('{"item_id": "a", "v": [1, 2]}', missing, good)
    np.testing.assert_array_equal(vectors, VECTORS)
    assert mask.tolist() == [True, False, True]
    with pytest.raises(BadRowsError) as caught:
        read('{"item_id": "a", "v": [1, NaN]}', '{"item_id": "7", "v": [-Infinity, 1]}', good)
    assert caught.value.problems == [
        f"{name}, row {row}: holds a number that is not finite, or an empty cell among others" for row in (1, 2)
    ]
    with pytest.raises(BadRowsError, match=r"row 1: holds a number that is not finite"):
        read('{"item_id": "a", "x": 1, "y": Infinity}', '{"item_id": "c", "x": 1, "y": 2}')
    with pytest.raises(DataError, match=r"line 2: not valid JSON"):
        read(good, '{"item_id": "a", "v": [1,')
    with pytest.raises(DataError, match=r"line 2: expected an object"):
        read('{"item_id": "a", "v": [NaN, 1]}', "[1]")


def test_rows_of_nothing_but_nan_and_empty_lists_are_missing(catalog: Catalog, tmp_path: Path) -> None:
    whole = np.where((VECTORS == 0).all(axis=1)[:, None], np.nan, VECTORS).astype(np.float32)
    np.save(tmp_path / "v.npy", whole)
    lists = pl.DataFrame({"item_id": ["7", "c", "a"], "v": [[float("nan")] * 2, [5.0, 6.0], [1.0, 2.0]]})
    lists.write_parquet(tmp_path / "nan.parquet")
    lists.with_columns(v=pl.Series([[], [5.0, 6.0], [1.0, 2.0]])).write_parquet(tmp_path / "empty.parquet")
    for name in ("v.npy", "nan.parquet", "empty.parquet"):
        vectors, mask = read_vectors(tmp_path / name, catalog)
        np.testing.assert_array_equal(vectors, VECTORS)
        assert mask.tolist() == [True, False, True]
    lists.with_columns(v=pl.Series([[]] * 3, dtype=pl.List(pl.Float64))).write_parquet(tmp_path / "none.parquet")
    with pytest.raises(DataError, match="a vector for no item"):
        read_vectors(tmp_path / "none.parquet", catalog)
