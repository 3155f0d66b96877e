"""Requests in, explanations out: evidence, then a text, then the check, and the evidence template where it fails.

A text comes from the template, or from a model that knows words; the output says which. A model's text with an
unsupported statement is written again, and after the last attempt the template takes its place, which is counted.
Nothing is said where there is no evidence.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from genrec.errors import ConfigError
from genrec.explanation.checking import Checker, Statement
from genrec.explanation.evidence import Evidence, Subject, as_record, reasons, record_facts, taste
from genrec.explanation.facts import Facts
from genrec.explanation.language import Language, Style, load_language
from genrec.explanation.writing import Writer

Source = Literal["template", "model", "none"]
_NO_EVIDENCE = "no evidence: nothing of the history, of other people or of the records speaks for a text"


@dataclass(frozen=True)
class ExplainRequest:
    """One question in item indices: history oldest first; `item` None asks for the person's taste."""

    history: tuple[int, ...]
    item: int | None
    user_id: str | None = None


@dataclass(frozen=True)
class Wording:
    """How a text is to read: names of a style and a tone, and the code of a language."""

    style: str = "line"
    language: str = "en"
    tone: str = "plain"


@dataclass(frozen=True)
class Explanation:
    """A text and why it may be believed.

    `source` says who wrote the text: the evidence template, a model, or nobody (`none`, with an empty text: there is
    no evidence, `note` says so). `statements` are the sentences of the text with their verdicts. `attempts` counts
    the texts that a model wrote, `num_unsupported` their statements that the facts did not support, and `fallback`
    is True where the template took the place of a model's text.
    """

    item_id: str | None
    text: str
    source: Source
    evidence: tuple[dict[str, Any], ...]
    statements: tuple[Statement, ...]
    attempts: int = 0
    num_unsupported: int = 0
    fallback: bool = False
    model_version: str = ""
    catalog_version: str = ""
    note: str = ""

    def as_record(self) -> dict[str, Any]:
        """The explanation as JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Draft:
    """What a model is asked to write about: the evidence in sentences, and which attempt this is (from 0)."""

    evidence: str
    style: str
    attempt: int
    tone: str = "plain"


@dataclass(frozen=True)
class Lesson:
    """What a model is asked to write about, and a text that says it and that the facts support."""

    draft: Draft
    text: str


class TextModel(Protocol):
    """What writes freely; see `genrec.explanation.model_text`."""

    def write(self, language: Language, drafts: Sequence[Draft]) -> list[str]:
        """One text per draft."""
        ...


class Explainer:
    """Explains items of one catalogue version. `model` None writes by the template alone.

    `taught` are the codes of the languages that the model may write; None: all. In others the template writes.
    """

    def __init__(
        self,
        facts: Facts,
        prompts: Path,
        *,
        model: TextModel | None = None,
        taught: frozenset[str] | None = None,
        model_version: str = "",
        catalog_version: str = "",
        max_attempts: int = 3,
    ) -> None:
        self.facts, self._prompts, self._model, self._taught = facts, prompts, model, taught
        self.model_version, self.catalog_version = model_version, catalog_version
        self._max_attempts = max_attempts
        self._languages: dict[str, Language] = {}

    def following(self, catalog_version: str) -> Explainer:
        """This explainer for another version of a catalogue with the same facts."""
        other = copy.copy(self)
        other.catalog_version = catalog_version
        return other

    def language(self, code: str) -> Language:
        """A language by its code. Raises ConfigError listing those that exist."""
        if code not in self._languages:
            self._languages[code] = load_language(self._prompts, code)
        return self._languages[code]

    def explain(self, requests: Sequence[ExplainRequest], wording: Wording = Wording()) -> list[Explanation]:
        """One explanation per request, in order. Of a taste, an item is no part.

        Raises ConfigError for an unknown style, language or tone, and for no item where the style is about one.
        """
        language = self.language(wording.language)
        tasks = [_Task(self.facts, language, wording, request) for request in requests]
        if self._model is not None and (self._taught is None or wording.language in self._taught):
            self._write_with_model(self._model, language, [task for task in tasks if task.evidence])
        return [task.finished(model_version=self.model_version, catalog_version=self.catalog_version) for task in tasks]

    def lesson(self, request: ExplainRequest, wording: Wording = Wording()) -> Lesson | None:
        """What a model can learn from a request; None where there is no evidence. Errors as `explain`."""
        task = _Task(self.facts, self.language(wording.language), wording, request)
        draft = task.draft(0)
        text = task.from_template()
        return Lesson(draft, text) if text else None

    def _write_with_model(self, model: TextModel, language: Language, tasks: Sequence[_Task]) -> None:
        """All tasks in one batch, then those whose text was refused again, up to the last attempt."""
        open_tasks = list(tasks)
        for attempt in range(self._max_attempts):
            if not open_tasks:
                return
            texts = model.write(language, [task.draft(attempt) for task in open_tasks])
            open_tasks = [task for task, text in zip(open_tasks, texts, strict=True) if not task.accepts(text)]


class _Task:
    """One request on its way to an explanation."""

    def __init__(self, facts: Facts, language: Language, wording: Wording, request: ExplainRequest) -> None:
        style = language.style(wording.style)
        subject = _subject(request, wording, style)
        language.tone(wording.tone)
        self._facts, self._style, self._wording, self._subject = facts, style, wording, subject
        self._writer = Writer(language, facts, subject)
        self._checker = Checker(language, facts, subject)
        self.evidence = _find(facts, subject, style)[: style.evidence]
        description = self._writer.description(style)  # a sentence that the check refuses is left out
        self._description = description if self._bears_out(description) else ""
        self._model_text: str | None = None
        self._attempts = self._num_unsupported = 0
        self._statements: list[Statement] = []

    def draft(self, attempt: int) -> Draft:
        lines = self._writer.lines(self.evidence, description=self._description)
        return Draft("\n".join(f"- {line}" for line in lines), self._wording.style, attempt, self._wording.tone)

    def accepts(self, text: str) -> bool:
        """Take a model's text if the facts support all that it says and it says something."""
        self._attempts += 1
        text = text.strip()
        statements = self._checker.check(text)
        unsupported = sum(statement.verdict == "unsupported" for statement in statements)
        self._num_unsupported += unsupported
        if unsupported or not any(statement.verdict == "supported" for statement in statements):
            return False
        self._model_text, self._statements = text, statements
        return True

    def finished(self, *, model_version: str, catalog_version: str) -> Explanation:
        subject, facts = self._subject, self._facts
        text, source = self._model_text or "", "model"
        if not text:
            text, source = self.from_template(), "template"
        return Explanation(
            item_id=None if subject.item is None else facts.catalog.item_ids[subject.item],
            text=text,
            source="none" if not text else "model" if source == "model" else "template",
            evidence=tuple(as_record(evidence, facts) for evidence in self.evidence) if text else (),
            statements=tuple(self._statements) if text else (),
            attempts=self._attempts,
            num_unsupported=self._num_unsupported,
            fallback=self._attempts > 0 and source == "template" and bool(text),
            model_version=model_version,
            catalog_version=catalog_version,
            note="" if text else _NO_EVIDENCE,
        )

    def from_template(self) -> str:
        """The template's text; "" where nothing of it is supported. Evidence that the check refuses is left out."""
        for _ in range(2):
            if not self.evidence:
                return ""
            text = self._writer.text(
                self.evidence, style=self._style, tone=self._wording.tone, description=self._description
            )
            self._statements = self._checker.check(text)
            verdicts = {statement.verdict for statement in self._statements}
            if "unsupported" not in verdicts:
                return text if "supported" in verdicts else ""
            self.evidence = [one for one in self.evidence if self._bears_out(self._writer.sentence(one))]
        return ""

    def _bears_out(self, sentence: str) -> bool:
        """Whether the check supports all that a sentence of the template says."""
        return all(statement.verdict == "supported" for statement in self._checker.check(sentence))


def _subject(request: ExplainRequest, wording: Wording, style: Style) -> Subject:
    if style.about == "taste":
        return Subject(request.history, None, request.user_id)
    if request.item is None:
        raise ConfigError(
            f"item_id is missing, and the style {wording.style!r} is about an item.",
            "Say which one, or ask for a style about the person's taste.",
        )
    return Subject(request.history, request.item, request.user_id)


def _find(facts: Facts, subject: Subject, style: Style) -> list[Evidence]:
    if style.about == "taste":
        return taste(facts, subject)
    return record_facts(facts, subject) if style.about == "record" else reasons(facts, subject)
