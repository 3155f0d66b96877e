"""A message to what it says (`Reading`): titles, values, ranges, pointers, feelings and plain intents.

Nothing is guessed by a model here (`guard` may add what one proposes): every piece is found through the catalogue's
index and a few hundred English words, and what is not found is said so. Pieces are replaced by a mark before the next
kind is looked for, so that a title is never read as a wish and a wish never as an intent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from genrec.chat.catalogue_index import CatalogueIndex
from genrec.chat.corrections import find_others, without_corrected
from genrec.chat.feelings import (
    before_range,
    feeling_of,
    forgotten,
    goes_on,
    permitted,
    set_apart,
    turned_down,
    unwanted,
    unwanted_behind,
)
from genrec.chat.intents import find_comparisons, find_intents, find_relaxed, find_unjudged
from genrec.chat.line import Line, join, whole_titles
from genrec.chat.numbers import around, find_ranges, other_side
from genrec.chat.pieces import Asked, Comparison, Feeling, Kind, Place, Pointer, Range, Reading, Title
from genrec.chat.pointers import find_exceptions, find_pointers
from genrec.chat.titles import COMMON, find_titles
from genrec.chat.words import tokens_of

PieceT = TypeVar("PieceT", Title, Pointer)
_TOPIC_CUES = {"about", "with", "featuring", "tagged", "involving", "on", "without"}
_THING = r"(?:something|anything|films?|movies?|ones?|books?|products?|stor(?:y|ies)|f_)"
_LIKE = re.compile(rf"\b{_THING} (?:like|similar to)$")
_TOPIC = re.compile(rf"\b(?:{_THING} (?:about|with|by)|(?:directed|written|made) by|starring|featuring|involving)$")
_CUES = {"like", "to", "about", "with", "by", "starring", "featuring", "involving"}
_ENDS = re.compile(r"and|or|but|please|that|which|who|from|for|in|tonight|today|not|no|than|also|as|too|f?_|")
_COMPANY = {"my", "me", "us", "our", "him", "her", "them", "you", "friends"}
_LISTED_RANGE = re.compile(r"(?!from |in |of |since |after |before |between )", re.IGNORECASE)
_ARTICLE = re.compile(r"(and )?(a|an|some)\b")
_LISTING = {"", "and", "or", "nor", "the", "a", "an", "any"}
_ARTICLE_BEFORE = re.compile(r"\b(a|an|some|any)\b")


def read_message(index: CatalogueIndex, text: str, *, has_slate: bool) -> Reading:
    """Understand one message. `has_slate`: there is a list that "the second one" can point at."""
    tokens = tokens_of(text)
    titles, unknown = find_titles(index, text, tokens)
    tokens = whole_titles(index, text, tokens, titles)
    line = Line(text, tokens, [token.text for token in tokens])
    for title in titles:
        line.take(title.place, "_")
    ranges = find_ranges(index, text, tokens, line.taken)
    values = list(_find_values(index, line))
    clauses = [token.clause for token in tokens]
    pointers = list(find_pointers(line.marks, clauses, values, ranges)) if has_slate or titles else []
    meant = {pointer.place: _meant(line, pointer, titles) for pointer in pointers}
    pointers = [pointer for pointer in pointers if meant[pointer.place] or (has_slate and meant[pointer.place] is None)]
    for pointer in pointers:
        line.take(pointer.place, "_")
    wishes = [*(found.place for found in ranges), *(found.place for found in values)]
    titles, pointers = _without_exceptions(line, titles, pointers, meant, wishes)
    pointers += find_others(line) if has_slate else []
    meant.update((pointer.place, None) for pointer in pointers if pointer.kind == "other")
    pointed = [pointer.place for pointer in pointers]
    ranges = [found for found in ranges if not _inside(found.place, pointed)]
    values = [found for found in values if not _inside(found.place, pointed)]
    clauses = [token.clause for token in line.tokens]
    wishes = [*(found.place for found in ranges), *(found.place for found in values)]
    for place in wishes:
        line.take(place, "f_")
    whole = line.words(0, len(tokens))
    titles, apart = _started_from(line, list(_with_feelings(line, titles)))
    pointers, _ = _started_from(line, list(_with_feelings(line, pointers)))
    corrected, titles, pointers = without_corrected(line, titles, pointers)
    items = [*(title.place for title in titles), *(pointer.place for pointer in pointers)]
    refused = [place for place in items if turned_down(line.around(place)[0])]
    for pointer in pointers:
        for title in meant[pointer.place] or ():
            titles = _with_it(titles, pointer, title)
    like, topics = _unread(line)
    questioned = tuple(place for place in wishes if line.questioned(place))
    return Reading(
        titles=tuple(titles),
        asked=tuple(_with_kinds(line, [found for found in values if found.place not in questioned])),
        ranges=tuple(_of_kinds(line, [found for found in ranges if found.place not in questioned])),
        pointers=tuple(pointer for pointer in pointers if meant[pointer.place] is None),
        comparisons=tuple(_compared(find_comparisons(line.marks, clauses), ranges, meant)),
        relaxed=find_relaxed(whole, index),
        intents=find_intents(whole),
        unknown=(*unknown, *(name for name in like if not any(one in name or name in one for one in unknown))),
        questioned=questioned,
        refused=tuple(refused),
        corrected=tuple(corrected),
        unjudged=(*find_unjudged(whole), *topics, *apart),
    )


def _without_exceptions(
    line: Line,
    titles: Sequence[Title],
    pointers: Sequence[Pointer],
    meant: dict[Place, tuple[Title, ...] | None],
    wishes: Sequence[Place],
) -> tuple[list[Title], list[Pointer]]:
    """Titles and pointers in which "all of them except the last one" is one pointer.

    "None of them except the last one" says of the last one what it would say without the words before.
    """
    clauses = [token.clause for token in line.tokens]
    for place, left_out, kind in list(find_exceptions(line.marks, clauses, pointers)):
        pieces: list[Title | Pointer] = [*titles, *pointers]
        inside = [one for one in pieces if _inside(one.place, [left_out])]
        several = any(isinstance(one, Title) and len(one.rows) > 1 for one in inside)
        behind = next((at for at in range(place.end, len(line.marks)) if line.marks[at] not in _LISTING), None)
        mixed = behind != place.end and any(wish.start == behind for wish in wishes)  # "everything but _ and horror"
        if line.tokens[place.start].sentence != line.tokens[place.end - 1].sentence or several or mixed:
            continue
        if kind == "none":
            first, wider = inside[0], Place(place.start, inside[0].place.end)
            titles = [replace(one, place=wider) if one is first else one for one in titles]
            pointers = [replace(one, place=wider) if one is first else one for one in pointers]
            meant[wider] = meant.get(first.place)
            line.take(wider, "_")
        else:
            titles = [one for one in titles if one not in inside]
            pointers = [one for one in pointers if not _inside(one.place, [place])]
            pointers.append(Pointer(place, "all", but=tuple(inside), open=kind == "everything"))
            meant[place] = None
            line.take(place, "_")
        join(line.tokens, place)
    return list(titles), sorted(pointers, key=lambda one: one.place.start)


def _meant(line: Line, pointer: Pointer, titles: Sequence[Title]) -> tuple[Title, ...] | None:
    """Titles that "it" or "both" stands for, named before it; None: it points at the list, (): at nothing."""
    before = [title for title in titles if title.place.end <= pointer.place.start]
    if pointer.kind == "it":
        return tuple(before[-1:]) or None
    if pointer.kind != "all":
        return None
    group = before[-1:]
    for title in before[-2::-1]:  # "Heat, Fargo and Casino … they"
        if not goes_on(line.words(title.place.start, group[0].place.end)):
            break
        group = [title, *group]
    word = line.marks[pointer.place.start]
    if len(before) == 2 or (word == "both" and len(group) > 1):
        return tuple(before[-2:])
    if len(group) > 1:
        return tuple(group)
    said_of_others = word in {"they", "them"} and before  # "I loved Heat, they …": of nobody in the list
    return () if said_of_others or (word == "both" and titles) else None


def _with_it(titles: list[Title], pointer: Pointer, meant: Title) -> list[Title]:
    """Titles with what is said of an "it" that stands for one of them, `meant`."""
    place = next((number for number, title in enumerate(titles) if title.place == meant.place), None)
    if place is None or pointer.feeling == "named":
        return titles
    judged = replace(titles[place], feeling=pointer.feeling)
    if pointer.feeling == "seed" and titles[place].feeling not in ("named", "seed"):  # "I loved it. Something like it"
        both = [*titles, replace(judged, place=pointer.place)]
        return sorted(both, key=lambda title: title.place.start)
    return [*titles[:place], judged, *titles[place + 1 :]]


def _started_from(line: Line, pieces: Sequence[PieceT]) -> tuple[list[PieceT], list[str]]:
    """Pieces without those that are only compared with, and in words what cannot be told from those."""
    kept: list[PieceT] = []
    apart: list[str] = []
    for piece in pieces:
        how = set_apart(*line.around(piece.place))
        if how == "unlike":
            apart.append(f"unlike {line.typed(piece.place)}")
        elif not how or piece.feeling == "liked":
            kept.append(piece)
    return kept, apart


def _compared(
    found: Iterable[Comparison], ranges: Sequence[Range], meant: Mapping[Place, tuple[Title, ...] | None]
) -> Iterator[Comparison]:
    """Comparisons with the titles that an "it" stands for; none of those that a range of the message makes exact.

    "older films, before 1970" is no guess any more; "older than _, but after 1970" has both.
    """
    for one in found:
        if one.than or all(other.span.attribute != one.attribute for other in ranges):
            titles = [[title.place for title in meant.get(place) or ()] or [place] for place in one.than]
            yield replace(one, than=tuple(place for places in titles for place in places))


def _inside(place: Place, others: Sequence[Place]) -> bool:
    return any(other.start <= place.start and place.end <= other.end for other in others)


def _find_values(index: CatalogueIndex, line: Line) -> Iterator[Asked]:
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


def _with_feelings(line: Line, pieces: Sequence[PieceT]) -> Iterator[PieceT]:
    previous: Feeling = "named"
    for piece in pieces:
        before, behind = line.around(piece.place)
        asked = line.questioned(piece.place)
        previous = line.heading(piece.place) or previous
        previous = "named" if asked else feeling_of(before, behind, previous=previous)
        yield replace(piece, feeling=previous)


def _with_kinds(line: Line, values: Sequence[Asked]) -> Iterator[Asked]:
    """Whether each value is wanted, unwanted or relaxed, and how it joins the one before."""
    kind: Kind = "wanted"
    bare = False  # bare: without an article, so that one afterwards begins something else
    last: Place | None = None
    for asked in values:
        before, behind = line.around(asked.place)
        start, end = line.clause(asked.place)
        clause = line.words(start, end)
        listed = goes_on(clause) and last is not None
        if listed and kind == "unwanted" and bare and _ARTICLE.match(clause):
            listed, last = False, None  # "no horror, a drama"; "not a horror, a drama" goes on
        if headed := line.heading(asked.place):
            listed, kind = True, "unwanted" if headed == "disliked" else "wanted"
        elif not listed:
            bare = not _ARTICLE_BEFORE.search(before)
            kind = _kind(before, behind)
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


def _kind(before: str, behind: str) -> Kind:
    """What the words around a value or a range say of it."""
    if permitted(before, behind):
        return "relaxed" if not unwanted(before) or "mind" in before else "unwanted"
    if forgotten(before):
        return "relaxed"
    return "unwanted" if unwanted(before) or unwanted_behind(behind) else "wanted"


def _of_kinds(line: Line, ranges: Sequence[Range]) -> Iterator[Range]:
    """Whether each range is wanted, refused or relaxed; where the refused one has an open end, the other side of it."""
    last: Range | None = None
    for found in ranges:
        before, behind = line.around(found.place)
        listed = goes_on(line.words(*line.clause(found.place))) and _LISTED_RANGE.match(found.text)
        if listed and last is not None and last.span.attribute == found.span.attribute:  # "from the 80s, 90s"
            both = around([last.span, found.span])
            last = replace(found, kind=last.kind, span=both if last.kind == "wanted" else found.span)
        else:
            last = replace(found, kind=_kind(before_range(before), behind))
        is_open = None in (last.span.low, last.span.high)
        yield replace(found, span=other_side(last.span)) if is_open and last.kind == "unwanted" else last


def _unread(line: Line) -> tuple[list[str], list[str]]:
    """What stands where a title ("something like …") or a topic ("a comedy with …") does, and is none that is known."""
    like: list[str] = []
    topics: list[str] = []
    for at, mark in enumerate(line.marks):
        if mark not in _CUES:
            continue
        start, end = line.clause(Place(at, at + 1))
        before = line.words(max(start, at - 3), at + 1)
        found = like if _LIKE.search(before) else topics if _TOPIC.search(before) else None
        stop = at + 1
        while stop < end and not _ENDS.fullmatch(line.marks[stop]):
            stop += 1
        words = line.marks[at + 1 : stop]
        read = stop < end and line.marks[stop] in {"_", "f_"}  # "with lots of action"
        if found is not None and not read and words[:1] and words[0] not in _COMPANY and not set(words) <= COMMON:
            found.append(line.text[line.tokens[at + 1].start : line.tokens[stop - 1].end])
    return like, topics
