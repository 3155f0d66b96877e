"""Histories as one flat array."""

from __future__ import annotations

import numpy as np
import pytest

from genrec.data.sequences import EvaluationCases, Sequences

HISTORIES = [[3, 1], [], [2], [5, 4, 0]]


def test_histories_come_back_as_they_went_in() -> None:
    sequences = Sequences.from_lists(list("abcd"), HISTORIES)
    assert [history.tolist() for history in sequences] == HISTORIES
    assert (len(sequences), sequences.items.dtype) == (4, np.int32)
    with pytest.raises(IndexError):
        sequences[4]


def test_a_sample_keeps_history_target_and_user_together_and_in_order() -> None:
    cases = EvaluationCases(Sequences.from_lists(list("abcd"), HISTORIES), np.array([10, 11, 12, 13], np.int32))
    sample = cases.sample(3, seed=1)
    rows = [cases.user_ids.index(user) for user in sample.user_ids]
    assert rows == sorted(rows)
    assert [history.tolist() for history in sample.histories] == [HISTORIES[row] for row in rows]
    assert sample.targets.tolist() == [10 + row for row in rows]
    assert sample.user_ids == cases.sample(3, seed=1).user_ids
    assert cases.sample(9, seed=1) is cases
