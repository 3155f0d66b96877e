"""Titles of the catalogue in a message: exact ones, longest first, then misspelt ones where a title is expected.

Many titles are ordinary words ("It", "Her", "Up", "The One"). Such a title is only read as one where something
says so: quotation marks, its year behind it, a capital letter in the middle of a sentence. One of words that stand in
other titles and in every sentence ("The", "Of") needs the marks or its year, and a number ("1984") a word of liking
or another title joined to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from genrec.chat.catalogue_index import CatalogueIndex
from genrec.chat.numbers import MEASURE
from genrec.chat.pieces import Place, Title
from genrec.chat.words import Token, quoted_spans
from genrec.tasks.turn_text import MAX_MESSAGE_WORDS

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
# Capital letters say nothing of these: "The Godfather 9" and "Once Upon a Time In Rome" may be no titles of ours.
_SMALL = frozenset(re.findall(r"\w+", "a an the and or of to in on at by for from with as i also both"))
_LIKENED = re.compile(
    r"\b(?:(?:something|anything|films?|movies?|ones?|books?|products?|more|much|lot) like|(?:similar|close|akin) to"
    r"|reminds me of|(?:vein|style|spirit) of)$"
)
_LAST_PLACE = 10  # "something like 2" may be the second of a list
_CUES = frozenset(_LIKING | {"seen", "saw", "watched", "than"})
_MORE = frozenset(
    {"longer", "shorter", "more", "less", "fewer"}
)  # what a measure is compared by: "longer than 2 hours"
_JOINING = frozenset({"and", "or", "the", "also", "both"})
_NAMED_BEHIND = frozenset({"something", "anything", "film", "films", "movie", "movies"})  # "something like …"
_OPINION = re.compile(
    r"(?:(?:i|we|really|absolutely|just|totally) )*(?:loved?|liked?|enjoyed|adored?|hated?|disliked?)\b"
)
_MAX_GUESSED_WORDS = 6
_MAX_GUESSES = 20  # per message: each looks at every title of the catalogue
_MAX_OFFERED = 5  # titles to choose from, where several begin with a name


def find_titles(index: CatalogueIndex, text: str, tokens: Sequence[Token]) -> tuple[list[Title], list[str]]:
    """Titles in a message, in order, and quoted names that the catalogue does not have."""
    found: list[Title] = []
    unknown: list[str] = []
    taken = [False] * len(tokens)
    guesses = _Guesses(index, text, tokens)
    for lo, hi in quoted_spans(text):
        inside = [number for number, token in enumerate(tokens) if lo <= token.start and token.end <= hi]
        if not inside:
            continue
        place = Place(inside[0], inside[-1] + 1)
        title = _exact(index, text, tokens, place) or guesses.similar(place) or guesses.beginning(place)
        if title is not None:
            found.append(title)
        elif guesses.left:
            unknown.append(text[lo:hi])
        taken[place.start : place.end] = [True] * (place.end - place.start)
    for place in _places(len(tokens), index.longest_name):
        if any(taken[place.start : place.end]):
            continue
        title = _exact(index, text, tokens, place)
        if title is not None and _is_meant(index, tokens, title, found):
            found.append(title)
            taken[title.place.start : title.place.end] = [True] * (title.place.end - title.place.start)
    guessed, missing = _expected(guesses, taken)
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
    if words in index.facets or _is_measured(tokens, place):
        return False
    if all(word in COMMON or word.isdigit() for word in words):
        number = words[0].isdigit() and (_is_liked(tokens, place) or _is_joined(tokens, place, others))
        return number or (capitals and not set(words) <= _SMALL)
    if len(words) > 1 or capitals or place.end - place.start == len(tokens):
        return True
    before = place.start - 1
    while before >= 0 and tokens[before].text in _JOINING:
        before -= 1
    after_title = any(other.place.end == before + 1 for other in others)
    cued = before >= 0 and tokens[before].text in _CUES | {"about", "similar"}
    starts = before < 0 or tokens[before].sentence != inside[0].sentence
    return cued or after_title or (starts and _is_judged(tokens, place))


def _is_liked(tokens: Sequence[Token], place: Place) -> bool:
    """Whether the words before a number are for a title and not for a year: "loved 1984", "something like 1984"."""
    before = [token.text for token in tokens[max(0, place.start - 3) : place.start]]
    likened = int(tokens[place.start].text) > _LAST_PLACE and _LIKENED.search(" ".join(before))
    return bool(likened) or (bool(before) and before[-1] in _CUES - {"like", "than", "love"})


def _is_measured(tokens: Sequence[Token], place: Place) -> bool:
    """Whether words that are a title only say how much: "longer than 127 hours"."""
    inside = tokens[place.start : place.end]
    before = [token.text for token in tokens[max(0, place.start - 2) : place.start]]
    compared = len(before) == 2 and before[0] in _MORE and before[1] == "than"
    return compared and _measures(tokens, place) and not any(token.capital for token in inside)


def _measures(tokens: Sequence[Token], place: Place) -> bool:
    return bool(re.fullmatch(MEASURE, " ".join(token.text for token in tokens[place.start : place.end])))


def _is_joined(tokens: Sequence[Token], place: Place, others: Sequence[Title]) -> bool:
    """Whether a number that is no place of a list stands behind another title and a word: "Alien and 1984"."""
    joined = place.start > 1 and tokens[place.start - 1].text in {"and", "or"}
    behind = joined and any(other.place.end == place.start - 1 for other in others)
    return behind and int(tokens[place.start].text) > _LAST_PLACE


def _is_judged(tokens: Sequence[Token], place: Place) -> bool:
    """ "jaws was great", "Jaws? Loved it": a word at the beginning of a sentence that goes on about it."""
    if place.end == len(tokens):
        return False
    if tokens[place.end].clause != tokens[place.start].clause:
        return bool(_OPINION.match(" ".join(token.text for token in tokens[place.end : place.end + 4])))
    return tokens[place.end].text in {"is", "was", "were", "and", "isnt", "wasnt"}


@dataclass
class _Guesses:
    """What words of one message may be that are no title: a misspelt one, or how titles begin. `left` bounds it."""

    index: CatalogueIndex
    text: str
    tokens: Sequence[Token]
    left: int = _MAX_GUESSES

    def similar(self, place: Place) -> Title | None:
        """The title that is written most like these tokens."""
        words = self._words(place)
        if sum(map(len, words)) < 5 or all(word in COMMON for word in words) or words in self.index.facets:
            return None
        if not self.left:
            return None
        self.left -= 1
        rows = self.index.similar_title(" ".join(words))
        if not rows:
            return None
        first = (min(rows, key=self._age),)
        title = Title(place, first, _shown(self.text, self.tokens, place), guessed=True)
        return _with_year(self.index, self.text, self.tokens, title)

    def beginning(self, place: Place) -> Title | None:
        """The titles that begin with these tokens, a handful of the oldest."""
        words = self._words(place)
        if all(word in COMMON for word in words):
            return None
        rows = sorted(self.index.beginnings.get(words, ()), key=self._age)[:_MAX_OFFERED]
        return Title(place, tuple(rows), _shown(self.text, self.tokens, place), guessed=True) if rows else None

    def _words(self, place: Place) -> tuple[str, ...]:
        return tuple(token.text for token in self.tokens[place.start : place.end])

    def _age(self, row: int) -> tuple[int, int]:
        return self.index.year(row) or 9999, row


def _expected(guesses: _Guesses, taken: list[bool]) -> tuple[list[Title], list[str]]:
    """Titles that are not written as the catalogue has them: first behind words such as "loved", then capitals.

    Of a long message, capital letters alone are not looked at: each costs a search.
    """
    tokens = guesses.tokens
    found: list[Title] = []
    missing: dict[int, str] = {}
    tried: set[int] = set()
    for cued_only in (True, False):
        if not cued_only and len(tokens) > MAX_MESSAGE_WORDS:
            break
        for start, token in enumerate(tokens):
            cued = start > 0 and tokens[start - 1].text in _CUES and tokens[start - 1].clause == token.clause
            cued |= start > 1 and tokens[start - 1].text in {"and", "or"} and taken[start - 2]  # behind another title
            wanted = cued if cued_only else start not in tried and (cued or start == 0 or token.capital)
            if taken[start] or not wanted:
                continue
            tried.add(start)
            end = _end_of_name(tokens, taken, start)
            title = _guessed(guesses, start, end, cued=cued)
            if title is not None:
                found.append(title)
                taken[title.place.start : title.place.end] = [True] * (title.place.end - title.place.start)
            elif cued and token.capital and guesses.left and (name := _name(guesses, start, end)):
                missing[start] = name
    return found, [missing[start] for start in sorted(missing)]


def _end_of_name(tokens: Sequence[Token], taken: Sequence[bool], start: int) -> int:
    end = start
    while end < len(tokens) and not taken[end] and tokens[end].clause == tokens[start].clause:
        if tokens[end].text in {"and", "or"} or end - start == _MAX_GUESSED_WORDS:
            break
        end += 1
    return end


def _guessed(guesses: _Guesses, start: int, end: int, *, cued: bool) -> Title | None:
    """The title that tokens from `start` on are, the longest that ends before `end`."""
    tokens = guesses.tokens
    if start > 0 and tokens[start - 1].text == "than" and _measures(tokens, Place(start, start + 2)):
        return None
    for stop in range(end, start, -1):
        if _measures(tokens, Place(start, stop)):
            continue
        if (start > 0 or stop == len(tokens)) and (title := guesses.similar(Place(start, stop))):
            return title
    is_name = tokens[start].capital or (start > 1 and tokens[start - 2].text in _NAMED_BEHIND)
    for stop in range(end, start + 1, -1) if cued and is_name else ():
        if title := guesses.beginning(Place(start, stop)):
            return title
        if tokens[stop - 1].capital or tokens[stop - 1].text not in COMMON:
            break
    return None


def _name(guesses: _Guesses, start: int, end: int) -> str:
    """Capital words from `start` on, as they were typed; none where they are a wish or ordinary words."""
    tokens, stop = guesses.tokens, start
    while stop < end and (tokens[stop].capital or tokens[stop].text in {"of", "the", "in", "a", "to"}):
        stop += 1
    words = [inner.text for inner in tokens[start:stop]]
    if tuple(words) in guesses.index.facets or all(word in COMMON for word in words):
        return ""
    return _shown(guesses.text, tokens, Place(start, stop))


def _shown(text: str, tokens: Sequence[Token], place: Place) -> str:
    return text[tokens[place.start].start : tokens[place.end - 1].end]
