"""Does a trained model know what its items are called? Title → ID and ID → title, asked in every paraphrase.

An ID is decoded under the trie, a title is written greedily. Titles are compared word by word; of several items with
one title any is right. The perplexity of held-out text says what is left of the language.

N items asked for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from genrec.adapter import merge_adapter
from genrec.config import TrainConfig
from genrec.data.catalog import Catalog
from genrec.data.dialogues import DialogueTurn
from genrec.data.splits import cold_items
from genrec.decoding.engine import Engine
from genrec.errors import DataError
from genrec.progress import SILENT, Progress
from genrec.prompting import default_prompts
from genrec.recommender import Recommender
from genrec.run import Run
from genrec.tasks.data import load_task_data
from genrec.tasks.dialogue_source import said_fields
from genrec.tasks.loading import TaskLoader, load_mixture, read_tasks
from genrec.tasks.mixture import Mixture, Task
from genrec.tasks.rendering import CompiledTemplate, WordEncoder
from genrec.tasks.titles import plain_words
from genrec.trie import ItemTrie
from genrec.vocabulary import VOCABULARY_FILE, SidVocabulary, TextEncoder, opening_tokens

TITLE_TO_ID, ID_TO_TITLE, DIALOGUE = "B1", "B2", "F2"
_TITLE_AND_ITEM = {"title", "item"}
_BEAM_WIDTH = 10
_MOST_MENTIONED = 10
_AT_ONCE = 64


@dataclass(frozen=True)
class Accuracy:
    """How often one paraphrase was answered right."""

    task: str
    template: str
    held_out: bool  # never trained on
    num_items: int
    accuracy: float


def title_accuracy(
    run: Run, *, max_items: int, seed: int, max_paraphrases: int = 8, progress: Progress = SILENT
) -> list[Accuracy]:
    """Accuracy of a trained run on templates of B1 and B2 that know an item by its title and by nothing else.

    Of the items that training may speak of, a seeded sample of `max_items` is asked for. The templates are those that
    the run was trained with: all held-out ones, and of the others a seeded sample of `max_paraphrases` per task.
    """
    recommender = Recommender.load(run.path, beam_width=_BEAM_WIDTH)
    tokenizer: Any = AutoTokenizer.from_pretrained(run.path / "model")
    mixture = load_mixture(
        run,
        TrainConfig(tasks={TITLE_TO_ID: 1.0, ID_TO_TITLE: 1.0}, max_history_items=1),
        folders=[default_prompts(), run.path / "prompts"],
        tokenizer=tokenizer,
        item_tokens=recommender.item_tokens,
    )
    asked = _Asked(mixture, recommender.engine, recommender.trie, max_items=max_items, seed=seed)
    kinds = [(name, held_out) for name in (TITLE_TO_ID, ID_TO_TITLE) for held_out in (False, True)]
    found = []
    with progress.track("asking", len(kinds), "kinds of questions") as track:
        for name, held_out in kinds:
            task = mixture.tasks[name]
            templates = [
                one for one in (task.held_out if held_out else task.templates) if one.fields == _TITLE_AND_ITEM
            ]
            if not held_out:
                drawn = np.random.default_rng(seed).permutation(len(templates))[:max_paraphrases]
                templates = [templates[place] for place in sorted(drawn.tolist())]
            for template in templates:
                right = asked.right(task, template)
                found.append(Accuracy(name, template.text, held_out, len(right), float(np.mean(right))))
            track.advance()
    return found


class _Asked:
    """A sample of items and who answers questions about them."""

    def __init__(self, mixture: Mixture, engine: Engine, trie: ItemTrie, *, max_items: int, seed: int) -> None:
        self._mixture, self._engine, self._trie = mixture, engine, trie
        size = len(mixture.data.items)
        keys = np.random.default_rng(seed).permutation(size)[:max_items]
        self._keys = [int(key) for key in keys]
        self._titles = mixture.data.catalog.titles
        self._longest = max((len(mixture.encoder.untrusted(title)) for title in self._titles), default=0)

    def right(self, task: Task, template: CompiledTemplate) -> list[bool]:
        """Whether each item's question was answered with its ID or title, (N,)."""
        assert task.source is not None
        rng = np.random.default_rng(0)
        records = [task.source.record(key, rng, 1) for key in self._keys]
        known = [record for record in records if record is not None and template.fields <= record.values.keys()]
        prompts = [template.question(record.values, self._mixture.encoder) for record in known]
        wanted = [plain_words(self._titles[record.items[0]]) for record in known]
        answers = self._items(prompts) if task.name == TITLE_TO_ID else self._texts(prompts)
        return [plain_words(answer) == title for answer, title in zip(answers, wanted, strict=True)]

    def _items(self, prompts: Sequence[Sequence[int]]) -> list[str]:
        titles = []
        for start in range(0, len(prompts), _AT_ONCE):
            part = prompts[start : start + _AT_ONCE]
            ranked = self._engine.rank(part, self._trie, beam_width=_BEAM_WIDTH, k=1)
            titles += [self._titles[best[0].item_index] for best in ranked]
        return titles

    def _texts(self, prompts: Sequence[Sequence[int]]) -> list[str]:
        texts = []
        for start in range(0, len(prompts), _AT_ONCE):
            part = prompts[start : start + _AT_ONCE]
            # As long as any title, its space before it and the end behind it: a shorter limit is a wrong answer.
            found = self._engine.generate(part, max_new_tokens=self._longest + 2)
            texts += [answer.text for answer in found]
        return texts


def dialogue_prompts(
    run: Run, recommender: Recommender, turns: Sequence[DialogueTurn], *, max_words: int = 50
) -> list[list[int]]:
    """Turns as a run that was trained on F2 is asked about them, with the fullest question that each turn can fill.

    A turn before which nothing was said and mentioned is asked about as a new user. Nothing of what a turn recommends
    is read.
    """
    tokenizer: Any = AutoTokenizer.from_pretrained(run.path / "model")
    encoder = WordEncoder(tokenizer)
    data = load_task_data(run, recommender.item_tokens)
    file = read_tasks([default_prompts(), run.path / "prompts"])[DIALOGUE]
    task = TaskLoader(data, tokenizer).load(*file)
    questions = [template for template in task.templates if "title" not in template.fields]  # an ID is all the answer
    questions.sort(key=lambda template: -len(template.fields))
    prompts = []
    for turn in turns:
        values = said_fields(data, turn.context, turn.mentioned[-_MOST_MENTIONED:], max_words=max_words)
        known = [one for one in questions if one.fields - {"item"} <= values.keys()]
        history = np.asarray(turn.mentioned, dtype=np.int32)
        prompts.append(known[0].question(values, encoder) if known else recommender.prompt_tokens(history))
    return prompts


def text_perplexity(folder: str | Path, texts: Sequence[str], *, adapter: Path | None = None) -> float:
    """Perplexity per word of texts under a model: exp of the nats of all tokens over the number of words.

    `folder` is a Hugging Face folder or hub name, `adapter` one to merge into it. Per word and not per token, so that
    models with different tokenizers can be compared. Texts begin as in training (beginning token, soft prompt). The
    first token of a text is not scored; one beyond the model's context is read in pieces. A model that knows items is
    asked for words alone, as it learns and writes texts. Raises DataError: no text.
    """
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if adapter is not None:
        model = merge_adapter(model, adapter)
    model.eval()
    encoder, opening = TextEncoder(tokenizer), opening_tokens(tokenizer)
    most = int(getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None) or 1 << 20)
    most -= len(opening)
    knows_items = (Path(folder) / VOCABULARY_FILE).is_file()
    items = SidVocabulary.load(Path(folder)).span if knows_items else slice(0, 0)
    nats, num_words = 0.0, 0
    for text in texts:
        ids = encoder.encode(text)
        if len(ids) < 2:
            continue
        for start in range(0, len(ids) - 1, most - 1):  # the last token of a piece is the first of the next one
            piece = torch.tensor([[*opening, *ids[start : start + most]]])
            with torch.no_grad():
                logits = model(piece).logits[0, len(opening) : -1].float()
            logits[:, items] = -torch.inf
            nats += float(torch.nn.functional.cross_entropy(logits, piece[0, len(opening) + 1 :], reduction="sum"))
        num_words += len(text.split())
    if not num_words:
        raise DataError("there is no text to measure the perplexity of.")
    return math.exp(nats / num_words)


def held_out_texts(run: Run) -> list[str]:
    """Descriptions of the items that ingest held out: no task has told of them."""
    table = Catalog.load(run).table
    if "description" not in table.columns:
        return []
    cold = np.flatnonzero(cold_items(run))
    return [text for text in table["description"].gather(cold.tolist()).to_list() if text]
