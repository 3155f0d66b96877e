"""Evaluation from a run directory to files, and its inner function on cases with known answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from genrec.baselines.popularity import Popularity
from genrec.baselines.transitions import Transitions
from genrec.cli.model import _baseline_names
from genrec.cli.options import resolve
from genrec.config import EvaluateConfig, IngestConfig
from genrec.data.catalog import Catalog
from genrec.data.ingest import ingest
from genrec.data.sequences import EvaluationCases, Sequences
from genrec.data.splits import evaluation_cases
from genrec.encoders.base import Embeddings
from genrec.errors import ConfigError, DataError, ModelError
from genrec.evaluation import Recommend, evaluate, evaluate_methods
from genrec.run import Run, StageReport, read_json

NUM_ITEMS = 15
CUTOFFS = EvaluateConfig(cutoffs=(2, 5, 10))


def walks(num_users: int, length: int = 7) -> list[list[int]]:
    """Users who walk around a circle of items from different starts."""
    return [[(user + step) % NUM_ITEMS for step in range(length)] for user in range(num_users)]


def cases_of(histories: list[list[int]], targets: list[int]) -> EvaluationCases:
    names = [f"u{user}" for user in range(len(histories))]
    return EvaluationCases(Sequences.from_lists(names, histories), np.array(targets, np.int32))


def next_on_the_circle(histories: list[NDArray[np.int32]], k: int) -> list[list[int]]:
    return [[int(history[-1] + 1) % NUM_ITEMS] for history in histories]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run of 30 users on a circle of 15 items."""
    items = ["item_id,title", *(f"i{item:02},Film {item}" for item in range(NUM_ITEMS))]
    rows = ["user_id,item_id,timestamp"]
    for user, walk in enumerate(walks(30)):
        rows += [f"u{user},i{item:02},{step}" for step, item in enumerate(walk)]
    (tmp_path / "items.csv").write_text("\n".join(items) + "\n", encoding="utf-8")
    (tmp_path / "interactions.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    run = Run.create(tmp_path / "run")
    ingest(run, "tables", [tmp_path / "items.csv", tmp_path / "interactions.csv"], IngestConfig())
    return run


def on_the_circle_of(run: Run) -> Recommend:
    """The right answer for `run`, whatever the order of its catalogue."""
    catalog = Catalog.load(run)
    place = {row: int(item_id[1:]) for row, item_id in enumerate(catalog.item_ids)}

    def recommend(histories: list[NDArray[np.int32]], k: int) -> list[list[int]]:
        return [[catalog.index[f"i{(place[int(h[-1])] + 1) % NUM_ITEMS:02}"]] for h in histories]

    return recommend


def test_a_model_that_is_always_right_has_perfect_figures() -> None:
    histories = walks(20)
    cases = cases_of(histories, [(history[-1] + 1) % NUM_ITEMS for history in histories])
    training = Sequences.from_lists(["a"], [[0, 1, 2]])
    result = evaluate_methods(
        training, cases, num_items=NUM_ITEMS, config=CUTOFFS, baselines=[Popularity()], recommend=next_on_the_circle
    )
    model, popularity = result.methods
    assert model.name == "model"
    assert {(e.value, e.low, e.high) for e in model.metrics.values()} == {(1.0, 1.0, 1.0)}
    assert model.coverage == 1.0
    assert model.recall_curve == [1.0] * 10
    assert model.group_recall["cold"] == (1.0, 17)  # three targets lie in 0, 1, 2
    assert result.comparisons[0].difference.value == pytest.approx(1 - popularity.metrics["ndcg@10"].value)


def test_hits_equal_a_loop_over_transition_scores() -> None:
    rng = np.random.default_rng(0)
    lists = [rng.permutation(NUM_ITEMS)[:6].tolist() for _ in range(40)]
    training = Sequences.from_lists([str(user) for user in range(40)], [items[:-1] for items in lists])
    cases = cases_of([items[:-1] for items in lists], [items[-1] for items in lists])
    result = evaluate_methods(training, cases, num_items=NUM_ITEMS, config=CUTOFFS, baselines=[Transitions()])
    baseline = Transitions()
    baseline.fit(training, NUM_ITEMS, seed=0)
    sure, possible = 0, 0
    for history, target in zip(cases.histories, cases.targets, strict=True):
        scores = baseline.scores([history])[0]
        scores[history] = -1
        sure += (scores >= scores[target]).sum() <= 2
        possible += (scores > scores[target]).sum() < 2
    assert sure <= round(result.methods[0].metrics["recall@2"].value * 40) <= possible


def test_evaluate_writes_a_report_beside_every_baseline(run: Run) -> None:
    catalog = Catalog.load(run)
    vectors = np.random.default_rng(0).normal(size=(NUM_ITEMS, 8)).astype(np.float32)
    written = Embeddings("text", vectors, np.ones(NUM_ITEMS, bool), "test", "0", catalog.order_checksum).save(run)
    run.record(StageReport("embed", {}, []), config={}, seed=0, inputs=[], outputs=written, started=run.begin())
    report = evaluate(run, CUTOFFS, recommend=on_the_circle_of(run))
    data = json.loads((run.path / "evaluation" / "test.json").read_text(encoding="utf-8"))
    names = [method["name"] for method in data["methods"]]
    assert names == [
        *("model", "popularity", "item-knn", "ease", "transitions", "dense-knn", "star", "hybrid"),
        *("two-tower", "sasrec"),
    ]
    assert data["methods"][0]["metrics"]["recall@2"]["value"] == 1.0
    assert [entry["baseline"] for entry in data["comparisons"]] == names[1:]
    assert "<svg" in (run.path / "evaluation" / "report.html").read_text(encoding="utf-8")
    assert "| model |" in (run.path / "evaluation" / "report.md").read_text(encoding="utf-8")
    assert run.require("evaluate:test").report == report.facts
    assert any(line.startswith("model") for line in report.words)


def test_the_two_splits_do_not_overwrite_each_other(run: Run) -> None:
    config = EvaluateConfig(baselines=("popularity",))
    evaluate(run, config, recommend=None)
    evaluate(run, config.model_copy(update={"split": "validation"}), recommend=None)
    assert run.require("evaluate:test").report["split"] == "test"
    assert run.require("evaluate:validation").report["split"] == "validation"
    assert read_json(run.path / "evaluation" / "validation.json")["split"] == "validation"


def test_an_evaluation_is_dropped_from_the_manifest_when_its_model_changes(run: Run) -> None:
    weights = run.path / "weights.bin"

    def train(content: bytes) -> None:
        weights.write_bytes(content)
        run.record(StageReport("train", {}, []), config={}, seed=0, inputs=[], outputs=[weights], started=run.begin())

    train(b"old")
    config = EvaluateConfig(baselines=("popularity",))
    evaluate(run, config, recommend=on_the_circle_of(run), model_files=[weights])
    assert "evaluate:test" in run.stages
    train(b"new")
    assert "evaluate:test" not in run.stages


def test_sasrec_needs_validation_cases_and_says_so(tmp_path: Path) -> None:
    rows = [f"u{user},i{user + step},{step if step < 8 else 99}" for user in range(3) for step in range(10)]
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\n" + "\n".join(rows) + "\n", encoding="utf-8")
    items = [f"i{item},Film {item}" for item in range(12)]
    (tmp_path / "items.csv").write_text("item_id,title\n" + "\n".join(items) + "\n", encoding="utf-8")
    run = Run.create(tmp_path / "run")
    config = IngestConfig(min_interactions=1, split="time", validation_fraction=0.05, test_fraction=0.1)
    ingest(run, "tables", [tmp_path / "items.csv", tmp_path / "log.csv"], config)
    assert len(evaluation_cases(run, "validation")) == 0
    report = evaluate(run, EvaluateConfig(baselines=("sasrec", "popularity")), recommend=None)
    assert "no validation cases" in report.facts["skipped"]["sasrec"]


def test_the_test_history_holds_the_validation_item_and_training_does_not(run: Run) -> None:
    test, validation = evaluation_cases(run, "test"), evaluation_cases(run, "validation")
    for user in range(len(test)):
        assert test.histories[user][-1] == validation.targets[user]
    result = evaluate(run, EvaluateConfig(baselines=("popularity",)), recommend=None)
    assert result.facts["num_cases"] == 30


def test_a_run_without_vectors_says_why_the_hybrid_is_missing(run: Run) -> None:
    report = evaluate(run, EvaluateConfig(baselines=("hybrid", "popularity")), recommend=None)
    assert "text embeddings" in report.facts["skipped"]["hybrid"]
    assert list(report.facts["methods"]) == ["popularity"]


def test_a_sample_of_users_is_seeded(run: Run) -> None:
    config = EvaluateConfig(baselines=("popularity",), max_users=7, seed=3)
    first, second = (evaluate(run, config, recommend=None).facts for _ in range(2))
    assert first == second
    assert first["num_cases"] == 7


def test_wrong_options_are_refused_before_any_work(run: Run) -> None:
    with pytest.raises(ConfigError, match=r"Unknown baseline svd.*Known: popularity"):
        evaluate(run, EvaluateConfig(baselines=("svd",)), recommend=None)
    with pytest.raises(ConfigError, match="asks for more items than a beam of 20"):
        evaluate(run, EvaluateConfig(beam_width=20), recommend=next_on_the_circle)


def test_a_split_without_cases_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("item_id,title\na,A\nb,B\n", encoding="utf-8")
    (tmp_path / "log.csv").write_text("user_id,item_id\nu,a\nu,b\nv,b\nv,a\n", encoding="utf-8")
    run = Run.create(tmp_path / "run")
    ingest(run, "tables", [tmp_path / "items.csv", tmp_path / "log.csv"], IngestConfig(min_interactions=1))
    with pytest.raises(DataError, match="test split"):
        evaluate(run, EvaluateConfig(), recommend=None)


@pytest.mark.parametrize(
    ("answer", "words"),
    [([99], "not in the catalogue"), ([1, 1], "the same item twice"), ([3], "own history")],
)
def test_an_answer_that_no_method_may_give_is_refused(answer: list[int], words: str) -> None:
    cases = cases_of([[3, 4]], [5])
    with pytest.raises(ModelError, match=words):
        evaluate_methods(
            cases.histories,
            cases,
            num_items=NUM_ITEMS,
            config=CUTOFFS,
            baselines=[],
            recommend=lambda histories, k: [answer] * len(histories),
        )


def test_removed_items_are_no_part_of_the_catalogue() -> None:
    live = np.arange(NUM_ITEMS) < 10
    cases = cases_of([[item] for item in range(10)], [(item + 1) % 10 for item in range(10)])
    result = evaluate_methods(
        cases.histories,
        cases,
        num_items=NUM_ITEMS,
        config=CUTOFFS,
        baselines=[],
        recommend=lambda histories, k: [[int(history[-1] + 1) % 10] for history in histories],
        live=live,
    )
    (model,) = result.methods
    assert result.num_items == 10
    assert (model.coverage, model.gini) == (1.0, 0.0)


def test_all_baselines_win_over_those_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "few.yaml").write_text("baselines: [popularity]\n")
    for given, wanted in (("all", EvaluateConfig().baselines), (None, ("popularity",)), ("none", ())):
        assert resolve(EvaluateConfig, tmp_path / "few.yaml", baselines=_baseline_names(given)).baselines == wanted


def test_targets_that_nobody_can_reach_are_counted() -> None:
    cases = cases_of([[1, 2], [1, 2]], [2, 3])
    result = evaluate_methods(cases.histories, cases, num_items=NUM_ITEMS, config=CUTOFFS, baselines=[Popularity()])
    assert result.num_repeats == 1


def test_a_model_without_answers_has_no_spread() -> None:
    cases = cases_of([[1, 2]], [3])
    result = evaluate_methods(
        cases.histories,
        cases,
        num_items=NUM_ITEMS,
        config=CUTOFFS,
        baselines=[],
        recommend=lambda histories, k: [[] for _ in histories],
    )
    (model,) = result.methods
    assert (model.coverage, model.gini, model.tail_share) == (0.0, None, None)
