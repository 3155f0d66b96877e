"""Held-out items as targets: figures with known answers, and a run from ingest to the report."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from genrec import pipeline
from genrec.baselines.dense_knn import DenseKNN
from genrec.baselines.popularity import Popularity
from genrec.cold_evaluation import evaluate_cold
from genrec.config import (
    EmbedConfig,
    EvaluateConfig,
    EvidenceConfig,
    IngestConfig,
    TokenizeConfig,
    TrainConfig,
    load_config,
)
from genrec.data.catalog import Catalog
from genrec.data.ingest import ingest
from genrec.data.sequences import EvaluationCases, Sequences
from genrec.data.splits import cold_cases, cold_items, training_sequences
from genrec.encoders.base import Embeddings
from genrec.encoders.embed import embed
from genrec.metrics import ndcg, recall
from genrec.recommender import RankRequest, Recommender
from genrec.report import ColdResult
from genrec.run import Run, read_json
from genrec.tokenizers.codes import SemanticIds
from genrec.trie_filters import ItemFilter
from genrec.weighing import weigh_evidence

NUM_ITEMS = 200
COLD = np.arange(NUM_ITEMS) >= 180


def made_up_cases(num_cases: int = 400) -> EvaluationCases:
    rng = np.random.default_rng(0)
    histories = [rng.permutation(180)[: rng.integers(1, 20)].tolist() for _ in range(num_cases)]
    users = [f"u{case}" for case in range(num_cases)]
    return EvaluationCases(
        Sequences.from_lists(users, histories), rng.integers(180, NUM_ITEMS, num_cases).astype(np.int32)
    )


def evaluated(cases: EvaluationCases, **options: object) -> ColdResult:
    return evaluate_cold(
        cases, cold=COLD, live=np.ones(NUM_ITEMS, bool), seed=0, **({"baselines": [], "ask_model": None} | options)
    )


def test_the_random_row_is_the_mean_of_many_random_orders() -> None:
    cases = made_up_cases(60)
    (row,) = evaluated(cases).methods
    rng = np.random.default_rng(1)
    for figures, allowed in ((row.among_all, np.ones(NUM_ITEMS, bool)), (row.among_cold, COLD)):
        sums = np.zeros(3)
        for history, target in zip(cases.histories, cases.targets, strict=True):
            choices = np.setdiff1d(np.flatnonzero(allowed), history)
            ranks = np.array([1 + np.flatnonzero(rng.permutation(choices) == target)[0] for _ in range(300)], float)
            sums += [recall(ranks, 10).mean(), recall(ranks, 50).mean(), ndcg(ranks, 10).mean()]
        found = [figures[name].value for name in ("recall@10", "recall@50", "ndcg@10")]
        np.testing.assert_allclose(found, sums / len(cases), atol=0.015)


def test_with_short_histories_random_recall_is_k_over_the_number_of_items() -> None:
    cases = EvaluationCases(Sequences.from_lists(["u"], [[0]]), np.array([190], np.int32))
    (row,) = evaluated(cases).methods
    assert row.among_all["recall@50"].value == pytest.approx(50 / 199)
    assert row.among_cold["recall@10"].value == pytest.approx(10 / 20)
    assert row.among_cold["recall@50"].value == pytest.approx(1.0)


def test_popularity_never_finds_a_cold_item_among_all_and_is_random_among_the_cold() -> None:
    popularity = Popularity()
    popularity.fit(Sequences.from_lists(["a"], [list(range(180))]), NUM_ITEMS, seed=0)
    random, popular = evaluated(made_up_cases(4000), baselines=[popularity]).methods
    assert {estimate.value for estimate in popular.among_all.values()} == {0.0}
    for name, estimate in popular.among_cold.items():
        assert estimate.value == pytest.approx(random.among_cold[name].value, abs=0.03)


def test_the_model_is_asked_once_over_all_and_once_over_the_cold_items() -> None:
    cases = made_up_cases()
    asked: list[NDArray[np.bool_]] = []

    def ask(given: EvaluationCases, *, k: int, allowed: NDArray[np.bool_]) -> NDArray[np.int32]:
        assert (given, k) == (cases, 50)
        asked.append(allowed)
        ranked = np.full((len(cases), k), -1, np.int32)
        ranked[:, 20 if allowed.all() else 0] = cases.targets
        return ranked

    result = evaluated(cases, ask_model=ask)
    assert [method.name for method in result.methods] == ["random", "model"]
    model = result.methods[1]
    assert [model.among_all[name].value for name in ("recall@10", "recall@50", "ndcg@10")] == [0.0, 1.0, 0.0]
    assert {estimate.value for estimate in model.among_cold.values()} == {1.0}
    assert [allowed.sum() for allowed in asked] == [NUM_ITEMS, 20]


def test_items_that_may_not_be_recommended_are_in_no_pool() -> None:
    live = np.arange(NUM_ITEMS) % 2 == 0
    result = evaluate_cold(made_up_cases(), cold=COLD, live=live, baselines=[], ask_model=None, seed=0)
    assert (result.num_items, result.num_all_items) == (10, 100)


def test_intervals_resample_items_so_many_cases_of_one_item_do_not_narrow_them() -> None:
    targets = np.repeat(np.array([180, 181], np.int32), 500)
    histories = Sequences.from_lists([f"u{case}" for case in range(1000)], [[0]] * 1000)

    def ask(given: EvaluationCases, *, k: int, allowed: NDArray[np.bool_]) -> NDArray[np.int32]:
        ranked = np.full((1000, k), -1, np.int32)
        ranked[:500, 0] = 180  # the first item is always found, the second never
        return ranked

    model = evaluated(EvaluationCases(histories, targets), ask_model=ask).methods[1]
    estimate = model.among_all["recall@10"]
    assert (estimate.value, estimate.low, estimate.high) == (0.5, 0.0, 1.0)


@pytest.fixture(scope="module")
def cold_run(tiny_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A trained run of the tiny files with six of the thirty items held out."""
    run = Run.create(tmp_path_factory.mktemp("cold") / "run")
    config = load_config(IngestConfig, tiny_files / "ingest.yaml").model_copy(update={"cold_fraction": 0.2})
    ingest(run, "tables", [tiny_files / "items.jsonl", tiny_files / "interactions.csv"], config)
    embed(run, load_config(EmbedConfig, tiny_files / "embed.yaml"))
    pipeline.tokenize(run, load_config(TokenizeConfig, tiny_files / "tokenize.yaml"))
    pipeline.train(run, load_config(TrainConfig, tiny_files / "train.yaml"))
    return run


def test_the_tokenizer_of_a_run_does_not_depend_on_the_vectors_of_cold_items(
    cold_run: Run, tiny_files: Path, tmp_path: Path
) -> None:
    other = Run(shutil.copytree(cold_run.path, tmp_path / "run"))
    vectors = np.load(tiny_files / "vectors.npy")
    cold = cold_items(other)
    vectors[cold] = 100 * np.random.default_rng(9).normal(size=vectors[cold].shape)
    np.save(tmp_path / "other.npy", vectors)
    embed(other, EmbedConfig(behaviour_model=None, text_model=None, precomputed={"text": tmp_path / "other.npy"}))
    pipeline.tokenize(other, load_config(TokenizeConfig, tiny_files / "tokenize.yaml"))
    for name in ("codes.npy", "tokenizer/tokenizer.safetensors"):
        mine, others = (run.path / "semantic_ids" / name for run in (cold_run, other))
        if name == "codes.npy":
            np.testing.assert_array_equal(np.load(mine)[~cold], np.load(others)[~cold])
        else:
            assert mine.read_bytes() == others.read_bytes()


def test_held_out_items_share_the_code_of_the_nearest_item_that_was_trained_on(cold_run: Run, tmp_path: Path) -> None:
    run = Run(shutil.copytree(cold_run.path, tmp_path / "run"))
    pipeline.tokenize(run, TokenizeConfig(method="item-id"))
    catalog, cold = Catalog.load(run), cold_items(run)
    ids = SemanticIds.load(run, catalog=catalog)
    assert ids.codebook_sizes == (24,)
    assert sorted(ids.codes[~cold, 0].tolist()) == list(range(24))
    text = Embeddings.load(run, "text", catalog=catalog).vectors
    distances = np.linalg.norm(text[cold][:, None] - text[~cold][None], axis=2)
    assert ids.codes[cold, 0].tolist() == ids.codes[~cold, 0][distances.argmin(axis=1)].tolist()


def test_evaluation_reports_cold_and_warm_apart(cold_run: Run, tiny_files: Path, tmp_path: Path) -> None:
    run = Run(shutil.copytree(cold_run.path, tmp_path / "run"))
    config = load_config(EvaluateConfig, tiny_files / "evaluate.yaml")
    config = config.model_copy(update={"baselines": ("popularity", "dense-knn", "hybrid")})
    report = pipeline.evaluate(run, config)
    data = read_json(run.path / "evaluation" / "test.json")
    assert [row["name"] for row in data["cold"]["methods"]] == ["random", "model", "popularity", "dense-knn", "hybrid"]
    assert data["cold"]["num_items"] == 6
    assert data["cold"]["num_cases"] == len(cold_cases(run)) > 20
    assert report.facts["cold"] == data["cold"]
    assert any("only held-out items ranked" in line for line in report.words)
    for name in ("report.md", "report.html"):
        text = (run.path / "evaluation" / name).read_text(encoding="utf-8")
        assert text.count("held-out items ranked") >= 1
        assert "Intervals there resample the held-out items" in text


def test_a_share_of_new_items_brings_held_out_ones_among_all(cold_run: Run, tiny_files: Path, tmp_path: Path) -> None:
    recommender = Recommender.load(cold_run.path)
    new = {recommender.catalog.item_ids[row] for row in np.flatnonzero(recommender.live.new_items())}
    assert {recommender.catalog.item_ids[row] for row in np.flatnonzero(cold_items(cold_run))} <= new
    for share in (0.0, 0.3, 0.5, 1.0):
        answer = {item.item_id for item in recommender.recommend(["i1"], 10, new_share=share)}
        assert len(answer) == 10
        assert len(new & answer) >= min(round(share * 10), len(new - {"i1"}))
    figures = []
    for share in (0.0, 0.5):
        run = Run(shutil.copytree(cold_run.path, tmp_path / f"run-{share}"))
        config = load_config(EvaluateConfig, tiny_files / "evaluate.yaml")
        pipeline.evaluate(run, config.model_copy(update={"baselines": ("popularity",), "new_share": share}))
        assert ("--new-share 0.5" in (run.path / "evaluation" / "report.md").read_text(encoding="utf-8")) is bool(share)
        data = read_json(run.path / "evaluation" / "test.json")
        figures.append(next(row for row in data["cold"]["methods"] if row["name"] == "model"))
    among_all = [row["among_all"]["recall@10"]["value"] for row in figures]
    assert among_all[0] < among_all[1] == pytest.approx(figures[1]["among_cold"]["recall@10"]["value"], abs=0.35)


def test_the_dense_baseline_of_a_report_is_the_one_worked_out_here(cold_run: Run) -> None:
    from genrec.data.catalog import Catalog

    text = Embeddings.load(cold_run, "text", catalog=Catalog.load(cold_run))
    baseline = DenseKNN(text.vectors, text.mask)
    baseline.fit(training_sequences(cold_run), 30, seed=0)
    cases, cold = cold_cases(cold_run), cold_items(cold_run)
    result = evaluate_cold(cases, cold=cold, live=np.ones(30, bool), baselines=[baseline], ask_model=None, seed=0)
    scores = baseline.scores(list(cases.histories))
    hits = 0
    for row, (history, target) in enumerate(zip(cases.histories, cases.targets, strict=True)):
        others = [item for item in range(30) if item not in history.tolist()]
        hits += sum(scores[row, item] > scores[row, target] for item in others) < 10
    assert result.methods[1].among_all["recall@10"].value == pytest.approx(hits / len(cases))


def test_places_for_new_items_are_filled_in_the_order_of_evidence_alone(cold_run: Run, tmp_path: Path) -> None:
    run = Run(shutil.copytree(cold_run.path, tmp_path / "run"))
    weigh_evidence(run, EvidenceConfig())
    loaded = Recommender.load(run.path)
    assert loaded.evidence is not None
    source, new, trie = replace(loaded.evidence, weight=0.05, join="product"), loaded.live.new_items(), loaded.trie
    recommender = loaded.with_evidence(source)
    differently = 0
    for first in range(12):
        history = np.array([first, first + 12], np.int32)
        (evidence,) = source.evidence([history], trie)
        assert evidence is not None
        mass = np.zeros(trie.num_rows)
        mass[trie.items] = evidence.mass
        expected = [row for row in np.argsort(-mass, kind="stable").tolist() if new[row] and row not in history]
        (ranked,) = recommender.rank([RankRequest(history, new_share=1.0)], len(expected))
        assert [item.item_index for item in ranked] == expected
        assert [item.score for item in ranked] == pytest.approx(np.log(mass[expected]).tolist(), rel=1e-4)
        (mixed,) = recommender.rank([RankRequest(history, allowed=ItemFilter.allowing(trie, new))], len(expected))
        differently += [item.item_index for item in mixed] != expected
    assert differently, "the model changes no order here, so nothing was shown"
