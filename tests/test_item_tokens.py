"""Items with a token of their own beside their semantic ID: who has one, what is trained, and what is recommended."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import AutoTokenizer

from genrec import pipeline
from genrec.catalogue_changes import add_items
from genrec.config import EmbedConfig, IngestConfig, TokenizeConfig, TrainConfig, load_config
from genrec.data.ingest import ingest
from genrec.data.sequences import Sequences
from genrec.data.splits import cold_items, training_sequences
from genrec.encoders.embed import embed
from genrec.errors import ModelError
from genrec.examples import Example, history_examples
from genrec.progress import SilentProgress, Task
from genrec.recommender import Recommender
from genrec.run import Run
from genrec.tasks.leaks import LeakCheck
from genrec.training.text_tokenizer import train_text_tokenizer
from genrec.vocabulary import SidVocabulary, extend_tokenizer, extend_with_items, extend_with_soft_prompt, item_token

IDS = [f"i{number}" for number in range(6)]


def trained(run: Run, tiny_files: Path, **changes: object) -> Run:
    config = load_config(TrainConfig, tiny_files / "train.yaml").model_copy(update={"epochs": 1, **changes})
    pipeline.train(run, config)
    return run


def test_tokens_stand_behind_the_codes_and_belong_to_the_items_of_one_catalogue(tmp_path: Path) -> None:
    tokenizer = train_text_tokenizer(["Heat", "Alien"], 320)
    codes = extend_tokenizer(tokenizer, (4, 3))
    known = extend_with_items(tokenizer, codes, item_ids=IDS, rows=np.array([1, 4]), share=0.9)
    assert tokenizer.convert_tokens_to_ids([item_token(0), item_token(1)]) == [
        sum(codes.groups[-1]),
        len(tokenizer) - 1,
    ]
    own = known.own_tokens(6)
    assert own is not None
    assert own.tolist() == [-1, known.first_item_token, -1, -1, known.first_item_token + 1, -1]
    known.save(tmp_path)
    assert SidVocabulary.load(tmp_path) == known
    assert known.of_catalogue([*IDS, "new"]) == known  # rows are only ever added
    others = known.of_catalogue(["other", *IDS[1:4], "other"])
    assert (others.groups, others.own_tokens(5)) == (codes.groups, None)


def test_a_soft_prompt_behind_the_codes_leaves_no_place_for_items() -> None:
    tokenizer = train_text_tokenizer(["Heat", "Alien"], 320)
    codes = extend_tokenizer(tokenizer, (4, 3))
    extend_with_soft_prompt(tokenizer, 2)
    with pytest.raises(ModelError, match="item_share: 0"):
        extend_with_items(tokenizer, codes, item_ids=IDS, rows=np.array([1]), share=0.9)


def test_a_window_is_read_in_either_spelling_and_never_in_both_at_once() -> None:
    sequences = Sequences.from_lists(["u", "v"], [[2, 0, 1], [1, 1]])
    item_tokens = np.array([[10, 20], [11, 21], [12, 22]])
    own = np.array([100, -1, 102])
    examples = history_examples(
        sequences, prompts=[[7]], item_tokens=item_tokens, max_items=5, rng=np.random.default_rng(0), own_tokens=own
    )
    assert [example.tokens.tolist() for example in examples] == [
        [7, 12, 22, 10, 20, 11, 21],
        [7, 102, 100],  # item 1 has no token
        [7, 11, 21, 11, 21],
    ]
    assert [example.targets.tolist() for example in examples[:2]] == [[False] + [True] * 6, [False, True, True]]


def test_leaks_are_found_in_either_spelling(tiny_run: Path) -> None:
    recommender = Recommender.load(tiny_run)
    own = recommender.live.own_tokens
    assert own is not None
    check = LeakCheck(Run(tiny_run), training_sequences(Run(tiny_run)).user_ids, recommender.item_tokens, own)
    seen, unseen = Example(own[[0, 3]], np.ones(2, bool), user=0), Example(own[[0, 1]], np.ones(2, bool), user=0)
    assert check.problems([seen]) == []
    (problem,) = check.problems([unseen])
    assert "item 'i1' was never used by user 'u0'" in problem


def test_only_items_that_training_knows_have_a_token(tiny_files: Path, tmp_path: Path) -> None:
    run = Run.create(tmp_path / "cold")
    tables = [tiny_files / "items.jsonl", tiny_files / "interactions.csv"]
    ingest(run, "tables", tables, IngestConfig(min_interactions=1, cold_fraction=0.2))
    embed(run, load_config(EmbedConfig, tiny_files / "embed.yaml"))
    pipeline.tokenize(run, load_config(TokenizeConfig, tiny_files / "tokenize.yaml"))
    recommender = Recommender.load(trained(run, tiny_files).path)
    own = recommender.live.own_tokens
    assert own is not None
    assert (own[cold_items(run)] == -1).all()
    assert (own[~cold_items(run)] >= 0).sum() > 15
    (cold, *_), (warm, *_) = np.flatnonzero(own < 0), np.flatnonzero(own >= 0)
    prompt = recommender.item_prompt(np.array([cold, warm], dtype=np.int32))
    assert prompt is not None
    assert prompt[-1] == own[warm]
    assert len(prompt) == 1 + len(recommender.item_prompt(np.array([], dtype=np.int32)) or ())


def test_new_items_are_recommended_by_their_semantic_id(tiny_copy: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.jsonl"
    new.write_text(json.dumps({"item_id": "n", "title": "New"}) + "\n")
    before = Recommender.load(tiny_copy, beam_width=40).recommend(["i1"], k=40)
    add_items(Run.open(tiny_copy), new, when="2026-01-02T03:04:05+00:00")
    recommender = Recommender.load(tiny_copy, beam_width=40)
    scores = {item.item_id: item.score for item in recommender.recommend(["i1"], k=40)}
    assert scores.pop("n") < max(scores.values())
    assert scores == pytest.approx({item.item_id: item.score for item in before}, abs=1e-5)
    assert recommender.recommend(["n", "i1"], k=3)  # a history may name it


def test_the_weight_of_the_tokens_is_that_of_the_training(tiny_copy: Path, tiny_files: Path) -> None:
    without = Recommender.load(trained(Run.open(tiny_copy), tiny_files, item_share=0.0).path)
    assert (without.live.own_tokens, without.item_prompt(np.array([1], dtype=np.int32))) == (None, None)
    run = trained(Run.open(tiny_copy), tiny_files, item_share=0.25)
    assert SidVocabulary.load(run.path / "model").item_share == 0.25
    pipeline.tokenize(run, TokenizeConfig(method="item-id"))
    assert not SidVocabulary.load(trained(run, tiny_files).path / "model").item_rows  # a code of one's own is enough


def test_a_run_trained_further_keeps_its_tokens_and_another_catalogue_gets_new_ones(
    tiny_run: Path, tiny_copy: Path, tiny_files: Path, tmp_path: Path
) -> None:
    source = SidVocabulary.load(tiny_run / "model")
    further = trained(Run.open(tiny_copy), tiny_files, base=str(tiny_run))
    assert SidVocabulary.load(further.path / "model") == source
    base = Path(shutil.copytree(tiny_run / "model", tmp_path / "base"))
    replace(source, items_checksum="of other items").save(base)
    anew = trained(Run.open(tiny_copy), tiny_files, base=str(base)).path / "model"
    assert SidVocabulary.load(anew) == source
    assert len(AutoTokenizer.from_pretrained(anew)) == len(AutoTokenizer.from_pretrained(base))


def test_a_soft_prompt_learns_on_a_base_whose_item_tokens_are_left_out(
    tiny_run: Path, tiny_copy: Path, tiny_files: Path
) -> None:
    changes = {"base": str(tiny_run), "adapter": "prompt", "prompt_tokens": 3, "item_share": 0.0}
    recommender = Recommender.load(trained(Run.open(tiny_copy), tiny_files, **changes).path)
    assert recommender.live.own_tokens is None
    assert len(recommender.recommend(["i1"], k=3)) == 3


def rows_of_items(run: Run) -> torch.Tensor:
    with safe_open(run.path / "model" / "model.safetensors", "pt") as file:
        matrix = file.get_tensor("model.embed_tokens.weight")
    vocabulary = SidVocabulary.load(run.path / "model")
    return matrix[vocabulary.first_item_token : sum(vocabulary.groups[-1])]


class StopsAt(SilentProgress):
    """Progress that interrupts at one step of the training."""

    def __init__(self, step: int) -> None:
        self.left = step

    @contextmanager
    def track(self, label: str, total: int, unit: str) -> Iterator[Task]:
        yield self

    def advance(self, amount: int = 1, note: str = "") -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def test_rows_learn_from_vectors_and_an_interrupted_training_ends_with_the_same(
    tiny_run: Path, tmp_path: Path, tiny_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [Run.open(shutil.copytree(tiny_run, tmp_path / name)) for name in ("whole", "stopped", "without")]
    config = load_config(TrainConfig, tiny_files / "train.yaml").model_copy(
        update={"epochs": 3, "validate_every": 1, "checkpoint_seconds": 0, "batch_tokens": 128}
    )
    whole = pipeline.train(runs[0], config)
    for step in (2, whole.facts["steps"] // 3 + 2, 3):
        with pytest.raises(KeyboardInterrupt):
            pipeline.train(runs[1], config, resume=True, progress=StopsAt(step))
    pipeline.train(runs[1], config, resume=True)
    assert torch.equal(rows_of_items(runs[0]), rows_of_items(runs[1]))
    monkeypatch.setattr(pipeline, "_item_vectors", lambda *_: (None, []))
    pipeline.train(runs[2], config)
    assert not torch.equal(rows_of_items(runs[0]), rows_of_items(runs[2]))
