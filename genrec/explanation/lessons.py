"""What a model is trained on so that it can write explanations: the request of a language, and a text that is true.

A source of tasks (`tasks/sources.py`), one per language. A lesson asks exactly as `model_text` will ask, about a
training interaction and what came before it, and answers with what the template says of the same evidence and the
check lets pass. So nothing that is learned is made up, and the model learns to say what the evidence says.

In half of the lessons the titles are exchanged for others, in the evidence and in the answer alike. They tell of nobody
any more, and that is their use: who wants to answer them has to copy, and cannot remember what goes with what.

N training interactions that have another before them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from genrec.explanation.explainer import Explainer, ExplainRequest, Wording
from genrec.explanation.facts import Facts
from genrec.explanation.language import language_codes
from genrec.run import Run
from genrec.tasks.data import TaskData
from genrec.tasks.history_sources import TrainingSteps
from genrec.tasks.loading import read_tasks
from genrec.tasks.rendering import FieldKinds
from genrec.tasks.sources import Record, Source

LESSONS = "explanations_"  # and the code of a language
_RENAMED = 0.5  # share of lessons with other titles


def lesson_sources(run: Run, folders: Sequence[Path]) -> Mapping[str, Callable[[TaskData], Source]]:
    """The sources of all languages of the template folders, `explanations_en`, …; of equal ones the last."""
    where = {code: folder for folder in folders for code in language_codes(folder)}
    return {f"{LESSONS}{code}": partial(Lessons, run, folder, code) for code, folder in where.items()}


def taught_languages(run: Run) -> frozenset[str]:
    """Codes of the languages of which explanations were among the tasks that the run's model was trained on."""
    names = run.require("train", verify=False).config.get("tasks", {})
    known = read_tasks([run.path / "prompts"])
    sources = (str(known[name][0].source) for name in names if name in known)
    return frozenset(source.removeprefix(LESSONS) for source in sources if source.startswith(LESSONS))


class Lessons:
    """One explanation per training interaction: `before`, `evidence` and `after` are the request, `told` the text."""

    def __init__(self, run: Run, prompts: Path, language: str, data: TaskData) -> None:
        self.kinds: FieldKinds = dict.fromkeys(("before", "evidence", "after", "told"), "text")
        self._run, self._prompts, self._data = run, prompts, data
        self._code = language
        self._steps = TrainingSteps(data.sequences)

    @cached_property
    def _explainer(self) -> Explainer:
        return Explainer(Facts.load(self._run, self._data.catalog), self._prompts)

    def __len__(self) -> int:
        return len(self._steps)

    def record(self, key: int, rng: np.random.Generator, max_history: int) -> Record | None:
        """Interaction `key` in a drawn style and tone; None where there is no evidence. See `Source.record`."""
        user, history, item = self._steps.step(key, max_history)
        language = self._explainer.language(self._code)
        names = sorted(language.styles)
        style = names[int(rng.integers(len(names)))]
        tones = sorted(language.tones)
        tone = tones[int(rng.integers(len(tones)))]
        asked = None if language.style(style).about == "taste" else item
        request = ExplainRequest(tuple(history), asked, self._data.sequences.user_ids[user])
        lesson = self._explainer.lesson(request, Wording(style, self._code, tone))
        if lesson is None:
            return None
        before, after = language.around_evidence(style, tone)
        evidence, told, items = lesson.draft.evidence, lesson.text, (*history, item)
        if rng.random() < _RENAMED:
            (evidence, told), items = self._renamed((evidence, told), items, language.quotes, rng)
            user = -1  # it tells of nobody any more
        return Record({"before": before, "evidence": evidence, "after": after, "told": told}, items, user)

    def _renamed(
        self, texts: Sequence[str], items: Sequence[int], quotes: tuple[str, str], rng: np.random.Generator
    ) -> tuple[list[str], tuple[int, ...]]:
        """The texts with each quoted title of `items` exchanged for that of a drawn item, the same in all of them."""
        titles, (opening, closing) = self._data.catalog.titles, quotes
        drawn = {titles[item]: int(rng.choice(self._data.items)) for item in items}
        longest_first = sorted(drawn, key=len, reverse=True)
        quoted = re.compile(f"{re.escape(opening)}({'|'.join(map(re.escape, longest_first))}){re.escape(closing)}")
        renamed = [quoted.sub(lambda found: f"{opening}{titles[drawn[found[1]]]}{closing}", text) for text in texts]
        return renamed, tuple(drawn.values())
