"""A template and the values of its fields become an example: token ids, and which of them are trained on.

Jinja2 never sees a value. It renders a private-use character for each, and where that stands the value's token ids
are put in: text of users and catalogues is encoded by a tokenizer without added tokens (`TextEncoder`), items are
semantic-ID tokens from the start. Only our own words meet the full tokenizer, and the chat template around them. So a
title can hold `<s0_17>`, `<|im_end|>` or `{{ history }}` and is only its own letters.

Shapes: T tokens of an example, n tokens of a value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

import numpy as np
from jinja2 import StrictUndefined, TemplateError, meta, nodes
from jinja2.sandbox import SandboxedEnvironment
from transformers import PreTrainedTokenizerFast

from genrec.errors import ConfigError
from genrec.vocabulary import TextEncoder, inner_tokenizer, opening_tokens, soft_prompt

ARROW = "→"
_FIRST, _LAST = 0xE000, 0xF8FF  # private-use characters: one per value of an example
_PRIVATE = re.compile("([\ue000-\uf8ff])")
_DAY = datetime(2024, 7, 26)  # what templates that print the date are told: another one would be another prompt
_WORD = re.compile(r"[^\W_]+")
_SPACES = re.compile(" {2,}")
_ENVIRONMENT = SandboxedEnvironment(undefined=StrictUndefined, autoescape=False)
# A value is not there while the template is rendered, so nothing can be computed from it.
_ALLOWED_NODES = (nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Getattr, nodes.For)


@dataclass(frozen=True)
class Codes:
    """A value that is items: semantic-ID tokens, (n,)."""

    tokens: tuple[int, ...]


ChangeWords = Callable[[str], str]
Value = str | Codes | Sequence[Mapping[str, "Value"]]
FieldKinds = Mapping[str, Any]
"""What a source offers: field name → "text", "items", or for a list the same of its entries."""


@dataclass(frozen=True)
class Rendered:
    """An example's tokens and, of the same length, which of them are targets."""

    tokens: list[int]
    targets: list[bool]


class WordEncoder:
    """What tokenizers do here: trusted words with control tokens, untrusted ones without, and the chat around them."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._trusted, self._untrusted = inner_tokenizer(tokenizer), TextEncoder(tokenizer)
        self._seen: dict[str, list[int]] = {}
        self._opening = opening_tokens(tokenizer)  # once: it reads the whole vocabulary
        self.end = [] if tokenizer.eos_token_id is None else [int(cast(int, tokenizer.eos_token_id))]
        self.before, self.between = self._frame()

    def trusted(self, words: str) -> list[int]:
        """Token ids of words of ours."""
        if words not in self._seen:
            self._seen[words] = self._trusted.encode(words, add_special_tokens=False).ids
        return self._seen[words]

    def untrusted(self, text: str) -> list[int]:
        """Token ids of anybody's text, none of them a control or semantic-ID token."""
        return self._untrusted.encode(text)

    def start(self) -> list[int]:
        """The beginning-of-sequence token and the soft prompt, where the tokenizer has them."""
        return list(self._opening)

    def _frame(self) -> tuple[list[int], list[int]]:
        """What stands before a question and between it and its answer: a turn each of the tokenizer's own chat
        template, or a line each where it has none."""
        if self._tokenizer.chat_template is None:
            return self.start(), self.trusted("\n")
        mark = chr(_FIRST)
        text = self._tokenizer.apply_chat_template(
            [{"role": "user", "content": mark}],
            tokenize=False,
            add_generation_prompt=True,
            date_string=_DAY.strftime("%d %b %Y"),
            strftime_now=_DAY.strftime,
        )
        before, found, after = cast(str, text).partition(mark)
        if not found:
            raise ConfigError(
                "the chat template of the tokenizer does not show what the user says.", "Choose another base."
            )
        opening, frame = self.start(), self.trusted(before)
        soft = soft_prompt(self._tokenizer)
        start = opening[: len(opening) - len(soft)]  # some templates write it
        written = frame[: len(start)] == start
        return [*opening, *frame[len(start) :]] if written else [*soft, *frame], self.trusted(after)


class WordNoise:
    """Our words of a question with some left out, exchanged and added, so that a model does not hang on each of them.

    A model that reads few paraphrases learns them by heart, and another one is a riddle to it. With noise it learns
    to look for what does not vary: the values.
    """

    def __init__(self, share: float, pool: Sequence[str]) -> None:
        """Each word changes with the chance `share`; `pool` is what exchanged and added words are drawn from."""
        self._share, self._pool = share, pool

    def change(self, words: str, rng: np.random.Generator) -> str:
        """Other words in the place of `words`; punctuation and the spaces at both ends stay."""

        def changed(match: re.Match[str]) -> str:
            if rng.random() >= self._share:
                return match[0]
            drawn = self._pool[int(rng.integers(len(self._pool)))]
            return ("", drawn, f"{match[0]} {drawn}")[int(rng.integers(3))]

        return _SPACES.sub(" ", _WORD.sub(changed, words))


def words_in(text: str) -> list[str]:
    """The words of a text as they are written, without punctuation."""
    return _WORD.findall(text)


class CompiledTemplate:
    """One paraphrase, checked against the fields of its source. `fields` are the names that it uses."""

    def __init__(self, text: str, kinds: FieldKinds, *, where: str) -> None:
        """`where` names the file for errors. Raises ConfigError for fields or constructs that cannot be filled."""
        question, found, answer = text.partition(ARROW)
        if ARROW in answer or (found and not answer.strip()) or not text.strip():
            raise ConfigError(f"{where}: template {text!r} must have one arrow and words on both sides, or no arrow.")
        self.text = text
        parts = [question.strip(), answer.strip()] if found else [text.strip()]
        trees = [_parse(part, text, where) for part in parts]
        self.fields = frozenset(name for tree in trees for name in meta.find_undeclared_variables(tree))
        unknown = sorted(self.fields - set(kinds))
        if unknown:
            raise ConfigError(
                f"{where}: template {text!r} asks for {', '.join(unknown)}, which its source does not have.",
                f"Its fields are: {', '.join(sorted(kinds))}.",
            )
        for tree in trees:
            _check_reads(tree, kinds, {}, f"{where}: template {text!r}")
        self._parts = [_ENVIRONMENT.from_string(part) for part in parts]
        sample = _marked(_sample(kinds), [])
        try:  # the fields of a list's entries show only when they are read
            rendered = [part.render(sample) for part in self._parts]
        except (TemplateError, TypeError) as error:
            raise ConfigError(f"{where}: template {text!r}: {error}.", f"Its fields are: {dict(kinds)}.") from error
        if not _PRIVATE.search(rendered[-1]):
            raise ConfigError(f"{where}: template {text!r} has no field to train on.", "Use {{ field }}.")

    def render(self, values: Mapping[str, Value], encoder: WordEncoder, change: ChangeWords | None = None) -> Rendered:
        """The example for values of the fields. Needs all of `fields`. `change` makes other words of a question's."""
        if len(self._parts) == 1:
            whole = _encode(self._parts[0], values, encoder)
            given = [*encoder.start(), *whole.tokens[: whole.num_leading]]
            answer = whole.tokens[whole.num_leading :]
        else:
            given = self.question(values, encoder, change)
            encoded = _encode(self._parts[1], values, encoder)
            # An item has a fixed length; only words must be seen to end.
            answer = encoded.tokens + (encoder.end if encoded.has_words else [])
        return Rendered(given + answer, [False] * len(given) + [True] * len(answer))

    def question(
        self, values: Mapping[str, Value], encoder: WordEncoder, change: ChangeWords | None = None
    ) -> list[int]:
        """The prompt alone, of a template with an arrow."""
        return [*encoder.before, *_encode(self._parts[0], values, encoder, change).tokens, *encoder.between]


@dataclass
class _Encoded:
    tokens: list[int]
    num_leading: int  # tokens of the words before the first value
    has_words: bool


def _encode(
    part: Any, values: Mapping[str, Value], encoder: WordEncoder, change: ChangeWords | None = None
) -> _Encoded:
    found: list[str | Codes] = []
    pieces = _PRIVATE.split(part.render(_marked(values, found)))  # words, mark, words, mark, …, words
    encoded = _Encoded([], 0, False)
    for place in range(0, len(pieces), 2):
        words = pieces[place]
        encode: Callable[[str], list[int]] = encoder.trusted
        if change is not None:  # some words then come from a catalogue, and are encoded like anybody's
            encode, words = encoder.untrusted, change(words)
        value = found[ord(pieces[place + 1]) - _FIRST] if place + 1 < len(pieces) else None
        # No space stands before a semantic ID, and one before a text belongs to the text's first word.
        if isinstance(value, Codes):
            words = words.rstrip()
        elif value is not None and words.endswith(" "):
            words, value = words[:-1], " " + value
        encoded.tokens += encode(words) if words else []
        encoded.has_words |= bool(words.strip()) or isinstance(value, str)
        if place == 0:
            encoded.num_leading = len(encoded.tokens)
        if value is not None:
            encoded.tokens += value.tokens if isinstance(value, Codes) else encoder.untrusted(value)
    return encoded


def _parse(part: str, text: str, where: str) -> nodes.Template:
    if _PRIVATE.search(part):
        raise ConfigError(f"{where}: template {text!r} holds a private-use character.", "Leave it out.")
    try:
        tree = _ENVIRONMENT.parse(part)
    except TemplateError as error:
        raise ConfigError(f"{where}: template {text!r}: {str(error).rstrip('.')}.") from error
    for node in tree.find_all(nodes.Node):
        if not isinstance(node, _ALLOWED_NODES):
            raise ConfigError(
                f"{where}: template {text!r} uses {type(node).__name__}; "
                "only {{ field }}, {{ entry.field }} and {% for %} are known here.",
                "Values are put in as tokens after rendering, so nothing can be computed from them.",
            )
    return tree


def _check_reads(node: nodes.Node, kinds: FieldKinds, entries: Mapping[str, FieldKinds], where: str) -> None:
    """Raise ConfigError for what is shown or walked through and is no field: Jinja2 would find Python's own there.

    `entries` are the loop variables around a node, with the fields that they have.
    """

    def kind(expression: nodes.Node) -> Any:
        if isinstance(expression, nodes.Name) and expression.name not in entries:
            return kinds[expression.name]
        if isinstance(expression, nodes.Getattr) and isinstance(expression.node, nodes.Name):
            of = entries.get(expression.node.name, {})
            if expression.attr in of:
                return of[expression.attr]
            raise ConfigError(
                f"{where} asks for {expression.node.name}.{expression.attr}, which there is not.",
                f"It has: {', '.join(sorted(of))}." if of else f"Fields stand alone: {', '.join(sorted(kinds))}.",
            )
        raise ConfigError(f"{where} shows a list or its entry.", "Show one of its fields: {{ entry.field }}.")

    if isinstance(node, nodes.For):
        fields = kind(node.iter)
        if not isinstance(fields, Mapping) or not isinstance(node.target, nodes.Name):
            raise ConfigError(f"{where} walks through what is no list.", f"The fields are: {dict(kinds)}.")
        entries = {**entries, node.target.name: fields}
        for child in (*node.body, *node.else_):
            _check_reads(child, kinds, entries, where)
    elif isinstance(node, nodes.Name | nodes.Getattr):
        if isinstance(kind(node), Mapping):
            raise ConfigError(f"{where} shows a list or its entry.", "Show one of its fields: {{ entry.field }}.")
    else:
        for child in node.iter_child_nodes():
            _check_reads(child, kinds, entries, where)


class _Entry(dict[str, Any]):
    """A list's entry while it is rendered: its fields can be shown, it cannot."""

    def __str__(self) -> str:
        raise TypeError("a list or its entry stands where one of its fields is expected")


class _Entries(list[_Entry]):
    __str__ = _Entry.__str__


def _marked(values: Mapping[str, Value], found: list[str | Codes]) -> _Entry:
    """The values as Jinja2 sees them: a character each, whose number is the value's place in `found`."""
    marked = _Entry()
    for name, value in values.items():
        if isinstance(value, str | Codes):
            marked[name] = chr(_FIRST + len(found))
            found.append(value)
            assert len(found) <= _LAST - _FIRST, "more values than private-use characters"
        else:
            marked[name] = _Entries(_marked(entry, found) for entry in value)
    return marked


def _sample(kinds: FieldKinds) -> dict[str, Value]:
    """Some value of each kind."""
    return {
        name: [_sample(kind)] if isinstance(kind, Mapping) else Codes(()) if kind == "items" else ""
        for name, kind in kinds.items()
    }


def as_arrays(rendered: Rendered) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Tokens int64 (T,) and targets bool (T,)."""
    return np.asarray(rendered.tokens, dtype=np.int64), np.asarray(rendered.targets, dtype=np.bool_)
