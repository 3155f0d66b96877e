"""The filters against brute force, and the order of histories."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.data.interactions import filter_interactions, in_order, k_core, tied_targets
from genrec.data.sources.records import INTERACTION_SCHEMA
from genrec.errors import DataError


def table(rows: list[tuple[str, str, float | None, float | None]]) -> pl.DataFrame:
    return pl.DataFrame([(*row, None, None) for row in rows], schema=dict(INTERACTION_SCHEMA), orient="row")


def brute_force_core(pairs: list[tuple[int, int]], k: int) -> set[int]:
    left = set(range(len(pairs)))
    while True:
        for row in sorted(left):
            user, item = pairs[row]
            of_user = sum(pairs[other][0] == user for other in left)
            of_item = sum(pairs[other][1] == item for other in left)
            if min(of_user, of_item) < k:
                left.remove(row)
                break
        else:
            return left


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 6)), max_size=30, unique=True), st.integers(1, 4))
def test_the_k_core_equals_removing_one_interaction_at_a_time(pairs: list[tuple[int, int]], k: int) -> None:
    users = np.array([user for user, _ in pairs], dtype=np.int64)
    items = np.array([item for _, item in pairs], dtype=np.int64)
    kept, _ = k_core(users, items, k)
    assert set(np.flatnonzero(kept).tolist()) == brute_force_core(pairs, k)


def test_users_come_in_order_of_appearance_and_histories_by_time_then_file_order() -> None:
    rows = table(
        [("z", "1", 5, None), ("a", "2", 1, None), ("z", "3", 2, None), ("z", "4", 5, None), ("a", "5", 1, None)]
    )
    ordered = in_order(rows)
    assert ordered.select("user_id", "item_id").rows() == [
        ("z", "3"),
        ("z", "1"),
        ("z", "4"),
        ("a", "2"),
        ("a", "5"),
    ]


def test_equal_times_are_drawn_whatever_the_order_of_the_file() -> None:
    rows = [("u", f"{number}", number // 10, None) for number in range(40)]
    drawn = in_order(table(rows), ties_seed=0)["item_id"].to_list()
    assert [int(item) // 10 for item in drawn] == sorted(int(item) // 10 for item in drawn)  # times stay
    assert drawn != [item for _, item, *_ in rows]
    assert in_order(table(rows[::-1]), ties_seed=0)["item_id"].to_list() == drawn
    assert in_order(table(rows), ties_seed=1)["item_id"].to_list() != drawn
    without = table(rows).with_columns(timestamp=pl.lit(None, pl.Float64))
    with pytest.raises(DataError, match="no timestamps"):
        in_order(without, ties_seed=0)


def test_test_targets_of_the_time_before_them_are_counted() -> None:
    users = [("a", "1", 1), ("a", "9", 5), ("a", "10", 5), ("b", "7", 2), ("b", "3", 2), ("c", "5", 1), ("c", "6", 2)]
    interactions = in_order(table([(*user, None) for user in users]))
    splits = pl.DataFrame({"split": ["train", "train", "test", "train", "test", "train", "test"]})
    assert tied_targets(interactions, splits) == (2, 1)  # 10 comes after 9, 3 after 7


def test_of_repeats_the_earliest_is_kept_and_equal_rows_are_counted() -> None:
    rows = table([("u", "a", 9, 1), ("u", "a", 3, 5), ("u", "a", 3, 5), ("u", "b", 4, 2), ("v", "a", 1, 2)])
    kept, steps = filter_interactions(rows, min_interactions=1, min_rating=None)
    assert kept.select("user_id", "item_id", "timestamp").rows() == [("u", "a", 3), ("u", "b", 4), ("v", "a", 1)]
    repeats = steps[1]
    assert (repeats.step, repeats.num_removed, repeats.num_interactions) == ("repeats", 2, 3)
    assert "(1 of them equal rows): 2 left out" in repeats.words


def test_every_step_says_what_it_left_out() -> None:
    rows = table(
        [("u", "a", 1, 5), ("u", "b", 2, 4), ("u", "c", 3, 1), ("v", "a", 1, 5), ("v", "b", 2, 5), ("w", "a", 1, None)]
    )
    kept, steps = filter_interactions(rows, min_interactions=2, min_rating=2)
    assert kept.height == 4
    assert [(step.step, step.num_removed, step.num_users, step.num_items) for step in steps] == [
        ("read", 0, 3, 3),
        ("min-rating", 2, 2, 2),
        ("repeats", 0, 2, 2),
        ("k-core", 0, 2, 2),
    ]
    assert steps[1].words.startswith("Rated below 2 or not rated (1): 2 left out; 4 interactions of 2 users")
    assert steps[1].facts["num_interactions"] == 4


def test_a_core_that_leaves_nothing_is_an_error_that_shows_the_steps() -> None:
    with pytest.raises(DataError, match=r"No interaction is left: Read: 1 interactions.*5-core") as caught:
        filter_interactions(table([("u", "a", 1, 5)]), min_interactions=5, min_rating=None)
    assert "--min-interactions" in caught.value.hint


def test_a_least_rating_needs_ratings() -> None:
    with pytest.raises(DataError, match="no interaction has a rating"):
        filter_interactions(table([("u", "a", 1, None)]), min_interactions=1, min_rating=3)
