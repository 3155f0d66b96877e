"""Scripted conversations: what a user says, and what must and must not hold after each turn.

A script is YAML (`eval/conversations/*.yaml`); it names items by title, or by their place in the latest list before the
turn: `#1` is its first, `#-1` its last, for every model has lists of its own. Whatever a script expects, every turn is
also held to what may never break: items exist, satisfy the filters, were not shown before and are not disliked,
and titles stand in item slots only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import Field

from genrec.chat.catalogue_index import CatalogueIndex
from genrec.chat.filters import constraint_mask, constraint_words
from genrec.chat.state import ChatState
from genrec.chat.turn import ChatTurn, Dialogue
from genrec.chat.words import words_of
from genrec.config import Config, build_config, read_values
from genrec.errors import ConfigError


class Expectation(Config):
    """One turn: what is said, and what has to be true of the reply and of the state after it."""

    say: str
    act: str | None = None
    count: int | None = Field(None, description="items recommended")
    every: dict[str, str | int] = Field(default_factory=dict, description="what every item has")
    none: dict[str, str | int] = Field(default_factory=dict, description="what no item has")
    years: tuple[int, int] | None = Field(None, description="every item is of these years")
    excludes: tuple[str, ...] = Field((), description="titles that are not recommended")
    says: tuple[str, ...] = Field((), description="words of the reply")
    silent: tuple[str, ...] = Field((), description="words that the reply does not hold")
    liked: tuple[str, ...] | None = None
    disliked: tuple[str, ...] | None = None
    seen: tuple[str, ...] | None = None
    filters: tuple[str, ...] | None = None
    seeds: tuple[str, ...] | None = None


class Script(Config):
    """A conversation: who speaks, and the turns."""

    name: str
    history: tuple[str, ...] = ()
    turns: tuple[Expectation, ...] = Field(min_length=1)


def load_scripts(path: Path) -> list[Script]:
    """The conversations of a YAML file. Raises ConfigError naming the file and what is wrong."""
    values = read_values(path, fix="Expected a file with a list of conversations.")
    if not isinstance(values, list):
        raise ConfigError(f"{path} holds no list.", "Expected a list of conversations.")
    return [build_config(Script, value, source=f"{path.name}, conversation {n}") for n, value in enumerate(values, 1)]


def play(dialogue: Dialogue, script: Script) -> list[str]:
    """Hold the conversation; everything that does not hold, one sentence each. Empty: it passed."""
    history = tuple(dialogue.index.catalog.item_ids[_row(dialogue.index, title)] for title in script.history)
    state, latest = ChatState(history=history), tuple[str, ...]()
    problems: list[str] = []
    for number, expected in enumerate(script.turns, start=1):
        before = state
        turn = dialogue.turn(state, expected.say)
        state = ChatState.model_validate_json(turn.state.model_dump_json())  # what is kept is all there is
        found = [*_always(dialogue, before, turn), *_expected(dialogue, expected, turn, latest)]
        latest = turn.item_ids or latest
        problems += [f"{script.name}, turn {number} ({expected.say!r}): {problem}" for problem in found]
    return problems


def _always(dialogue: Dialogue, before: ChatState, turn: ChatTurn) -> Iterator[str]:
    catalog, state = dialogue.index.catalog, turn.state
    known = catalog.index
    if strangers := [item for item in turn.item_ids if item not in known]:
        yield f"items that do not exist: {strangers}"
    if len(set(turn.item_ids)) < len(turn.item_ids):
        yield "the same item twice"
    if again := set(turn.item_ids) & {*before.shown, *state.disliked, *state.seen, *state.liked, *state.history}:
        yield f"shown before, or already judged: {sorted(again)}"
    mask = constraint_mask(dialogue.index, state.constraints)
    if outside := [item for item in turn.item_ids if not mask[known[item]]]:
        yield f"against the filters: {outside}"
    slots = [part for part in turn.segments if part.item_id is not None]
    if wrong := [part.text for part in slots if part.text != catalog.titles[known[str(part.item_id)]]]:
        yield f"slots with another title: {wrong}"


def _expected(dialogue: Dialogue, expected: Expectation, turn: ChatTurn, latest: Sequence[str]) -> Iterator[str]:
    index, state, text = dialogue.index, turn.state, turn.text.casefold()
    rows = [index.catalog.index[item] for item in turn.item_ids]
    if expected.act is not None and turn.act != expected.act:
        yield f"act {turn.act}, expected {expected.act}: {turn.text[:80]!r}"
    if expected.count is not None and len(rows) != expected.count:
        yield f"{len(rows)} items, expected {expected.count}"
    for name, value in expected.every.items():
        if without := [row for row in rows if not _has(index, row, name, value)]:
            yield f"without {name} {value}: {_titles(index, without)}"
    for name, value in expected.none.items():
        if having := [row for row in rows if _has(index, row, name, value)]:
            yield f"with {name} {value}: {_titles(index, having)}"
    if expected.years is not None:
        low, high = expected.years
        if outside := [row for row in rows if not low <= (index.year(row) or 0) <= high]:
            yield f"not of {low} to {high}: {_titles(index, outside)}"
    titles = {index.catalog.titles[row] for row in rows}
    if recommended := titles & set(expected.excludes):
        yield f"recommends {sorted(recommended)}"
    yield from (f"does not say {word!r}: {turn.text[:120]!r}" for word in expected.says if word.casefold() not in text)
    yield from (f"says {word!r}" for word in expected.silent if word.casefold() in text)
    if expected.filters is not None and sorted(constraint_words(state.constraints)) != sorted(expected.filters):
        yield f"filters {constraint_words(state.constraints)}, expected {list(expected.filters)}"
    for name in ("liked", "disliked", "seen", "seeds"):
        named: Sequence[str] | None = getattr(expected, name)
        held = {index.catalog.titles[index.catalog.index[item]] for item in getattr(state, name)}
        wanted = None if named is None else {_title(index, one, latest) for one in named}
        if wanted is not None and held != wanted:
            yield f"{name} {sorted(held)}, expected {sorted(wanted)}"


def _has(index: CatalogueIndex, row: int, name: str, value: str | int) -> bool:
    if name in index.numbers:
        return bool(index.numbers[name][row] == value)
    return str(value) in index.columns[name][row]


def _titles(index: CatalogueIndex, rows: Sequence[int]) -> list[str]:
    return [index.catalog.titles[row] for row in rows]


def _title(index: CatalogueIndex, name: str, latest: Sequence[str]) -> str:
    """The title that a script means: itself, or that of a place in the latest list."""
    if (place := re.fullmatch(r"#(-?[1-9]\d*)", name)) is None:
        return name
    number = int(place[1])
    if abs(number) > len(latest):
        raise ConfigError(f"there is no place {name} in a list of {len(latest)}.", "Name a place of the list before.")
    return index.catalog.titles[index.catalog.index[latest[number - (number > 0)]]]


def _row(index: CatalogueIndex, title: str) -> int:
    rows = index.names.get(words_of(title), ())
    if not rows:
        raise ConfigError(f"no item is called {title!r}.", "A script names items as the catalogue does.")
    return rows[0]
