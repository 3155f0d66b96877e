"""Whether a source bears out words that are taken from it: they stand there, and the source does not deny them.

"It is suitable for sensitive skin" stands in "it is not suitable for sensitive skin" word by word, once the right words
are cut out. So what is left of the sentences that a piece comes from may hold no denial.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from genrec.explanation.language import Language

# A sentence does not end behind an initial ("U.S. Marines") or a short title ("Dr. No").
SENTENCE_END = re.compile(r"(?<=[.!?…])(?<!\b[A-Z]\.)(?<!\b[DMS][rt]\.)(?<!\bMrs\.)\s+")
_CUT_NUMBER = re.compile(r"\d[.,]\d")  # "4" does not stand in "4.5"
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")


def stands_in(source: str, words: str) -> bool:
    """Whether `words` are whole words of `source`: "art" does not stand in "a party"."""
    return next(_places(source, words), None) is not None


def borne_out(source: str, words: str, language: Language) -> bool:
    """Whether `words` stand in `source` somewhere without a denial in the rest of their sentences.

    Denials are the words of the language's classes `negation` and `doubt`.
    """
    return any(not _denied(source, start, start + len(words), language) for start in _places(source, words))


def whole_sentences(source: str, words: str) -> bool:
    """Whether `words` are sentences of `source`: from the beginning of one to the end of one, its full stop or not.

    A piece of a sentence may say something else than the sentence: "the worst film" out of "from the makers of …".
    """
    starts = {0, *(found.end() for found in SENTENCE_END.finditer(source))}
    ends = {len(source), *(found.start() for found in SENTENCE_END.finditer(source))}
    ends |= {end - 1 for end in ends if source[end - 1 : end] in set(".!?…")}
    return any(place in starts and place + len(words) in ends for place in _places(source, words))


def _places(source: str, words: str) -> Iterator[int]:
    place = source.find(words)
    while place >= 0:
        end = place + len(words)
        around = source[:place][-1:] + source[end:][:1]
        in_number = _CUT_NUMBER.match(source, place - 2 if place > 1 else 0, place + 1) or _CUT_NUMBER.match(
            source, end - 1, end + 2
        )
        if not any(letter.isalnum() for letter in around) and not in_number:
            yield place
        place = source.find(words, place + 1)


def _denied(source: str, start: int, end: int, language: Language) -> bool:
    before = SENTENCE_END.split(source[:start])[-1]
    after = "" if SENTENCE_END.match(source, end) else SENTENCE_END.split(source[end:], maxsplit=1)[0]
    words = (word.casefold().replace("’", "'") for word in _WORD.findall(f"{before} {after}"))
    return any(word in language.denials for word in words)
