"""Sources that tell of training histories: what came next and why, and what somebody likes.

N training interactions that have another before them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from genrec.data.sequences import Sequences
from genrec.tasks.data import Attribute, TaskData
from genrec.tasks.rendering import FieldKinds, Value
from genrec.tasks.sources import Record, drawn_end
from genrec.tasks.titles import holds_title

_MOST_REQUESTED = 3  # attributes of a request
_EXCERPT_WORDS = 8


class TrainingSteps:
    """Training interactions that have another before them, by number: N."""

    def __init__(self, sequences: Sequences) -> None:
        lengths = np.diff(sequences.offsets)
        self._sequences = sequences
        self._users = np.repeat(np.arange(len(lengths)), np.maximum(0, lengths - 1))  # (N,)
        self._starts = np.concatenate([[0], np.cumsum(np.maximum(0, lengths - 1))])  # (U + 1,)

    def __len__(self) -> int:
        return len(self._users)

    def step(self, key: int, max_history: int) -> tuple[int, list[int], int]:
        """Of interaction `key`: the user as a row of the sequences, the newest items before it, its item."""
        user = int(self._users[key])
        place = 1 + key - int(self._starts[user])
        taken = self._sequences[user]
        return user, [int(item) for item in taken[max(0, place - max_history) : place]], int(taken[place])


class NextItems:
    """What a user took next, one thing per training interaction that has a history.

    `history` (IDs), `history_titles`; `item` (ID), `title`, `attributes` of what came next; `attribute`, one of them;
    `request`, words that somebody who looks for it could say and that never hold its full title, nor that of an item
    with the same ID; `because` and `because_item`, something in the history that shares `shared`, the rarest attribute
    that anything there shares.
    """

    def __init__(self, data: TaskData) -> None:
        self.kinds: FieldKinds = {
            "history": "items",
            "history_titles": "text",
            "item": "items",
            "title": "text",
            "attributes": "text",
            "attribute": "text",
            "request": "text",
            "because": "text",
            "because_item": "items",
            "shared": "text",
        }
        self._data = data
        self._steps = TrainingSteps(data.sequences)

    def __len__(self) -> int:
        return len(self._steps)

    def record(self, key: int, rng: np.random.Generator, max_history: int) -> Record:
        """Interaction `key`. See `Source.record`."""
        data = self._data
        user, history, item = self._steps.step(key, max_history)
        values: dict[str, Value] = {
            "history": data.codes(history),
            "item": data.codes([item]),
            **data.titles(history),
        }
        if title := data.catalog.worded_titles[item]:
            values["title"] = title
        own = data.attributes[item]
        if own:
            values["attributes"] = ", ".join(attribute.value for attribute in own)
            values["attribute"] = own[int(rng.integers(len(own)))].value
        request = self._request(item, rng)
        if request:
            values["request"] = request
        values |= self._evidence(item, history)
        return Record(values, (*history, item), user)

    def _request(self, item: int, rng: np.random.Generator) -> str:
        """A few attributes and, half of the time, words of the description; empty where they would give the title."""
        own = self._data.attributes[item]
        size = int(rng.integers(1, _MOST_REQUESTED + 1))
        chosen = rng.permutation(len(own))[:size]
        parts = [own[int(place)].value for place in chosen]
        described = self._data.cells.get("description", [])
        if described and described[item] and rng.random() < 0.5:
            words = described[item].split()
            start = int(rng.integers(0, max(1, len(words) - _EXCERPT_WORDS + 1)))
            parts.append(" ".join(words[start : start + _EXCERPT_WORDS]).strip(".,;:!? "))
        request = ", ".join(parts)
        return "" if any(holds_title(request, title) for title in self._data.titles_of_id(item)) else request

    def _evidence(self, item: int, history: Sequence[int]) -> dict[str, Value]:
        data = self._data
        shared = [(data.popularity[a], past, a) for past in history for a in data.attributes[past]]
        own = set(data.attributes[item])
        # The rarest says the most; of equals the newest of the history.
        best = min(
            ((count, -place, past, a) for place, (count, past, a) in enumerate(shared) if a in own),
            key=lambda entry: entry[:2],
            default=None,
        )
        if best is None:
            return {}
        _, _, past, attribute = best
        found: dict[str, Value] = {"because_item": data.codes([past]), "shared": attribute.value}
        title = data.catalog.worded_titles[past]
        return found | {"because": title} if title else found


class Preferences:
    """What a user likes: `history` (IDs), `history_titles`, and `summary`, its most frequent attributes with counts."""

    _MOST = 3
    _MIN_ITEMS = 2

    def __init__(self, data: TaskData) -> None:
        self.kinds: FieldKinds = {"history": "items", "history_titles": "text", "summary": "text"}
        self._data = data

    def __len__(self) -> int:
        return len(self._data.sequences)

    def record(self, key: int, rng: np.random.Generator, max_history: int) -> Record | None:
        """A drawn piece of the history of user `key`. See `Source.record`."""
        data = self._data
        taken = data.sequences[key]
        end = drawn_end(len(taken), rng)
        history = [int(item) for item in taken[max(0, end - max_history) : end]]
        counts = Counter(attribute for item in history for attribute in data.attributes[item])
        ordered = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0].column, entry[0].value))
        often = [(attribute, count) for attribute, count in ordered if count >= self._MIN_ITEMS][: self._MOST]
        if not often:
            return None
        values: dict[str, Value] = {
            "history": data.codes(history),
            **data.titles(history),
            "summary": summary(often, len(history)),
        }
        return Record(values, tuple(history), key)


def summary(counts: Sequence[tuple[Attribute, int]], num_items: int) -> str:
    """Counts of attributes in words: "Comedy (5 of 8), Drama (3 of 8)"."""
    return ", ".join(f"{attribute.value} ({count} of {num_items})" for attribute, count in counts)
