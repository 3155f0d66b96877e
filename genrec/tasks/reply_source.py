"""The source that teaches the words before a list: a plan in lines, and sentences with slots in place of titles.

The first sentence says what was asked for and started from, a second one a fact of the first item; so both can be
checked against the plan. The phrases are data (`prompts/messages_en.yaml`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from genrec.tasks.data import TaskData
from genrec.tasks.messages import Messages, drawn_rows, spoken_values, year_range
from genrec.tasks.phrases import Phrases, load_phrases, phrases_folder
from genrec.tasks.rendering import FieldKinds
from genrec.tasks.sources import Record, Source
from genrec.tasks.turn_text import SEED_MARKS, plan_text

MESSAGES, REPLY_WORDS = "messages", "reply_words"
_TOPICS = ("list", "list", "more", "surprise")
_MOST_FACTS = 4


def conversation_sources(folders: Sequence[Path]) -> Mapping[str, Callable[[TaskData], Source]]:
    """The sources of a conversation's tasks, with the phrases of the last folder that has some.

    Raises ConfigError where the phrases are wrong.
    """
    folder = phrases_folder(list(folders))
    if folder is None:
        return {}
    phrases = load_phrases(folder)
    return {MESSAGES: partial(Messages, phrases), REPLY_WORDS: partial(ReplyWords, phrases)}


class ReplyWords:
    """Words before a list, one drawn plan per item: `plan` and `told`."""

    def __init__(self, phrases: Phrases, data: TaskData) -> None:
        self.kinds: FieldKinds = {"plan": "text", "told": "text"}
        self._phrases, self._data = phrases, data
        self._values = spoken_values(data)
        self._years = year_range(data)

    def __len__(self) -> int:
        return len(self._data.items)

    def record(self, key: int, rng: np.random.Generator, max_history: int) -> Record:
        """Plan `key`: its list begins with item `key`. See `Source.record`."""
        rows = drawn_rows(self._data, key, rng)
        topic, wishes = _TOPICS[int(rng.integers(len(_TOPICS)))], self._wishes(rng)
        seeds = int(rng.choice([0, 1, 2], p=[0.6, 0.3, 0.1]))
        facts = [self._facts(row) for row in rows]
        plan = plan_text(topic=topic, wishes=wishes, seeds=seeds, facts=[", ".join(fact) for fact in facts])
        marks = " and ".join(f"[{mark}]" for mark in SEED_MARKS[:seeds])
        told = self._drawn(topic, rng)
        told = told.replace("{from}", f" starting from {marks}" if seeds else "")
        told = told.replace("{wishes}", f" ({'; '.join(wishes)})" if wishes else "")
        if facts[0] and rng.random() < 0.5:
            fact = facts[0][int(rng.integers(len(facts[0])))]
            said = self._drawn("fact", rng).replace("{fact}", f"from {fact}" if fact.isdigit() else fact)
            told = f"{re.sub(':$', '.', told)} {said}"
        return Record({"plan": plan, "told": told}, rows)

    def _drawn(self, kind: str, rng: np.random.Generator) -> str:
        ways = self._phrases.replies[kind]
        return ways[int(rng.integers(len(ways)))]

    def _wishes(self, rng: np.random.Generator) -> list[str]:
        names = list(self._values)
        size = int(rng.integers(0, min(3, len(names) + 1)))
        drawn = [names[int(place)] for place in rng.choice(len(names), size, replace=False)] if size else []
        wishes = [f"no {name}" if rng.random() < 0.35 else name for name in drawn]
        if self._years is not None and rng.random() < 0.35:
            low, high = sorted(int(year) for year in rng.integers(*self._years, size=2))
            ways = [f"from {low} to {high}", f"{low} or later", f"{high} or earlier", f"from {low}"]
            wishes.append(ways[int(rng.integers(len(ways)))])
        return wishes

    def _facts(self, row: int) -> list[str]:
        year = self._data.catalog.table["year"][row] if self._years is not None else None
        values = [one.value for one in self._data.attributes[row] if one.value in self._values]
        return [*([] if year is None else [str(year)]), *values[:_MOST_FACTS]]
