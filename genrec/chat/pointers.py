"""References into the last list: "the second one", "it", "all of them", "the western", "the one from 1994"."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from genrec.chat.pieces import Asked, Place, Pointer, Range

_ORDINALS = {
    name: number
    for number, names in enumerate(
        (
            ("first", "1st"),
            ("second", "2nd"),
            ("third", "3rd"),
            ("fourth", "4th"),
            ("fifth", "5th"),
            ("sixth", "6th"),
            ("seventh", "7th"),
            ("eighth", "8th"),
            ("ninth", "9th"),
            ("tenth", "10th"),
        )
    )
    for name in names
} | {"former": 0, "last": -1, "latter": -1}
_THING = r"(?: (?:one|film|movie|item|title|book|product|recommendation|suggestion))"
_ORDINAL = re.compile(
    rf"(?<!\S)(?:the |number |your )?({'|'.join(_ORDINALS)})"
    rf"(?:{_THING}|(?= and| or| but| not|$| is| was| sounds| looks|ly))(?!\S)"
)
_NUMBER = re.compile(r"(?<!\S)(?:number|no|nr|item|#) (\d{1,2})(?!\S)|^(\d{1,2})$")
_ALL = re.compile(
    r"(?<!\S)(?<!none of )(?<!neither of )(?:(?:all|any|both|each) of (?:them|these|those)"
    r"|all (?:these|those)|both|these|those|them|they all|they)(?!\S)"
)
# "that" alone is a reference only behind words that want one: "I hate that", not "the film that won"; no more is it
# in "not that bad".
_BEHIND = ("like", "about", "hate", "seen", "saw", "watched", "love", "loved", "liked", "than", "why")
_IT = re.compile(
    r"(?<!\S)(?:it|that one|this one|(?:that|this)(?: film| movie| item| book| product)"
    + "".join(rf"|(?<={word} )(?:that|this)" for word in _BEHIND)
    + r"|(?<=not )(?:that|this)(?! (?:bad|good|great|funny|scary|boring|old|new|recent|long|much|keen|fond|into)(?!\S))"
    + r")(?!\S)(?! (?:is|was) (?:not )?(?:ok|okay|fine|all))"
)
_ONE = re.compile(r"(?<!\S)the (older|oldest|earliest|newer|newest|latest) (?:one|film|movie)(?!\S)")


def find_pointers(marks: Sequence[str], values: Sequence[Asked], ranges: Sequence[Range]) -> Iterator[Pointer]:
    """References in a message, given as words in which titles stand as `_`; in order of appearance."""
    found = [*_by_content(marks, values, ranges)]
    used = [False] * len(marks)
    for pointer in found:
        used[pointer.place.start : pointer.place.end] = [True] * (pointer.place.end - pointer.place.start)
    words = [" " if taken or not mark else mark for mark, taken in zip(marks, used, strict=True)]
    # One character per token that is spoken for keeps the count of spaces equal to the count of tokens.
    line = " ".join("~" if word == " " else word for word in words)
    kinds: tuple[tuple[re.Pattern[str], Callable[[re.Match[str], Place], Pointer]], ...] = (
        (_ORDINAL, lambda m, place: Pointer(place, "number", _ORDINALS[m[1]])),
        (_NUMBER, lambda m, place: Pointer(place, "number", int(m[1] or m[2]) - 1)),
        (_ALL, lambda m, place: Pointer(place, "all")),
        (_ONE, lambda m, place: Pointer(place, "oldest" if m[1] in {"older", "oldest", "earliest"} else "newest")),
        (_IT, lambda m, place: Pointer(place, "it")),
    )
    for pattern, make in kinds:
        for match in pattern.finditer(line):
            first = line.count(" ", 0, match.start())
            place = Place(first, first + match.group().count(" ") + 1)
            if not any(used[place.start : place.end]):
                found.append(make(match, place))
                used[place.start : place.end] = [True] * (place.end - place.start)
    yield from sorted(found, key=lambda pointer: pointer.place.start)


def _by_content(marks: Sequence[str], values: Sequence[Asked], ranges: Sequence[Range]) -> Iterator[Pointer]:
    """ "the horror one", "the western", "the one from 1994"."""
    things = {"one", "film", "movie", "item", "book", "product"}
    for asked in values:
        lo, hi = asked.place.start, asked.place.end
        if lo > 0 and marks[lo - 1] == "the" and hi < len(marks) and marks[hi] in things:
            yield Pointer(Place(lo - 1, hi + 1), "value", value=asked.value)
        elif lo > 2 and list(marks[lo - 3 : lo - 1]) == ["the", "one"]:
            yield Pointer(Place(lo - 3, hi), "value", value=asked.value)
    for found in ranges:
        lo, hi = found.place.start, found.place.end
        if lo > 1 and list(marks[lo - 2 : lo]) == ["the", "one"]:
            yield Pointer(Place(lo - 2, hi), "span", span=found.span)
        elif hi < len(marks) and marks[hi] == "one" and lo > 0 and (marks[lo - 1] == "the" or marks[lo] == "the"):
            start = lo if marks[lo] == "the" else lo - 1
            yield Pointer(Place(start, hi + 1), "span", span=found.span)
