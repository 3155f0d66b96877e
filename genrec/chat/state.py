"""What a conversation remembers: plain values that go to JSON and back without loss.

Items are named by `item_id`, so that a state outlives a catalogue that changes. Nothing here looks at a catalogue.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from genrec.config import Config


class Wish(Config):
    """An attribute that is asked for: an item has to have one of `values`."""

    attribute: str
    values: tuple[str, ...]


class Span(Config):
    """A range of a number, such as the year; None is an open end, both ends are included."""

    attribute: str
    low: float | None = None
    high: float | None = None


class Constraints(Config):
    """What every item must satisfy: all of `wanted`, none of `unwanted`, inside all `spans`, in none of `outside`."""

    wanted: tuple[Wish, ...] = ()
    unwanted: tuple[Wish, ...] = ()
    spans: tuple[Span, ...] = ()
    outside: tuple[Span, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether nothing is asked for."""
        return not (self.wanted or self.unwanted or self.spans or self.outside)


class Question(Config):
    """What the conversation asked and waits for: which of `item_ids` was meant, said with this `feeling`.

    `waiting` are questions of the same kind that come after this one. `intent`: what was asked about it, with the names
    of `Reading.intents`. `repeated`: it was asked again, as nobody answered.
    """

    item_ids: tuple[str, ...]
    feeling: Literal["liked", "disliked", "seen", "unseen", "seed", "named", "cleared"]
    waiting: tuple[Question, ...] = ()
    intent: Literal["", "facts", "why"] = ""
    repeated: bool = False


class Told(Config):
    """What the last message said of items, which the next one may correct: with which `feeling`, and of which list.

    `intent`: what it asked about them, as in `Question`.
    """

    item_ids: tuple[str, ...]
    feeling: Literal["liked", "disliked", "seen", "unseen", "seed", "named", "cleared"]
    slate: tuple[str, ...] = ()
    intent: Literal["", "facts", "why"] = ""


class ChatState(Config):
    """The whole memory of one conversation."""

    history: tuple[str, ...] = ()  # what the user had used before the conversation, oldest first
    liked: tuple[str, ...] = ()
    disliked: tuple[str, ...] = ()
    seen: tuple[str, ...] = ()
    seeds: tuple[str, ...] = ()  # "something like …": what recommendations start from now
    constraints: Constraints = Constraints()
    shown: tuple[str, ...] = ()  # every item that was recommended so far
    slate: tuple[str, ...] = ()  # the last list, in its order: what "the second one" points at
    focus: str | None = None  # what "it" points at
    basis: tuple[str, ...] = ()  # the items that the last list was ranked after: what "why?" speaks of
    asked: tuple[str, ...] = ()  # questions that were put to the user
    question: Question | None = None
    told: Told | None = None
    turns: int = 0

    def judge(self, item_ids: Iterable[str], feeling: Literal["liked", "disliked", "seen", "cleared"]) -> ChatState:
        """The state after an opinion about items; the newest one counts. `cleared` takes an opinion back."""
        told = tuple(dict.fromkeys(item_ids))
        kept = {
            name: tuple(item for item in getattr(self, name) if item not in told)
            for name in ("liked", "disliked", "seen")
        }
        if feeling != "cleared":
            kept[feeling] = (*kept[feeling], *told)
        seeds = tuple(item for item in self.seeds if item not in told or feeling != "disliked")
        return self.model_copy(update={**kept, "seeds": seeds})
