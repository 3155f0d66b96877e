"""Real dialogues to cases and figures: what a recommender names next, given only what was said so far.

Nearly the protocol of ReDial as KBRD, BARCOR and UniCRS report it: every item that the human recommender names in a
turn is one case. Items that were mentioned before in the dialogue are neither answers nor counted (copying would win);
they seem to count them, about a tenth of the cases.
Titles are found by the catalogue's index, as in a conversation. C cases, I items.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from genrec.chat.catalogue_index import CatalogueIndex
from genrec.chat.words import words_of
from genrec.data.dialogues import DialogueTurn, NamedTurn

_DATED = re.compile(r"^(?P<title>.*\S)\s*\((?P<year>\d{4})\)\s*$")


@dataclass(frozen=True)
class DialogueCase:
    """A turn, and how many of its new recommendations the catalogue does not have."""

    turn: DialogueTurn
    num_unknown: int

    @property
    def mentioned(self) -> tuple[int, ...]:
        """Rows of what was mentioned before, oldest first."""
        return self.turn.mentioned

    @property
    def targets(self) -> tuple[int, ...]:
        """Rows of what the turn recommends that is new."""
        return self.turn.recommended


def row_of_name(index: CatalogueIndex, name: str) -> int | None:
    """The row of "Super Troopers (2001)"; None where no item has that title and, within a year, that year."""
    match = _DATED.match(name)
    if match is None:
        return None
    words = words_of(match["title"])
    rows = (*index.names.get(words, ()), *index.aliases.get(words, ()))
    near = [row for row in rows if abs((index.year(row) or 0) - int(match["year"])) <= 1]
    return near[0] if near else None


def dialogue_cases(index: CatalogueIndex, turns: Iterable[NamedTurn]) -> list[DialogueCase]:
    """Turns as cases; turns without a new recommendation are none."""
    cases = []
    for turn in turns:
        before = dict.fromkeys(turn.mentioned)
        names = [name for name in dict.fromkeys(turn.recommended) if _DATED.match(name) and name not in before]
        mentioned = [row for row in (row_of_name(index, name) for name in before) if row is not None]
        rows = [row_of_name(index, name) for name in names]
        targets = tuple(row for row in rows if row is not None and row not in mentioned)
        if names:
            found = DialogueTurn(turn.dialogue_id, turn.context, tuple(mentioned), targets)
            cases.append(DialogueCase(found, rows.count(None)))
    return cases


def recall(cases: Sequence[DialogueCase], answers: Sequence[Sequence[int]], k: int) -> tuple[float, float]:
    """Share of targets among the first `k` answers: of all targets, and of those that the catalogue has."""
    hits = sum(target in answer[:k] for case, answer in zip(cases, answers, strict=True) for target in case.targets)
    known = sum(len(case.targets) for case in cases)
    everything = known + sum(case.num_unknown for case in cases)
    return hits / max(1, everything), hits / max(1, known)


def best_rows(scores: NDArray[np.floating], mentioned: Sequence[int], k: int) -> list[int]:
    """The `k` best rows by scores (I,), without the mentioned ones; ties by row."""
    kept = np.array(scores, dtype=np.float64)
    kept[list(mentioned)] = -np.inf
    return [int(row) for row in np.argsort(-kept, kind="stable")[:k]]
