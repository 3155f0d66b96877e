"""Text to tokens that can be compared: what a person types and what a catalogue says meet here.

A token keeps where it stood in the text, so that "Alien" and "alien", "Amélie" and "amelie", "don't" and "dont"
are equal and still can be shown the way they were written.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

# Amounts are one word with their marks: "1,000", "9.99".
_AMOUNT = r"(?<![\w.,])\d{1,3}(?:,\d{3})+(?:\.\d+)?(?![\w,])|(?<![\w.,])\d+\.\d{1,2}(?![\w,]|\.\d)"
_WORD = re.compile(rf"{_AMOUNT}|[^\W_]+(?:['’][^\W_]+)*|&")
_BREAK = re.compile(r"[,;:.!?\n()]|\s[-–—]\s")
_QUOTED = re.compile(r"[\"“”«»]([^\"“”«»\n]{2,80})[\"“”«»]")
# Words that open a new clause even without a comma.
_CLAUSE_WORDS = {"but", "though", "although", "however", "except", "because", "instead"}

_ALL_BUT = {"anything", "everything", "all", "nothing"}  # "anything but westerns" is one clause


@dataclass(frozen=True)
class Token:
    """One word: `text` is normalised; `start` and `end` are offsets in the text that was typed."""

    text: str
    start: int
    end: int
    clause: int  # clauses are numbered; punctuation and words such as "but" begin a new one
    sentence: int
    capital: bool  # begins with a capital letter and does not open its sentence


def normalise(text: str) -> str:
    """Lower case, no accents, no apostrophes: "Schindler’s Café" becomes "schindlers cafe"."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in plain if not unicodedata.combining(letter) and letter not in "'’")


def tokens_of(text: str) -> list[Token]:
    """The words of a text, numbered by clause and sentence. "&" reads "and"."""
    found: list[Token] = []
    clause = sentence = 0
    end, opens = 0, True
    for match in _WORD.finditer(text):
        between = text[end : match.start()]
        if found and _BREAK.search(between):
            clause += 1
            if re.search(r"[.!?\n]", between):
                sentence, opens = sentence + 1, True
        word = "and" if match.group() == "&" else normalise(match.group())
        if word in _CLAUSE_WORDS and found and found[-1].clause == clause and found[-1].text not in _ALL_BUT:
            clause += 1
        capital = match.group()[0].isupper() and not opens
        found.append(Token(word, match.start(), match.end(), clause, sentence, capital))
        end, opens = match.end(), False
    return found


def words_of(text: str) -> tuple[str, ...]:
    """The normalised words alone."""
    return tuple(token.text for token in tokens_of(text))


def quoted_spans(text: str) -> list[tuple[int, int]]:
    """Where the text between quotation marks stands: offsets without the marks."""
    return [match.span(1) for match in _QUOTED.finditer(text)]


def singular_forms(word: str) -> tuple[str, ...]:
    """A word and what it may be the plural of: "comedies" gives "comedy", "thrillers" gives "thriller"."""
    forms = [word]
    if word.endswith("ies") and len(word) > 4:
        forms.append(word[:-3] + "y")
    if word.endswith("es") and len(word) > 4:
        forms.append(word[:-2])
    if word.endswith("s") and not word.endswith("ss") and len(word) > 3:
        forms.append(word[:-1])
    return tuple(forms)


def joined(names: Sequence[str], last: str = "and") -> str:
    """ "a", "a and b", "a, b and c"."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} {last} {names[-1]}"
