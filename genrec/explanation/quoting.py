"""What a source says: its sentences, and whether words that are taken from it are whole ones.

"It is suitable for sensitive skin" stands in "it is not suitable for sensitive skin" word by word, once the right words
are cut out. So only sentences from their beginning to their end say what the source says.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_STOP = re.compile(r"(?<=[.!?])\s+")
_ABBREVIATIONS = (
    "Mr Mrs Ms Dr Prof St Sr Jr Mt Ft Lt Col Sgt Gen Capt Cpt Cmdr Maj Cpl Pvt Adm Rev Hon Gov Sen Rep Fr Hr vs Vs"
)
# A sentence does not end behind an initial ("U.S. Marines"), a short title ("Dr. No") or dots ("It works... not").
_GOES_ON = re.compile(rf"(?:\b(?:[A-Z]|{_ABBREVIATIONS.replace(' ', '|')})|\.)\.$")
_NUMBERED = re.compile(r"\b(?:No|Nos|Nr|Vol|Pt)\.$")  # nor does it in "No. 1"
_LONGEST_SHORT = 8  # letters that are looked at before a full stop
_CUT_NUMBER = re.compile(r"\d[.,]\d")  # "4" does not stand in "4.5"


def sentences(source: str) -> list[str]:
    """The sentences of a text on one line, in order."""
    return [source[start:end] for start, end in _bounds(source)]


def unstopped(sentence: str) -> str:
    """A sentence without its full stop. A question keeps its mark, and so do dots: without it they say more."""
    bare = sentence.rstrip(".!")
    return sentence if bare.endswith(("?", "…")) or sentence.endswith("..") else bare


def stands_in(source: str, words: str) -> bool:
    """Whether `words` are whole words of `source`: "art" does not stand in "a party"."""
    return next(_places(source, words), None) is not None


def whole_sentences(source: str, words: str) -> bool:
    """Whether `words` are sentences of `source`: from the beginning of one to the end of one, its full stop or not.

    A piece of a sentence may say something else than the sentence: "the worst film" out of "from the makers of …".
    """
    bounds = _bounds(source)
    starts = {start for start, _ in bounds}
    ends = {cut for start, end in bounds for cut in range(start + len(unstopped(source[start:end])), end + 1)}
    return any(place in starts and place + len(words) in ends for place in _places(source, words))


def _bounds(source: str) -> list[tuple[int, int]]:
    """Where each sentence begins and ends."""
    found, start = [], 0
    for stop in _STOP.finditer(source):
        before, following = source[max(0, stop.start() - _LONGEST_SHORT) : stop.start()], source[stop.end() :][:1]
        if _GOES_ON.search(before) or following.islower() or (_NUMBERED.search(before) and following.isdigit()):
            continue
        found.append((start, stop.start()))
        start = stop.end()
    return [*found, (start, len(source))]


def _places(source: str, words: str) -> Iterator[int]:
    place = source.find(words) if words else -1
    while place >= 0:
        end = place + len(words)
        around = source[:place][-1:] + source[end:][:1]
        in_number = _CUT_NUMBER.match(source, place - 2 if place > 1 else 0, place + 1) or _CUT_NUMBER.match(
            source, end - 1, end + 2
        )
        if not any(letter.isalnum() for letter in around) and not in_number:
            yield place
        place = source.find(words, place + 1)
