"""A text ─► the same text with one private character in place of every known mention, so that it can be parsed.

Titles, values, names of columns, quotations of the person's own words and sentences of the item's description are
found as they are written, sentences first, then the longest names; what is cut out of a sentence is no quotation
(`quoting`). What may be several of these is all of them, and each is tried (`clauses`). What stands in quotation marks
and is known to nobody stays what it is: words, which the check will not find anywhere. So a title that looks like a
sentence is a title.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from genrec.explanation.evidence import Subject
from genrec.explanation.facts import Facts, folded, plain
from genrec.explanation.language import Language
from genrec.explanation.quoting import stands_in, whole_sentences

_FIRST = 0xE000  # private-use characters: no text of ours has any, and those of others are taken out first
_LAST = 0xF8FF
_PRIVATE = re.compile(f"[{chr(_FIRST)}-{chr(_LAST)}]")
_PAIRS = {"“": "”", "„": "“”", '"': '"', "«": "»", "”": "”"}
_WORD = re.compile(r"[^\W\d_]+")
_PASSAGE_WORDS = 3  # shorter sentences of a description can be put together to say anything


Role = Literal["item", "value", "quote", "passage", "column", "words"]


@dataclass(frozen=True)
class Mention:
    """What stood in the text: items it may name, (column, value) pairs it may be, own words, a passage, columns.

    `words` says whether it may as well be nothing but words of the language, as a column named `used` may.
    """

    text: str
    items: tuple[int, ...] = ()
    attributes: frozenset[tuple[str, str]] = frozenset()
    own: str = ""
    passage: bool = False
    columns: frozenset[str] = frozenset()
    words: bool = False

    @property
    def roles(self) -> tuple[Role, ...]:
        """All that it may be, at least one."""
        may_be: dict[Role, object] = {
            "item": self.items,
            "value": self.attributes,
            "quote": self.own,
            "passage": self.passage,
            "column": self.columns,
            "words": self.words,
        }
        return tuple(role for role, found in may_be.items() if found)


@dataclass
class _Name:
    """What a folded name is: the titles and other forms that are written so, and what they may mean."""

    titles: set[str] = field(default_factory=set)
    forms: set[str] = field(default_factory=set)
    items: tuple[int, ...] = ()
    attributes: set[tuple[str, str]] = field(default_factory=set)
    columns: set[str] = field(default_factory=set)


@dataclass
class Marked:
    """A text whose mentions are single characters; `mentions` says what each stands for."""

    text: str
    mentions: dict[str, Mention] = field(default_factory=dict)

    def plain(self, part: str) -> str:
        """A part of the marked text as it was written."""
        return "".join(self.mentions[letter].text if letter in self.mentions else letter for letter in part)


class Marker:
    """Knows the names that a text about one subject may mention."""

    def __init__(self, language: Language, facts: Facts, subject: Subject) -> None:
        self._language, self._facts, self._subject = language, facts, subject
        self._items = list(dict.fromkeys([*([] if subject.item is None else [subject.item]), *subject.history]))
        self._by_title: dict[str, tuple[int, ...]] = {}
        for item in self._items:
            title = folded(facts.title(item))
            self._by_title[title] = (*self._by_title.get(title, ()), item)

    def mark(self, text: str) -> Marked:
        """Mark sentences of the description, then what stands in quotation marks, then names outside of them."""
        marked = Marked(_PRIVATE.sub("\ufffd", text))
        self._mark_passages(marked)
        self._mark_quoted(marked)
        self._mark_names(marked, self._names)
        return marked

    def mark_catalogue_values(self, part: str, marked: Marked) -> str:
        """`part` of a marked text with the values of the whole catalogue marked: what an item is *not*."""
        text, names = folded(part), dict[str, _Name]()
        for value, pairs in self._facts.values.items():
            if value in text:
                attributes = {(column, value) for column, _ in pairs}
                names[value] = _Name(forms={written for _, written in pairs}, attributes=attributes)
        inner = Marked(part, marked.mentions)
        self._mark_names(inner, names)
        return inner.text

    @cached_property
    def _names(self) -> dict[str, _Name]:
        """Folded name → what it is: of the item, of the history, of a column. Who has it is for the check to say."""
        found: dict[str, _Name] = {}
        for item in self._items:
            title = self._facts.title(item)
            named = found.setdefault(folded(title), _Name())
            named.titles.add(title)
            named.items = self._by_title[folded(title)]
            for column, value in self._facts.attributes(item):
                named = found.setdefault(folded(value), _Name())
                named.forms.add(value)
                named.attributes.add((column, folded(value)))
        for column in (*self._facts.attribute_columns, *self._facts.number_columns):
            called = self._language.column(column)
            for name in filter(None, map(plain, (called.one, called.many, column.replace("_", " ")))):
                named = found.setdefault(folded(name), _Name())
                named.forms.add(name)
                named.columns.add(column)
        return found

    def _mark_names(self, marked: Marked, names: dict[str, _Name]) -> None:
        text = folded(marked.text)
        for name in sorted((name for name in names if name and name in text), key=len, reverse=True):
            known = names[name]
            mention = Mention(name, attributes=frozenset(known.attributes), columns=frozenset(known.columns))
            if self._only_words(name):  # outside of quotation marks it is no title and no value
                mention = replace(mention, attributes=frozenset(), words=True)
            else:
                mention = replace(mention, words=self._has_words(name) and bool(known.columns))
                for title in known.titles:
                    self._replace(marked, re.escape(title), replace(mention, items=known.items))
            if mention.attributes or mention.columns:
                forms = "|".join(sorted(map(_spaced, {name, *known.forms}), key=len, reverse=True))
                self._replace(marked, f"(?:{forms})", mention, any_case=True)

    def _mark_quoted(self, marked: Marked) -> None:
        """Replace “…” by a mention where what it holds is known; the longest known content wins."""
        text, done, place = marked.text, [], 0
        while place < len(text):
            found = self._quoted_at(text, place) if text[place] in _PAIRS else None
            if found is None:
                done.append(text[place])
                place += 1
                continue
            mention, place = found
            done.append(self._letter(marked, mention))
        marked.text = "".join(done)

    def _quoted_at(self, text: str, place: int) -> tuple[Mention, int] | None:
        line_end = text.find("\n", place)
        until = len(text) if line_end < 0 else line_end
        ends = [at for at in range(place + 1, until) if text[at] in _PAIRS[text[place]]]
        for end in reversed(ends):
            mention = self._known(text[place + 1 : end], written=text[place : end + 1])
            if mention is not None:
                return mention, end + 1
        return None

    def _known(self, content: str, *, written: str) -> Mention | None:
        name = folded(content)
        if not name:
            return None
        items = self._by_title.get(name, ())
        attributes = frozenset(self._names[name].attributes if name in self._names else ())
        own = self._own_words(content)
        return Mention(written, items, attributes, own) if items or attributes or own else None

    def _own_words(self, content: str) -> str:
        wanted = plain(content)
        texts = (self._facts.texts_of(self._subject.user_id, item) for item in self._subject.history)
        said = (whole_sentences(written.text, wanted) for one in texts for written in one)
        return wanted if any(said) else ""

    def _mark_passages(self, marked: Marked) -> None:
        """Mark the longest pieces of the item's description that are whole sentences of at least three words."""
        if self._subject.item is None or not (source := self._facts.description(self._subject.item)):
            return
        words = list(re.finditer(r"\S+", marked.text))
        start = 0
        while start < len(words):
            end = start
            while end < len(words) and stands_in(source, plain(marked.text[words[start].start() : words[end].end()])):
                end += 1
            while end - start >= _PASSAGE_WORDS and not whole_sentences(
                source, plain(marked.text[words[start].start() : words[end - 1].end()])
            ):
                end -= 1
            if end - start >= _PASSAGE_WORDS:
                passage = marked.text[words[start].start() : words[end - 1].end()]
                self._replace(marked, re.escape(passage), Mention(passage, passage=True), limit=1)
                words = list(re.finditer(r"\S+", marked.text))
            start += 1

    def _only_words(self, text: str) -> bool:
        return all(word.casefold() in self._language.kinds for word in _WORD.findall(text))

    def _has_words(self, text: str) -> bool:
        return any(word.casefold() in self._language.kinds for word in _WORD.findall(text))

    def _replace(
        self, marked: Marked, pattern: str, mention: Mention, *, limit: int = 0, any_case: bool = False
    ) -> None:
        bounded = re.compile(rf"(?<!\w){pattern}(?!\w)", re.IGNORECASE if any_case else 0)
        marked.text = bounded.sub(
            lambda match: self._letter(marked, replace(mention, text=match[0])), marked.text, count=limit
        )

    @staticmethod
    def _letter(marked: Marked, mention: Mention) -> str:
        code = _FIRST + len(marked.mentions)
        if code > _LAST:  # a text of thousands of names: the rest stays words, which nothing supports
            return mention.text
        marked.mentions[chr(code)] = mention
        return chr(code)


def _spaced(value: str) -> str:
    return r"\s+".join(map(re.escape, value.split(" ")))


def mentions_in(part: str, marked: Marked) -> Iterable[Mention]:
    """The mentions of a part of a marked text, in order."""
    return (marked.mentions[letter] for letter in part if letter in marked.mentions)
