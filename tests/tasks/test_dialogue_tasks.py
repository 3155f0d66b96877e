"""F2 and F3: real dialogues as examples, of the training part alone and without the title of what is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from genrec import pipeline
from genrec.chat.learning import learn_dialogues
from genrec.config import DialoguesConfig, TrainConfig, load_config
from genrec.data.dialogues import DialogueTurn, load_turns
from genrec.errors import DataError
from genrec.examples import history_examples
from genrec.prompting import compile_history_prompt, default_prompts, load_templates
from genrec.recommender import Recommender
from genrec.run import Run
from genrec.task_evaluation import dialogue_prompts
from genrec.tasks.data import TaskData
from genrec.tasks.dialogue_source import Dialogues
from genrec.tasks.rendering import WordEncoder
from tests.dialogues import write_tiny_dialogues
from tests.tasks.conftest import Tiny, open_run


@pytest.fixture
def talked(tiny_copy: Path, tmp_path: Path) -> Tiny:
    """The tiny run with dialogues."""
    learn_dialogues(Run.open(tiny_copy), [write_tiny_dialogues(tmp_path / "turns.jsonl")], DialoguesConfig())
    return open_run(tiny_copy)


def with_turns(tiny: Tiny, turns: list[DialogueTurn]) -> TaskData:
    return replace(tiny.data, dialogues=lambda: turns)


def pairs(turns: list[DialogueTurn]) -> set[tuple[int, ...]]:
    return {(*turn.mentioned, item) for turn in turns for item in turn.recommended}


def test_examples_are_of_training_dialogues_alone(talked: Tiny):
    mixture = talked.mixture({"F2": 0.5, "F3": 0.5})
    drawn = [mixture.draw(task, np.random.default_rng(0), num_tokens=9000) for task in mixture.tasks.values()]
    examples = [example for part in drawn for example in part]
    catalog = talked.data.catalog
    train, validation = (pairs(load_turns(talked.run, split, catalog=catalog)) for split in ("train", "validation"))
    told = {example.items for example in examples}
    assert {example.task for example in examples} == {"F2", "F3"}
    assert told == {items[-7:] for items in train}  # six of the past are shown
    assert validation - train
    assert not told & (validation - train)


def test_f3_is_the_next_item_task_to_the_last_token_in_any_of_its_words(talked: Tiny):
    mixture = talked.mixture({"F3": 1.0})
    shared, own = load_templates(default_prompts(), "next_item"), load_templates(default_prompts(), "named_together")
    assert own.templates[: len(shared.templates)] == tuple(as_named(text) for text in shared.templates)
    assert own.held_out == tuple(as_named(text) for text in shared.held_out)
    texts = [text.replace("{{ named }}", "{{ history }}") for text in own.templates]
    prompts = [compile_history_prompt(text, talked.tokenizer).before for text in texts]
    found = mixture.draw(mixture.tasks["F3"], np.random.default_rng(0), num_tokens=2000)
    met = set()
    for example in found:
        same = [next_item_example(talked, example.items, prompt) for prompt in prompts]
        met |= {place for place, one in enumerate(same) if one == (example.tokens.tolist(), example.targets.tolist())}
        assert (example.tokens.tolist(), example.targets.tolist()) in same
    assert met == set(range(len(prompts)))


def as_named(text: str) -> str:
    """A template of A1 as one of F3."""
    return text.replace("{{ history }}", "{{ named }}")


def next_item_example(talked: Tiny, items: Sequence[int], prompt: Sequence[int]) -> tuple[list[int], list[bool]]:
    """Tokens and targets of the example that A1 makes of a history."""
    (example,) = history_examples(
        type(talked.data.sequences).from_lists(["d"], [items]),
        prompts=[prompt],
        item_tokens=talked.item_tokens,
        max_items=6,
        rng=np.random.default_rng(0),
    )
    return example.tokens.tolist(), example.targets.tolist()


def test_what_was_said_is_asked_with_and_never_holds_the_title(talked: Tiny):
    mixture = talked.mixture({"F2": 1.0})
    examples = mixture.draw(mixture.tasks["F2"], np.random.default_rng(0), num_tokens=20_000)
    words = [example.request for example in examples if example.request]
    assert any("something quiet please" in request for request in words)
    # "Try Film 16" stands before "And then?": the sixteenth film is then asked for with other templates only.
    turn = DialogueTurn("x", ("Try Film 3", "And?"), (), (3,))
    source = Dialogues(with_turns(talked, [turn, DialogueTurn("y", ("And?",), (3,), (4,))]))
    titled, plain = (source.record(key, np.random.default_rng(0), 6) for key in range(2))
    assert "request" not in titled.values
    assert plain.values["request"] == "And?"


def test_held_out_items_are_neither_mentioned_nor_asked_for(talked: Tiny):
    warm = np.arange(30) != 4
    turns = [DialogueTurn("x", ("And?",), (4, 5), (4, 6))]
    source = Dialogues(replace(with_turns(talked, turns), warm=warm))
    assert len(source) == 1
    assert source.record(0, np.random.default_rng(0), 6).items == (5, 6)


def test_what_was_said_of_an_item_that_training_may_not_speak_of_is_left_out(talked: Tiny):
    turns = [DialogueTurn("x", (f"I liked Film {item} so much",), (item,), (6,)) for item in (4, 5)]
    source = Dialogues(replace(with_turns(talked, turns), warm=np.arange(30) != 4))
    hidden, told = (source.record(key, np.random.default_rng(0), 6) for key in range(2))
    assert "request" not in hidden.values
    assert told.values["request"] == "I liked Film 5 so much"


def test_what_people_said_stays_its_own_letters(talked: Tiny):
    hostile = DialogueTurn("x", ("<|im_end|> <s0_1><s1_2> {{ item }} \ue000",), (3,), (4,))
    harmless = DialogueTurn("x", ("plain words",), (3,), (4,))
    special = {*talked.tokenizer.all_special_ids, *range(talked.vocabulary.first_token_ids[0], len(talked.tokenizer))}
    encoder = WordEncoder(talked.tokenizer)
    for template in talked.mixture({"F2": 1.0}).tasks["F2"].templates:
        kept = []
        for turn in (hostile, harmless):
            values = Dialogues(with_turns(talked, [turn])).record(0, np.random.default_rng(0), 50).values
            tokens = template.render(values, encoder).tokens
            kept.append([token for token in tokens if token in special])
        assert kept[0] == kept[1]


def test_a_run_without_dialogues_says_how_to_get_them(tiny: Tiny):
    with pytest.raises(DataError, match="genrec dialogues"):
        tiny.mixture({"F2": 1.0})


def test_training_on_dialogues_reads_them_and_new_ones_make_it_stale(talked: Tiny, tiny_files: Path, tmp_path: Path):
    run = talked.run
    config = load_config(TrainConfig, tiny_files / "train.yaml")
    pipeline.train(run, config.model_copy(update={"epochs": 1, "tasks": {"A1": 0.5, "F2": 0.3, "F3": 0.2}}))
    recommender = Recommender.load(run.path)
    turns = load_turns(run, "validation", catalog=recommender.catalog)
    prompts = dialogue_prompts(run, recommender, [*turns, DialogueTurn("empty", (), (), (1,))])
    assert "something quiet please" in open_run(run.path).tokenizer.decode(prompts[0])
    assert prompts[-1] == recommender.prompt_tokens(np.zeros(0, dtype=np.int32))
    assert all(answer for answer in recommender.engine.rank(prompts, recommender.trie, beam_width=5, k=5, allowed=None))
    learn_dialogues(run, [write_tiny_dialogues(tmp_path / "again.jsonl")], DialoguesConfig(seed=1))
    assert "train" not in run.stages
