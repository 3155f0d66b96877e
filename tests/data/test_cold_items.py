"""Held-out items: none in anything that trains, all of their interactions as cases, against plain loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from genrec.config import IngestConfig
from genrec.data.catalog import Catalog
from genrec.data.ingest import ingest
from genrec.data.splits import COLD_ITEMS, cold_cases, cold_items, draw_cold_items, evaluation_cases, training_sequences
from genrec.errors import DataError, RunError
from genrec.run import Run

NUM_ITEMS, NUM_USERS = 40, 30


def tables(folder: Path) -> list[Path]:
    rng = np.random.default_rng(5)
    items = "".join(f"i{n},Item {n}\n" for n in range(NUM_ITEMS))
    (folder / "items.csv").write_text("item_id,title\n" + items)
    rows = [
        f"u{user},i{item},{time}\n"
        for user in range(NUM_USERS)
        for time, item in enumerate(rng.permutation(NUM_ITEMS)[: rng.integers(1, 12)])
    ]
    (folder / "log.csv").write_text("user_id,item_id,timestamp\n" + "".join(rows))
    return [folder / "items.csv", folder / "log.csv"]


def make_run(folder: Path, **options: object) -> Run:
    run = Run.create(folder / "run")
    ingest(run, "tables", tables(folder), IngestConfig(min_interactions=1, **options))
    return run


def user_histories(run: Run) -> dict[str, list[tuple[int, str]]]:
    """Per user: item index and split of every interaction, oldest first."""
    index = Catalog.load(run).index
    found: dict[str, list[tuple[int, str]]] = {}
    for user, item, _, split in pl.read_parquet(run.path / "splits.parquet").iter_rows():
        found.setdefault(user, []).append((index[item], split))
    return found


def test_a_share_of_the_items_is_held_out_of_training_and_of_the_usual_cases(tmp_path: Path) -> None:
    run = make_run(tmp_path, cold_fraction=0.2, cold_seed=3)
    cold = cold_items(run)
    assert cold.sum() == 8
    held = set(np.flatnonzero(cold).tolist())
    assert not held & set(training_sequences(run).items.tolist())
    for split in ("validation", "test"):
        cases = evaluation_cases(run, split)
        assert not held & (set(cases.targets.tolist()) | set(cases.histories.items.tolist()))
    for user, rows in user_histories(run).items():
        assert {split for item, split in rows if item in held} <= {"held-out", "validation", "test"}, user
        assert "held-out" not in {split for item, split in rows if item not in held}


@pytest.mark.parametrize("split", ["leave-one-out", "time"])
def test_the_usual_cases_are_those_of_a_world_without_the_held_out_items(tmp_path: Path, split: str) -> None:
    run = make_run(tmp_path, cold_fraction=0.2, split=split)
    held = set(np.flatnonzero(cold_items(run)).tolist())
    for name in ("validation", "test"):
        expected = {}
        for user, rows in user_histories(run).items():
            warm = [(item, part) for item, part in rows if item not in held]
            place = next((place for place, (_, part) in enumerate(warm) if part == name), 0)
            if place:
                expected[user] = ([item for item, _ in warm[:place]], warm[place][0])
        cases = evaluation_cases(run, name)
        found = zip(cases.user_ids, cases.histories, cases.targets, strict=True)
        assert {user: (history.tolist(), int(target)) for user, history, target in found} == expected


def test_every_interaction_with_a_held_out_item_is_a_case_after_all_that_came_before(tmp_path: Path) -> None:
    run = make_run(tmp_path, cold_fraction=0.3)
    held = set(np.flatnonzero(cold_items(run)).tolist())
    expected = [
        (user, [item for item, _ in rows[:place]], rows[place][0])
        for user, rows in user_histories(run).items()
        for place in range(1, len(rows))
        if rows[place][0] in held
    ]
    cases = cold_cases(run)
    found = zip(cases.user_ids, cases.histories, cases.targets, strict=True)
    assert [(user, history.tolist(), int(target)) for user, history, target in found] == expected
    assert any(held & set(history) for _, history, _ in expected)  # earlier held-out items stay in histories


def test_the_draw_is_seeded_and_the_report_says_what_is_held_out(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")
    paths = tables(tmp_path)
    drawn = []
    for seed in (1, 1, 2):
        config = IngestConfig(min_interactions=1, cold_fraction=0.2, cold_seed=seed)
        report = ingest(run, "tables", paths, config)
        drawn.append(cold_items(run).tolist())
    assert drawn[0] == drawn[1] != drawn[2]
    splits = pl.read_parquet(run.path / "splits.parquet")["split"]
    assert report.facts["num_cold_items"] == 8
    assert report.facts["num_held_out"] == (splits == "held-out").sum()
    assert any(line.startswith("Cold: 8 items (20%, seed 2)") for line in report.words)
    assert run.require("ingest").seed == 2
    assert COLD_ITEMS in run.require("ingest").outputs


def test_a_run_without_the_option_has_no_cold_items_even_where_an_earlier_ingest_had(tmp_path: Path) -> None:
    make_run(tmp_path, cold_fraction=0.2)
    run = make_run(tmp_path)
    assert not cold_items(run).any()
    assert not (run.path / COLD_ITEMS).exists()
    assert len(cold_cases(run)) == 0
    assert "held-out" not in set(pl.read_parquet(run.path / "splits.parquet")["split"])


def test_a_lost_list_of_held_out_items_is_an_error_and_not_an_empty_list(tmp_path: Path) -> None:
    run = make_run(tmp_path, cold_fraction=0.2)
    (run.path / COLD_ITEMS).unlink()
    with pytest.raises(RunError, match=r"cold_items\.parquet is missing"):
        cold_items(run)


def test_a_draw_that_leaves_nothing_to_train_on_is_refused(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("item_id,title\na,A\nb,B\n")
    (tmp_path / "log.csv").write_text("user_id,item_id\nu,a\nv,a\n")
    run = Run.create(tmp_path / "run")
    paths = [tmp_path / "items.csv", tmp_path / "log.csv"]
    items = pl.Series(["a", "b"])
    drawn = [draw_cold_items(items, fraction=0.5, seed=seed)["item_id"].to_list() for seed in range(20)]
    config = IngestConfig(min_interactions=1, cold_fraction=0.5, cold_seed=drawn.index(["a"]))
    with pytest.raises(DataError, match="Lower --cold-fraction"):
        ingest(run, "tables", paths, config)
