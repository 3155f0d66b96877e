"""The simulated user gives nothing away, and the audit finds what is planted."""

from __future__ import annotations

import numpy as np
import pytest

from genrec.chat import Dialogue
from genrec.chat.simulation import Search, SimulatedUser, audit, converse, fitting, ranked_by
from genrec.recommender import RankRequest
from genrec.trie_filters import ItemFilter


def row_of(dialogue: Dialogue, title: str) -> int:
    (row,) = [row for row, name in enumerate(dialogue.index.catalog.titles) if name == title]
    return row


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (["Hello, I liked “Heat”", "also Horror, please"], None),
        (["Hello, I liked Alien"], "the title stands in"),
        (["Hello, I liked ALIEN!"], "the title stands in"),
        (["Hello, I liked “Alien: Resurrection”"], "the title stands in"),  # its words are all there
        (["something with an alien", "more"], "the title stands in"),
        (["also Horror, please", "something from 1979", "also Sci-Fi, please"], "what was asked for fits"),
        (["also Comedy, please"], "what was asked for fits"),  # it has no such genre: the user looks for another
    ],
)
def test_the_audit_finds_planted_leaks(film_dialogue: Dialogue, lines: list[str], problem: str | None):
    found = audit(film_dialogue.index, lines, row_of(film_dialogue, "Alien"), least=5)
    if problem is None:
        assert found == []
    else:
        assert any(problem in one for one in found), found


def test_a_rare_word_of_the_title_is_a_leak_outside_of_quoted_titles(film_dialogue: Dialogue):
    target = row_of(film_dialogue, "Interstellar")
    index = film_dialogue.index
    assert audit(index, ["a story that is interstellar"], target, least=5)
    target = row_of(film_dialogue, "The Boondock Saints")
    assert "“boondock” stands in few titles, and in this one" in audit(index, ["boondock folk"], target, least=5)
    assert audit(index, ["I liked “Heat”"], target, least=5) == []


def test_what_is_of_a_refused_decade_does_not_fit(film_dialogue: Dialogue):
    index = film_dialogue.index
    mask = fitting(index, ["nothing from the 1990s"])
    assert mask.tolist() == [not 1990 <= (index.year(row) or 0) <= 1999 for row in range(len(index.catalog))]


def test_what_fits_is_the_conjunction_of_all_lines(film_dialogue: Dialogue):
    index = film_dialogue.index
    mask = fitting(index, ["also Comedy, please", "no Romance", "something from the 1990s"])
    genres = index.columns["genres"]
    expected = [
        row
        for row in range(len(index.catalog))
        if "Comedy" in genres[row] and "Romance" not in genres[row] and 1990 <= (index.year(row) or 0) <= 1999
    ]
    assert np.flatnonzero(mask).tolist() == expected
    assert len(expected) > 50


def test_a_user_never_leaks_and_always_has_something_to_say(film_dialogue: Dialogue):
    rng = np.random.default_rng(0)
    index, told = film_dialogue.index, 0
    for number in range(25):
        *history, target = (int(row) for row in rng.choice(len(index.catalog), size=6, replace=False))
        user = SimulatedUser(index, Search(tuple(history), target), least=20, rng=np.random.default_rng(number))
        user.opener()
        for _ in range(6):
            user.next_line(rng.choice(len(index.catalog), size=5).tolist())
        assert audit(index, user.lines, target, least=20) == []
        told += sum(line != "more" for line in user.lines)
    assert told > 75


def test_a_conversation_ends_when_the_target_is_shown(film_dialogue: Dialogue):
    target = row_of(film_dialogue, "Interstellar")
    search = Search((row_of(film_dialogue, "Heat"), row_of(film_dialogue, "Inception")), target)
    index, trie = film_dialogue.index, film_dialogue.recommender.trie

    def held(scores: np.ndarray, turns: int):
        user = SimulatedUser(index, search, least=20, rng=np.random.default_rng(0))
        return converse(film_dialogue, user, target, rank=lambda one, k: ranked_by(scores, trie, one, k), turns=turns)

    best = np.zeros(len(index.catalog))
    best[target] = 1
    assert held(best, 4).found == 1
    assert held(best, 4).lines == ("Hello, I liked “Inception” and “Heat”",)
    never = held(-best, 3)
    assert (never.found, len(never.lines)) == (0, 3)


def test_scores_are_ranked_under_the_filters_of_the_request_with_ties_by_row(film_dialogue: Dialogue):
    trie = film_dialogue.recommender.trie
    scores = np.zeros(trie.num_rows)
    scores[[5, 9, 11]] = [3, 2, 2]
    allowed = np.ones(trie.num_rows, dtype=bool)
    allowed[5] = False
    request = RankRequest(np.array([1], np.int32), np.array([2], np.int32), ItemFilter.allowing(trie, allowed))
    assert [item.item_index for item in ranked_by(scores, trie, request, 4)] == [9, 11, 0, 3]
