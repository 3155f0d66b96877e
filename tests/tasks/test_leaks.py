"""Planted leaks are found, and what the shipped tasks make has none."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from genrec import pipeline
from genrec.chat.learning import learn_dialogues
from genrec.config import DialoguesConfig, EmbedConfig, IngestConfig, TokenizeConfig, TrainConfig, load_config
from genrec.data.catalog import Catalog
from genrec.data.dialogues import DialogueTurn, load_turns
from genrec.data.ingest import ingest
from genrec.data.splits import cold_items
from genrec.encoders.embed import embed
from genrec.errors import DataError
from genrec.examples import Example
from genrec.prompting import default_prompts
from genrec.run import Run
from genrec.tasks.data import Review, load_task_data
from genrec.tasks.dialogue_source import Dialogues
from genrec.tasks.history_sources import NextItems
from genrec.tasks.leaks import LeakCheck
from genrec.tasks.loading import read_tasks
from genrec.tasks.sources import Texts
from genrec.tasks.titles import holds_title
from genrec.training.corpus import run_documents
from tests.dialogues import write_tiny_dialogues
from tests.reviewed import review_of, write_reviewed
from tests.tasks.conftest import Tiny, open_run

ALL = ("A1", "A2", "B1", "B2", "B3", "C1", "C2", "D1", "D2", "E1", "E2", "E3", "F1", "F2", "F3", "G", "H1", "H2", "X1")


@pytest.fixture(scope="module")
def cold(tiny_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """The tiny run with a fifth of its items held out, with descriptions, reviews and dialogues."""
    folder = tmp_path_factory.mktemp("runs")
    run = Run.create(folder / "cold")
    tables = write_reviewed(tiny_files, folder)
    ingest(run, "tables", tables, IngestConfig(min_interactions=1, cold_fraction=0.2))
    embed(run, load_config(EmbedConfig, tiny_files / "embed.yaml"))
    pipeline.tokenize(run, load_config(TokenizeConfig, tiny_files / "tokenize.yaml"))
    train = load_config(TrainConfig, tiny_files / "train.yaml")
    pipeline.train(run, train.model_copy(update={"epochs": 1}))
    learn_dialogues(run, [write_tiny_dialogues(folder / "turns.jsonl")], DialoguesConfig())
    return open_run(run.path)


def test_a_base_that_is_pretrained_on_a_run_reads_nothing_that_is_held_out(cold: Tiny) -> None:
    documents = list(run_documents(cold.run))
    catalog, held_out = Catalog.load(cold.run), cold_items(cold.run)
    splits = pl.read_parquet(cold.run.path / "splits.parquet")
    for split in ("train", "validation", "test", "held-out"):
        for user, item in splits.filter(pl.col("split") == split).select("user_id", "item_id").iter_rows():
            assert (review_of(user, item) in documents) == (split == "train")
    for row, item_id in enumerate(catalog.item_ids):
        assert any(f"the tale {item_id} of it." in text for text in documents) == (not held_out[row])
        if held_out[row]:
            assert not any(holds_title(catalog.titles[row], text) for text in documents)
    turns = load_turns(cold.run, "validation", catalog=catalog)
    said = {text for turn in turns for text in turn.context if text}
    taught = {text for turn in load_turns(cold.run, "train", catalog=catalog) for text in turn.context}
    assert said - taught
    assert not any(text in document for text in said - taught for document in documents)


def check_of(tiny: Tiny) -> LeakCheck:
    return LeakCheck(tiny.run, tiny.data.sequences.user_ids, tiny.item_tokens)


def example_of(tiny: Tiny, items: list[int], user: int, **more: object) -> Example:
    tokens = tiny.item_tokens[items].ravel()
    return replace(Example(tokens, np.ones(len(tokens), dtype=np.bool_), "A1", user), **more)


def interactions(tiny: Tiny, split: str) -> list[tuple[int, int]]:
    """(user, item) of a split, in the numbers of examples."""
    rows = pl.read_parquet(tiny.run.path / "splits.parquet").filter(pl.col("split") == split)
    users = {user_id: row for row, user_id in enumerate(tiny.data.sequences.user_ids)}
    index = tiny.data.catalog.index
    pairs = rows.select("user_id", "item_id").iter_rows()
    return [(users[user], index[item]) for user, item in pairs if user in users]


def test_no_shipped_task_tells_of_anything_but_training(cold: Tiny):
    assert set(ALL) == set(read_tasks([default_prompts()]))
    mixture = cold.mixture(dict.fromkeys(ALL, 1.0), max_items=7, example_tokens=600)
    examples = mixture.examples(np.random.default_rng(0))
    assert {example.task for example in examples} == set(ALL)
    assert check_of(cold).problems(examples) == []
    # By brute force over the tokens of every example, without the check's own reader.
    held_out = np.flatnonzero(cold_items(cold.run))
    assert len(held_out) == 6
    codes = {tuple(row) for row in cold.item_tokens[held_out].tolist()}
    codes -= {tuple(row) for row in np.delete(cold.item_tokens, held_out, axis=0).tolist()}
    for example in examples:
        pairs = zip(example.tokens.tolist(), example.tokens.tolist()[1:], strict=False)
        assert not codes & set(pairs)
        text = cold.tokenizer.decode(example.tokens)
        assert not any(holds_title(text, cold.data.catalog.titles[item]) for item in held_out)
        assert not any(f"tale i{item} of" in text for item in held_out)
    # Of the reviews those of training interactions are told, and no other.
    texts = [cold.tokenizer.decode(example.tokens) for example in examples if example.task == "G"]
    rows = pl.read_parquet(cold.run.path / "splits.parquet").select("split", "user_id", "item_id").rows()
    trained = [review_of(user, item) for split, user, item in rows if split == "train"]
    others = [review_of(user, item) for split, user, item in rows if split != "train"]
    assert len(others) > 60
    assert sum(review in text for review in trained for text in texts) >= 10
    assert not [text for text in texts if any(review in text for review in others)]


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_planted_review_of_another_split_is_found(cold: Tiny, split: str):
    clean, leaky = interactions(cold, "train")[0], interactions(cold, split)[0]
    reviews = [Review(*pair, "anything at all") for pair in (clean, leaky)]
    source = Texts(replace(cold.data, reviews=reviews))
    records = [source.record(len(source) - 2 + number, np.random.default_rng(0), 6) for number in range(2)]
    tokens = np.array([5, 6])
    examples = [Example(tokens, tokens > 0, "G", record.user, record.items) for record in records]
    (problem,) = check_of(cold).problems(examples)
    user_id, item_id = cold.data.sequences.user_ids[leaky[0]], cold.data.catalog.item_ids[leaky[1]]
    assert problem.startswith(f"task G: item {item_id!r} is a {split} interaction of user {user_id!r}")


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_planted_interaction_of_another_split_is_found(tiny: Tiny, split: str):
    clean = tiny.mixture({"A1": 1.0}).examples(np.random.default_rng(0))
    for user, item in interactions(tiny, split)[:5]:
        history = tiny.data.sequences[user].tolist()
        planted = example_of(tiny, [*history, item], user)
        (problem,) = check_of(tiny).problems([*clean, planted])
        user_id, item_id = tiny.data.sequences.user_ids[user], tiny.data.catalog.item_ids[item]
        assert problem.startswith(f"task A1: item {item_id!r} is a {split} interaction of user {user_id!r}")
    with pytest.raises(DataError, match=r"1 leak\(s\) in training examples"):
        check_of(tiny).check([*clean, planted])


def test_an_item_in_words_only_is_found_by_what_the_example_declares(tiny: Tiny):
    user, item = interactions(tiny, "test")[0]
    words = Example(np.array([5, 6]), np.array([False, True]), "C2", user, (item,))
    (problem,) = check_of(tiny).problems([words])
    assert "is a test interaction" in problem


def test_an_item_that_the_user_never_had_is_found(tiny: Tiny):
    user = 0
    never = sorted(
        set(range(30))
        - {item for s in ("train", "validation", "test") for u, item in interactions(tiny, s) if u == user}
    )[0]
    (problem,) = check_of(tiny).problems([example_of(tiny, [never], user)])
    assert "was never used by user" in problem


def test_a_planted_held_out_item_is_found_whosoever_it_is(cold: Tiny):
    item = int(np.flatnonzero(cold_items(cold.run))[0])
    (problem,) = check_of(cold).problems([example_of(cold, [item], -1)])
    assert problem == f"task A1: item {cold.data.catalog.item_ids[item]!r} is held out of training."


def test_a_request_that_holds_the_title_is_found(tiny: Tiny):
    user, item = 0, int(tiny.data.sequences[0][0])
    title = tiny.data.catalog.titles[item]
    planted = example_of(tiny, [item], user, task="D1", request=f"comedy, {title.upper()}!")
    (problem,) = check_of(tiny).problems([planted])
    assert problem.endswith(f"holds the title {title!r} of what it looks for.")
    assert check_of(tiny).problems([replace(planted, request="comedy")]) == []
    words = replace(planted, tokens=np.array([1, 2]), targets=np.array([False, True]), items=(item,))  # told as text
    assert check_of(tiny).problems([words]) == [problem]
    assert check_of(tiny).problems([replace(words, request="comedy")]) == []


def test_a_request_holds_no_title_of_an_item_that_shares_the_id(tmp_path: Path):
    texts = {"Cotton Shirt": "soft", "Cotton Shirt Blue": "a cotton shirt in blue", "Hat": "straw"}
    texts = {"Socks": "wool"} | texts | {"Belt": "leather", "Scarf": "silk"}
    lines = [{"item_id": title, "title": title, "description": text} for title, text in texts.items()]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = [f"u{user},{title},{at}" for user in range(3) for at, title in enumerate(texts)]
    (tmp_path / "interactions.csv").write_text("\n".join(["user_id,item_id,timestamp", *rows]))
    run = Run.create(tmp_path / "run")
    ingest(run, "tables", [tmp_path / "items.jsonl", tmp_path / "interactions.csv"], IngestConfig(min_interactions=1))
    titles = Catalog.load(run).titles
    codes = np.array([[1, 9] if title.startswith("Cotton") else [2, row] for row, title in enumerate(titles)])
    said = DialogueTurn("d", ("Something for the summer",), (), (titles.index("Cotton Shirt Blue"),))
    shared = replace(said, context=("a cotton shirt",))
    data = replace(load_task_data(run, codes), dialogues=lambda: [said, shared])
    check, rng = LeakCheck(run, data.sequences.user_ids, codes), np.random.default_rng(0)
    requests: list[str] = []
    for source in (NextItems(data), Dialogues(data)):
        for key in [*range(len(source))] * 9:
            record = source.record(key, rng, 3)
            if request := str(record.values.get("request", "")):
                requests.append(request)
                tokens = np.array(record.values["item"].tokens)
                example = Example(tokens, np.ones(2, dtype=np.bool_), "D1", -1, (), request)
                assert check.problems([example]) == []
    assert {"soft", "straw", "Something for the summer"} <= set(requests)


def test_ids_are_read_within_an_example_only(tiny: Tiny):
    user, item = interactions(tiny, "test")[0]
    first, second = tiny.item_tokens[item].tolist()
    halves = [Example(np.array([token]), np.array([True]), "A1", user, ()) for token in (first, second)]
    assert check_of(tiny).problems(halves) == []
    assert check_of(tiny).problems([]) == []


@pytest.mark.parametrize(
    ("text", "title", "held"),
    [
        ("I want HEAT, please", "Heat", True),
        ("I want heating", "Heat", False),
        ("the third-man!", "The Third Man", True),
        ("the man, third", "The Third Man", False),
        ("amélie", "Amelie", True),
        ("anything", "!!!", False),
    ],
)
def test_a_title_is_found_word_by_word(text: str, title: str, held: bool):
    assert holds_title(text, title) == held
