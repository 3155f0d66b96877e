"""The source that tells of real dialogues: what somebody recommended after what had been said and mentioned.

Only dialogues of the training part are here, and of their items only those that training may speak of.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from genrec.errors import DataError
from genrec.tasks.data import TaskData
from genrec.tasks.rendering import FieldKinds, Value
from genrec.tasks.sources import Record
from genrec.tasks.titles import holds_title

_LAST_LINES = 2  # of what was said: what is asked for stands there
_LEAST_WORDS = 8


class Dialogues:
    """One thing per item that a turn recommends, after what was said and mentioned before it.

    `history` (IDs) and `history_titles` of what was mentioned, where something was; `request`, the end of what was
    said, where it does not hold the title, nor that of an item with the same ID, nor that of an item that was named and
    that training may not speak of; `item` (ID), `title`; `named`, all IDs of the dialogue up to the item.
    """

    def __init__(self, data: TaskData) -> None:
        """Raises DataError where the run has no dialogues that training may speak of."""
        self.kinds: FieldKinds = {
            "history": "items",
            "history_titles": "text",
            "request": "text",
            "item": "items",
            "title": "text",
            "named": "items",
        }
        self._data = data
        self._turns = data.dialogues()
        self._known = [
            (row, item) for row, turn in enumerate(self._turns) for item in turn.recommended if data.warm[item]
        ]
        if not self._known:
            raise DataError(
                "this run has no dialogues to train on.", "Run `genrec dialogues RUN FILE`, or leave the task out."
            )

    def __len__(self) -> int:
        return len(self._known)

    def record(self, key: int, rng: np.random.Generator, max_history: int) -> Record:
        """Recommendation `key`; what was said is cut with the history. See `Source.record`."""
        data, (row, item) = self._data, self._known[key]
        turn = self._turns[row]
        mentioned = [past for past in turn.mentioned if data.warm[past]][-max_history:]
        values = said_fields(data, turn.context, mentioned, max_words=max(_LEAST_WORDS, max_history))
        named = (*turn.mentioned, *turn.recommended)
        secret = [*data.titles_of_id(item), *(data.catalog.titles[one] for one in named if not data.warm[one])]
        if any(holds_title(str(values.get("request", "")), title) for title in secret):
            del values["request"]
        values |= {
            "item": data.codes([item]),
            "named": data.codes([*mentioned, item]),
        }
        if title := data.catalog.worded_titles[item]:
            values["title"] = title
        return Record(values, (*mentioned, item))


def said_fields(
    data: TaskData, context: Sequence[str], mentioned: Sequence[int], *, max_words: int
) -> dict[str, Value]:
    """What is known before a turn: the end of what was said, and what was mentioned; those fields that are there."""
    values: dict[str, Value] = {}
    if mentioned:
        values["history"] = data.codes(mentioned)
        values |= data.titles(mentioned)
    words = " ".join(context[-_LAST_LINES:]).split()
    if words:
        values["request"] = " ".join(words[-max_words:])
    return values
