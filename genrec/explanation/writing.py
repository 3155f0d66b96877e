"""Evidence ─► text by the templates of a language. What comes out is checked like anything a model writes."""

from __future__ import annotations

import re
from collections.abc import Sequence

from genrec.explanation.evidence import (
    Behaviour,
    CloseContent,
    Evidence,
    OwnWords,
    RecordFact,
    SharedAttribute,
    Subject,
    TasteCount,
)
from genrec.explanation.facts import Facts
from genrec.explanation.language import Language, Style
from genrec.explanation.quoting import sentences

_WORD = re.compile(r"[^\W_]+")
_MAX_DESCRIPTION_WORDS = 60  # of its first sentence; a longer one is a text without full stops, and is left out


class Writer:
    """Writes in one language about one subject."""

    def __init__(self, language: Language, facts: Facts, subject: Subject) -> None:
        self._language, self._facts, self._subject = language, facts, subject

    def text(self, evidence: Sequence[Evidence], *, style: Style, tone: str, description: str = "") -> str:
        """The whole text of a style; `evidence` is not empty. Templates decide the words, never the facts."""
        language, item = self._language, self._subject.item
        used = list(evidence[: style.evidence])
        lines = self.lines(used, description=description)
        values = [value for one in used if isinstance(one, RecordFact) for value in one.values[:2]]
        named = {"item": self._title(item) if item is not None else ""}
        around = language.tone(tone)
        given = named | {
            "lines": lines,
            "values": self._join([self._value(value) for value in values]),
            "reader": self._titles(used[0].items),
            "opening": language.render(around.opening, named),
            "closing": language.render(around.closing, named),
        }
        text = language.render(style.text, given)
        kept = (re.sub(r" {2,}", " ", line).strip() for line in text.split("\n"))
        return "\n".join(line for line in kept if line)

    def lines(self, evidence: Sequence[Evidence], *, description: str = "") -> list[str]:
        """A sentence per piece of evidence, then what `description` says."""
        return [line for line in (*map(self.sentence, evidence), description) if line]

    def description(self, style: Style) -> str:
        """The first sentence of the item's description, where a text is about its record; "" where there is none."""
        language, item = self._language, self._subject.item
        words = self._facts.description(item) if style.about == "record" and item is not None else ""
        first = sentences(words)[0]
        if not first or len(first.split()) > _MAX_DESCRIPTION_WORDS:
            return ""
        return language.render(language.sentences["description"], {"description": first})

    def sentence(self, evidence: Evidence) -> str:
        """One sentence that says one piece of evidence."""
        language, item = self._language, self._subject.item
        given: dict[str, object] = {"item": self._title(item) if item is not None else ""}
        kind: str = evidence.kind
        if evidence.items:
            given |= {"liked": self._title(evidence.items[0]), "items": self._titles(evidence.items)}
        match evidence:
            case SharedAttribute(column, values, items):
                named = language.column(column)
                everything = (*items, *(() if item is None else (item,)))
                given |= {
                    "all": self._titles(everything),
                    "same": named.same_one if len(values) == 1 else named.same_many,
                    "values": self._join([self._value(value) for value in values]),
                }
            case Behaviour(_, num_both, num_users):
                given |= {"both": num_both, "total": num_users}
            case OwnWords(_, source, text):
                kind, given["quote"] = source, self._quoted(text)
            case RecordFact(column, values):
                named = language.column(column)
                given |= {
                    "column": named.one if len(values) == 1 else named.many,
                    "values": self._join([self._value(value) for value in values]),
                }
            case TasteCount(column, value, count, total):
                given |= {"column": language.column(column).one, "values": self._value(value)}
                given |= {"count": count, "total": total}
            case CloseContent():
                pass
        return language.render(language.sentences[kind], given)

    def _title(self, item: int) -> str:
        return self._quoted(self._facts.title(item))

    def _titles(self, items: Sequence[int]) -> str:
        return self._join([self._title(item) for item in items])

    def _quoted(self, text: str) -> str:
        opening, closing = self._language.quotes
        return f"{opening}{text}{closing}"

    def _value(self, value: str) -> str:
        """A value as it is; in quotation marks where its words are also words of the language, or no words at all."""
        words = [word.casefold() for word in _WORD.findall(value)]
        ambiguous = all(word in self._language.kinds or word.isdigit() for word in words)
        return self._quoted(value) if ambiguous else value

    def _join(self, parts: Sequence[str]) -> str:
        if len(parts) < 2:
            return "".join(parts)
        return ", ".join(parts[:-1]) + self._language.and_ + parts[-1]
