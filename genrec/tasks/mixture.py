"""Tasks by weight become the examples of an epoch.

Weights are shares of the *tokens* that the model reads. Half of an epoch for A1 and a tenth for B1 means: every
training history is read once, and a fifth of that many tokens are titles with their IDs, drawn anew each epoch.
A task may have a number of passes over its source instead, and the others share the tokens that are not its.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from genrec.errors import DataError
from genrec.examples import SEQUENCE_TASK, Example, history_examples
from genrec.tasks.data import TaskData
from genrec.tasks.leaks import LeakCheck
from genrec.tasks.rendering import ChangeWords, CompiledTemplate, WordEncoder, WordNoise, as_arrays
from genrec.tasks.sources import Source


@dataclass(frozen=True)
class Task:
    """A task of `prompts/` ready to make examples. `source` is None for whole histories."""

    name: str
    source: Source | None
    prompts: tuple[tuple[int, ...], ...] = ()  # of whole histories: what stands before them
    templates: tuple[CompiledTemplate, ...] = ()
    held_out: tuple[CompiledTemplate, ...] = ()


@dataclass(frozen=True)
class Amount:
    """How much of a task an epoch reads: by its weight among the tasks that have one, or else by passes."""

    weight: float = 0.0
    passes: float = 0.0  # over the task's source


class Mixture:
    """Examples of several tasks. `loading.load_mixture` makes one; `examples` is what the training loop calls."""

    def __init__(
        self,
        tasks: Mapping[str, tuple[Task, Amount]],
        data: TaskData,
        *,
        encoder: WordEncoder,
        check: LeakCheck,
        max_items: int,
        example_tokens: int,
        noise: WordNoise | None = None,
    ) -> None:
        """`tasks`: name → task and its amount. `max_items` of a history are shown at most.

        Examples of all tasks but whole histories have `example_tokens` at most, or as many as a whole history.
        """
        self.tasks = {name: task for name, (task, _) in tasks.items()}
        self._amounts = {name: amount for name, (_, amount) in tasks.items()}
        self._total_weight = sum(amount.weight for amount in self._amounts.values())
        self.data, self.encoder, self._check, self._max_items = data, encoder, check, max_items
        self._noise = noise
        self.left_out: Counter[str] = Counter()  # task → examples that were too long with the shortest history
        self.passes: dict[str, float] = {}  # task → how often the last epoch told each thing of its source
        prompts = [len(prompt) for task in self.tasks.values() for prompt in task.prompts]
        longest = max(prompts, default=0) + data.item_tokens.shape[1] * max_items
        only_histories = all(task.source is None for task in self.tasks.values())
        self.max_example_tokens = longest if only_histories else max(longest, example_tokens)

    def examples(self, rng: np.random.Generator) -> list[Example]:
        """The examples of an epoch, task after task, checked for leaks. Equal generators give equal examples.

        Raises DataError for a leak, and for a task that has nothing to tell of this run.
        """
        sequences, num_levels = self.data.sequences, self.data.item_tokens.shape[1]
        reference = len(sequences.items) * num_levels  # tokens of all histories once
        found: list[Example] = []
        if SEQUENCE_TASK in self.tasks:
            found = self._histories(self.tasks[SEQUENCE_TASK], rng)  # whole, and in their order
            self.passes[SEQUENCE_TASK] = self._times_told(self.tasks[SEQUENCE_TASK], found)
            reference = int(sum(len(example.tokens) for example in found) / self._share(SEQUENCE_TASK))
        for name, task in self.tasks.items():
            if name != SEQUENCE_TASK:
                if (passes := self._amounts[name].passes) > 0:
                    drawn = self._tell(task, rng, passes=passes)
                else:
                    drawn = self.draw(task, rng, num_tokens=reference * self._share(name))
                self.passes[name] = self._times_told(task, drawn)
                found += drawn
        self._check.check(found)
        return found

    def some(self, count: int, *, seed: int) -> list[Example]:
        """`count` examples, of every task in turn, checked for leaks."""
        rng = np.random.default_rng(seed)
        tasks = list(self.tasks.values())
        turns = [tasks[place % len(tasks)] for place in range(count)]
        found = [example for task in turns for example in self.draw(task, rng, num_tokens=1)]
        self._check.check(found)
        return found

    def draw(self, task: Task, rng: np.random.Generator, *, num_tokens: float) -> list[Example]:
        """Examples of a task until they have `num_tokens`, pass after pass over what its source tells of.

        Raises DataError where a whole pass makes none.
        """
        found: list[Example] = []
        size = 0
        while size < num_tokens:
            before = len(found)
            for example in self._pass(task, rng):
                found.append(example)
                size += len(example.tokens)
                if size >= num_tokens:
                    break
            if len(found) == before:
                raise _nothing_to_tell(task)
        return found

    def _tell(self, task: Task, rng: np.random.Generator, *, passes: float) -> list[Example]:
        """Examples of `passes` passes over a task's source, the last of which may be a drawn part of it."""
        parts = [1.0] * int(passes) + [passes % 1]
        found = [example for part in parts for example in self._pass(task, rng, part=part)]
        if not found and next(self._pass(task, rng), None) is None:
            raise _nothing_to_tell(task)
        return found

    def _share(self, name: str) -> float:
        """Of a task with a weight: its share of the tokens of all tasks that have one."""
        return self._amounts[name].weight / self._total_weight

    def _times_told(self, task: Task, drawn: Sequence[Example]) -> float:
        if task.source is not None:
            return len(drawn) / len(task.source)
        spellings = 1 if self.data.own_tokens is None else 2
        return sum(len(example.items) for example in drawn) / (spellings * len(self.data.sequences.items))

    def _histories(self, task: Task, rng: np.random.Generator) -> list[Example]:
        return history_examples(
            self.data.sequences,
            prompts=task.prompts,
            item_tokens=self.data.item_tokens,
            max_items=self._max_items,
            rng=rng,
            task=task.name,
            own_tokens=self.data.own_tokens,
        )

    def _pass(self, task: Task, rng: np.random.Generator, *, part: float = 1.0) -> Iterator[Example]:
        """Examples of everything that a task tells of, or of a drawn `part` of it, in a drawn order."""
        if task.source is None:
            whole = self._histories(task, rng)
            yield from (whole[place] for place in _drawn(len(whole), part, rng))
            return
        for key in _drawn(len(task.source), part, rng):
            example = self.example(task, key, rng)
            if example is not None:
                yield example

    def example(self, task: Task, key: int, rng: np.random.Generator) -> Example | None:
        """The example of thing `key` of a task's source; None where it has nothing to say or cannot be short enough.

        Where it is too long, the oldest items of the history go; nothing of an answer does.
        """
        assert task.source is not None
        state, max_items = rng.bit_generator.state, self._max_items
        change: ChangeWords | None = None if self._noise is None else partial(self._noise.change, rng=rng)
        while True:
            rng.bit_generator.state = state  # the same thing again, with a shorter history
            record = task.source.record(key, rng, max_items)
            usable = [one for one in task.templates if record is not None and one.fields <= record.values.keys()]
            if record is None or not usable:
                return None
            template = usable[int(rng.integers(len(usable)))]
            rendered = template.render(record.values, self.encoder, change)
            if len(rendered.tokens) <= self.max_example_tokens:
                break
            if max_items == 1:
                self.left_out[task.name] += 1
                return None
            max_items = max(1, min(max_items - 1, max_items * self.max_example_tokens // len(rendered.tokens)))
        tokens, targets = as_arrays(rendered)
        request = record.values.get("request", "") if "request" in template.fields else ""
        return Example(
            tokens, targets, task.name, record.user, record.items, request if isinstance(request, str) else ""
        )


def _drawn(size: int, part: float, rng: np.random.Generator) -> list[int]:
    """A drawn `part` of `size` places in a drawn order; of a fraction of a place its chance is drawn."""
    places = rng.permutation(size)
    return [int(place) for place in (places if part == 1 else places[: int(part * size + rng.random())])]


def _nothing_to_tell(task: Task) -> DataError:
    return DataError(
        f"task {task.name} has nothing to tell of this run: no template of it finds all of its fields.",
        "Leave it out of `tasks`, or bring items with descriptions or attributes that several share.",
    )
