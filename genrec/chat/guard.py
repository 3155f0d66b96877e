"""A model's proposal about a message ─► the parts of it that may be believed, and why the others may not.

What was read without the model stays as it was read: a proposal adds, and never contradicts or takes away. It adds a
value, a year or an item only where the message has the words for it, perhaps a letter off; a judgement or an act only
where one of its signs (`prompts/messages_en.yaml`) stands in the message; nothing against what the user said before.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rapidfuzz.distance import OSA

from genrec.chat.catalogue_index import CatalogueIndex, Value
from genrec.chat.feelings import forgotten, unwanted, unwanted_behind
from genrec.chat.filters import span_words
from genrec.chat.pieces import Asked, Feeling, Place, Pointer, Range, Reading, Title
from genrec.chat.plan import Draft
from genrec.chat.state import ChatState, Span
from genrec.chat.titles import COMMON
from genrec.chat.updates import point_at
from genrec.chat.words import Token, quoted_spans, tokens_of, words_of
from genrec.decoding.engine import Generation
from genrec.tasks.phrases import Phrases
from genrec.tasks.turn_text import TITLE_MARKS, Proposal, parse_proposal

Verdict = Literal["agreed", "added", "left out"]
_LONG_WORD = 5  # letters; shorter words are not recognised a letter off
_FEELINGS: dict[str, Feeling] = {"liked": "liked", "disliked": "disliked", "seen": "seen", "like": "seed"}
_NEGATIONS = frozenset(
    {"not", "never", "hardly", "no", "without", "cannot"}
    | {
        f"{verb}nt"
        for verb in ("do", "does", "did", "have", "has", "had", "is", "are", "was", "were", "ca", "could", "wo")
    }
)
_NUMBERS = ("one first 1st", "two second 2nd", "three third 3rd", "four fourth 4th", "five fifth 5th")
_OTHER_ACTS = frozenset({"why", "profile", "facts", "reset", "help", "thanks", "bye", "greeting"})
_INTENT_OF = {"explain": "why", "recommend": "request"}


@dataclass(frozen=True)
class Decision:
    """What became of one part of a proposal, and why."""

    verdict: Verdict
    part: str
    why: str = ""


@dataclass(frozen=True)
class Guarded:
    """A reading with what a proposal may add. `proposal` is None where the model's text is no proposal."""

    reading: Reading
    proposal: Proposal | None
    decisions: tuple[Decision, ...] = ()

    @property
    def trace(self) -> list[str]:
        """What was proposed and decided, one sentence each."""
        if self.proposal is None:
            return ["the model proposed nothing that can be read, so the message was read without it"]
        said = self.proposal.text().replace("\n", ", ")
        added = [f"added from the proposal: {one.part} ({one.why})" for one in self.decisions if one.verdict == "added"]
        out = [
            f"not taken from the proposal: {one.part} ({one.why})"
            for one in self.decisions
            if one.verdict == "left out"
        ]
        agreed = [] if added or out else ["the proposal says what was read without it"]
        return [f"the model proposed {said}", *agreed, *added, *out]


def guarded(
    index: CatalogueIndex, phrases: Phrases, state: ChatState, message: str, reading: Reading, written: Generation
) -> Guarded:
    """Judge what a model wrote about a message that was read as `reading`, in a conversation's `state`."""
    proposal = parse_proposal(written.text) if written.finish_reason == "stop" else None
    if proposal is None:
        return Guarded(reading, None)
    return _Guard(index, phrases, state, message, reading).judge(proposal)


def read_act(reading: Reading) -> str:
    """The act of a message as it was read, as far as words alone tell; "" where nothing was understood."""
    intents = reading.intents
    if "why" in intents:
        return "explain"
    slots = _has_slots(reading)
    if "profile" in intents or ("facts" in intents and (reading.titles or reading.pointers)):
        return "answer"
    if slots or {"request", "more", "surprise", "dunno", "reset"} & intents:
        return "recommend"
    if {"help", "thanks", "bye"} & intents:
        return "chat"
    return "ask" if "greeting" in intents else ""


def _has_slots(reading: Reading) -> bool:
    groups = (reading.titles, reading.asked, reading.ranges, reading.pointers, reading.comparisons, reading.relaxed)
    return any(groups) or bool(reading.unknown or reading.unjudged)


class _Guard:
    """One message; the reading grows with every part that is believed."""

    def __init__(
        self, index: CatalogueIndex, phrases: Phrases, state: ChatState, message: str, reading: Reading
    ) -> None:
        self._index, self._signs, self._state = index, phrases.sign_words, state
        self._before, self._reading = reading, reading
        self._tokens = tokens_of(message)
        self._free = [True] * len(self._tokens)
        pieces = (reading.titles, reading.asked, reading.ranges, reading.pointers)
        for place in [*(piece.place for group in pieces for piece in group), *reading.questioned]:
            self._take(place)
        for start, end in quoted_spans(message):  # what is quoted is a name
            self._free = [free and not start <= t.start < end for free, t in zip(self._free, self._tokens, strict=True)]

    def judge(self, proposal: Proposal) -> Guarded:
        """Decide about every part, in the order in which it is written."""
        found = [self._value(kind, name) for kind in ("want", "avoid") for name in getattr(proposal, kind)]
        found += [self._years(proposal.years)] if proposal.years else []
        for kind, feeling in _FEELINGS.items():
            found += [self._item(kind, name, feeling) for name in getattr(proposal, kind)]
        found += [self._about(name) for name in proposal.about]
        found += [self._also(proposal)] if proposal.also else []
        act = self._act(proposal)  # last: what was added says something of it
        return Guarded(self._reading, proposal, (act, *found))

    def _act(self, proposal: Proposal) -> Decision:
        read, part = read_act(self._reading), f"act {proposal.act}"
        if proposal.act == read or (not read and proposal.act in ("ask", "chat")) or {proposal.act, read} == _ASKING:
            return Decision("agreed", part)
        if read or proposal.act not in _INTENT_OF:
            return Decision("left out", part, f"it was read as {read or 'nothing that can be answered'}")
        if proposal.act == "explain" and not self._state.slate:
            return Decision("left out", part, "nothing was recommended yet")
        return self._intent(part, _INTENT_OF[proposal.act], sign=proposal.act)

    def _also(self, proposal: Proposal) -> Decision:
        part, other = f"also {proposal.also}", self._before.intents & _OTHER_ACTS
        if proposal.also in self._before.intents:
            return Decision("agreed", part)
        if proposal.act != "recommend" or other or _has_slots(self._before):
            return Decision("left out", part, "the message was read as something else")
        return self._intent(part, proposal.also, sign=proposal.also)

    def _intent(self, part: str, intent: str, *, sign: str) -> Decision:
        word = self._sign(sign, range(len(self._tokens)))
        if word is None:
            return Decision("left out", part, "no word of the message speaks for it")
        self._reading = replace(self._reading, intents=self._reading.intents | {intent})
        return Decision("added", part, f"the message says “{word}”")

    def _about(self, name: str) -> Decision:
        row = self._row(name)
        if isinstance(row, str):
            return Decision("left out", f"about {name}", row)
        part = f"about {self._index.catalog.titles[row]}"
        if self._piece_of(row) is None:
            return Decision("left out", part, "nothing in the message points at it")
        return Decision("agreed", part)

    def _value(self, kind: str, name: str) -> Decision:
        part, words = f"{kind} {name}", words_of(name)
        value = self._index.facets.get(words) or self._index.topics.get(words)
        if value is None:
            return Decision("left out", part, "the catalogue has no such value")
        asked: Literal["wanted", "unwanted"] = "wanted" if kind == "want" else "unwanted"
        read: set[str] = {one.kind for one in self._before.asked if _same(one.value, value)}
        if any(one.value is not None and _same(one.value, value) for one in self._before.pointers):
            read.add("pointed at")
        if read:
            other = f"it was read as {' and '.join(sorted(read))}"
            return Decision("agreed", part) if asked in read else Decision("left out", part, other)
        place = self._said(_forms(self._index, value), refused=frozenset().union(*self._signs.values()))
        if place is None:
            return Decision("left out", part, "no word of the message says it")
        if problem := self._contradicts(asked, value, place):
            return Decision("left out", part, problem)
        alone = asked == "wanted" and not any(one.kind == "wanted" for one in self._before.asked)
        # On top of what was wanted before, which a proposal must not take away.
        new = Asked(place, value, asked, "also" if alone else "")
        self._reading = replace(self._reading, asked=(*self._reading.asked, new))
        self._understand(place)
        return Decision("added", part, f"the message says “{self._words(place)}”")

    def _contradicts(self, asked: str, value: Value, place: Place) -> str:
        """Why a value that the message names may not be asked for so; "" where it may."""
        clause = self._tokens[place.start].clause
        before = " ".join(t.text for t in self._tokens[: place.start] if t.clause == clause)
        behind = " ".join(t.text for t in self._tokens[place.end :] if t.clause == clause)
        if forgotten(before) or (asked == "wanted" and (unwanted(before) or unwanted_behind(behind))):
            return "the words beside it turn it down"
        constraints = self._state.constraints
        against = constraints.unwanted if asked == "wanted" else constraints.wanted
        said = any(wish.attribute == value.attribute and value.value in wish.values for wish in against)
        return "the user said the opposite before" if said else ""

    def _years(self, text: str) -> Decision:
        part, match = f"years {text}", re.fullmatch(r"(\d{4})?-(\d{4})?", text)
        if match is None or text == "-" or "year" not in self._index.numbers:
            return Decision("left out", part, "it is no range of years of the catalogue")
        low, high = (None if end is None else float(end) for end in match.groups())
        span = Span(attribute="year", low=low, high=high)
        read = [one for one in self._before.ranges if one.span.attribute == "year"]
        if any(one.span == span and one.kind == "wanted" for one in read):
            return Decision("agreed", part)
        if read or any(p.span is not None for p in self._before.pointers):
            refused = "not " if read and read[0].kind == "unwanted" else ""
            said = refused + span_words(read[0].span) if read else "a reference"
            return Decision("left out", part, f"it was read as {said}")
        constraints = self._state.constraints
        if any(one.attribute == "year" for one in (*constraints.spans, *constraints.outside)):
            return Decision("left out", part, "the user gave years before")
        places = [self._year_place(end) for end in (low, high) if end is not None]
        if None in places or (low is not None and high is not None and low > high):
            return Decision("left out", part, "the message does not say these years")
        place = next(place for place in places if place is not None)
        words = self._words(place)
        self._reading = replace(self._reading, ranges=(*self._reading.ranges, Range(place, span, words)))
        self._understand(place)
        return Decision("added", part, f"the message says “{words}”")

    def _year_place(self, end: float) -> Place | None:
        """A free word that says a year, or the decade that begins or ends with it."""
        for number, token in enumerate(self._tokens):
            digits = re.match(r"((?:18|19|20)\d\d|\d0)", token.text)
            if not self._free[number] or digits is None:
                continue
            said, decade = int(digits[1]), token.text != digits[1] and int(digits[1]) % 10 == 0
            starts = [said] if said > 99 else [1900 + said, 2000 + said]
            near = {
                start + step for start in starts for step in ((0, 9) if decade else (-1, 0, 1)) if said > 99 or decade
            }
            if end in near:
                return Place(number, number + 1)
        return None

    def _item(self, kind: str, name: str, feeling: Feeling) -> Decision:
        part, row = f"{kind} {name}", self._row(name)
        if isinstance(row, str):
            return Decision("left out", part, row)
        part = f"{kind} {self._index.catalog.titles[row]}"
        piece = self._piece_of(row)
        if piece is not None and (piece.feeling == feeling or (feeling, piece.feeling) == ("seed", "named")):
            return Decision("agreed", part)
        if piece is not None and piece.feeling != "named":
            return Decision("left out", part, "the message was read otherwise")
        place = piece.place if piece is not None else self._item_place(name, row)
        if place is None:
            return Decision("left out", part, "no word of the message says it")
        word = self._judged(kind, place)
        item_id = self._index.catalog.item_ids[row]
        others = [other for other in ("liked", "disliked", "seen") if other != feeling]
        if word is None:
            return Decision("left out", part, "no word of the message speaks for this judgement")
        if any(item_id in getattr(self._state, other) for other in others):
            return Decision("left out", part, "the user said something else of it before")
        self._judge_item(piece, place, row, feeling)
        return Decision("added", part, f"the message says “{word}”")

    def _judge_item(self, piece: Title | Pointer | None, place: Place, row: int, feeling: Feeling) -> None:
        """Give a piece of the reading its feeling, or make a new one."""
        reading = self._reading
        if isinstance(piece, Pointer):
            pointers = tuple(replace(one, feeling=feeling) if one is piece else one for one in reading.pointers)
            self._reading = replace(reading, pointers=pointers)
        elif piece is not None:
            titles = tuple(replace(one, feeling=feeling) if one is piece else one for one in reading.titles)
            self._reading = replace(reading, titles=titles)
        else:
            new = Title(place, (row,), self._words(place), guessed=True, feeling=feeling)
            self._reading = replace(reading, titles=(*reading.titles, new))
            self._understand(place)

    def _row(self, name: str) -> int | str:
        """The row that a mark, a place of the list or a title means, or why it means none."""
        known, mark = self._index.catalog.index, name.strip("[]")
        if name.startswith("[") and mark in TITLE_MARKS:
            place = TITLE_MARKS.index(mark)
            titles = self._before.titles
            rows = titles[place].rows if place < len(titles) else ()
            return rows[0] if len(rows) == 1 else "the message names no such item"
        if name.isdigit():
            slate = self._state.slate
            inside = 0 < int(name) <= len(slate) and slate[int(name) - 1] in known
            return known[slate[int(name) - 1]] if inside else "the last list has no such place"
        words = words_of(name)
        rows = self._index.names.get(words) or self._index.aliases.get(words, ())
        rows = rows or (self._index.similar_title(" ".join(words)) if words else ())
        return rows[0] if len(rows) == 1 else "the catalogue has no such item" if not rows else "several are called so"

    def _piece_of(self, row: int) -> Title | Pointer | None:
        """The piece of the reading that means an item."""
        for title in self._reading.titles:
            if title.rows == (row,):
                return title
        for pointer in self._reading.pointers:
            if point_at(self._index, Draft(self._state), pointer) == [row]:
                return pointer
        return None

    def _item_place(self, name: str, row: int) -> Place | None:
        """Where free words of the message name an item that was not read: its title, or its place in the list."""
        if name.isdigit():
            numbers = {word: number for number, words in enumerate(_NUMBERS, start=1) for word in words.split()}
            said = [n for n, t in enumerate(self._tokens) if self._free[n] and str(numbers.get(t.text, t.text)) == name]
            return Place(said[0], said[0] + 1) if said else None
        return self._said([words_of(self._index.catalog.titles[row]), words_of(name)], refused=frozenset())

    def _judged(self, kind: str, place: Place) -> str | None:
        """The word beside an item that speaks for a judgement, and none for its opposite."""
        clause = self._tokens[place.start].clause
        beside = [n for n, token in enumerate(self._tokens) if token.clause == clause]
        words = {self._tokens[n].text for n in beside if self._free[n]}
        opposite = {"liked": "disliked", "disliked": "liked"}.get(kind, "")
        if words & self._signs.get(opposite, frozenset()) or (kind != "disliked" and words & _NEGATIONS):
            return None
        return self._sign(kind, beside)

    def _sign(self, kind: str, places: Iterable[int]) -> str | None:
        signs = self._signs.get(kind, frozenset())
        return next((t.text for n in places if self._free[n] and (t := self._tokens[n]).text in signs), None)

    def _said(self, forms: Sequence[tuple[str, ...]], *, refused: frozenset[str]) -> Place | None:
        """Where free words are one of the forms, each as it is or a letter off; common words do not count."""
        for form in sorted(filter(None, forms), key=lambda form: -len(form)):
            for start in range(len(self._tokens) - len(form) + 1):
                place = Place(start, start + len(form))
                window = self._tokens[place.start : place.end]
                words = {token.text for token in window}
                usable = all(self._free[place.start : place.end]) and not words <= COMMON and not words & refused
                if usable and all(_close(token, word) for token, word in zip(window, form, strict=True)):
                    return place
        return None

    def _words(self, place: Place) -> str:
        return " ".join(token.text for token in self._tokens[place.start : place.end])

    def _understand(self, place: Place) -> None:
        """Take words that were said to be not understood."""
        words, reading = self._words(place), self._reading
        unknown, unjudged = (
            tuple(one for one in group if words not in " ".join(words_of(one)))
            for group in (reading.unknown, reading.unjudged)
        )
        self._reading = replace(reading, unknown=unknown, unjudged=unjudged)
        self._take(place)

    def _take(self, place: Place) -> None:
        self._free[place.start : place.end] = [False] * (place.end - place.start)


_ASKING = {"ask", "recommend"}  # which of the two it is, the state decides


def _same(one: Value, other: Value) -> bool:
    return (one.attribute, one.value) == (other.attribute, other.value)


def _forms(index: CatalogueIndex, value: Value) -> list[tuple[str, ...]]:
    """All words that stand for a value."""
    return [words for table in (index.facets, index.topics) for words, one in table.items() if _same(one, value)]


def _close(token: Token, word: str) -> bool:
    """Whether a word is another one, or a letter off it: left out, added, changed or exchanged with the next."""
    if token.text == word:
        return True
    long = min(len(token.text), len(word)) >= _LONG_WORD and token.text[0] == word[0]
    return long and OSA.distance(token.text, word) <= 1
