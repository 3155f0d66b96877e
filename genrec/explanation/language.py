"""One language of explanations: `prompts/explanation_<code>.yaml` in, sentences and word classes out.

Templates are Jinja2; what a catalogue says enters them as a value and is never read as a template.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from jinja2 import StrictUndefined, Template, TemplateError
from jinja2.sandbox import SandboxedEnvironment
from pydantic import ConfigDict, Field, field_validator

from genrec.config import Config, build_config, read_values
from genrec.errors import ConfigError
from genrec.explanation.facts import folded
from genrec.prompting import default_prompts, names_a_task

About = Literal["reasons", "record", "taste"]
_PREFIX = "explanation_"
_EVIDENCE = "\ue000"  # a private-use character: no request of ours contains it
_SENTENCES = ("attribute", "behaviour", "similar", "tag", "review", "record", "taste", "description")


class Style(Config):
    """How long a text is and what it is about. `text` is a template of `lines`, `item`, `opening`, …"""

    about: About
    evidence: int = Field(ge=1)
    text: str


class Tone(Config):
    """Words of ours around the evidence, templates of `item`; they claim nothing."""

    opening: str
    closing: str


class ColumnNames(Config):
    """What a column is called, for one value and for several."""

    one: str
    many: str
    same_one: str
    same_many: str


class WordClasses(Config):
    """The words that the check knows; lists are written as words with spaces between them."""

    neutral: str
    together: str
    you: str
    people: str
    choose: str
    similar: str
    wrote: str
    negation: str
    whoever: str = ""  # people of whom nothing is said but what they chose
    tagged: str = ""
    have: str = ""  # forms of `have` and `do`
    joins: str = ""  # `and`
    also: str = ""
    article: str = ""  # may stand before a value or a title
    place: str = ""  # `in`, `to`, …
    beside: str = ""  # `with`
    part: str = ""  # what an item has and is not: its content, its description
    topic: str = ""  # what somebody wrote is about what stands behind these
    like: str = ""  # `as`: behind "the same director", or behind "this entry"
    who: str = ""  # what opens a relative clause about people
    pronoun: str = ""  # what may stand for an item
    of: str = ""  # what may stand between a count and its total
    by: str = ""  # behind these stands who made it
    made: str = ""  # as with `by`, and who made it may stand before it
    aim: str = ""  # behind these stands for whom it is
    same: str = ""  # `together`, and a column without a value may follow: "the same director"
    be: str = ""
    singular: str = ""  # verbs that `you` and several people do not have: "„A“ hat Sie gewählt"
    modal: str = ""  # beside a claim these leave it open, or to come
    which: str = ""  # behind these something is said of what was named
    why: str = ""  # what is said beside these is said to be a reason, as behind `breaks`
    numbers: dict[str, int]
    breaks: str
    things: str = ""  # what an item is called: no claim, but not to be counted
    refused: str = ""  # no text may have these: alternatives, conditions, what is to come, "nothing", "bought"
    doubt: str = ""  # of files of before; quotations are whole sentences now
    chosen_last: bool = False  # what was chosen stands behind the verb: "you chose A", not "Sie haben A gewählt"

    def kinds(self) -> dict[str, str]:
        """Folded word → its class. A word of two classes is a ConfigError."""
        found: dict[str, str] = {}
        listed = {name: value.split() for name, value in self if isinstance(value, str) and name != "doubt"}
        for name, words in (listed | {"numbers": list(self.numbers)}).items():
            for word in words:
                if found.setdefault(folded(word), name) != name:
                    raise ConfigError(f"the word {word!r} is in two classes: {found[folded(word)]} and {name}.")
        return found


class Language(Config):
    """Everything that is said in one language. See prompts/explanation_en.yaml for what the parts mean."""

    model_config = ConfigDict(extra="forbid", frozen=True, ignored_types=(cached_property,))

    language: str
    name: str
    quotes: tuple[str, str]
    and_: str = Field(alias="and")
    sentences: dict[str, str]
    columns: dict[str, ColumnNames]
    other_column: ColumnNames
    styles: dict[str, Style]
    tones: dict[str, Tone]
    request: str | dict[About, str]
    style_words: dict[str, str]
    tone_words: dict[str, str] = Field(default_factory=dict)
    words: WordClasses
    decimal: Literal[".", ","] = "."  # the mark in 2.5; the other one parts thousands

    @field_validator("request")
    @classmethod
    def _every_kind(cls, request: str | dict[About, str]) -> str | dict[About, str]:
        if isinstance(request, dict) and (missing := [about for about in get_args(About) if about not in request]):
            raise ValueError(f"request lacks {', '.join(missing)}: one text for all, or one for each")
        return request

    @cached_property
    def kinds(self) -> Mapping[str, str]:
        """Folded word → its class (`neutral`, `you`, `choose`, …)."""
        return self.words.kinds()

    @cached_property
    def _templates(self) -> dict[str, Template]:
        return {}

    def render(self, template: str, values: Mapping[str, Any]) -> str:
        """One template of this language, filled. Raises ConfigError where it asks for what there is not."""
        compiled = self._templates.get(template)
        try:
            if compiled is None:
                compiled = self._templates[template] = _ENVIRONMENT.from_string(template)
            return compiled.render(values)
        except (TemplateError, ArithmeticError, TypeError) as error:
            raise ConfigError(
                f"explanation template {template!r} ({self.language}): {error}.", f"It may use: {', '.join(values)}."
            ) from error

    def column(self, name: str) -> ColumnNames:
        """What a column of the catalogue is called."""
        named = self.columns.get(name)
        if named is not None:
            return named
        words = name.replace("_", " ")
        filled = {key: self.render(value, {"name": words}) for key, value in self.other_column}
        return ColumnNames(**filled)

    def style(self, name: str) -> Style:
        """A style by name. Raises ConfigError listing those that exist."""
        if not isinstance(name, str) or name not in self.styles:
            raise ConfigError(f"there is no style {name!r}.", f"Choose one of: {', '.join(self.styles)}.")
        return self.styles[name]

    def around_evidence(self, style: str, tone: str = "plain") -> tuple[str, str]:
        """The words of the request to a model before and after its evidence. Raises ConfigError where it has none.

        What is asked for is what a text of the style is about, unless the language has one request for all. A tone
        without words of its own (`tone_words`) is not spoken of.
        """
        words = {"style": self.style_words[style], "tone": self.tone_words.get(tone, ""), "evidence": _EVIDENCE}
        request = self.request if isinstance(self.request, str) else self.request[self.style(style).about]
        text = self.render(request, words)
        before, found, after = text.partition(_EVIDENCE)
        if not found or _EVIDENCE in after:
            raise ConfigError(
                f"the request of language {self.language!r} must hold {{{{ evidence }}}} once.",
                "Correct `request` in the language's file.",
            )
        return before, after

    def tone(self, name: str) -> Tone:
        """A tone by name. Raises ConfigError listing those that exist."""
        if not isinstance(name, str) or name not in self.tones:
            raise ConfigError(f"there is no tone {name!r}.", f"Choose one of: {', '.join(self.tones)}.")
        return self.tones[name]


_ENVIRONMENT = SandboxedEnvironment(undefined=StrictUndefined, autoescape=False)


def prompt_folder(run: Path, prompts: Path | None) -> Path:
    """Where the languages are: the folder named, else the run's own copies, else those of the installation."""
    if prompts is not None:
        return prompts
    kept = run / "prompts"
    return kept if any(kept.glob(f"{_PREFIX}*.yaml")) else default_prompts()


def language_codes(folder: Path) -> list[str]:
    """The codes of the languages of a folder."""
    files = [path for path in folder.glob(f"{_PREFIX}*.yaml") if not names_a_task(path)]
    return sorted(path.stem.removeprefix(_PREFIX) for path in files)


def language_file(folder: Path, code: str) -> Path:
    """`explanation_<code>.yaml` of a folder. Raises ConfigError listing the languages that there are."""
    known = language_codes(folder)
    if code not in known:
        raise ConfigError(
            f"there is no language {code!r} in {folder}.",
            f"Languages there: {', '.join(known) or 'none'}. One more is a file {_PREFIX}<code>.yaml.",
        )
    return folder / f"{_PREFIX}{code}.yaml"


def load_language(folder: Path, code: str) -> Language:
    """Read a language. Raises ConfigError for one that is not there and for a file that is wrong."""
    path = language_file(folder, code)
    language = build_config(Language, read_values(path, fix="Correct the file."), source=str(path))
    if missing := [name for name in _SENTENCES if name not in language.sentences]:
        raise ConfigError(f"{path}: sentences lacks {', '.join(missing)}.", "Add them; see explanation_en.yaml.")
    if missing := [name for name in language.styles if name not in language.style_words]:
        raise ConfigError(f"{path}: style_words lacks {', '.join(missing)}.", "Say each style in words.")
    _ = language.kinds
    return language
