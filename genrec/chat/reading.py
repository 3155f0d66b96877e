"""A message to what it says (`Reading`): titles, values, ranges, pointers, feelings and plain intents.

Nothing is guessed by a model here (`guard` may add what one proposes): every piece is found through the catalogue's
index and a few hundred English words, and what is not found is said so. Pieces are replaced by a mark before the next
kind is looked for, so that a title is never read as a wish and a wish never as an intent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from genrec.chat.catalogue_index import CatalogueIndex
from genrec.chat.feelings import feeling_of, forgotten, goes_on, permitted, unwanted, unwanted_behind
from genrec.chat.intents import find_comparisons, find_intents, find_relaxed, find_unjudged
from genrec.chat.numbers import find_ranges
from genrec.chat.pieces import Asked, Feeling, Place, Pointer, Reading, Title
from genrec.chat.pointers import find_pointers
from genrec.chat.titles import find_titles
from genrec.chat.words import Token, tokens_of

PieceT = TypeVar("PieceT", Title, Pointer)
_TOPIC_CUES = {"about", "with", "featuring", "tagged", "involving", "on", "without"}
_ARTICLE = re.compile(r"(and )?(a|an|some)\b")
_ARTICLE_BEFORE = re.compile(r"\b(a|an|some|any)\b")


@dataclass
class _Line:
    """The message while it is read: which tokens are spoken for, and by what mark."""

    text: str
    tokens: list[Token]
    marks: list[str]

    def take(self, place: Place, mark: str) -> None:
        self.marks[place.start : place.end] = [mark, *[""] * (place.end - place.start - 1)]

    @property
    def taken(self) -> list[bool]:
        return [mark in {"", "_", "f_"} for mark in self.marks]

    def words(self, start: int, end: int) -> str:
        return " ".join(mark for mark in self.marks[start:end] if mark)

    def clause(self, place: Place) -> tuple[int, int]:
        """Token range of the clause that a piece stands in."""
        number = self.tokens[place.start].clause
        inside = [index for index, token in enumerate(self.tokens) if token.clause == number]
        return inside[0], max(inside[-1] + 1, place.end)

    def around(self, place: Place) -> tuple[str, str]:
        """The clause before and behind a piece."""
        start, end = self.clause(place)
        return self.words(start, place.start), self.words(place.end, end)


def read_message(index: CatalogueIndex, text: str, *, has_slate: bool) -> Reading:
    """Understand one message. `has_slate`: there is a list that "the second one" can point at."""
    tokens = tokens_of(text)
    line = _Line(text, tokens, [token.text for token in tokens])
    titles, unknown = find_titles(index, text, tokens)
    for title in titles:
        line.take(title.place, "_")
    ranges = find_ranges(index, text, tokens, line.taken)
    values = list(_find_values(index, line))
    pointers = list(find_pointers(line.marks, values, ranges)) if has_slate else []
    for pointer in pointers:
        line.take(pointer.place, "_")
    pointed = [pointer.place for pointer in pointers]
    ranges = [found for found in ranges if not _inside(found.place, pointed)]
    values = [found for found in values if not _inside(found.place, pointed)]
    for place in (*(found.place for found in ranges), *(found.place for found in values)):
        line.take(place, "f_")
    whole = line.words(0, len(tokens))
    return Reading(
        titles=tuple(_with_feelings(line, titles)),
        asked=tuple(_with_kinds(line, values)),
        ranges=tuple(ranges),
        pointers=tuple(_with_feelings(line, pointers)),
        comparisons=find_comparisons(whole),
        relaxed=find_relaxed(whole, index),
        intents=find_intents(whole),
        unknown=tuple(unknown),
        unjudged=find_unjudged(whole),
    )


def _inside(place: Place, others: Sequence[Place]) -> bool:
    return any(other.start <= place.start and place.end <= other.end for other in others)


def _find_values(index: CatalogueIndex, line: _Line) -> Iterator[Asked]:
    """Attribute values, the longest first; values of open vocabularies only behind words such as "about"."""
    taken = line.taken
    found: list[Asked] = []
    for size in range(index.longest_value, 0, -1):
        for start in range(len(line.tokens) - size + 1):
            words = tuple(line.marks[start : start + size])
            if any(taken[start : start + size]):
                continue
            value = index.facets.get(words)
            cues = [mark for mark in line.marks[max(0, start - 2) : start] if mark]
            if value is None and _TOPIC_CUES & set(cues):
                value = index.topics.get(words)
            if value is not None:
                found.append(Asked(Place(start, start + size), value))
                taken[start : start + size] = [True] * size
    yield from sorted(found, key=lambda asked: asked.place.start)


def _with_feelings(line: _Line, pieces: Sequence[PieceT]) -> Iterator[PieceT]:
    previous: Feeling = "named"
    for piece in pieces:
        before, behind = line.around(piece.place)
        previous = feeling_of(before, behind, previous=previous)
        yield replace(piece, feeling=previous)


def _with_kinds(line: _Line, values: Sequence[Asked]) -> Iterator[Asked]:
    """Whether each value is wanted, unwanted or relaxed, and how it joins the one before."""
    kind, bare = "wanted", False  # bare: without an article, so that one afterwards begins something else
    last: Place | None = None
    for asked in values:
        before, behind = line.around(asked.place)
        start, end = line.clause(asked.place)
        clause = line.words(start, end)
        listed = goes_on(clause) and last is not None
        if listed and kind == "unwanted" and bare and _ARTICLE.match(clause):
            listed, last = False, None  # "no horror, a drama"; "not a horror, a drama" goes on
        if not listed:
            bare = not _ARTICLE_BEFORE.search(before)
            if permitted(before, behind):
                kind = "relaxed" if not unwanted(before) or "mind" in before else "unwanted"
            elif forgotten(before):
                kind = "relaxed"
            elif unwanted(before) or unwanted_behind(behind):
                kind = "unwanted"
            else:
                kind = "wanted"
        joined = ""
        if last is None:
            on_top = re.search(r"\b(also|too|as well|and also|plus)\b", f"{before} {behind}")
            joined = "also" if on_top else ""
        else:  # "romantic comedy": both; "comedy or drama", "comedy, drama": one of them
            between = line.words(last.end, asked.place.start).split()
            same_clause = line.tokens[last.start].clause == line.tokens[asked.place.start].clause
            joined = "or" if {"or", "and"} & set(between) or (listed and not same_clause) else ""
        last = asked.place
        yield replace(asked, kind=kind, joined=joined)  # type: ignore[arg-type]
