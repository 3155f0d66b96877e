"""Where the fields of templates get their values: `source: items` in a file of `prompts/` names a class of this list.

A source knows how many things it can tell of and makes a `Record` of one of them. A record names every item that it
shows and the user whose history it tells of, so that `leaks.py` can check it. Histories come oldest first and are cut
at their old end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from genrec.tasks.data import TaskData
from genrec.tasks.rendering import Codes, FieldKinds, Value

_WHOLE = 20  # items of a history that is told from its end; of a longer one a piece is drawn
HISTORIES = "histories"  # whole histories, every position a target: made by `examples.history_examples`


@dataclass(frozen=True)
class Record:
    """Values of fields, those that are there; `items` are all that they show, `user` as in `Example`."""

    values: Mapping[str, Value]
    items: tuple[int, ...] = ()
    user: int = -1


class Source(Protocol):
    """What a task's templates are filled from."""

    @property
    def kinds(self) -> FieldKinds:
        """The fields that it has here."""
        ...

    def __len__(self) -> int:
        """How many things it can tell of; a pass tells of each once."""
        ...

    def record(self, key: int, rng: np.random.Generator, max_history: int) -> Record | None:
        """The record of thing `key` with at most `max_history` items of a history; None where there is nothing to say.

        The same generator state gives the same thing, told with a shorter history where `max_history` is smaller.
        """
        ...


class Items:
    """Every item by itself: `item` (its ID), `title`, `attributes` (in words), and every column of the catalogue."""

    def __init__(self, data: TaskData) -> None:
        self._data = data
        self.kinds: FieldKinds = {"item": "items", "attributes": "text"} | dict.fromkeys(data.columns, "text")

    def __len__(self) -> int:
        return len(self._data.items)

    def record(self, key: int, rng: np.random.Generator, max_history: int) -> Record:
        """Item `key`. See `Source.record`."""
        item = int(self._data.items[key])
        values: dict[str, Value] = {name: cells[item] for name, cells in self._data.cells.items() if cells[item]}
        if self._data.attributes[item]:
            values["attributes"] = ", ".join(attribute.value for attribute in self._data.attributes[item])
        return Record({**values, "item": self._data.codes([item])}, (item,))


class Prefixes:
    """Beginnings of IDs that several items share: `prefix` (without the last levels) and `theme`, what is common.

    The theme names the attributes that are most overrepresented under the prefix, at most three.
    """

    _MIN_ITEMS = 3

    def __init__(self, data: TaskData) -> None:
        self.kinds: FieldKinds = {"prefix": "items", "theme": "text"}
        self._known = [
            (prefix, theme)
            for length in range(1, data.item_tokens.shape[1])
            for prefix, theme in _themes(data, length, self._MIN_ITEMS)
        ]

    def __len__(self) -> int:
        return len(self._known)

    def record(self, key: int, rng: np.random.Generator, max_history: int) -> Record:
        """Prefix `key`. See `Source.record`."""
        prefix, theme = self._known[key]
        return Record({"prefix": prefix, "theme": theme})


class Texts:
    """Words alone: `text`, a description of an item, a review of a training interaction, or text at hand."""

    _WORDS_PER_ITEM = 3  # of a description: whole wherever histories are not very short

    def __init__(self, data: TaskData) -> None:
        self.kinds: FieldKinds = {"text": "text"}
        self._descriptions = data.cells.get("description", [])
        self._items = [int(item) for item in data.items if self._descriptions and self._descriptions[item]]
        self._reviews, self._replay = data.reviews, data.replay

    def __len__(self) -> int:
        return len(self._items) + len(self._reviews) + len(self._replay)

    def record(self, key: int, rng: np.random.Generator, max_history: int) -> Record:
        """Text `key`; of a long one a piece is drawn. See `Source.record`."""
        # As many words as items would fit: a history that is too long is asked for again with fewer, and so is this.
        if key < len(self._items):
            item, size = self._items[key], self._WORDS_PER_ITEM * max_history
            text = self._descriptions[item]
            return Record({"text": text if len(text.split()) <= size else _piece(text, size, rng)}, (item,))
        key -= len(self._items)
        if key < len(self._reviews):
            review = self._reviews[key]
            return Record({"text": _piece(review.text, max_history, rng)}, (review.item,), review.user)
        return Record({"text": _piece(self._replay[key - len(self._reviews)], max_history, rng)})


class Interleaved:
    """Histories in which every item is told in both languages: `steps`, each with `item`, `title`, `attributes`."""

    def __init__(self, data: TaskData) -> None:
        self.kinds: FieldKinds = {"steps": {"item": "items", "title": "text", "attributes": "text"}}
        self._data = data

    def __len__(self) -> int:
        return len(self._data.sequences)

    def record(self, key: int, rng: np.random.Generator, max_history: int) -> Record:
        """A drawn piece of the history of user `key`. See `Source.record`."""
        history = self._data.sequences[key]
        end = drawn_end(len(history), rng)
        window = [int(item) for item in history[max(0, end - max_history) : end]]
        steps: list[dict[str, Value]] = [
            {
                "item": self._data.codes([item]),
                "title": self._data.catalog.worded_titles[item],
                "attributes": ", ".join(attribute.value for attribute in self._data.attributes[item]),
            }
            for item in window
        ]
        return Record({"steps": steps}, tuple(window), key)


def drawn_end(length: int, rng: np.random.Generator) -> int:
    """Where a piece of a history of `length` ends: of a long one anywhere.

    It does not depend on how long the piece may be: one that is too long is asked for again, and its oldest items go.
    """
    return length if length <= _WHOLE else int(rng.integers(1, length + 1))


def _piece(text: str, num_words: int, rng: np.random.Generator) -> str:
    """So many words of a text, from a drawn place on; all of a short one."""
    words = text.split()
    start = int(rng.integers(0, max(1, len(words) - num_words + 1)))
    return " ".join(words[start : start + num_words])


def _themes(data: TaskData, length: int, min_items: int) -> list[tuple[Value, str]]:
    members: dict[tuple[int, ...], list[int]] = {}
    for item in data.items:
        members.setdefault(tuple(data.item_tokens[item, :length].tolist()), []).append(int(item))
    found: list[tuple[Value, str]] = []
    for prefix, items in sorted(members.items()):
        counts = Counter(attribute for item in items for attribute in data.attributes[item])
        shares = {a: count / len(items) for a, count in counts.items() if 2 * count >= len(items)}
        lifts = sorted(shares, key=lambda a: (-shares[a] / data.popularity[a], a.column, a.value))
        if len(items) >= min_items and lifts:
            found.append((Codes(prefix), ", ".join(attribute.value for attribute in lifts[:3])))
    return found
