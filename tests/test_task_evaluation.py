"""Title accuracy and perplexity against answers read by hand from the model."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from genrec import Recommender, pipeline
from genrec.config import IngestConfig, ScratchConfig, TrainConfig, load_config
from genrec.data.catalog import Catalog
from genrec.data.ingest import ingest
from genrec.decoding.engine import Generation
from genrec.decoding.transformers_engine import TransformersEngine
from genrec.errors import DataError
from genrec.run import Run
from genrec.task_evaluation import held_out_texts, text_perplexity, title_accuracy
from genrec.training.text_tokenizer import train_text_tokenizer
from genrec.vocabulary import SidVocabulary, TextEncoder


@pytest.fixture(scope="module")
def learned(tiny_run: Path, tiny_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The tiny run, trained on titles and IDs until it knows them."""
    own = tmp_path_factory.mktemp("prompts")
    for name, task, templates in (
        ("text_to_item", "B1", ["Find {{ title }} → {{ item }}", "See {{ title }} → {{ item }}"]),
        ("item_to_text", "B2", ["{{ item }} is → {{ title }}"]),
    ):
        (own / f"{name}.yaml").write_text(
            f"task: {name}\nid: {task}\nsource: items\ntemplates: {templates}\nheld_out: ['Now {templates[0]}']\n"
        )
    run = Run(Path(shutil.copytree(tiny_run, tmp_path_factory.mktemp("runs") / "learned")))
    config = load_config(TrainConfig, tiny_files / "train.yaml").model_copy(
        update={
            "scratch": ScratchConfig(hidden_size=48, layers=2, heads=2, intermediate_size=96, text_vocabulary=320),
            "tasks": {"A1": 0.02, "B1": 0.44, "B2": 0.54},
            "prompts": own,
            "epochs": 4,
            "dropout": 0.0,
            "learning_rate": 4e-3,
            "validate_every": 4,
            "batch_tokens": 256,
        }
    )
    pipeline.train(run, config)
    return run


def test_a_model_that_learned_titles_knows_them_and_one_that_did_not_does_not(learned: Run, tiny_run: Path) -> None:
    found = title_accuracy(learned, max_items=20, seed=0)
    assert [(entry.task, entry.held_out) for entry in found] == [
        ("B1", False),
        ("B1", False),
        ("B1", True),
        ("B2", False),
        ("B2", True),
    ]
    assert {entry.num_items for entry in found} == {20}
    untrained = title_accuracy(Run(tiny_run), max_items=20, seed=0)
    for task, floor in (("B1", 0.5), ("B2", 0.25)):  # to write a title is harder than to choose one
        knows, does_not = (
            [entry.accuracy for entry in entries if entry.task == task and not entry.held_out]
            for entries in (found, untrained)
        )
        assert np.mean(knows) > floor > 2 * np.mean(does_not), (task, knows, does_not)


def test_an_answer_is_right_where_the_engine_asked_by_hand_says_so(learned: Run) -> None:
    recommender = Recommender.load(learned.path, beam_width=10)
    tokenizer = AutoTokenizer.from_pretrained(learned.path / "model")
    encoder = TextEncoder(tokenizer)
    right = 0
    for title in recommender.catalog.titles:
        before = "<|im_start|>user\nFind"
        after = "<|im_end|>\n<|im_start|>assistant\n"
        prompt = [
            *tokenizer.encode(before, add_special_tokens=False),
            *encoder.encode(f" {title}"),
            *tokenizer.encode(after, add_special_tokens=False),
        ]
        ((best, *_),) = recommender.engine.rank([prompt], recommender.trie, beam_width=10, k=1)
        right += recommender.catalog.titles[best.item_index] == title
    found = title_accuracy(learned, max_items=30, seed=0)
    (entry,) = [entry for entry in found if entry.template == "Find {{ title }} → {{ item }}"]
    assert entry.accuracy == pytest.approx(right / 30)


def test_of_trained_paraphrases_a_seeded_sample_is_asked_and_of_held_out_ones_all(learned: Run) -> None:
    def asked(seed: int) -> list[tuple[str, bool]]:
        found = title_accuracy(learned, max_items=1, seed=seed, max_paraphrases=1)
        return [(entry.template, entry.held_out) for entry in found if entry.task == "B1"]

    drawn = [asked(seed) for seed in range(4)]
    assert all([held_out for _, held_out in found] == [False, True] for found in drawn)
    assert {found[0][0] for found in drawn} == {"Find {{ title }} → {{ item }}", "See {{ title }} → {{ item }}"}
    assert asked(0) == drawn[0]


def test_perplexity_is_the_mean_likelihood_of_the_tokens_per_word(learned: Run) -> None:
    texts = ["Film one and two", "x", "Which item is called Film 3?"]
    tokenizer = AutoTokenizer.from_pretrained(learned.path / "model")
    model = AutoModelForCausalLM.from_pretrained(learned.path / "model").eval()
    nats = 0.0
    for text in (texts[0], texts[2]):  # one token has nothing before it
        ids = tokenizer.encode(text, add_special_tokens=False)
        for place in range(1, len(ids)):
            with torch.no_grad():
                logits = model(torch.tensor([ids[:place]])).logits[0, -1]
            logits[SidVocabulary.load(learned.path / "model").span] = -torch.inf  # a text has words alone
            nats -= float(torch.log_softmax(logits.float(), dim=-1)[ids[place]])
    assert text_perplexity(learned.path / "model", texts) == pytest.approx(math.exp(nats / 10), rel=1e-3)
    with pytest.raises(DataError, match="no text"):
        text_perplexity(learned.path / "model", ["", "x"])


def test_a_text_beyond_the_context_is_read_in_pieces_of_it(tmp_path: Path) -> None:
    words = [f"word{n}" for n in range(60)]
    tokenizer = train_text_tokenizer([" ".join(words)], 400)
    torch.manual_seed(0)
    shape = {"n_positions": 16, "n_embd": 16, "n_layer": 1, "n_head": 2}
    GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **shape)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert text_perplexity(tmp_path, [" ".join(words)]) > 1  # its positions end at 16


def test_held_out_texts_are_the_descriptions_of_held_out_items(tiny_files: Path, tmp_path: Path) -> None:
    items = pl.read_ndjson(tiny_files / "items.jsonl")
    items.with_columns(description="About " + pl.col("title")).write_ndjson(tmp_path / "items.jsonl")
    run = Run.create(tmp_path / "run")
    config = IngestConfig(min_interactions=1, cold_fraction=0.1)
    ingest(run, "tables", [tmp_path / "items.jsonl", tiny_files / "interactions.csv"], config)
    cold = pl.read_parquet(run.path / "cold_items.parquet")["item_id"].to_list()
    assert held_out_texts(run) == [f"About Film {item[1:]}" for item in sorted(cold, key=lambda i: int(i[1:]))]
    plain = Run.create(tmp_path / "plain")
    ingest(plain, "tables", [tiny_files / "items.jsonl", tiny_files / "interactions.csv"], config)
    assert held_out_texts(plain) == []


def test_a_title_may_be_written_to_the_end_of_the_longest_one(learned: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    limits, generate = [], TransformersEngine.generate

    def noted(self: TransformersEngine, prompts: Any, *, max_new_tokens: int, **options: Any) -> list[Generation]:
        limits.append(max_new_tokens)
        return generate(self, prompts, max_new_tokens=max_new_tokens, **options)

    monkeypatch.setattr(TransformersEngine, "generate", noted)
    title_accuracy(learned, max_items=5, seed=0)
    encoder = TextEncoder(AutoTokenizer.from_pretrained(learned.path / "model"))
    longest = max(len(encoder.encode(title)) for title in Catalog.load(learned).titles)
    assert set(limits) == {longest + 2}  # a space before it may be a token, and the end is one
