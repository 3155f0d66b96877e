"""The source that teaches to read a message: clauses put together, and what they mean.

What a message means is known because it was made from that: clauses of one act, values of the catalogue in their own
or everyday words, sometimes a letter off, marks where titles stand, places of the last list. Nothing comes from a
user's history. The phrases are data (`prompts/messages_en.yaml`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from genrec.tasks.data import TaskData
from genrec.tasks.phrases import Clause, Phrases
from genrec.tasks.rendering import FieldKinds
from genrec.tasks.sources import Record
from genrec.tasks.turn_text import MAX_SHOWN, TITLE_MARKS, Proposal, state_text

_MOST_VALUES = 400  # different values of a column that is asked for by name
_SLIPS = 0.25  # of the values are a letter off
_PLACES = ("first", "second", "third", "fourth", "fifth")
_FORMS = ("the {} one", "the {} film", "the {}", "your {} suggestion")
_DECADES = {50: "fifties", 60: "sixties", 70: "seventies", 80: "eighties", 90: "nineties"}
_NOISE = """
    lamp green river twelve table quick stone blue paper window seven grass cloud button rope salt
"""
_WISHES = ("want", "avoid", "years", "liked", "disliked", "seen", "like", "other")
_CHANCES = (4.0, 2.0, 2.0, 3.0, 2.0, 1.0, 1.5, 2.5)
_LINKS = (", ", ". ", " and ", " but ")
_ENDS = ("", ".", "!", "?", ", please")


@dataclass(frozen=True)
class Lesson:
    """A message and what it means. `shown` are rows of the last list; titles in the message are marks."""

    message: str
    proposal: Proposal
    shown: tuple[int, ...] = ()
    told: bool = True
    asked: str = ""


class Messages:
    """One message per item of the catalogue, drawn anew each time: `state`, `message` and `proposal`."""

    def __init__(self, phrases: Phrases, data: TaskData, *, held_out: bool = False) -> None:
        """`held_out` puts messages together from the phrases that are never trained on."""
        self.kinds: FieldKinds = dict.fromkeys(("state", "message", "proposal"), "text")
        self._phrases, self._data, self._held_out = phrases, data, held_out
        self._values = spoken_values(data)
        self._years = year_range(data)

    def __len__(self) -> int:
        return len(self._data.items)

    def record(self, key: int, rng: np.random.Generator, max_history: int) -> Record:
        """Message `key`; the last list, where there is one, begins with item `key`. See `Source.record`."""
        lesson = self.lesson(key, rng)
        titles = [self._data.catalog.titles[row] for row in lesson.shown]
        values = {
            "state": state_text(asked=lesson.asked, told=lesson.told, shown=titles),
            "message": lesson.message,
            "proposal": lesson.proposal.text(),
        }
        return Record(values, lesson.shown)

    def lesson(self, key: int, rng: np.random.Generator) -> Lesson:
        """A message and what it means; the same generator state gives the same one."""
        shown = drawn_rows(self._data, key, rng) if rng.random() < 0.4 else ()
        told = bool(shown) or rng.random() < 0.5
        asked = "" if told or rng.random() < 0.6 else "opener"
        maker = _Maker(self._phrases, self._values, self._years, len(shown), held_out=self._held_out, rng=rng)
        chance = rng.random()
        if chance < 0.62:
            message, meaning = maker.wishes(told=told, asked=asked)
        elif chance < 0.74:
            message, meaning = maker.one("explain", "explain")
        elif chance < 0.86:
            message, meaning = maker.one("profile" if rng.random() < 0.3 else "facts", "answer")
        elif chance < 0.94:
            kind: Clause = "hello" if rng.random() < 0.3 else "thanks" if rng.random() < 0.6 else "help"
            message, meaning = maker.one(kind, "ask" if kind == "hello" else "chat")
        else:  # what means nothing is asked back
            words = rng.choice(_NOISE.split(), int(rng.integers(1, 6))).tolist()
            message, meaning = maker.joined([" ".join(words)]), Proposal("ask")
        return Lesson(message, meaning, shown, told, asked)


class _Maker:
    """Puts one message together. `num_shown` items can be pointed at; `years` are the first and the last."""

    def __init__(
        self,
        phrases: Phrases,
        values: Mapping[str, Sequence[str]],
        years: tuple[int, int] | None,
        num_shown: int,
        *,
        held_out: bool,
        rng: np.random.Generator,
    ) -> None:
        self._phrases, self._held_out = phrases, held_out
        self._values, self._years, self._num_shown, self._rng = values, years, num_shown, rng
        self._marks = iter(TITLE_MARKS)

    def one(self, kind: Clause, act: str) -> tuple[str, Proposal]:
        """A message of one clause."""
        said = self._said(kind)
        names: tuple[str, ...] = ()
        if "{item}" in said:
            words, names = self._items(most=1)
            said = said.replace("{item}", words)
        return self.joined([said]), Proposal(act, about=names)

    def wishes(self, *, told: bool, asked: str) -> tuple[str, Proposal]:
        """One to three clauses of what is liked and wanted; a bare request where nothing is known asks back."""
        chances = np.array(_CHANCES)
        chances[:2] *= bool(self._values)
        chances[2] *= self._years is not None
        size = int(self._rng.choice([1, 2, 3], p=[0.5, 0.35, 0.15]))
        drawn = self._rng.choice(len(_WISHES), size, replace=False, p=chances / chances.sum())
        parts, meaning = [], Proposal("recommend")
        for place in drawn.tolist():
            words, meaning = self._clause(_WISHES[place], meaning)
            parts.append(words)
        if meaning == Proposal("recommend") and not told and asked != "opener":
            meaning = Proposal("ask")
        return self.joined(parts), meaning

    def joined(self, parts: Sequence[str]) -> str:
        """Clauses as a person would type them in a row."""
        text = parts[0]
        for part in parts[1:]:
            text += _LINKS[int(self._rng.choice(len(_LINKS), p=[0.5, 0.25, 0.15, 0.1]))] + part
        text = text[0].upper() + text[1:] if self._rng.random() < 0.5 else text
        return text + _ENDS[int(self._rng.choice(len(_ENDS), p=[0.5, 0.25, 0.1, 0.1, 0.05]))]

    def _clause(self, group: str, meaning: Proposal) -> tuple[str, Proposal]:
        taken = (*meaning.want, *meaning.avoid)
        if group in ("want", "avoid") and set(self._values) <= set(taken):  # a catalogue of one or two values
            return self._said("request"), meaning
        if group in ("want", "avoid"):
            words, names = self._value_words(taken=taken)
            said = self._said(group).replace("{value}", words)
            return said, replace(meaning, **{group: names})  # type: ignore[arg-type]
        if group == "years":
            said, years = self._range()
            return said, replace(meaning, years=years)
        if group == "other":
            kind: Clause = ("request", "more", "surprise")[int(self._rng.integers(3))]
            return self._said(kind), meaning if kind == "request" else replace(meaning, also=kind)
        words, names = self._items(most=2)
        said = self._said(group).replace("{item}", words)
        return said, replace(meaning, **{group: names})  # type: ignore[arg-type]

    def _said(self, kind: str) -> str:
        told = self._phrases.clauses[kind]  # type: ignore[index]
        ways = told.held_out if self._held_out else told.said
        return ways[int(self._rng.integers(len(ways)))]

    def _items(self, *, most: int) -> tuple[str, tuple[str, ...]]:
        """Marks, or a place of the last list, in words and as they are proposed."""
        if self._num_shown and self._rng.random() < 0.5:
            place = int(self._rng.integers(self._num_shown))
            form = _FORMS[int(self._rng.integers(len(_FORMS)))]
            return form.format(_PLACES[place]), (str(place + 1),)
        marks = [f"[{next(self._marks)}]" for _ in range(int(self._rng.integers(1, most + 1)))]
        return " and ".join(marks), tuple(marks)

    def _value_words(self, *, taken: Sequence[str]) -> tuple[str, tuple[str, ...]]:
        free = [name for name in self._values if name not in taken]
        size = 1 if self._rng.random() < 0.75 or len(free) < 2 else 2
        names = [free[int(place)] for place in self._rng.choice(len(free), size, replace=False)]
        words = []
        for name in names:
            ways = [*self._values[name], *self._phrases.spoken.get(name, ())]
            said = ways[int(self._rng.integers(len(ways)))]
            words.append(slipped(said, self._rng) if self._rng.random() < _SLIPS else said)
        return (" or " if self._rng.random() < 0.5 else " and ").join(words), tuple(names)

    def _range(self) -> tuple[str, str]:
        assert self._years is not None
        first, last = self._years
        kind = ("years_in", "years_before", "years_since", "years_between")[int(self._rng.integers(4))]
        year = int(self._rng.integers(first + 1, last))
        until = int(self._rng.integers(year + 1, last + 1))
        said = self._said(kind).replace("{year}", str(year)).replace("{until}", str(until))
        if kind == "years_in":
            when, years = self._when(year)
            return said.replace("{when}", when), years
        after = "after" in said  # "nothing after 1980": that year is still fine
        ends = {"years_before": f"-{year if after else year - 1}", "years_since": f"{year}-"}
        return said, ends.get(kind, f"{year}-{until}")

    def _when(self, year: int) -> tuple[str, str]:
        decade = year // 10 * 10
        ways = [str(year), f"the {decade}s"]
        if 1950 <= decade < 2000:
            ways += [f"the {decade % 100}s", f"the {_DECADES[decade % 100]}"]
        when = ways[int(self._rng.integers(len(ways)))]
        return when, f"{year}-{year}" if when == str(year) else f"{decade}-{decade + 9}"


def drawn_rows(data: TaskData, key: int, rng: np.random.Generator) -> tuple[int, ...]:
    """Rows of a made-up list: item `key` of the warm ones, then others."""
    size = min(MAX_SHOWN, len(data.items))
    others = rng.choice(data.items, size, replace=False).tolist()
    return tuple(dict.fromkeys([int(data.items[key]), *map(int, others)]))[:size]


def spoken_values(data: TaskData) -> dict[str, tuple[str, ...]]:
    """Values that are asked for by name → how they are said: those of lists with few different values."""
    table = data.catalog.table
    listed = [name for name in data.columns if isinstance(table[name].dtype, pl.List)]
    counts = {name: len({a.value for a in data.popularity if a.column == name}) for name in listed}
    names = [name for name in listed if 1 < counts[name] <= _MOST_VALUES]
    found = sorted({a.value for a in data.popularity if a.column in names and re.search("[A-Za-z]{3}", a.value)})
    return {value: _ways(value) for value in found}


def year_range(data: TaskData) -> tuple[int, int] | None:
    """First and last year of the warm items; None where there are no three."""
    table = data.catalog.table
    if "year" not in table.columns or not table["year"].dtype.is_numeric():
        return None
    cells = table["year"].to_list()
    years = [int(cells[row]) for row in data.items.tolist() if cells[row] is not None]
    return (min(years), max(years)) if years and max(years) - min(years) > 1 else None


def slipped(words: str, rng: np.random.Generator) -> str:
    """A word with a letter left out, doubled or exchanged with the next, not the first. Short words and two stay."""
    if len(words) < 5 or " " in words:
        return words
    place = int(rng.integers(1, len(words) - 1))
    kind = int(rng.integers(3))
    if kind == 0:
        return words[:place] + words[place + 1 :]
    if kind == 1:
        return words[:place] + words[place] + words[place:]
    return words[:place] + words[place + 1] + words[place] + words[place + 2 :]


def _ways(value: str) -> tuple[str, ...]:
    words = value.lower().replace("-", " ")
    plural = words[:-1] + "ies" if words.endswith("y") else words + "s"
    return (words, words, plural)
