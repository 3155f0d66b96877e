"""Years and prices in a message as ranges: "the 90s", "before 1980", "between 1990 and 1995", "under 20 dollars"."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from genrec.chat.catalogue_index import CatalogueIndex
from genrec.chat.pieces import Place, Range
from genrec.chat.state import Span
from genrec.chat.words import Token

_DECADES = {
    "twenties": 20,
    "thirties": 30,
    "forties": 40,
    "fifties": 50,
    "sixties": 60,
    "seventies": 70,
    "eighties": 80,
    "nineties": 90,
}
_YEAR = r"(?:18|19|20)\d\d"
_DECADE = (
    rf"(?:(?:early|mid|late) )?(?:the )?(?:(?:early|mid|late) )?(?:(?:19|20)?\d0s|{'|'.join(_DECADES)}|two thousands)"
)
_WHEN = rf"(?:{_DECADE}|{_YEAR})"
# "80s or 90s", "1995, 1996 or 1997"; counted, as a decade can be read in several ways.
_SEVERAL = rf"{_WHEN}(?: {_WHEN}){{0,2}}(?: (?:or|and)(?: from| in| of)? {_WHEN}){{1,3}}"
_BEFORE = r"(?:before|older than|earlier than|prior to|from before|pre)"
_AFTER = r"(?:after|newer than|later than|more recent than|from after|post)"
# Not "12 years old", "how old", "my old favourite", "I am too old".
_OLD = "".join(rf"(?<!{words} )" for words in ("years", "year", "how", "my", "im", "am", "im too", "am too")) + "old"
_AMOUNT = r"(\d[\d,]*(?:\.\d+)?)"
# What things are counted in: "2 hours" is no title, and what is counted in something else than money is no price.
_UNIT = (
    r"(?:minutes?|mins?|hours?|hrs?|days?|weeks?|months?|years?|decades?|pages?|seasons?|episodes?|players?|people"
    r"|parts?|stars?|points?|percent)"
)
MEASURE = rf"(?:\d[\d,.]*|an?|half an|one|two|three|four|five|six|seven|eight|nine|ten|twelve) {_UNIT}"
_CURRENCY = r"(?:dollars?|euros?|bucks|usd|eur|pounds?)"
_MONEY = rf"(?: {_CURRENCY})?(?! {_UNIT}\b)"
Found = tuple[float | None, float | None]


def find_ranges(index: CatalogueIndex, text: str, tokens: Sequence[Token], taken: Sequence[bool]) -> list[Range]:
    """Ranges of the numbers that the catalogue has, in order; tokens of titles are left alone."""
    words = ["_" if used else token.text for token, used in zip(tokens, taken, strict=True)]
    found: list[Range] = []
    for name, pattern, meaning in _patterns(index):
        line = " ".join(words)
        for match in re.finditer(rf"(?<!\S){pattern}(?!\S)", line):
            low, high = meaning(match)
            first = line.count(" ", 0, match.start())
            place = Place(first, first + match.group().count(" ") + 1)
            words[place.start : place.end] = ["_"] * (place.end - place.start)
            found.append(Range(place, Span(attribute=name, low=low, high=high), _shown(text, tokens, place)))
    return sorted(found, key=lambda one: one.place.start)


def around(spans: Sequence[Span]) -> Span:
    """The range from the lowest to the highest end of ranges of one number."""
    lows, highs = [one.low for one in spans], [one.high for one in spans]
    return Span(
        attribute=spans[0].attribute,
        low=None if None in lows else min(low for low in lows if low is not None),
        high=None if None in highs else max(high for high in highs if high is not None),
    )


def other_side(span: Span) -> Span:
    """What a range with an open end leaves: "1979 or earlier" leaves "1980 or later"."""
    step = 1 if span.attribute == "year" else 0
    if span.low is None:
        return Span(attribute=span.attribute, low=None if span.high is None else span.high + step)
    return Span(attribute=span.attribute, high=span.low - step)


def _patterns(index: CatalogueIndex) -> Iterator[tuple[str, str, Callable[[re.Match[str]], Found]]]:
    if "year" in index.numbers:
        years = index.numbers["year"][~np.isnan(index.numbers["year"])]
        old, late = (int(np.quantile(years, part)) if len(years) else 0 for part in (0.25, 0.85))
        newest = int(years.max()) if len(years) else 0

        def at(when: str) -> tuple[int, int]:
            return _ends(when, newest)

        def from_to(several: str) -> tuple[int, int]:
            ends = [at(when) for when in re.findall(_WHEN, several)]
            return min(low for low, _ in ends), max(high for _, high in ends)

        for pattern, meaning in (
            (rf"(?:between|from) ({_WHEN}) (?:and|to|until|till) ({_WHEN})", lambda m: (at(m[1])[0], at(m[2])[1])),
            (rf"(?:from )?({_YEAR}) (?:to )?({_YEAR})(?! (?:or|and) {_YEAR})", lambda m: (at(m[1])[0], at(m[2])[1])),
            (rf"{_BEFORE} (?:the )?({_WHEN})", lambda m: (None, at(m[1])[0] - 1)),
            (rf"{_AFTER} (?:the )?({_WHEN})", lambda m: (at(m[1])[1] + 1, None)),
            (rf"(?:since|from) (?:the )?({_WHEN}) (?:on|onwards?|or later)", lambda m: (at(m[1])[0], None)),
            (rf"(?:since|starting in) (?:the )?({_WHEN})", lambda m: (at(m[1])[0], None)),
            (rf"(?:until|till|up to) (?:the )?({_WHEN})", lambda m: (None, at(m[1])[1])),
            (rf"({_WHEN}) (?:or|and) (?:older|earlier|before)", lambda m: (None, at(m[1])[1])),
            (rf"({_WHEN}) (?:or|and) (?:newer|later|after|up|onwards?)", lambda m: (at(m[1])[0], None)),
            (rf"(?:in |from |of )?({_SEVERAL})", lambda m: from_to(m[1])),
            (rf"(?:in |from |of )?(?:the )?(?:year )?({_WHEN})", lambda m: at(m[1])),
            (r"(?:recent|modern|latest|newish|contemporary)", lambda _: (late, None)),
            (r"(?:new(?= films?| movies?| ones?)|(?:(?<=not )|(?<=too )|(?<=nothing ))new)", lambda _: (late, None)),
            (rf"(?:{_OLD}|ancient|classic|classics|vintage|oldies)", lambda _: (None, old)),
        ):
            yield "year", pattern, meaning
    if "price" in index.numbers:
        under = r"(?:under|below|less than|cheaper than|at most|up to|max|maximum)"
        amounts: tuple[tuple[str, Callable[[re.Match[str]], Found]], ...] = (
            (rf"(?:between|from) {_AMOUNT} (?:and|to) {_AMOUNT} {_CURRENCY}", lambda m: (_amount(m[1]), _amount(m[2]))),
            (rf"{under} {_AMOUNT}{_MONEY}", lambda m: (None, _amount(m[1]))),
            (rf"(?:over|above|more than|at least) {_AMOUNT}{_MONEY}", lambda m: (_amount(m[1]), None)),
        )
        yield from (("price", pattern, range_of) for pattern, range_of in amounts)


def _amount(said: str) -> float:
    return float(said.replace(",", ""))


def _ends(when: str, newest: int) -> tuple[int, int]:
    """First and last year of "1994", "90s", "early nineties"; a short decade is the latest that has begun."""
    if re.fullmatch(_YEAR, when):
        return int(when), int(when)
    part = next((word for word in ("early", "mid", "late") if word in when.split()), "")
    word = when.split()[-1]
    if word == "thousands":
        start = 2000
    elif word in _DECADES:
        start = 1900 + _DECADES[word]
    elif len(word) == 5:
        start = int(word[:4])
    else:
        start = 2000 + int(word[:2])
    if len(word) != 5 and word != "thousands" and start % 100 <= 90:
        start = 1900 + start % 100 if 2000 + start % 100 > newest else 2000 + start % 100
    first, last = {"early": (0, 3), "mid": (4, 6), "late": (7, 9)}.get(part, (0, 9))
    return start + first, start + last


def _shown(text: str, tokens: Sequence[Token], place: Place) -> str:
    return text[tokens[place.start].start : tokens[place.end - 1].end]
