"""What a message takes back and puts right: "sorry, I meant the third one", "not the first one, the second one".

Clauses are read as lines of words in which every item stands as `_`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from genrec.chat.feelings import turned_down
from genrec.chat.line import Line
from genrec.chat.pieces import Feeling, Place, Pointer, Title

_CUE = (
    r"(?:sorry|oops|whoops|no|nope|nah|wait|oh|ah|hmm|well|ok|okay|actually|my (?:mistake|bad|fault)|(?:or )?rather|i"
    r"|we|mean|meant|to say|that was|it was|its|please|instead|though|but|and|just)"
)
_CUES = re.compile(rf"{_CUE}(?: {_CUE})*")
_OTHER = re.compile(r"(?<!\S)the other(?: (?:one|film|movie))?(?!\S)")  # of two; a bare one is no item elsewhere
_BARE = re.compile(rf"(?:{_CUE} )*_(?: (?:and|or) _)*(?: {_CUE})*")
_NOT = re.compile(rf"(?:{_CUE} )*not _(?: {_CUE})*")
_SAYS = re.compile(r"\b(?:sorry|oops|whoops|no|nope|wait|mean|meant|mistake|bad|fault|rather)\b")
_SAYS_BEHIND = re.compile(r"\b(?:sorry|mean|meant|rather)\b")  # "the second one, sorry"
_REFUSES = re.compile(r"\bno _")
_BEFORE_OTHER = re.compile(rf"(?:^| )(?:{_CUE}|not _) $")
_BEHIND = re.compile(rf"(?: {_CUE})*")


def find_others(line: Line) -> list[Pointer]:
    """ "The other one", where it is all that a clause of a correction or of a refusal says."""
    whole = line.words(0, len(line.tokens))
    found = _OTHER.search(whole)
    if found is None or not _BEFORE_OTHER.search(whole[: found.start()]) or not _BEHIND.fullmatch(whole[found.end() :]):
        return []
    kept = [number for number, mark in enumerate(line.marks) if mark]
    first, last = (whole.count(" ", 0, at) for at in (found.start(), found.end()))
    place = Place(kept[first], kept[last] + 1)
    line.take(place, "_")
    return [Pointer(place, "other")]


def without_corrected(
    line: Line, titles: Sequence[Title], pointers: Sequence[Pointer]
) -> tuple[list[Place], list[Title], list[Pointer]]:
    """Places of items that correct what an earlier message said, and all items of this one.

    What corrects an item of the same message gets its feeling here, and that one is gone.
    """
    pieces: list[Title | Pointer] = sorted([*titles, *pointers], key=lambda one: one.place.start)
    starts = [at for at, token in enumerate(line.tokens) if not at or token.clause != line.tokens[at - 1].clause]
    ends = [*starts[1:], len(line.tokens)]  # one more than starts where there is no word
    clauses = [
        (line.words(lo, hi), [one.place for one in pieces if lo <= one.place.start < hi])
        for lo, hi in zip(starts, ends, strict=False)
    ]
    numbers = list(_find_corrections(clauses))
    meant = list(dict.fromkeys(place for number in numbers for place in clauses[number][1]))
    told = [one for one in pieces if meant and one.place.end <= meant[0].start]
    told = [one for one in told if not turned_down(line.around(one.place)[0])]
    feeling: Feeling = told[-1].feeling if told else "named"
    gone = [one for one in told if line.clause(one.place) == line.clause(told[-1].place)]
    titles = [replace(one, feeling=feeling) if one.place in meant else one for one in titles if one not in gone]
    pointers = [one for one in pointers if one.place in meant or (one not in gone and one.kind != "other")]
    pointers = [replace(one, feeling=feeling) if one.place in meant else one for one in pointers]
    return [] if told else meant, titles, pointers


def _find_corrections(clauses: Sequence[tuple[str, Sequence[Place]]]) -> Iterator[int]:
    """Numbers of the clauses that are nothing but the items that were meant; a clause is its words and its items.

    Something has to say so: words such as "sorry" or "meant" in it or alone beside it, or one other clause that is only
    "not _".
    """
    bare = [_BARE.fullmatch(words) is not None and not _REFUSES.search(words) for words, _ in clauses]
    named = [number for number, (_, places) in enumerate(clauses) if places]
    contrast = len(named) == 2 and any(_NOT.fullmatch(clauses[number][0]) for number in named)
    said = False
    for number, (words, _) in enumerate(clauses):
        if _CUES.fullmatch(words):
            said = said or bool(_SAYS.search(words))
            continue
        behind = clauses[number + 1][0] if number + 1 < len(clauses) else ""
        late = bool(_CUES.fullmatch(behind) and _SAYS_BEHIND.search(behind))
        if bare[number] and (said or contrast or late or _SAYS.search(words)):
            yield number
        said = False
