"""How much it tells that two texts share words: little where many texts hold them.

"A good price" stands in the review of one thing and in the description of another, and has nothing to do with either.
What counts is how rare words are, among the texts of the catalogue and among people's reviews: a word is telling where
few of the *other* texts of both kinds hold it, and words weigh together, as the surprise of meeting all of them.

I items, R reviews.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable

_WORD = re.compile(r"[^\W\d_]{2,}")
_MAX_SHARE = 0.1  # of the other texts: a word of more of them says nothing


def text_words(text: str) -> set[str]:
    """The distinct words of a text, without case, numbers and single letters."""
    return set(_WORD.findall(text.casefold()))


class WordRarity:
    """Document frequencies of the texts of a catalogue and of reviews, each counted once."""

    def __init__(self, items: Iterable[str], reviews: Iterable[str]) -> None:
        self._items, self._num_items = _counted(items)
        self._reviews, self._num_reviews = _counted(reviews)

    def weight(self, word: str) -> float:
        """−log of the share of the other texts that hold a word of an item and of a person; 0 for a common one.

        Inverse document frequency (Spärck Jones 1972), of the kind of text in which the word is more frequent. A word
        that no other text holds is as rare as one in I + R.
        """
        shares = (
            (self._items[word] - 1) / max(1, self._num_items),
            (self._reviews[word] - 1) / max(1, self._num_reviews),
        )
        share = max(*shares, 1 / max(1, self._num_items + self._num_reviews))
        return -math.log(share) if share <= _MAX_SHARE else 0.0


def _counted(texts: Iterable[str]) -> tuple[Counter[str], int]:
    counts: Counter[str] = Counter()
    number = 0
    for text in texts:
        counts.update(text_words(text))
        number += 1
    return counts, number
