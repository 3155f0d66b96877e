"""Titles of the catalogue in a message: exact ones, longest first, then misspelt ones where a title is expected.

Many titles are ordinary words ("It", "Her", "Up", "The One"). Such a title is only read as one where something
says so: quotation marks, its year behind it, a capital letter in the middle of a sentence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from genrec.chat.catalogue_index import CatalogueIndex
from genrec.chat.pieces import Place, Title
from genrec.chat.words import Token, quoted_spans

COMMON = frozenset(
    re.findall(
        r"\w+",
        """
    a about after again all also always am an and another any anything are around as ask at away back bad be
    because been before being best better big both bring but by call came can cant chat classic close come could
    dark day days dead deep did different do does doing dont down drop early easy else end enough even ever
    every everything explain face far fast few film films find fine first five for forget free friends from fun
    funny game get girl give go going gone good got great had happy hard has hate have he heard heart hello help
    her here hi high him his home how i if im in into is it its ive job just keep kind know last late later less
    let life light like liked little live long look lost lot love loved mad made make man many maybe me mean men
    mine more most movie movies much must my name need never new next nice night no none not nothing now of off
    ok old older on once one ones only open or other our out over part people person pi place play please point
    pretty ready real recent red right road room safe said same saw say scary second see seen set she show signs
    since sleep slow so some someone something soon start state stay still stop story stuff such suggest sure
    surprise take talk tell than thank thanks that the their them then there these they thing things think this
    those three time to today together tomorrow tonight too top true try two under until up us use very wait
    walk want war was watch watched water way we well went were what when where which while who why wild will
    with without woman wonder work world would wrong year years yes you young your
    """,
    )
)
_LIKING = {"like", "liked", "love", "loved", "enjoy", "enjoyed", "adore", "hate", "hated", "dislike", "disliked"}
_CUES = frozenset(_LIKING | {"seen", "saw", "watched", "than"})
_JOINING = frozenset({"and", "or", "the", "also", "both"})
_MAX_GUESSED_WORDS = 6


def find_titles(index: CatalogueIndex, text: str, tokens: Sequence[Token]) -> tuple[list[Title], list[str]]:
    """Titles in a message, in order, and quoted names that the catalogue does not have."""
    found: list[Title] = []
    unknown: list[str] = []
    taken = [False] * len(tokens)
    for lo, hi in quoted_spans(text):
        inside = [number for number, token in enumerate(tokens) if lo <= token.start and token.end <= hi]
        if not inside:
            continue
        place = Place(inside[0], inside[-1] + 1)
        title = _exact(index, text, tokens, place) or _guess(index, text, tokens, place)
        if title is None:
            unknown.append(text[lo:hi])
        else:
            found.append(title)
        taken[place.start : place.end] = [True] * (place.end - place.start)
    for place in _places(len(tokens), index.longest_name):
        if any(taken[place.start : place.end]):
            continue
        title = _exact(index, text, tokens, place)
        if title is not None and _is_meant(index, tokens, title, found):
            found.append(title)
            taken[title.place.start : title.place.end] = [True] * (title.place.end - title.place.start)
    guessed, missing = _expected(index, text, tokens, taken)
    return sorted([*found, *guessed], key=lambda title: title.place.start), [*unknown, *missing]


def _places(num_tokens: int, longest: int) -> Iterator[Place]:
    for size in range(min(longest, num_tokens), 0, -1):
        yield from (Place(start, start + size) for start in range(num_tokens - size + 1))


def _exact(index: CatalogueIndex, text: str, tokens: Sequence[Token], place: Place) -> Title | None:
    words = tuple(token.text for token in tokens[place.start : place.end])
    rows = index.names.get(words, ()) or index.aliases.get(words, ())
    if not rows:
        return None
    if words not in index.names and len(rows) > 1:  # "Star Wars" of many: the earliest is what people call so
        rows = (min(rows, key=lambda row: (index.year(row) or 9999, row)),)
    return _with_year(index, text, tokens, Title(place, rows, _shown(text, tokens, place)))


def _with_year(index: CatalogueIndex, text: str, tokens: Sequence[Token], title: Title) -> Title:
    """A year right behind a title belongs to it where an item of that title and year exists."""
    end = title.place.end
    if end >= len(tokens) or not re.fullmatch(r"(?:19|20)\d\d", tokens[end].text):
        return title
    words = tuple(token.text for token in tokens[title.place.start : end])
    rows = (*index.names.get(words, ()), *index.aliases.get(words, ()), *title.rows)
    same = tuple(dict.fromkeys(row for row in rows if index.year(row) == int(tokens[end].text)))
    if not same:
        return title
    place = Place(title.place.start, end + 1)
    return Title(place, same, _shown(text, tokens, place), title.guessed)


def _is_meant(index: CatalogueIndex, tokens: Sequence[Token], title: Title, others: Sequence[Title]) -> bool:
    """Whether words that are a title are meant as one."""
    place = title.place
    inside = tokens[place.start : place.end]
    words = tuple(token.text for token in inside)
    if len(inside) > 1 and inside[-1].text.isdigit() and words not in index.names:
        return True  # its year stands behind it
    capitals = all(token.capital for token in inside if token.text not in _JOINING)
    if words in index.facets:
        return False
    if all(word in COMMON or word.isdigit() for word in words):
        cued = place.start > 0 and tokens[place.start - 1].text in _CUES - {"like", "than", "love"}
        return (capitals and words != ("i",)) or (cued and words[0].isdigit())
    if len(words) > 1 or capitals or place.end - place.start == len(tokens):
        return True
    before = place.start - 1
    while before >= 0 and tokens[before].text in _JOINING:
        before -= 1
    after_title = any(other.place.end == before + 1 for other in others)
    cued = before >= 0 and tokens[before].text in _CUES | {"about", "similar"}
    starts = before < 0 or tokens[before].sentence != inside[0].sentence
    return cued or after_title or (starts and _is_judged(tokens, place))


def _is_judged(tokens: Sequence[Token], place: Place) -> bool:
    """ "jaws was great": a word at the beginning of a sentence that goes on about it."""
    return place.end < len(tokens) and tokens[place.end].text in {"is", "was", "were", "and", "isnt", "wasnt"}


def _guess(index: CatalogueIndex, text: str, tokens: Sequence[Token], place: Place) -> Title | None:
    """The title that is written most like these tokens."""
    words = [token.text for token in tokens[place.start : place.end]]
    if sum(map(len, words)) < 5 or all(word in COMMON for word in words) or tuple(words) in index.facets:
        return None
    rows = index.similar_title(" ".join(words))
    if not rows:
        return None
    first = (min(rows, key=lambda row: (index.year(row) or 9999, row)),)
    return _with_year(index, text, tokens, Title(place, first, _shown(text, tokens, place), guessed=True))


def _expected(
    index: CatalogueIndex, text: str, tokens: Sequence[Token], taken: list[bool]
) -> tuple[list[Title], list[str]]:
    """Titles that are not written as the catalogue has them, looked for behind words such as "loved"."""
    found: list[Title] = []
    missing: list[str] = []
    for start, token in enumerate(tokens):
        cued = start > 0 and tokens[start - 1].text in _CUES and tokens[start - 1].clause == token.clause
        cued |= start > 1 and tokens[start - 1].text in {"and", "or"} and taken[start - 2]  # behind another title
        if taken[start] or not (cued or start == 0 or token.capital):
            continue
        end = start
        while end < len(tokens) and not taken[end] and tokens[end].clause == token.clause:
            if tokens[end].text in {"and", "or"} or end - start == _MAX_GUESSED_WORDS:
                break
            end += 1
        title = None
        for stop in range(end, start, -1):
            if (start > 0 or stop == len(tokens)) and (title := _guess(index, text, tokens, Place(start, stop))):
                break
        if title is not None:
            found.append(title)
            taken[title.place.start : title.place.end] = [True] * (title.place.end - title.place.start)
        elif cued and token.capital:
            stop = start
            while stop < end and (tokens[stop].capital or tokens[stop].text in {"of", "the", "in", "a", "to"}):
                stop += 1
            words = [inner.text for inner in tokens[start:stop]]
            if tuple(words) not in index.facets and not all(word in COMMON for word in words):
                missing.append(_shown(text, tokens, Place(start, stop)))
    return found, missing


def _shown(text: str, tokens: Sequence[Token], place: Place) -> str:
    return text[tokens[place.start].start : tokens[place.end - 1].end]
