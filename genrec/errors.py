"""Every exception of the library: one tree, each with what was found and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence


class GenrecError(Exception):
    """Base of all errors that a user can cause and can mend.

    `message` says what was found and what was expected; `hint` says what to do. The command line prints
    both and leaves with `exit_status`; it never shows a traceback for these.
    """

    exit_status = 1

    def __init__(self, message: str, hint: str = "") -> None:
        self.message = message
        self.hint = hint
        super().__init__(f"{message} {hint}".strip())


class ConfigError(GenrecError):
    """An option or a configuration file is wrong: wrong usage, so exit status 2."""

    exit_status = 2


class DataError(GenrecError):
    """An input file is missing, unreadable or does not hold what it should."""


class BadRowsError(DataError):
    """Rows of an input table are wrong. `problems` holds every one, each naming file, line and column."""

    def __init__(self, problems: Sequence[str], hint: str = "") -> None:
        self.problems = list(problems)
        shown = "\n".join(f"  {problem}" for problem in self.problems[:20])
        more = f"\n  … and {len(self.problems) - 20} more" if len(self.problems) > 20 else ""
        super().__init__(f"{len(self.problems)} bad row(s):\n{shown}{more}\n", hint)


class UnreadableInputError(DataError):
    """One item's text, picture, sound or clip cannot be read; `reason` says why, without naming the item."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class RunError(GenrecError):
    """A run directory lacks a stage, is damaged, or its parts do not belong together."""


class UnknownItemError(GenrecError):
    """An `item_id` is not in the catalogue."""


class TrieError(GenrecError):
    """A trie cannot be built, is damaged, or does not fit the model that is to use it."""


class ModelError(GenrecError):
    """A model or tokenizer folder cannot be loaded or does not do what is needed of it."""


class PromptTooLongError(ModelError):
    """A prompt with what is to be written behind it exceeds the model's context or window."""


class MissingDependencyError(GenrecError):
    """An optional package is not installed; the hint names the extra that brings it."""
