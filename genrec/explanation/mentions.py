"""A text ─► the same text with one private character in place of every known mention, so that it can be parsed.

Titles, attribute values, quotations of the person's own words and sentences of the item's description are found as
they are written, longest first, sentences first; what is cut out of a denial is no quotation (`quoting`). What stands
in quotation marks and is known to nobody stays what it is: words, which the check will not find anywhere. So a title
that looks like a sentence is a title.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from genrec.explanation.evidence import Subject
from genrec.explanation.facts import Facts, folded, plain
from genrec.explanation.language import Language
from genrec.explanation.quoting import borne_out, stands_in, whole_sentences

_FIRST = 0xE000  # private-use characters: no text of ours has any, and those of others are taken out first
_LAST = 0xF8FF
_PRIVATE = re.compile(f"[{chr(_FIRST)}-{chr(_LAST)}]")
_PAIRS = {"“": "”", "„": "“”", '"': '"', "«": "»", "”": "”"}
_WORD = re.compile(r"[^\W\d_]+")
TOKEN = re.compile(r"[\ue000-\uf8ff]|\d+(?:[.,]\d+)*|[^\W\d_]+(?:['’][^\W\d_]+)*|[^\s]")  # of a marked text
_PASSAGE_WORDS = 3  # shorter sentences of a description can be put together to say anything


@dataclass(frozen=True)
class Mention:
    """What stood in the text: items it may name, (column, value) pairs it may be, own words or a passage."""

    text: str
    items: tuple[int, ...] = ()
    attributes: frozenset[tuple[str, str]] = frozenset()
    own: str = ""
    passage: bool = False


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
        """Mark sentences of the description, then quotations, titles and values outside of quotation marks."""
        marked = Marked(_PRIVATE.sub("\ufffd", text))
        self._mark_passages(marked)
        self._mark_quoted(marked)
        titles = {self._facts.title(item): item for item in self._items}
        named = [title for title in titles if title and title in marked.text and not self._only_words(title)]
        for title in sorted(named, key=len, reverse=True):
            mention = Mention(title, items=self._by_title[folded(title)])
            self._replace(marked, re.escape(title), mention)
        self._mark_values(marked, self._values)
        return marked

    def mark_catalogue_values(self, part: str, marked: Marked) -> str:
        """`part` of a marked text with the values of the whole catalogue marked: what an item is *not*."""
        text = folded(part)
        found = {value: columns for value, columns in self._facts.values.items() if value in text}
        inner = Marked(part, marked.mentions)
        self._mark_values(inner, {value: {(name, value) for name in columns} for value, columns in found.items()})
        return inner.text

    @cached_property
    def _values(self) -> dict[str, set[tuple[str, str]]]:
        """Folded value → (column, folded value) of the item and the history; who has it is for the check to say."""
        found: dict[str, set[tuple[str, str]]] = {}
        for item in self._items:
            for column, value in self._facts.attributes(item):
                found.setdefault(folded(value), set()).add((column, folded(value)))
        return found

    def _mark_values(self, marked: Marked, values: dict[str, set[tuple[str, str]]]) -> None:
        text = marked.text.casefold()
        for value in sorted((value for value in values if value in text), key=len, reverse=True):
            if not self._only_words(value):
                self._replace(marked, _spaced(value), Mention(value, attributes=frozenset(values[value])))

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
        attributes = frozenset(self._values.get(name, ()))
        own = self._own_words(content)
        return Mention(written, items, attributes, own) if items or attributes or own else None

    def _own_words(self, content: str) -> str:
        wanted = plain(content)
        texts = (self._facts.texts_of(self._subject.user_id, item) for item in self._subject.history)
        said = (borne_out(written.text, wanted, self._language) for one in texts for written in one)
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
        """Whether a name consists of words of the language: outside of quotation marks it is no name then."""
        return all(word.casefold() in self._language.kinds for word in _WORD.findall(text))

    def _replace(self, marked: Marked, pattern: str, mention: Mention, *, limit: int = 0) -> None:
        def letter(match: re.Match[str]) -> str:
            return self._letter(
                marked, Mention(match[0], mention.items, mention.attributes, mention.own, mention.passage)
            )

        bounded = re.compile(rf"(?<!\w){pattern}(?!\w)", re.IGNORECASE if mention.attributes else 0)
        marked.text = bounded.sub(letter, marked.text, count=limit)

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


def column_words(language: Language, facts: Facts) -> dict[str, frozenset[str]]:
    """Word → the columns that it may name. Words with a class of their own, such as `the same`, name nothing."""
    found: dict[str, set[str]] = {}
    for column in (*facts.attribute_columns, *facts.number_columns):
        names = language.column(column)
        for word in TOKEN.findall(f"{names.one} {names.many} {column.replace('_', ' ')}"):
            if word.casefold() not in language.kinds:
                found.setdefault(word.casefold(), set()).add(column)
    return {word: frozenset(columns) for word, columns in found.items()}
