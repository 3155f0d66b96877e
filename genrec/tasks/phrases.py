"""The clauses of conversations as data: `prompts/messages_en.yaml` in, phrases and word lists out.

`said` phrases are trained on, `held_out` ones never. The word lists are those of the check: a proposal's judgement is
believed where one of its signs stands in the message, words around a list may hold the reply words.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Literal, Self, get_args

from pydantic import ConfigDict, Field, model_validator

from genrec.config import Config, build_config, read_values

MESSAGES_FILE = "messages_en.yaml"
Clause = Literal[
    "want",
    "avoid",
    "years_in",
    "years_before",
    "years_since",
    "years_between",
    "liked",
    "disliked",
    "seen",
    "like",
    "more",
    "surprise",
    "request",
    "explain",
    "facts",
    "profile",
    "hello",
    "thanks",
    "help",
]
_REPLIES = ("list", "more", "surprise", "fact")


class Said(Config):
    """Ways to say one kind of clause."""

    said: tuple[str, ...] = Field(min_length=1)
    held_out: tuple[str, ...] = Field(min_length=1, description="never trained on: evaluation asks with them")


class Phrases(Config):
    """Everything that lessons about conversations are put together from."""

    model_config = ConfigDict(extra="forbid", frozen=True, ignored_types=(cached_property,))

    language: str
    clauses: dict[Clause, Said]
    spoken: dict[str, tuple[str, ...]] = Field(default_factory=dict, description="value → everyday words for it")
    signs: dict[str, str] = Field(description="judgement or act → words that speak for it")
    replies: dict[str, tuple[str, ...]]
    reply_words: str

    @model_validator(mode="after")
    def _complete(self) -> Self:
        missing = [name for name in get_args(Clause) if name not in self.clauses]
        missing += [f"replies.{name}" for name in _REPLIES if not self.replies.get(name)]
        if missing:
            raise ValueError(f"there are no phrases for {', '.join(missing)}")
        return self

    @cached_property
    def sign_words(self) -> Mapping[str, frozenset[str]]:
        """Judgement or act → its signs."""
        return {name: frozenset(words.split()) for name, words in self.signs.items()}

    @cached_property
    def words_of_replies(self) -> frozenset[str]:
        """What words before a list may be made of."""
        return frozenset(self.reply_words.split())

    @property
    def lines(self) -> list[str]:
        """Every phrase that is trained on, for a text tokenizer made here."""
        clauses = [line for kind in self.clauses.values() for line in kind.said]
        return [*clauses, *(line for ways in self.replies.values() for line in ways)]


def phrases_folder(folders: list[Path]) -> Path | None:
    """The last of the folders that has phrases; None where none has."""
    having = [folder for folder in folders if (folder / MESSAGES_FILE).is_file()]
    return having[-1] if having else None


def load_phrases(folder: Path) -> Phrases:
    """Read the phrases of a folder of templates. Raises ConfigError naming the file and what is wrong with it."""
    path = folder / MESSAGES_FILE
    return build_config(Phrases, read_values(path, fix="Restore prompts/."), source=str(path))
