"""The check: a text ─► statements, each one supported by facts, without a claim, or unsupported.

The check is strict. A statement is supported only if it is one claim of a kind that can be looked up (what an item
is, what items share, how many people chose both, what the person chose or wrote, what is close in content) and the
facts say so. Every word has to be known: a word class of the language, a title, a value, a number, words of the
person or of the description. A praise, a plot, a name that the record does not hold is unsupported, be it true or not.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from genrec.explanation.evidence import MIN_PEOPLE, Subject
from genrec.explanation.facts import Facts, folded
from genrec.explanation.language import Language
from genrec.explanation.mentions import TOKEN, Marked, Marker, Mention, column_words, mentions_in
from genrec.explanation.quoting import borne_out

Verdict = Literal["supported", "no-claim", "unsupported"]
_SENTENCE_END = re.compile(r"(?<=[.!?…])\s+|\n+")
_PUNCTUATION = set(".,;:!?…()-–—•*&")
_LETTERS = {"numbers": "n", "choose": "c", "pronoun": "p", "of": "o", "by": "b"}  # of word classes: `_Clause.order`
_MAKERS = frozenset({"director", "author", "artist", "brand", "creator", "manufacturer", "publisher", "studio"})
_YEARS = frozenset({"year"})
_MAX_READINGS = 64  # of a text whose titles belong to several items


@dataclass(frozen=True)
class Statement:
    """One sentence. `reason` says what supports it, or what does not."""

    text: str
    verdict: Verdict
    reason: str


class _Unsupported(Exception):  # noqa: N818  # no error of a user: it ends the reading of one clause
    pass


@dataclass(frozen=True)
class _Clause:
    """What a clause is made of: which word classes, which mentions and numbers, in order."""

    kinds: frozenset[str]
    items: tuple[Mention, ...]
    values: tuple[Mention, ...]
    quotes: tuple[Mention, ...]
    passages: int
    numbers: tuple[float, ...]
    columns: frozenset[str]
    made_by: frozenset[Mention]  # the values that stand behind `by` or `from`
    order: str  # one letter per word: n number, o `of`, c chose, v value, i item, p `it`, . punctuation, - others
    in_order: bool  # counts stand before the items that they count, a denial before what it denies
    unclear: tuple[int, ...] = ()  # items of the history that `it` may mean, too: they were named last

    @property
    def relations(self) -> frozenset[str]:
        return self.kinds & {"people", "choose", "similar", "wrote", "tagged"}

    @property
    def counts_choices(self) -> bool:
        """`3 of the 5 that you chose are V`: numbers, then the choice, then the values."""
        return re.fullmatch("n+c+v+", re.sub("[^ncv]", "", self.order)) is not None

    @property
    def num_choices(self) -> int:
        """How often it says that somebody chose."""
        return self.order.count("c")


class Checker:
    """Checks texts about one subject."""

    def __init__(self, language: Language, facts: Facts, subject: Subject) -> None:
        self._language, self._facts, self._subject = language, facts, subject
        self._marker = Marker(language, facts, subject)
        self._columns = column_words(language, facts)

    def check(self, text: str) -> list[Statement]:
        """One statement per sentence, in order."""
        marked = self._marker.mark(text)
        parts = [part.strip() for part in _SENTENCE_END.split(marked.text)]
        before: tuple[int, ...] = ()
        found = []
        for part in filter(None, parts):
            found.append(self._statement(part, marked, before))
            before = self._named_last(part, marked, before)
        return found

    def _statement(self, part: str, marked: Marked, before: tuple[int, ...]) -> Statement:
        text = marked.plain(part)
        reasons = []
        try:
            for number, clause in enumerate(self._clauses(part)):
                reasons.append(self._read(clause, marked, before, goes_on=number > 0))
                before = self._named_last(clause, marked, before)
        except _Unsupported as problem:
            return Statement(text, "unsupported", str(problem))
        if not any(reasons):
            return Statement(text, "no-claim", "claims nothing")
        return Statement(text, "supported", "; ".join(filter(None, reasons)))

    def _named_last(self, part: str, marked: Marked, before: tuple[int, ...]) -> tuple[int, ...]:
        """The items of the history that `it` may mean behind `part`: none where the item itself was named with them."""
        named = [item for mention in mentions_in(part, marked) for item in mention.items]
        if not named:
            return before
        return () if self._subject.item in named else tuple(dict.fromkeys(named))

    def _clauses(self, part: str) -> list[str]:
        """A sentence in pieces that end where a new clause begins: at `;` and at words such as `because`."""
        breaks = [word for word, kind in self._language.kinds.items() if kind == "breaks"]
        words = "|".join(map(re.escape, breaks))
        pattern = rf";|(?<!\w)(?:{words})(?!\w)" if words else ";"
        return [piece for piece in re.split(pattern, part, flags=re.IGNORECASE) if piece.strip()]

    def _read(self, text: str, marked: Marked, before: tuple[int, ...], *, goes_on: bool) -> str:
        """What supports a clause, "" where it claims nothing. Raises _Unsupported.

        `before` are items of the history that were named last: `it`, and a clause that goes on, may speak of them.
        """
        clause = self._parse(text, marked)
        if self._subject.item not in [item for mention in clause.items for item in mention.items]:
            may_mean_them = "pronoun" in clause.kinds or (goes_on and not clause.items)
            clause = replace(clause, unclear=before if may_mean_them else ())
        if "negation" in clause.kinds:
            return self._negated(clause)
        _refuse(len(clause.relations - {"choose"}) > 1, "says several things at once")
        readings = list(itertools.islice(self._readings(clause), _MAX_READINGS))
        problems = []
        for items in readings:
            try:
                return self._claim(clause, items)
            except _Unsupported as problem:
                problems.append(problem)
        raise problems[0]

    def _parse(self, text: str, marked: Marked) -> _Clause:
        kinds: set[str] = set()
        items, values, quotes, numbers, passages = [], [], [], [], 0
        columns: set[str] | None = None
        made_by, in_order, order = set(), True, ""
        negated = any(self._language.kinds.get(_word(token)) == "negation" for token in TOKEN.findall(text))
        if negated:
            text = self._marker.mark_catalogue_values(text, marked)
        for token in TOKEN.findall(text):
            mention = marked.mentions.get(token)
            word = _word(token)
            if mention is not None:
                in_order &= not (mention.attributes and not mention.items and negated and "negation" not in kinds)
                items += [mention] if mention.items else []
                values += [mention] if mention.attributes and not mention.items else []
                made_by |= {mention} if order.rstrip(".").endswith("b") else set()
                order += "i" if mention.items else "v" if mention.attributes else "-"
                quotes += [mention] if mention.own else []
                passages += mention.passage
            elif token[0].isdigit():
                in_order &= not items
                order += "n"
                numbers.append(_number(token))
            elif word in self._columns:
                columns = set(self._columns[word]) if columns is None else columns & self._columns[word]
                _require(bool(columns), "names several columns")
                order += "-"
            elif (kind := self._language.kinds.get(word)) is not None:
                in_order &= not (kind == "negation" and kind in kinds)  # "not without"
                kinds.add(kind)
                order += _LETTERS.get(kind, "-")
                if kind == "numbers":
                    in_order &= not items
                    numbers.append(float(self._language.words.numbers[word]))
            else:
                _require(token in _PUNCTUATION, f"{token!r} is in no record")
                order += "."
        return _Clause(
            frozenset(kinds),
            tuple(items),
            tuple(values),
            tuple(quotes),
            passages,
            tuple(numbers),
            frozenset(columns or ()),
            frozenset(made_by),
            order,
            in_order and (len(numbers) < 2 or not self._language.words.of or bool(re.search("n[ob]+n", order))),
        )

    def _readings(self, clause: _Clause) -> Iterator[tuple[int, ...]]:
        """The items that the titles may name: several items can have one title, one item is named once."""
        return itertools.product(*(mention.items for mention in clause.items))

    def _claim(self, clause: _Clause, items: tuple[int, ...]) -> str:
        if "people" in clause.kinds:
            return self._behaviour(clause, items)
        if clause.kinds & {"wrote", "tagged"}:
            return self._own(clause, items)
        if "similar" in clause.kinds:
            return self._similar(clause, items)
        if "choose" in clause.kinds:
            return self._chosen(clause, items)
        return self._record(clause, items)

    def _behaviour(self, clause: _Clause, items: tuple[int, ...]) -> str:
        """`3 of 20 people who chose A also chose B`: counted in the training split, A first."""
        others = (clause.values, clause.quotes, clause.passages, clause.columns)
        _refuse(any(others) or clause.kinds & {"you", "whoever", "together"}, "says several things at once")
        _require("choose" in clause.kinds, "does not say what people did")
        _require(len(items) == 2 and items[0] != items[1], "does not say who chose which two items")
        _require(self._subject.item in items, "is not about the item")
        both, users = self._facts.num_both(*items), len(self._facts.users(items[0]))
        said = clause.numbers
        _refuse(said and not clause.in_order, "does not say of whom the counts are")
        _require(said in ((), (both,), (both, users)), f"the counts are {both} of {users}, not {_numbers(said)}")
        _refuse(len(said) > 1 and clause.num_choices < 2, "does not say of whom the counts are")
        _require(both >= MIN_PEOPLE, f"only {both} chose both")
        return f"{both} of {users} people chose both"

    def _own(self, clause: _Clause, items: tuple[int, ...]) -> str:
        """`You wrote about A: “…”`: the words stand in what the person wrote about A; `tagged`: they are a tag of A."""
        _require("you" in clause.kinds and len(items) == 1 and len(clause.quotes) == 1, "does not say who wrote what")
        others = (clause.numbers, clause.passages, clause.columns, "choose" in clause.kinds)
        _refuse(any(others) or set(clause.values) - set(clause.quotes), "says several things at once")
        _require(self._is_history(items[0]), "the person wrote nothing about the item")
        words = clause.quotes[0].own
        written = self._facts.texts_of(self._subject.user_id, items[0])
        if "tagged" in clause.kinds:
            tags = {folded(one.text) for one in written if one.kind == "tag"}
            _require(folded(words) in tags, "the person gave it no such tag")
            return "the person's own tag"
        said = any(borne_out(one.text, words, self._language) for one in written)
        _require(said, "the person did not write this about it")
        return "the person's own words"

    def _similar(self, clause: _Clause, items: tuple[int, ...]) -> str:
        """`T is close to A`: A is among the items whose content is closest to that of T. `It` is T, too."""
        claims = (clause.values, clause.numbers, clause.quotes, clause.passages, clause.columns)
        _refuse(any(claims), "says several things at once")
        others = [item for item in items if item != self._subject.item]
        _require(self._subject.item is not None and bool(others), "does not say what is close to what")
        assert self._subject.item is not None
        # Of several others each is close to T; they need not be close to each other.
        _require(len(others) == 1 or items[0] == self._subject.item, "is not about the item")
        _refuse(clause.unclear, "may speak of another item")
        _refuse(clause.kinds & {"you", "whoever", "choose"}, "says several things at once")
        close = self._facts.close_items(self._subject.item)
        far = [item for item in others if item not in close]
        _refuse(far, f"{self._facts.title(far[0]) if far else ''} is not among the closest items")
        return "among the closest items"

    def _chosen(self, clause: _Clause, items: tuple[int, ...]) -> str:
        """`You chose A`, `5 of the 8 items that you chose are V`: the history says so.

        A value without a count has to hold for the item, too: "it is V for those who chose A" says it of both.
        """
        _require(bool(clause.kinds & {"you", "whoever"}), "does not say who chose")
        _refuse(clause.quotes or clause.passages, "says several things at once")
        # `it` was not chosen: "this is for those who chose A" is all that may be said of both.
        _refuse(clause.num_choices > 1 or re.search("c.*p", clause.order), "does not say what was chosen")
        _refuse({"you", "pronoun"} <= clause.kinds, "does not say what was chosen")
        _require(all(self._is_history(item) for item in items), "the person did not choose this")
        distinct = [item for item in dict.fromkeys(self._subject.history) if item != self._subject.item]
        if not clause.values:
            _refuse(clause.columns, "says several things at once")
            _require(bool(items) or bool(clause.numbers), "does not say what was chosen")
            _refuse(items and clause.numbers, "says several things at once")
            _require(clause.numbers in ((), (len(distinct),)), f"the person chose {len(distinct)} items")
            return "chosen by the person"
        if not clause.numbers:
            _require(bool(items), "does not say how many")
            self._have((*items, *self._own_item, *clause.unclear), clause)
            return "the record says so"
        _refuse(items or "together" in clause.kinds, "says several things at once")
        _require(clause.counts_choices and clause.in_order, "does not say what the counts are of")
        count = sum(all(self._matches(item, value, clause) for value in clause.values) for item in distinct)
        _require(clause.numbers in ((count,), (count, len(distinct))), f"the counts are {count} of {len(distinct)}")
        return f"{count} of {len(distinct)} items of the history"

    def _record(self, clause: _Clause, items: tuple[int, ...]) -> str:
        """`A and T have the same V`, `T is V`, a passage of the description: the records say so.

        It has to hold for T also where T is not named: "it shares V with A" and "with A it has V" name A alone.
        """
        about = tuple(dict.fromkeys((*items, *self._own_item, *clause.unclear)))
        history = [item for item in items if item != self._subject.item]
        claims = len(clause.values) + len(clause.numbers) + clause.passages
        _refuse(clause.quotes, "says several things at once")
        _refuse("together" in clause.kinds and not history, "does not say with what")
        _refuse("together" in clause.kinds and len(set(items)) < len(items), "compares an item with itself")
        if clause.kinds & {"you", "whoever"}:
            _refuse(claims or history, "says something of the person that the history does not")
        if clause.passages:
            _refuse(history or clause.unclear, "the words may be of another record")
            alone = not (clause.kinds or clause.values or clause.numbers or clause.columns)
            _require(alone, "makes something else of the description")
        if not claims:
            return self._no_claim(clause, about, bool(history))
        _require(bool(about), "names no item")
        _refuse(clause.numbers and "things" in clause.kinds, "counts what the record does not")
        self._have(about, clause)
        for number in clause.numbers:
            _require(
                all(self._has_number(item, number, clause.columns) for item in about), f"{number:g} is in no record"
            )
        return "the record says so" if clause.values or clause.numbers else "words of the description"

    def _no_claim(self, clause: _Clause, about: tuple[int, ...], names_history: bool) -> str:
        """`T is for you` claims nothing; `A and T have the same brand` is looked up; naming more is no statement.

        The same genres are all of them: who shares one of two has to say which.
        """
        if "together" in clause.kinds and clause.columns and len(about) > 1:
            has = [{pair for pair in self._facts.attributes(item) if pair[0] in clause.columns} for item in about]
            _require(bool(has[0]) and all(one == has[0] for one in has), "they have not the same in this")
            return "the records share it"
        _refuse(names_history, "names an item and says nothing of it that can be looked up")
        _refuse("together" in clause.kinds, "says that something is shared, not what")
        told = [column for item in about for column in clause.columns if self._facts.has_column(item, column)]
        _refuse(clause.columns and not told, "the record has no such thing")
        return ""

    def _negated(self, clause: _Clause) -> str:
        """`T is not V`: the record says something in V's column, and V is not among it. No other denial is known."""
        _refuse(
            clause.relations or clause.numbers or clause.quotes or clause.passages, "denies what cannot be looked up"
        )
        _refuse(clause.kinds & {"you", "whoever", "together"}, "denies what cannot be looked up")
        _refuse(clause.unclear, "may speak of another item")
        _require(len(clause.values) == 1, "does not deny one thing that can be looked up")
        _require(clause.in_order, "says more than it denies")
        item = self._subject.item
        _require(item is not None, "names no item")
        assert item is not None
        _require(all(item in mention.items for mention in clause.items), "denies something of another item")
        for mention in clause.values:
            columns = {column for column, _ in mention.attributes if not clause.columns or column in clause.columns}
            says = any(self._facts.has_column(item, column) for column in columns)
            _require(says, f"the record does not say whether it is {mention.text}")
            _refuse(self._matches(item, mention, clause), f"the record says that it is {mention.text}")
        return "the record says otherwise"

    def _have(self, items: Sequence[int], clause: _Clause) -> None:
        for value, item in itertools.product(clause.values, items):
            named = self._matches(item, value, clause)
            _require(named, f"{value.text} is not in the record of {self._facts.title(item)}")

    def _matches(self, item: int, value: Mention, clause: _Clause) -> bool:
        """Whether the item has the value, in a column that the clause names or, behind `by`, in one of who made it."""
        columns = clause.columns or (_MAKERS if value in clause.made_by else frozenset())
        has = {(column, folded(text)) for column, text in self._facts.attributes(item)}
        return any(pair in has for pair in value.attributes if not columns or pair[0] in columns)

    def _has_number(self, item: int, number: float, columns: frozenset[str]) -> bool:
        """A number by itself is a year; every other is called what it is."""
        return any(value == number for column, value in self._facts.numbers(item) if column in (columns or _YEARS))

    @property
    def _own_item(self) -> tuple[int, ...]:
        """The item that the text is about, where it is about one."""
        return () if self._subject.item is None else (self._subject.item,)

    def _is_history(self, item: int) -> bool:
        return item in self._subject.history


def _word(token: str) -> str:
    return token.casefold().replace("’", "'")


def _number(token: str) -> float:
    try:
        return float(token.replace(",", ""))
    except ValueError as error:  # "25.06.1982", "²"
        raise _Unsupported(f"{token!r} is in no record") from error


def _numbers(said: Sequence[float]) -> str:
    return " of ".join(f"{number:g}" for number in said)


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise _Unsupported(problem)


def _refuse(condition: object, problem: str) -> None:
    if condition:
        raise _Unsupported(problem)
