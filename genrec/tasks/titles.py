"""Whether a text gives a title away: compared word by word, whatever the case, the punctuation and the accents."""

from __future__ import annotations

import re
import unicodedata


def plain_words(text: str) -> list[str]:
    """The words of a text in lower case, without accents and punctuation."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return re.findall(r"\w+", "".join(mark for mark in decomposed if not unicodedata.combining(mark)))


def holds_title(text: str, title: str) -> bool:
    """Whether all words of `title` stand in `text`, in a row. A title without words stands nowhere."""
    words, wanted = plain_words(text), plain_words(title)
    return bool(wanted) and any(
        words[start : start + len(wanted)] == wanted for start in range(len(words) - len(wanted) + 1)
    )
