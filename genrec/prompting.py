"""Prompt templates as data: `prompts/*.yaml` in, token ids out.

A template is Jinja2 text in which `{{ history }}` stands for semantic IDs. It is rendered once with a
placeholder and split there: the words around it are ours and are encoded with the full tokenizer; the items
are put in as token ids and never become text. So nothing that a catalogue says can turn into a control token.
Templates with more fields than the history are rendered in `genrec/tasks`.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import SandboxedEnvironment
from pydantic import Field

from genrec.config import Config, build_config, read_values
from genrec.errors import ConfigError
from genrec.files import atomic_folder
from genrec.run import Run
from genrec.vocabulary import opening_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_HISTORY = "\ue000"  # a private-use character: no template of ours contains it


class TaskTemplates(Config):
    """One task of `prompts/`: its name, its paraphrases, and where the values of their fields come from.

    In a template an arrow `→` parts what the model is given from what it has to answer; without one, the model
    is trained on everything from the first field on.
    """

    task: str
    templates: tuple[str, ...] = Field(min_length=1)
    id: str | None = Field(None, description="short name, such as B1; null: the task's name")
    source: str | None = Field(None, description="what fills the fields: a name of genrec/tasks/sources.py")
    paper: str | None = Field(None, description="where the task comes from")
    held_out: tuple[str, ...] = Field(
        (), description="paraphrases that are never trained on: evaluation asks with them"
    )

    @property
    def name(self) -> str:
        """What configurations call the task."""
        return self.id or self.task


@dataclass(frozen=True)
class HistoryPrompt:
    """A template cut at its history: `before` are token ids, the history's items follow."""

    before: tuple[int, ...]

    def token_ids(self, history_tokens: Sequence[int]) -> list[int]:
        """The prompt for a history given as semantic-ID token ids, oldest first."""
        return [*self.before, *history_tokens]


def task_files(*folders: Path) -> list[Path]:
    """The template files of folders, by name; of files of one name that of the last folder.

    Raises ConfigError for what is no folder.
    """
    files: dict[str, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"{folder} is not a folder of prompt templates.", "Check the path of `prompts`.")
        files |= {path.name: path for path in folder.glob("*.yaml")}
    return [files[name] for name in sorted(files)]


def default_prompts() -> Path:
    """The templates that came with this installation: the installed copy, or `prompts/` of a checkout."""
    installed = Path(__file__).parent / "_prompts"  # first: beside an installed package may lie anybody's `prompts`
    return installed if installed.is_dir() else Path(__file__).parent.parent / "prompts"


def names_a_task(path: Path) -> bool:
    """Whether a file of `prompts/` is one of templates for a task. True where it cannot be read: loading says why."""
    try:
        values = read_values(path)
    except ConfigError:
        return True
    return not isinstance(values, dict) or "task" in values


def load_templates(folder: Path, task: str) -> TaskTemplates:
    """Read a task's templates. Raises ConfigError naming the file and what is wrong with it."""
    path = folder / f"{task}.yaml"
    return build_config(TaskTemplates, read_values(path, fix="Restore prompts/."), source=str(path))


def compile_history_prompt(
    template: str, tokenizer: PreTrainedTokenizerBase, *, words_needed: bool = True
) -> HistoryPrompt:
    """Turn a template that ends in `{{ history }}` into token ids.

    The tokenizer's own beginning-of-sequence token and a soft prompt, if it has them, come first. Raises
    ConfigError where the template does not render, does not end in the history, or has no words before it (unless
    none are needed: a model can be trained on bare sequences, but something must stand there when it is asked).
    """
    environment = SandboxedEnvironment(undefined=StrictUndefined, autoescape=False)
    try:
        text = environment.from_string(template).render(history=_HISTORY)
    except (TemplateError, ArithmeticError, TypeError) as error:
        raise ConfigError(f"prompt template {template!r}: {error}.", "Use {{ history }} only.") from error
    before, found, after = text.partition(_HISTORY)
    if not found or after.strip() or (words_needed and not before.strip()):
        raise ConfigError(
            f"prompt template {template!r} must hold words and then end in {{{{ history }}}}.",
            "What follows the history is what the model is asked for.",
        )
    # Trailing spaces are cut: the space would belong to the first semantic-ID token's text.
    ids = tokenizer.encode(before.rstrip(), add_special_tokens=False)
    return HistoryPrompt((*opening_tokens(tokenizer), *ids))


def save_templates(run: Run, *folders: Path) -> list[Path]:
    """Copy the templates of folders into the run, so that a model is always asked the way it was trained."""
    with atomic_folder(run.path / "prompts") as temporary:
        for path in task_files(*folders):
            shutil.copyfile(path, temporary / path.name)
    return sorted((run.path / "prompts").glob("*.yaml"))
