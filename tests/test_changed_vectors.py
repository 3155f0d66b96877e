"""Vectors of changed items where a file, a source or an earlier life of the item has something to say of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from genrec import pipeline
from genrec.baselines.signals import Signals
from genrec.baselines_of_run import make_baseline
from genrec.catalogue_changes import add_items, remove_items, update_items
from genrec.chat.learning import learn_dialogues
from genrec.config import (
    DialoguesConfig,
    EmbedConfig,
    EvidenceConfig,
    IngestConfig,
    TokenizeConfig,
    TrainConfig,
    load_config,
)
from genrec.data.catalog import Catalog
from genrec.data.dialogues import load_turns
from genrec.data.ingest import ingest
from genrec.data.splits import cold_cases, cold_items, evaluation_cases, trained_items, training_sequences
from genrec.encoders.base import Embeddings
from genrec.encoders.embed import embed
from genrec.evidence_source import EvidenceSource
from genrec.recommender import RankRequest, Recommender
from genrec.run import Run
from genrec.tokenizers.codes import SemanticIds
from genrec.tokenizers.placement import place_items
from genrec.tokenizers.stage import ItemVectors, load_fusion, load_tokenizer
from genrec.vocabulary import SidVocabulary
from genrec.weighing import weigh_evidence
from tests.dialogues import write_tiny_dialogues

WHEN = "2026-01-02T03:04:05+00:00"
JOINT = TokenizeConfig(method="residual-kmeans", levels=2, codebook_size=8, item_codes=0, collisions="reassign")
Write = Callable[..., Path]


@pytest.fixture
def embed_as(tiny_files: Path) -> Callable[[Run, int | None], Run]:
    """Embed the texts of `tiny_files` and, where a width is given, behaviour."""

    def embed_as(run: Run, width: int | None) -> Run:
        model = "ppmi-svd" if width else None
        texts = {"text": tiny_files / "vectors.npy"}
        embed(run, EmbedConfig(text_model=None, behaviour_model=model, behaviour_width=width or 2, precomputed=texts))
        return run

    return embed_as


def load(run: Run, modality: str) -> Embeddings:
    return Embeddings.load(run, modality, catalog=Catalog.load(run))


def codes(run: Run) -> np.ndarray:
    return SemanticIds.load(run, catalog=Catalog.load(run)).codes


def placed_from_text(run: Run, text: np.ndarray, *, taken: np.ndarray) -> list[list[int]]:
    """Codes of items with these text vectors (N, 8) and no behaviour, in a run whose tokenizer reads both."""
    fusion = load_fusion(run)
    assert fusion.names == ("text", "behaviour")
    vectors = {"text": text, "behaviour": np.zeros((len(text), fusion.widths[1]), np.float32)}
    fused, _ = fusion.apply(vectors, {"text": np.ones(len(text), bool), "behaviour": np.zeros(len(text), bool)})
    sizes = SemanticIds.load(run, catalog=Catalog.load(run)).codebook_sizes
    return place_items(load_tokenizer(run), fused, taken=taken, sizes=sizes, policy="reassign").tolist()


def vector_rows(item_ids: Sequence[str], seed: int) -> list[dict[str, Any]]:
    vectors = np.random.default_rng(seed).normal(size=(len(item_ids), 8)).round(3)
    return [{"item_id": item_id, "vector": row.tolist()} for item_id, row in zip(item_ids, vectors, strict=True)]


@pytest.mark.parametrize("own_width", [None, 4, 6])
def test_behaviour_that_did_not_travel_is_read_by_no_training_and_no_addition(
    tiny_run: Path, tiny_copy: Path, tiny_files: Path, embed_as: Callable[..., Run], write: Write, own_width: int | None
) -> None:
    source = embed_as(Run(shutil.copytree(tiny_run, tiny_copy.parent / "source")), 4)
    pipeline.tokenize(source, JOINT)
    target = Run(tiny_copy)
    other = pl.read_csv(tiny_files / "interactions.csv").with_columns(item_id=pl.col("item_id").reverse())
    other.write_csv(tiny_copy.parent / "other.csv")
    tables = [tiny_files / "items.jsonl", tiny_copy.parent / "other.csv"]
    ingest(target, "tables", tables, IngestConfig(min_interactions=1))
    embed_as(target, own_width)
    report = pipeline.tokenize_from(target, source)
    assert report.facts["guessed_modalities"] == ["behaviour"]
    read = ItemVectors.of_tokenizer(target, load_fusion(target), catalog=Catalog.load(target))
    assert (read.masks["text"].all(), read.masks["behaviour"].any()) == (True, False)
    assert read.vectors["behaviour"].shape == (30, 4)
    pipeline.train(target, load_config(TrainConfig, tiny_files / "train.yaml"))
    inputs = target.require("train").inputs
    assert "embeddings/text.npy" in inputs  # items have tokens of their own, made from these vectors
    assert not [file for file in inputs if "behaviour" in file]
    taken, new = codes(target), vector_rows(["n1", "n2"], seed=1)
    rows = write(*[{"item_id": row["item_id"], "title": "New"} for row in new])
    add_items(target, rows, when=WHEN, precomputed={"text": write(*new, name="vectors")})
    text = np.array([row["vector"] for row in new], dtype=np.float32)
    assert codes(target)[30:].tolist() == placed_from_text(target, text, taken=taken)


def test_items_that_a_file_of_vectors_leaves_out_keep_theirs(tiny_copy: Path, write: Write) -> None:
    run = Run(tiny_copy)
    before = load(run, "text").vectors
    [given] = vector_rows(["i3"], seed=2)
    rows = write({"item_id": "i3", "title": "Three"}, {"item_id": "i4", "title": "Four"})
    report = update_items(run, rows, when=WHEN, precomputed={"text": write(given, name="vectors")})
    after = load(run, "text")
    assert after.mask.all()
    assert after.vectors[3].tolist() == np.array(given["vector"], np.float32).tolist()
    np.testing.assert_array_equal(np.delete(after.vectors, 3, axis=0), np.delete(before, 3, axis=0))
    assert "text: the file leaves out 1 of them; they keep the vector that they had." in report.words


@pytest.mark.parametrize("change", [add_items, update_items])
def test_vectors_without_ids_stand_in_the_order_of_the_table_of_the_change(
    tiny_copy: Path, write: Write, change: Callable[..., Any]
) -> None:
    run = Run(tiny_copy)
    ids = ["i7", "i3"] if change is update_items else ["n2", "n1"]
    given = np.random.default_rng(5).normal(size=(2, 8)).astype(np.float32)
    np.save(tiny_copy.parent / "two.npy", given)
    rows = write(*({"item_id": item_id, "title": item_id} for item_id in ids))
    change(run, rows, when=WHEN, precomputed={"text": tiny_copy.parent / "two.npy"})
    after, catalog = load(run, "text"), Catalog.load(run)
    np.testing.assert_array_equal(after.vectors[[catalog.index[item_id] for item_id in ids]], given)


def test_an_item_that_comes_back_keeps_the_vector_that_the_file_of_the_new_ones_leaves_out(
    tiny_copy: Path, write: Write
) -> None:
    run = Run(tiny_copy)
    before = load(run, "text").vectors
    gone = tiny_copy.parent / "gone.txt"
    gone.write_text("i4\n")
    remove_items(run, gone, when=WHEN)
    rows = write(*({"item_id": item_id, "title": "Title"} for item_id in ("i4", "n1", "n2")))
    vectors = write(*vector_rows(["n1"], seed=3), name="vectors")
    report = add_items(run, rows, when=WHEN, precomputed={"text": vectors})
    after = load(run, "text")
    np.testing.assert_array_equal(after.vectors[:30], before)
    assert after.mask.tolist() == [True] * 31 + [False]
    assert report.facts["missing"] == {"text": 1}
    assert "text: the file leaves out 1 of them; they keep the vector that they had." in report.words


def test_a_reused_id_gets_the_code_of_a_new_item_and_not_what_its_old_users_say_of_it(
    tiny_copy: Path, embed_as: Callable[..., Run], write: Write
) -> None:
    run = embed_as(Run(tiny_copy), 4)
    pipeline.tokenize(run, JOINT)
    before, others = codes(run), np.arange(30) != 7
    old = load(run, "behaviour")
    assert old.mask.all()
    [given] = vector_rows(["i7"], seed=4)
    rows, vectors = write({"item_id": "i7", "title": "Another"}), write(given, name="vectors")
    update_items(run, rows, when=WHEN, precomputed={"text": vectors})
    assert load(run, "behaviour").mask.all()  # the item is what it was, by another name
    report = update_items(run, rows, when=WHEN, reencode=True)
    text = np.array([given["vector"]], dtype=np.float32)
    assert [codes(run)[7].tolist()] == placed_from_text(run, text, taken=before[others])
    np.testing.assert_array_equal(codes(run)[others], before[others])
    behaviour = load(run, "behaviour")
    assert behaviour.mask.tolist() == others.tolist()
    np.testing.assert_array_equal(behaviour.vectors[others], old.vectors[others])
    assert report.facts["num_new_ids"] == 1
    assert 7 not in training_sequences(run).items  # nor does anybody learn of the new one from what they did
    assert not trained_items(run, catalog=Catalog.load(run))[7]
    assert 7 not in evaluation_cases(run, "validation").targets


def test_a_reused_id_loses_the_token_of_its_own_and_counts_as_new(tiny_copy: Path, write: Write) -> None:
    run = Run.open(tiny_copy)
    before = Recommender.load(run.path)
    assert before.live.own_tokens is not None
    assert before.live.own_tokens[7] >= 0
    update_items(run, write({"item_id": "i7", "title": "Another"}), when=WHEN, reencode=True)
    assert before.refresh()
    for recommender in (before, Recommender.load(run.path)):
        own = recommender.live.own_tokens
        assert own is not None
        assert np.flatnonzero(own < 0).tolist() == [7]
        assert recommender.live.new_items()[7]
        assert len(recommender.recommend(["i7", "i1"], k=3)) == 3
        history, trie = recommender.catalog.indices(["i1", "i2"]), recommender.trie
        whole = {"beam_width": trie.num_items, "k": trie.num_items}
        (by_codes,) = recommender.engine.rank([recommender.prompt_tokens(history)], trie, **whole)
        alone = {item.item_index: item.score for item in by_codes}
        (found,) = recommender.rank([RankRequest(history)], trie.num_items)
        [score] = [item.model_score for item in found if item.item_index == 7]
        share = SidVocabulary.load(run.path / "model").item_share
        assert score == pytest.approx(alone[7] + np.log(1 - share), abs=1e-4)  # its codes alone speak for it


@pytest.mark.parametrize("number", [0, 1])
def test_a_reused_id_is_in_no_case_of_held_out_items(
    tiny_files: Path, tmp_path: Path, embed_as: Callable[..., Run], write: Write, number: int
) -> None:
    run = Run.create(tmp_path / "run")
    tables = [tiny_files / "items.jsonl", tiny_files / "interactions.csv"]
    ingest(run, "tables", tables, IngestConfig(min_interactions=1, cold_fraction=0.2))
    pipeline.tokenize(embed_as(run, None), JOINT)
    before, cold = cold_cases(run), cold_items(run)
    reused = [before.targets[0], next(item for item in before.histories.items if not cold[item])][number]
    rows = write({"item_id": Catalog.load(run).item_ids[reused], "title": "Another"})
    update_items(run, rows, when=WHEN, reencode=True)
    expected = [
        (user, [item for item in history.tolist() if item != reused], target)
        for user, history, target in zip(before.user_ids, before.histories, before.targets.tolist(), strict=True)
        if target != reused
    ]
    after = cold_cases(run)
    found = zip(after.user_ids, after.histories, after.targets.tolist(), strict=True)
    assert [(user, history.tolist(), target) for user, history, target in found] == [
        case for case in expected if case[1]
    ]
    assert len(expected) < len(before) or before.histories.items.tolist() != after.histories.items.tolist()


def test_what_was_said_and_learned_of_a_reused_id_speaks_for_it_no_longer(tiny_copy: Path, write: Write) -> None:
    run = Run.open(tiny_copy)
    learn_dialogues(run, [write_tiny_dialogues(tiny_copy.parent / "turns.jsonl")], DialoguesConfig())
    for setting in ("users", "dialogues"):
        weigh_evidence(run, EvidenceConfig(learn_from=setting, beam_width=10))
    before, catalog = load_turns(run, catalog=Catalog.load(run)), Catalog.load(run)
    trained = {item: counts(run, item) for item in (6, 7)}
    assert all(trained[7].values())
    update_items(run, write({"item_id": "i7", "title": "Another"}), when=WHEN, reencode=True)
    assert {"train", "dialogues", "evidence", "evidence:dialogues"} <= set(run.stages)
    for turn in (after := load_turns(run, catalog=catalog)):
        assert 7 not in (*turn.mentioned, *turn.recommended)
    expected = [[item for item in turn.recommended if item != 7] for turn in before]
    assert [[*turn.recommended] for turn in after] == [items for items in expected if items]
    assert counts(run, 6) == trained[6]
    assert not any(counts(run, 7).values())
    evidence = EvidenceSource.load(run, catalog=Catalog.load(run))
    baseline = make_baseline("two-tower", run, Catalog.load(run), settings={})
    assert evidence is not None
    assert isinstance(evidence.signals, Signals)
    assert evidence.signals.retriever is not None
    assert not isinstance(baseline, str)
    histories = [np.array([7, 1], np.int32)]
    np.testing.assert_array_equal(baseline.scores(histories), evidence.signals.retriever.log_chances(histories))


def counts(run: Run, item: int) -> dict[str, float]:
    """What the popularities of a run say of an item: how often users took it, and how often dialogues named it."""
    source = EvidenceSource.load(run, "dialogues", catalog=Catalog.load(run))
    assert source is not None
    signals = source.signals.raw([np.array([1], np.int32)])
    return {one.name: float(one.values[0, item]) for one in signals if one.name.endswith("popularity")}
