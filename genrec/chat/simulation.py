"""A simulated user who looks for one item that only it knows, and an audit of its words.

The user says what it liked, then what the item is like, one fact a turn, never what it is called; it stops when the
item is shown. Everything that ranks is talked to in the same way, so their success can be compared. The audit reads
the words alone: that the simulator meant well counts for nothing.

I items.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from genrec.chat.catalogue_index import CatalogueIndex
from genrec.chat.filters import span_mask, wish_mask
from genrec.chat.reading import read_message
from genrec.chat.state import ChatState, Wish
from genrec.chat.turn import Dialogue
from genrec.chat.words import quoted_spans, words_of
from genrec.decoding.engine import RankedItem
from genrec.recommender import RankRequest
from genrec.trie import ItemTrie

Ranker = Callable[[RankRequest, int], Sequence[RankedItem]]
_NUM_LIKED = 2
_RARE = 5  # a word in the titles of at most so many items points at them


@dataclass(frozen=True)
class Search:
    """What a simulated user knows: what it took, oldest first, and what it looks for (rows)."""

    history: tuple[int, ...]
    target: int


@dataclass(frozen=True)
class Transcript:
    """What was said and whether it led anywhere: `found` is the turn, from 1, that showed the target, 0 where none."""

    lines: tuple[str, ...]
    found: int


def audit(index: CatalogueIndex, lines: Sequence[str], target: int, *, least: int) -> list[str]:
    """What a user's lines give away of the item `target`, in words; nothing where all is well.

    Its title, or a shorter form of it, must not stand in them; nor a word that only few titles have, its own among
    them, outside of quoted titles; and at least `least` items must fit everything that was asked for, the target too.
    """
    names = {form for table in (index.names, index.aliases) for form, rows in table.items() if target in rows}
    spoken = [words_of(line) for line in lines]
    problems = [
        f"the title stands in {line!r}"
        for line, words in zip(lines, spoken, strict=True)
        if any(_holds(words, form) for form in names)
    ]
    rare = {word for form in names for word in form if index.title_words[word] <= _RARE}
    unquoted = {word for line in lines for word in words_of(_without_quotes(line))}
    problems += [f"“{word}” stands in few titles, and in this one" for word in sorted(rare & unquoted)]
    fits = fitting(index, lines)
    if not fits[target] or int(fits.sum()) < least:
        problems.append(f"what was asked for fits {int(fits.sum())} items")
    return problems


def fitting(index: CatalogueIndex, lines: Sequence[str]) -> NDArray[np.bool_]:
    """Items that fit every wish, refusal and range of the lines together, (I,)."""
    mask = np.ones(len(index.catalog), dtype=np.bool_)
    for line in lines:
        reading = read_message(index, line, has_slate=False)
        for asked in reading.asked:
            has = wish_mask(index, Wish(attribute=asked.value.attribute, values=(asked.value.value,)))
            mask &= ~has if asked.kind == "unwanted" else has
        for found in reading.ranges:
            inside = span_mask(index, found.span)
            mask &= ~inside if found.kind == "unwanted" else inside
    return mask


class SimulatedUser:
    """Decides what to say next. A line that the audit would find fault with is not said."""

    def __init__(self, index: CatalogueIndex, search: Search, *, least: int, rng: np.random.Generator) -> None:
        self._index, self._search, self._least, self._rng = index, search, least, rng
        self.lines: list[str] = []
        self._facts = self._shuffled_facts()

    def opener(self) -> str:
        """The first line: what it liked, the latest items that can be named without giving anything away."""
        titles = self._index.catalog.titles
        liked: list[str] = []
        for row in reversed(self._search.history):
            alone = len(self._index.names.get(words_of(titles[row]), ())) == 1
            named = " and ".join(f"“{title}”" for title in [*liked, titles[row]])
            if alone and len(liked) < _NUM_LIKED and self._may_say(f"Hello, I liked {named}"):
                liked.append(titles[row])
        return self._say(f"Hello, I liked {' and '.join(f'“{title}”' for title in liked)}" if liked else "Surprise me")

    def next_line(self, shown: Sequence[int]) -> str:
        """An untold fact of the target, else a refusal of what shown items have and it has not, or more."""
        while self._facts:
            line = self._facts.pop()
            if self._may_say(line):
                return self._say(line)
        own = self._genres(self._search.target)
        others = Counter(value for row in shown for value in self._genres(row) - own)
        for value, _ in sorted(others.items(), key=lambda entry: (-entry[1], entry[0])):
            line = f"no {value}"
            if line not in self.lines and self._may_say(line):
                return self._say(line)
        return self._say("more")

    def _say(self, line: str) -> str:
        self.lines.append(line)
        return line

    def _may_say(self, line: str) -> bool:
        return not audit(self._index, [*self.lines, line], self._search.target, least=self._least)

    def _genres(self, row: int) -> frozenset[str]:
        names = self._index.facet_names()
        return self._index.columns[names[0]][row] if names else frozenset()

    def _shuffled_facts(self) -> list[str]:
        facts = [f"also {value}, please" for value in sorted(self._genres(self._search.target))]
        year = self._index.year(self._search.target)
        facts += [f"something from the {year // 10 * 10}s"] if year is not None else []
        return [facts[int(place)] for place in self._rng.permutation(len(facts))]


def converse(dialogue: Dialogue, user: SimulatedUser, target: int, *, rank: Ranker, turns: int) -> Transcript:
    """Let a user talk to a dialogue whose lists `rank` makes, for at most so many turns."""
    state, line = ChatState(), user.opener()
    for number in range(1, turns + 1):
        plan = dialogue.plan(state, line)
        turn = dialogue.finish(plan, rank(plan.request, plan.k) if plan.request is not None else [])
        state = turn.state
        shown = [dialogue.index.catalog.index[item] for item in turn.item_ids]
        if target in shown:
            return Transcript(tuple(user.lines), number)
        if number < turns:
            line = user.next_line(shown)
    return Transcript(tuple(user.lines), 0)


def ranked_by(scores: NDArray[np.floating], trie: ItemTrie, request: RankRequest, k: int) -> list[RankedItem]:
    """What a method with scores over all items, (I,), recommends under a request's filters; ties by row."""
    kept = np.array(scores, dtype=np.float64)
    positions = trie.positions(np.arange(len(kept)))
    valid = positions >= 0
    if request.allowed is not None:
        valid[valid] = request.allowed.admits(positions[valid])
    valid[request.history] = False
    if request.excluded is not None:
        valid[request.excluded] = False
    rows = np.flatnonzero(valid)
    best = rows[np.argsort(-kept[rows], kind="stable")][:k]
    return [RankedItem(int(row), float(kept[row]), "level", float(kept[row])) for row in best]


def _holds(words: Sequence[str], form: Sequence[str]) -> bool:
    size = len(form)
    return size > 0 and any(tuple(words[at : at + size]) == tuple(form) for at in range(len(words) - size + 1))


def _without_quotes(line: str) -> str:
    for start, end in reversed(quoted_spans(line)):
        line = line[:start] + line[end:]
    return line
