"""Splits and cases against a reading of the definition, user by user."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.config import IngestConfig
from genrec.data.catalog import Catalog
from genrec.data.ingest import ingest
from genrec.data.sequences import EvaluationCases
from genrec.data.splits import cases_of, evaluation_cases, make_splits, split_facts, training_part, training_sequences
from genrec.errors import DataError, RunError
from genrec.run import Run

HISTORIES = st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=7), min_size=1, max_size=8)


def interactions(histories: list[list[int]]) -> pl.DataFrame:
    """User `u` takes item `100·u + place` at the times of `histories[u]`."""
    rows = [
        (f"u{user}", str(100 * user + place), float(time))
        for user, times in enumerate(histories)
        for place, time in enumerate(sorted(times))
    ]
    return pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")


def as_dict(cases: EvaluationCases) -> dict[str, tuple[list[int], int]]:
    return {
        user: (cases.histories[case].tolist(), int(cases.targets[case])) for case, user in enumerate(cases.user_ids)
    }


def numbers(splits: pl.DataFrame) -> np.ndarray:
    return splits["item_id"].cast(pl.Int32).to_numpy()


@settings(max_examples=40, deadline=None)
@given(HISTORIES)
def test_leave_one_out_tests_the_last_item_after_all_others(histories: list[list[int]]) -> None:
    splits = make_splits(interactions(histories), IngestConfig())
    train, validation, test = {}, {}, {}
    for user, times in enumerate(histories):
        items = [100 * user + place for place in range(len(times))]
        train[f"u{user}"] = items if len(items) < 3 else items[:-2]
        if len(items) >= 3:
            validation[f"u{user}"] = (items[:-2], items[-2])
            test[f"u{user}"] = (items[:-1], items[-1])
    sequences = training_part(splits, numbers(splits))
    assert dict(zip(sequences.user_ids, (part.tolist() for part in sequences), strict=True)) == train
    assert as_dict(cases_of(splits, numbers(splits), "validation")) == validation
    assert as_dict(cases_of(splits, numbers(splits), "test")) == test


@settings(max_examples=40, deadline=None)
@given(HISTORIES)
def test_a_split_by_time_never_trains_on_what_came_after_the_cut(histories: list[list[int]]) -> None:
    table = interactions(histories)
    ordered = sorted(time for times in histories for time in times)
    config = IngestConfig(split="time", validation_fraction=0.25, test_fraction=0.25)
    cuts = (ordered[int(len(ordered) * 0.5)], ordered[int(len(ordered) * 0.75)])
    if cuts[0] == ordered[0]:
        with pytest.raises(DataError, match="nothing to train on"):
            make_splits(table, config)
        return
    splits = make_splits(table, config)
    found = dict(zip(splits["item_id"], splits["split"], strict=True))
    cases: dict[str, dict[str, tuple[list[int], int]]] = {"validation": {}, "test": {}}
    for user, times in enumerate(histories):
        for place, time in enumerate(sorted(times)):
            split = "test" if time >= cuts[1] else "validation" if time >= cuts[0] else "train"
            assert found[str(100 * user + place)] == split
            if split != "train" and place and f"u{user}" not in cases[split]:
                before = sorted(times)[place - 1]
                first_in_window = before < (cuts[1] if split == "test" else cuts[0])
                if first_in_window:
                    history = [100 * user + earlier for earlier in range(place)]
                    cases[split][f"u{user}"] = (history, 100 * user + place)
    assert as_dict(cases_of(splits, numbers(splits), "validation")) == cases["validation"]
    assert as_dict(cases_of(splits, numbers(splits), "test")) == cases["test"]


def test_the_facts_count_cases_cold_targets_and_users_without_history() -> None:
    rows = [("a", "1", 1), ("a", "2", 2), ("a", "9", 8), ("a", "1", 9), ("b", "1", 3), ("b", "2", 9), ("c", "3", 9)]
    table = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    config = IngestConfig(split="time", validation_fraction=0.14, test_fraction=0.42)
    facts = split_facts(make_splits(table, config), table.select("item_id").clear())
    assert facts == {
        "num_train": 3,
        "num_validation": 1,
        "num_validation_cases": 1,
        "num_validation_users_without_history": 0,
        "num_validation_cold_targets": 1,
        "num_test": 3,
        "num_test_cases": 2,
        "num_test_users_without_history": 1,
        "num_test_cold_targets": 0,
        "num_training_only_users": 0,
    }


def test_a_split_by_time_needs_timestamps() -> None:
    table = interactions([[1, 2, 3]]).with_columns(timestamp=pl.lit(None, dtype=pl.Float64))
    with pytest.raises(DataError, match="needs timestamps"):
        make_splits(table, IngestConfig(split="time"))


def test_a_run_gives_sequences_and_cases_in_rows_of_its_catalogue(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("item_id,title\n" + "".join(f"i{n},Item {n}\n" for n in (3, 1, 2, 4)))
    (tmp_path / "log.csv").write_text("user_id,item_id\nu,i1\nu,i2\nv,i4\nu,i3\nu,i4\n")
    run = Run.create(tmp_path / "run")
    paths = [tmp_path / "items.csv", tmp_path / "log.csv"]
    report = ingest(run, "tables", paths, IngestConfig(min_interactions=1))
    assert Catalog.load(run).index == {"i3": 0, "i1": 1, "i2": 2, "i4": 3}
    sequences = training_sequences(run)
    assert [(user, part.tolist()) for user, part in zip(sequences.user_ids, sequences, strict=True)] == [
        ("u", [1, 2]),
        ("v", [3]),
    ]
    assert as_dict(evaluation_cases(run, "validation")) == {"u": ([1, 2], 0)}
    assert as_dict(evaluation_cases(run, "test")) == {"u": ([1, 2, 0], 3)}
    assert evaluation_cases(run, "test").targets.dtype == np.int32
    assert "1 users have training interactions only." in report.words
    with pytest.raises(RunError, match="no stage 'ingest'"):
        training_sequences(Run.create(tmp_path / "other"))
