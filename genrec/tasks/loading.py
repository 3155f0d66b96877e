"""Files of `prompts/` become tasks: every name in them is checked here, before anything is trained."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from numpy import int64
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from genrec.config import TrainConfig, read_values
from genrec.errors import ConfigError
from genrec.examples import SEQUENCE_TASK
from genrec.prompting import TaskTemplates, compile_history_prompt, load_templates, names_a_task, task_files
from genrec.run import Run
from genrec.tasks.data import TaskData, load_task_data
from genrec.tasks.dialogue_source import Dialogues
from genrec.tasks.history_sources import NextItems, Preferences
from genrec.tasks.leaks import LeakCheck
from genrec.tasks.mixture import Amount, Mixture, Task
from genrec.tasks.neighbours import Neighbours
from genrec.tasks.phrases import load_phrases, phrases_folder
from genrec.tasks.rendering import ARROW, CompiledTemplate, WordEncoder, WordNoise, words_in
from genrec.tasks.reply_source import MESSAGES, REPLY_WORDS, conversation_sources
from genrec.tasks.sources import HISTORIES, Interleaved, Items, Prefixes, Source, Texts
from genrec.tasks.turn_text import format_lines

_FIELD = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|" + ARROW)
DIALOGUES, TEXTS = "dialogues", "texts"
Sources = Mapping[str, Callable[[TaskData], Source]]
SOURCES: Sources = {
    DIALOGUES: Dialogues,
    "interleaved": Interleaved,
    "items": Items,
    "neighbours": Neighbours,
    "next_items": NextItems,
    "preferences": Preferences,
    "prefixes": Prefixes,
    TEXTS: Texts,
}


def load_mixture(
    run: Run,
    config: TrainConfig,
    *,
    folders: Sequence[Path],
    tokenizer: PreTrainedTokenizerFast,
    item_tokens: NDArray[int64],
    own_tokens: NDArray[int64] | None = None,
    sources: Sources = SOURCES,
) -> Mixture:
    """The tasks of `config` from the template files of `folders`, over the training part of a run.

    Whole histories are also spelled by `own_tokens` (I,), −1 for none. `sources` are what can fill templates, by
    name, beside those of conversations. Raises ConfigError for a task, source or field that does not exist, naming
    those that do.
    """
    data = load_task_data(run, item_tokens, replay=config.replay)
    data = replace(data, own_tokens=own_tokens)
    known = read_tasks(folders)
    amounts = _amounts(config)
    if unknown := sorted(amounts.keys() - known.keys()):
        where = "told" if unknown[0] in config.told else "tasks"
        raise ConfigError(f"{where}: there is no {', '.join(unknown)}.", f"Known tasks: {', '.join(sorted(known))}.")
    if config.replay and not any(known[name][0].source == TEXTS for name in amounts):
        raise ConfigError("replay: no task reads it.", "Give the task G a weight: tasks: {A1: 0.8, G: 0.2}.")
    loader = TaskLoader(data, tokenizer, sources={**sources, **conversation_sources(folders)})
    alone = list(amounts) == [SEQUENCE_TASK]
    tasks = {name: (loader.load(*known[name], alone=alone), amount) for name, amount in amounts.items()}
    check = LeakCheck(run, data.sequences.user_ids, item_tokens, own_tokens)
    pool = [*_words_of(known.values()), *data.common_words] if config.word_noise else []
    return Mixture(
        tasks,
        data,
        encoder=WordEncoder(tokenizer),
        check=check,
        max_items=config.max_history_items,
        example_tokens=config.example_tokens,
        noise=WordNoise(config.word_noise, pool) if pool else None,
    )


def _amounts(config: TrainConfig) -> dict[str, Amount]:
    """Task → how much of it an epoch reads. Raises ConfigError for a task with two amounts."""
    if SEQUENCE_TASK in config.told:
        raise ConfigError(f"told: {SEQUENCE_TASK} is told once in each epoch.", "Set `epochs`, and leave it out here.")
    if twice := sorted(config.told.keys() & config.tasks.keys()):
        raise ConfigError(f"told: {', '.join(twice)} has a share in `tasks`, too.", "Leave it out of one of them.")
    shares = {name: Amount(weight=weight) for name, weight in config.tasks.items()}
    return shares | {name: Amount(passes=times / config.epochs) for name, times in config.told.items()}


def reads_dialogues(folders: Sequence[Path], names: Collection[str]) -> bool:
    """Whether one of these tasks is made of the run's dialogues."""
    known = read_tasks(folders)
    return any(known[name][0].source == DIALOGUES for name in names if name in known)


def read_tasks(folders: Sequence[Path]) -> dict[str, tuple[TaskTemplates, Path]]:
    """Task name → its templates and their file, of all files that name a source.

    Raises ConfigError where a file is wrong or two files give the same name.
    """
    found: dict[str, tuple[TaskTemplates, Path]] = {}
    for other in (path for folder in folders for path in folder.glob("*.yml")):
        raise ConfigError(f"{other} would not be read.", f"Call it {other.with_suffix('.yaml').name}.")
    for path in task_files(*folders):
        if not names_a_task(path):  # words of other parts of genrec, in layouts of their own
            if "templates" in read_values(path):
                raise ConfigError(f"{path} has templates and names no task.", "Add its name: `task: MINE`.")
            continue
        templates = load_templates(path.parent, path.stem)
        if templates.source is None:
            raise ConfigError(f"{path} names no source.", "Add what fills its templates, such as `source: items`.")
        if templates.name in found:
            raise ConfigError(f"{path} and {found[templates.name][1]} are both task {templates.name}.", "Rename one.")
        found[templates.name] = (templates, path)
    return found


def template_words(folders: Sequence[Path], names: Collection[str], *, copies: int) -> list[str]:
    """Our own words around the fields of these tasks' templates, `copies` times, for a text tokenizer made here.

    Those of conversations' lessons are among them. Nothing where A1 is the only task: it has one template, whose words
    a base knows anyway.
    """
    if list(names) == [SEQUENCE_TASK]:
        return []
    known = read_tasks(folders)
    words = _pieces(known[name] for name in names if name in known)
    folder = phrases_folder(list(folders))
    if folder is not None and {MESSAGES, REPLY_WORDS} & {known[name][0].source for name in names if name in known}:
        words += [*load_phrases(folder).lines, *format_lines()]
    return words * max(1, copies)


def _pieces(tasks: Iterable[tuple[TaskTemplates, Path]]) -> list[str]:
    """Our own words around the fields of templates."""
    texts = [text for templates, _ in tasks for text in templates.templates]
    return [piece for text in texts for piece in _FIELD.split(text) if piece.strip()]


def _words_of(tasks: Iterable[tuple[TaskTemplates, Path]]) -> list[str]:
    """The different words of templates that are trained on."""
    return sorted({word for piece in _pieces(tasks) for word in words_in(piece)})


class TaskLoader:
    """Checks tasks against what their sources have in this run. A source is made once, for all tasks that use it."""

    def __init__(self, data: TaskData, tokenizer: PreTrainedTokenizerFast, *, sources: Sources = SOURCES) -> None:
        self._data, self._tokenizer, self._known = data, tokenizer, sources
        self._sources: dict[str, Source] = {}

    def load(self, templates: TaskTemplates, path: Path, *, alone: bool = False) -> Task:
        """A task of the file `path`. Raises ConfigError where a source or field does not exist.

        `alone`: it is all that is trained, so the model learns the one way of asking that it will meet.
        """
        name = templates.name
        if templates.source == HISTORIES:
            texts = templates.templates[:1] if alone else templates.templates
            needed = name == SEQUENCE_TASK  # the recommender asks with it
            prompts = (compile_history_prompt(text, self._tokenizer, words_needed=needed).before for text in texts)
            return Task(name, None, prompts=tuple(prompts))
        source = self._source(str(templates.source), path)
        compiled, held_out = (
            tuple(CompiledTemplate(text, source.kinds, where=str(path)) for text in texts)
            for texts in (templates.templates, templates.held_out)
        )
        return Task(name, source, templates=compiled, held_out=held_out)

    def _source(self, name: str, path: Path) -> Source:
        if name not in self._known:
            known = ", ".join(sorted([HISTORIES, *self._known]))
            raise ConfigError(f"{path}: there is no source {name!r}.", f"Known sources: {known}.")
        if name not in self._sources:
            self._sources[name] = self._known[name](self._data)
        return self._sources[name]
