"""What a message can hold, found and not yet acted on: titles, values, ranges, pointers and plain intents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from genrec.chat.catalogue_index import Value
from genrec.chat.state import Span

Feeling = Literal["liked", "disliked", "seen", "unseen", "seed", "named", "cleared"]
"""What is said about an item; `seed` is "something like it", `cleared` takes an opinion back.

`named` is no judgement: the item may be a start or what a question is about. `unseen` is none, and no start either.
"""

Kind = Literal["wanted", "unwanted", "relaxed"]
"""What is said about a value or a range: asked for, refused, or no longer either."""


@dataclass(frozen=True)
class Place:
    """Tokens [start, end) of the message."""

    start: int
    end: int


@dataclass(frozen=True)
class Title:
    """A title in the message. More than one row: several items have it. `guessed`: it was written otherwise."""

    place: Place
    rows: tuple[int, ...]
    text: str
    guessed: bool = False
    feeling: Feeling = "named"


@dataclass(frozen=True)
class Asked:
    """An attribute value, and what is said about it."""

    place: Place
    value: Value
    kind: Kind = "wanted"
    joined: Literal["", "or", "also"] = ""  # "or": an alternative to the value before; "also": on top of earlier ones


@dataclass(frozen=True)
class Range:
    """A range of a number in the message, how the message said it, and what is said about it.

    A refused range has two ends: what is refused with an open end is the range on its other side, wanted.
    """

    place: Place
    span: Span
    text: str
    kind: Kind = "wanted"


@dataclass(frozen=True)
class Comparison:
    """ "older", "newer", "cheaper" or "dearer"; `refused`: "not older", of which the opposite or as much will do.

    `than` is where the items stand that it compares with; empty: what the message or the last list is about.
    """

    word: str
    refused: bool = False
    than: tuple[Place, ...] = ()

    @property
    def attribute(self) -> str:
        """The number that it compares."""
        return "year" if self.word in {"older", "newer"} else "price"


@dataclass(frozen=True)
class Pointer:
    """A reference into what was shown: the `number`-th (from 0, or −1), all of it, "it", or the one that fits.

    `but` is what "all" leaves out. `open`: it says "everything", which is the list where what is left out is of it.
    """

    place: Place
    kind: Literal["number", "all", "it", "other", "value", "span", "oldest", "newest"]
    number: int = 0
    value: Value | None = None
    span: Span | None = None
    feeling: Feeling = "named"
    but: tuple[Title | Pointer, ...] = ()
    open: bool = False


@dataclass(frozen=True)
class Reading:
    """Everything that was understood of a message. `unknown` are titles that the catalogue does not have."""

    titles: tuple[Title, ...] = ()
    asked: tuple[Asked, ...] = ()
    ranges: tuple[Range, ...] = ()
    pointers: tuple[Pointer, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    relaxed: tuple[str, ...] = ()  # attributes of which any value will do: "any year"
    intents: frozenset[str] = frozenset()
    unknown: tuple[str, ...] = ()
    questioned: tuple[Place, ...] = ()  # values and ranges of "is _ a comedy?", which are no wishes
    refused: tuple[Place, ...] = ()  # items right behind a "not"
    corrected: tuple[Place, ...] = ()  # items that were meant before: "sorry, _", "I meant _", "not _, _"
    unjudged: tuple[str, ...] = ()  # words such as "slower", which no attribute can answer
