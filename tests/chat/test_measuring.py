"""Recall on dialogues, on cases small enough to know the answer."""

from __future__ import annotations

import numpy as np

from genrec.chat import Dialogue
from genrec.chat.measuring import DialogueCase, best_rows, dialogue_cases, recall, row_of_name
from genrec.data.dialogues import DialogueTurn, NamedTurn


def test_what_was_mentioned_is_no_answer_and_what_is_unknown_counts_against_all(film_dialogue: Dialogue):
    index = film_dialogue.index
    turns = [
        NamedTurn("1", ("hi",), ("Alien (1979)",), ("Aliens (1986)", "Alien (1979)", "Zorgon (1999)")),
        NamedTurn("1", ("hi",), ("Alien (1979)",), ("Alien (1979)",)),
        NamedTurn("2", (), ("Ridley Scott",), ()),
    ]
    (case,) = dialogue_cases(index, turns)
    titles = [index.catalog.titles[row] for row in case.targets]
    assert (titles, case.num_unknown) == (["Aliens"], 1)
    assert [index.catalog.titles[row] for row in case.mentioned] == ["Alien"]


def test_a_film_is_known_by_title_and_year(film_dialogue: Dialogue):
    index = film_dialogue.index
    years = {index.year(row_of_name(index, f"King Kong ({year})") or 0) for year in (1933, 1976, 2005)}
    assert years == {1933, 1976, 2005}
    assert row_of_name(index, "King Kong (1950)") is None
    assert row_of_name(index, "King Kong") is None


def test_recall_counts_targets_not_turns():
    turns = [DialogueTurn(str(one), (), (), targets) for one, targets in enumerate([(1, 2), (3,)])]
    cases = [DialogueCase(turns[0], 1), DialogueCase(turns[1], 0)]
    answers = [[2, 9, 1], [8, 9, 3]]
    assert recall(cases, answers, 1) == (1 / 4, 1 / 3)
    assert recall(cases, answers, 3) == (3 / 4, 1.0)


def test_the_best_rows_are_in_order_without_mentioned_ones_and_ties_by_row():
    scores = np.array([1.0, 3.0, 2.0, 3.0, 0.0])
    assert best_rows(scores, [1], 3) == [3, 2, 0]
    assert best_rows(scores, [], 2) == [1, 3]
