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
from functools import cached_property
from typing import Literal

from genrec.explanation.clauses import MAX_READINGS, Clause, Parser, Unsupported, refuse, refuse_turned_round, require
from genrec.explanation.evidence import MIN_PEOPLE, Subject
from genrec.explanation.evidence import reasons as evidence_for
from genrec.explanation.facts import Facts, folded
from genrec.explanation.language import Language
from genrec.explanation.mentions import Marked, Marker, mentions_in
from genrec.explanation.quoting import whole_sentences
from genrec.explanation.shapes import (
    refuse_unclear_record,
    require_behaviour,
    require_chosen,
    require_denied,
    require_own,
    require_similar,
)

Verdict = Literal["supported", "no-claim", "unsupported"]
_SENTENCE_END = re.compile(r"(?<=[.!?…])\s+|\n+")
_YEARS = frozenset({"year"})
_TITLE = "\ue000"  # a private-use character: no tone of ours contains it


@dataclass(frozen=True)
class Statement:
    """One sentence. `reason` says what supports it, or what does not."""

    text: str
    verdict: Verdict
    reason: str


@dataclass
class _Told:
    """What was said before a clause.

    `named` are items of the history that were named last. `claims` says whether anything was claimed, and `opens`
    whether the clause right before claims nothing and names the item: reasons for it may follow.
    """

    named: tuple[int, ...] = ()
    claims: bool = False
    opens: bool = False
    goes_on: bool = False  # in the same sentence
    asked: bool = False  # why: what is said from here on is said to be a reason


class Checker:
    """Checks texts about one subject."""

    def __init__(self, language: Language, facts: Facts, subject: Subject) -> None:
        self._language, self._facts, self._subject = language, facts, subject
        self._marker = Marker(language, facts, subject)
        self._parser = Parser(language, self._marker)

    def check(self, text: str) -> list[Statement]:
        """One statement per sentence, in order."""
        marked = self._marker.mark(text)
        parts = [part.strip() for part in _SENTENCE_END.split(marked.text)]
        told, found = _Told(), []
        for part in filter(None, parts):
            found.append(self._statement(part, marked, told))
            told.named = self._named_last(part, marked, told.named)
            told.claims |= found[-1].verdict != "no-claim"
        return found

    def _statement(self, part: str, marked: Marked, before: _Told) -> Statement:
        """The verdict on a sentence: each of its clauses has to be borne out."""
        text, reasons = marked.plain(part), []
        told = replace(before, opens=False, goes_on=False)
        try:
            for clause, is_reason in self._clauses(part):
                reasons.append(self._read(clause, marked, told, is_reason=is_reason, ours=text in self._ours))
                told.named = self._named_last(clause, marked, told.named)
                told.opens = not reasons[-1] and self._names_the_item(clause, marked)
                told.claims, told.goes_on = told.claims or bool(reasons[-1]), True
                before.asked |= told.asked
        except Unsupported as problem:
            return Statement(text, "unsupported", str(problem))
        if not any(reasons):
            return Statement(text, "no-claim", "claims nothing")
        return Statement(text, "supported", "; ".join(filter(None, reasons)))

    @cached_property
    def _ours(self) -> frozenset[str]:
        """The sentences of the language's tones, about the item: they claim nothing, where their words are known."""
        if self._subject.item is None:
            return frozenset()
        title = self._facts.title(self._subject.item).join(self._language.quotes)
        tones = self._language.tones.values()
        told = (self._language.render(words, {"item": _TITLE}) for one in tones for words in (one.opening, one.closing))
        return frozenset(part.strip().replace(_TITLE, title) for text in told for part in _SENTENCE_END.split(text))

    def _named_last(self, part: str, marked: Marked, before: tuple[int, ...]) -> tuple[int, ...]:
        """The items of the history that `it` may mean behind `part`: none where the item itself was named with them."""
        named = [item for mention in mentions_in(part, marked) for item in mention.items]
        if not named:
            return before
        return () if self._subject.item in named else tuple(dict.fromkeys(named))

    def _names_the_item(self, part: str, marked: Marked) -> bool:
        """Whether a clause speaks of the item: by its title, or as `it`."""
        words = (self._language.kinds.get(word) for word in re.findall(r"\w+", part.casefold()))
        return "pronoun" in words or any(self._subject.item in one.items for one in mentions_in(part, marked))

    def _clauses(self, part: str) -> Iterator[tuple[str, bool]]:
        """A sentence in pieces that end where a new clause begins, at `;` and at words such as `because`.

        With each, whether it is a reason: behind such a word.
        """
        breaks = [word for word, kind in self._language.kinds.items() if kind == "breaks"]
        words = "|".join(map(re.escape, breaks))
        pattern = rf"(;|(?<!\w)(?:{words})(?!\w))" if words else "(;)"
        pieces = re.split(pattern, part, flags=re.IGNORECASE)
        for piece, breaking in zip(pieces[::2], ("", *pieces[1::2]), strict=True):
            if piece.strip():
                yield piece, breaking not in ("", ";")

    def _read(self, text: str, marked: Marked, told: _Told, *, is_reason: bool, ours: bool) -> str:
        """What supports a clause, "" where it claims nothing. Raises Unsupported."""
        problems = []
        for roles in self._parser.readings(text, marked):
            try:
                clause = replace(self._parser.parse(text, marked, roles), ours=ours)
                reason = self._supports(self._with_unclear(clause, told))
                if is_reason or (reason and "why" in clause.kinds):
                    self._require_reason(clause, told)
                if is_reason or told.asked or "whoever" in clause.kinds:
                    self._require_evidence(clause)
                told.asked |= "why" in clause.kinds
                named = any(marked.mentions[letter].columns for letter in roles)
                refuse(named and not reason and not ours, "names a column and not what it says")
                return reason
            except Unsupported as problem:
                problems.append(problem)
        raise problems[0]

    def _with_unclear(self, clause: Clause, told: _Told) -> Clause:
        """The clause with the items of the history that it may speak of, where it says `it` or goes on."""
        if self._subject.item in [item for mention in clause.items for item in mention.items]:
            return clause
        may_mean_them = "pronoun" in clause.kinds or (told.goes_on and not clause.items)
        return replace(clause, unclear=told.named if may_mean_them else ())

    def _require_reason(self, clause: Clause, told: _Told) -> None:
        """Reasons may be given for the item, not for what somebody chose or what an item is: nobody knows those."""
        require(told.opens or not told.claims, "says what the reason of something is")
        choice = clause.relations & {"choose", "people", "wrote", "tagged"}
        refuse(choice and re.match("[-.]*[ov]|.*v.*c", clause.order), "says what the reason of a choice is")
        refuse(choice and "why" in clause.kinds, "says what the reason of a choice is")

    def _require_evidence(self, clause: Clause) -> None:
        """What the person chose or wrote is a reason only where it speaks for the item: "for you because you chose A".

        Of several items with one title one has to. What is counted has to be so of the item, too.
        """
        if self._subject.item is None or not clause.kinds & {"choose", "wrote", "tagged"} or "people" in clause.kinds:
            return
        require(bool(clause.items or clause.values), "is no reason for the item")
        for mention in clause.items:
            histories = (replace(self._subject, history=(item,)) for item in mention.items)
            speaks = any(evidence_for(self._facts, subject) for subject in histories)
            require(speaks, f"{mention.text} does not speak for the item")
        self._have(self._own_item, clause)

    def _supports(self, clause: Clause) -> str:
        """What supports a reading of a clause, in one of the meanings of its titles."""
        if "negation" in clause.kinds:
            return self._negated(clause)
        refuse(len(clause.relations - {"choose"}) > 1, "says several things at once")
        problems = []
        # Several items can have one title; one mention names one item.
        for items in itertools.islice(itertools.product(*(mention.items for mention in clause.items)), MAX_READINGS):
            try:
                return self._claim(clause, items)
            except Unsupported as problem:
                problems.append(problem)
        raise problems[0]

    def _claim(self, clause: Clause, items: tuple[int, ...]) -> str:
        if "people" in clause.kinds:
            return self._behaviour(clause, items)
        if clause.kinds & {"wrote", "tagged"}:
            return self._own(clause, items)
        if "similar" in clause.kinds:
            return self._similar(clause, items)
        if "choose" in clause.kinds:
            return self._chosen(clause, items)
        return self._record(clause, items)

    def _behaviour(self, clause: Clause, items: tuple[int, ...]) -> str:
        """`3 of 20 people who chose A also chose B`: counted in the training split, A first."""
        others = (clause.values, clause.quotes, clause.passages, clause.columns)
        refuse(any(others) or clause.kinds & {"you", "whoever", "together"}, "says several things at once")
        require("choose" in clause.kinds, "does not say what people did")
        require_behaviour(clause)
        refuse_turned_round(clause, "c", who="e", chosen_last=self._language.words.chosen_last)
        require(len(items) == 2 and items[0] != items[1], "does not say who chose which two items")
        require(self._subject.item in items, "is not about the item")
        both, users = self._facts.num_both(*items), len(self._facts.users(items[0]))
        said = clause.numbers
        refuse(said and not clause.in_order, "does not say of whom the counts are")
        require(said in ((), (both,), (both, users)), f"the counts are {both} of {users}, not {_numbers(said)}")
        refuse(len(said) > 1 and clause.num_choices < 2, "does not say of whom the counts are")
        require(both >= MIN_PEOPLE, f"only {both} chose both")
        return f"{both} of {users} people chose both"

    def _own(self, clause: Clause, items: tuple[int, ...]) -> str:
        """`You wrote about A: “…”`: sentences of what the person wrote about A; `tagged`: they are a tag of A."""
        require("you" in clause.kinds and len(items) == 1 and len(clause.quotes) == 1, "does not say who wrote what")
        others = (clause.numbers, clause.passages, clause.columns, clause.values, "choose" in clause.kinds)
        refuse(any(others) or "whoever" in clause.kinds, "says several things at once")
        refuse_turned_round(clause, "t", who="y", chosen_last=self._language.words.chosen_last)
        require_own(clause)
        require(self._is_history(items[0]), "the person wrote nothing about the item")
        words = clause.quotes[0].own
        written = self._facts.texts_of(self._subject.user_id, items[0])
        if "tagged" in clause.kinds:
            tags = {folded(one.text) for one in written if one.kind == "tag"}
            require(folded(words) in tags, "the person gave it no such tag")
            return "the person's own tag"
        require(any(whole_sentences(one.text, words) for one in written), "the person did not write this about it")
        return "the person's own words"

    def _similar(self, clause: Clause, items: tuple[int, ...]) -> str:
        """`T is close to A`: A is among the items whose content is closest to that of T. `It` is T, too."""
        claims = (clause.values, clause.numbers, clause.quotes, clause.passages, clause.columns)
        refuse(any(claims), "says several things at once")
        others = [item for item in items if item != self._subject.item]
        require(self._subject.item is not None and bool(others), "does not say what is close to what")
        assert self._subject.item is not None
        # Of several others each is close to T; they need not be close to each other.
        require(len(others) == 1 or items[0] == self._subject.item, "is not about the item")
        refuse(clause.unclear, "may speak of another item")
        refuse(clause.kinds & {"you", "whoever", "choose"}, "says several things at once")
        require_similar(clause)
        close = self._facts.close_items(self._subject.item)
        far = [item for item in others if item not in close]
        refuse(far, f"{self._facts.title(far[0]) if far else ''} is not among the closest items")
        return "among the closest items"

    def _chosen(self, clause: Clause, items: tuple[int, ...]) -> str:
        """`You chose A`, `5 of the 8 items that you chose are V`: the history says so.

        A value without a count has to hold for the item, too: "it is V for those who chose A" says it of both.
        """
        self._require_chooser(clause)
        refuse(clause.quotes or clause.passages, "says several things at once")
        # `it` was not chosen: "this is for those who chose A" is all that may be said of both.
        refuse(clause.num_choices > 1 or re.search("c.*p", clause.order), "does not say what was chosen")
        refuse({"you", "pronoun"} <= clause.kinds, "does not say what was chosen")
        require_chosen(clause, which=bool(self._language.words.which))
        require(all(self._is_history(item) for item in items), "the person did not choose this")
        distinct = [item for item in dict.fromkeys(self._subject.history) if item != self._subject.item]
        if not clause.values:
            refuse(clause.columns, "says several things at once")
            require(bool(items) or bool(clause.numbers), "does not say what was chosen")
            refuse(items and clause.numbers, "says several things at once")
            require(clause.numbers in ((), (len(distinct),)), f"the person chose {len(distinct)} items")
            return "chosen by the person"
        if not clause.numbers:
            require(bool(items), "does not say how many")
            self._have((*items, *self._own_item, *clause.unclear), clause)
            return "the record says so"
        refuse(items or "together" in clause.kinds, "says several things at once")
        require(clause.counts_choices and clause.in_order, "does not say what the counts are of")
        count = sum(self._matches(item, 0, clause) for item in distinct)
        require(clause.numbers in ((count,), (count, len(distinct))), f"the counts are {count} of {len(distinct)}")
        return f"{count} of {len(distinct)} items of the history"

    def _require_chooser(self, clause: Clause) -> None:
        """`You` chose; `for those who` chose: what anybody else chose is in no record."""
        who = clause.only("yw")[:1]
        require(bool(who) and who * len(clause.only("yw")) == clause.only("yw"), "does not say who chose")
        refuse_turned_round(clause, "c", who=who, chosen_last=self._language.words.chosen_last)
        refuse(who == "w" and self._language.words.aim and not re.search("fw", clause.order), "does not say who chose")
        refuse("f" in clause.order and who == "y", "says for what somebody chose")

    def _record(self, clause: Clause, items: tuple[int, ...]) -> str:
        """`A and T have the same V`, `T is V`, a passage of the description: the records say so.

        It has to hold for T also where T is not named: "it shares V with A" and "with A it has V" name A alone.
        """
        about = tuple(dict.fromkeys((*items, *self._own_item, *clause.unclear)))
        history = [item for item in items if item != self._subject.item]
        claims = len(clause.values) + len(clause.numbers) + clause.passages
        refuse(clause.quotes, "says several things at once")
        refuse("together" in clause.kinds and not history, "does not say with what")
        refuse("together" in clause.kinds and len(set(items)) < len(items), "compares an item with itself")
        if clause.kinds & {"you", "whoever"}:
            refuse(claims or history, "says something of the person that the history does not")
        if clause.passages:
            refuse(history or clause.unclear, "the words may be of another record")
            alone = not (clause.kinds or clause.values or clause.numbers or clause.columns)
            require(alone, "makes something else of the description")
        if not claims:
            return self._no_claim(clause, about, bool(history))
        require(bool(about), "names no item")
        refuse(clause.numbers and clause.kinds & {"things", "why"}, "counts what the record does not")
        refuse_unclear_record(clause)
        self._have(about, clause)
        for number in clause.numbers:
            require(
                all(self._has_number(item, number, clause.columns) for item in about), f"{number:g} is in no record"
            )
        return "the record says so" if clause.values or clause.numbers else "words of the description"

    def _no_claim(self, clause: Clause, about: tuple[int, ...], names_history: bool) -> str:
        """`T is for you` claims nothing; `A and T have the same brand` is looked up; naming more is no statement.

        The same genres are all of them: who shares one of two has to say which. What `you` had or made is a claim.
        """
        if "sk" in clause.order and len(about) > 1:
            refuse_unclear_record(clause)
            has = [{pair for pair in self._facts.attributes(item) if pair[0] in clause.columns} for item in about]
            require(bool(has[0]) and all(one == has[0] for one in has), "they have not the same in this")
            return "the records share it"
        refuse(names_history, "names an item and says nothing of it that can be looked up")
        refuse("together" in clause.kinds, "says that something is shared, not what")
        refuse("made" in clause.kinds, "does not say who made what")
        of_somebody = "whoever" in clause.kinds or re.search("(?<!f)y", clause.order)
        refuse(of_somebody and not clause.ours, "says something of a person that the history does not")
        return ""

    def _negated(self, clause: Clause) -> str:
        """`T is not V`: the record says something in V's column, and V is not among it. No other denial is known."""
        refuse(
            clause.relations or clause.numbers or clause.quotes or clause.passages, "denies what cannot be looked up"
        )
        refuse(clause.kinds & {"you", "whoever", "together"}, "denies what cannot be looked up")
        refuse(clause.unclear, "may speak of another item")
        require(len(clause.values) == 1, "does not deny one thing that can be looked up")
        require(clause.in_order, "says more than it denies")
        require_denied(clause)
        item = self._subject.item
        require(item is not None, "names no item")
        assert item is not None
        require(all(item in mention.items for mention in clause.items), "denies something of another item")
        value, pairs = clause.values[0].text, clause.pairs(0)
        says = any(self._facts.has_column(item, column) for column, _ in pairs)
        require(says, f"the record does not say whether it is {value}")
        refuse(self._matches(item, 0, clause), f"the record says that it is {value}")
        return "the record says otherwise"

    def _have(self, items: Sequence[int], clause: Clause) -> None:
        for (value, mention), item in itertools.product(enumerate(clause.values), items):
            named = self._matches(item, value, clause)
            require(named, f"{mention.text} is not in the record of {self._facts.title(item)}")

    def _matches(self, item: int, value: int, clause: Clause) -> bool:
        """Whether the item has one of the values of a clause, in a column that the clause may mean."""
        has = {(column, folded(text)) for column, text in self._facts.attributes(item)}
        return not has.isdisjoint(clause.pairs(value))

    def _has_number(self, item: int, number: float, columns: frozenset[str]) -> bool:
        """A number by itself is a year; every other is called what it is."""
        return any(value == number for column, value in self._facts.numbers(item) if column in (columns or _YEARS))

    @property
    def _own_item(self) -> tuple[int, ...]:
        """The item that the text is about, where it is about one."""
        return () if self._subject.item is None else (self._subject.item,)

    def _is_history(self, item: int) -> bool:
        return item in self._subject.history


def _numbers(said: Sequence[float]) -> str:
    return " of ".join(f"{number:g}" for number in said)
