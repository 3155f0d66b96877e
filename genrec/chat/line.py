"""A message while it is read: its words, and which of them are spoken for. Items stand as `_`, wishes as `f_`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from genrec.chat.catalogue_index import CatalogueIndex
from genrec.chat.feelings import heading
from genrec.chat.pieces import Feeling, Place, Title
from genrec.chat.words import Token

_YEAR_BEHIND = re.compile(r"\s*\(\d{4}\)$")
_QUESTION = re.compile(r"(and )?(is|isnt|was|wasnt|are|were) _")
_REACH = 50  # words: a clause without end must not be read again for each of a thousand pieces


@dataclass
class Line:
    """The tokens of a message and their marks."""

    text: str
    tokens: list[Token]
    marks: list[str]

    def take(self, place: Place, mark: str) -> None:
        """Let a mark stand for the tokens of a piece."""
        self.marks[place.start : place.end] = [mark, *[""] * (place.end - place.start - 1)]

    @property
    def taken(self) -> list[bool]:
        """Which tokens are spoken for."""
        return [mark in {"", "_", "f_"} for mark in self.marks]

    def words(self, start: int, end: int) -> str:
        """Tokens as they stand now."""
        return " ".join(mark for mark in self.marks[start:end] if mark)

    def typed(self, place: Place) -> str:
        """The tokens of a piece as they were typed."""
        return self.text[self.tokens[place.start].start : self.tokens[place.end - 1].end]

    def heading(self, place: Place) -> Feeling | None:
        """The feeling that the clause before a piece's clause is nothing but a word for: "Hated: _"."""
        start, _ = self.clause(place)
        if start == 0 or self.tokens[start - 1].sentence != self.tokens[start].sentence:
            return None
        before, _ = self.clause(Place(start - 1, start))
        return heading(self.words(before, start))

    def clause(self, place: Place) -> tuple[int, int]:
        """Token range of the clause that a piece stands in."""
        number = self.tokens[place.start].clause
        inside = [index for index, token in enumerate(self.tokens) if token.clause == number]
        return inside[0], max(inside[-1] + 1, place.end)

    def questioned(self, place: Place) -> bool:
        """Whether a piece stands in a question about an item: "is the second one a comedy?"."""
        sentence = self.tokens[place.start].sentence
        words = [mark for mark, token in zip(self.marks, self.tokens, strict=True) if token.sentence == sentence]
        return bool(_QUESTION.match(" ".join(filter(None, words))))

    def around(self, place: Place) -> tuple[str, str]:
        """The clause before and behind a piece, as far as words reach."""
        start, end = self.clause(place)
        start, end = max(start, place.start - _REACH), min(end, place.end + _REACH)
        return self.words(start, place.start), self.words(place.end, end)


def whole_titles(index: CatalogueIndex, text: str, tokens: Sequence[Token], titles: Sequence[Title]) -> list[Token]:
    """Tokens of which no clause and no sentence ends within a title, with its own last mark or its year's bracket."""
    joined = list(tokens)
    for title in titles:
        end = title.place.end
        if end < len(joined):
            mark = text[joined[end - 1].end : joined[end].start].strip()
            own = mark in {".", "!", "?"} and text[joined[end].start].islower()  # "Monsters, Inc. was …"
            names = [_YEAR_BEHIND.sub("", index.catalog.titles[row]) for row in title.rows]
            end += mark in {")", "]"} or (own and any(name.endswith(mark) for name in names))
        join(joined, Place(title.place.start, end))
    return joined


def join(tokens: list[Token], place: Place) -> None:
    """Make a place of a message part of one clause."""
    first, last = tokens[place.start], tokens[place.end - 1]
    for number in range(place.start + 1, len(tokens)):
        token = tokens[number]
        clause = first.clause if token.clause <= last.clause else token.clause
        sentence = first.sentence if token.sentence <= last.sentence else token.sentence
        if (clause, sentence) == (token.clause, token.sentence) and number >= place.end:
            break
        tokens[number] = replace(token, clause=clause, sentence=sentence)
