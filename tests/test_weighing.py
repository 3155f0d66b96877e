"""The stage `evidence` on a tiny trained run: its weights join every answer, follow the catalogue, can be left out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from genrec import pipeline, tuning, weighing
from genrec.baselines.blend import _ranks, fit_blend, held_out_ranks, with_network
from genrec.baselines.candidates import gather_candidates
from genrec.baselines.signals import Feature
from genrec.baselines.two_tower import TwoTower
from genrec.baselines_of_run import make_baselines
from genrec.config import EvaluateConfig, EvidenceConfig, TrainConfig, TuneConfig, load_config
from genrec.data.catalog import Catalog
from genrec.data.sequences import EvaluationCases, Sequences
from genrec.data.splits import evaluation_cases
from genrec.errors import RunError
from genrec.evidence import Evidence
from genrec.evidence_source import EvidenceSource, load_content, retriever_file, weights_file
from genrec.progress import SILENT
from genrec.recommender import RankRequest, Recommender
from genrec.run import Run
from genrec.weighing import _LEAST_FITTING, _layer_pays, first_of_the_best, weigh_evidence


@pytest.fixture(scope="module")
def weighed(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tiny run with its evidence weighed; for reading only."""
    copied = Path(shutil.copytree(tiny_run, tmp_path_factory.mktemp("weighed") / "run"))
    weigh_evidence(Run.open(copied), EvidenceConfig())
    return copied


@pytest.fixture
def weighed_copy(weighed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(weighed, tmp_path / "run"))


def test_the_weights_are_chosen_among_choices_of_which_nothing_is_one(weighed: Path) -> None:
    report = Run.open(weighed).stages["evidence"].report
    assert report["num_fitting_users"] == 27
    assert report["num_choosing_users"] == 13
    choices = {name: figures["ndcg@10"] for name, figures in report["choices"].items()}
    decoded = [name for name in choices if name not in {"chosen", "evidence alone"}]
    assert "model alone" in decoded
    assert len(decoded) == 9
    assert choices["chosen"] in {choices[name] for name in decoded}
    # The tiny users walk in circles that counts know by heart and two epochs of training do not.
    assert choices["chosen"] > choices["model alone"]
    assert sum(report["shares"].values()) == pytest.approx(1, abs=1e-3)


def test_a_choice_has_to_be_better_than_users_differ_to_be_taken_before_what_was_fitted() -> None:
    rng = np.random.default_rng(0)
    fitted = rng.random(400)
    noise = rng.normal(size=400)
    by_chance = fitted + noise - noise.mean() + 0.02  # a standard error is .05
    truly = fitted + 0.1 * (noise - noise.mean()) + 0.02  # and here .005
    assert first_of_the_best({"fitted": fitted, "other": by_chance}) == "fitted"
    assert first_of_the_best({"fitted": fitted, "other": truly}) == "other"
    assert first_of_the_best({"fitted": fitted, "other": by_chance, "best": truly + 0.01}) == "other"
    assert first_of_the_best({"fitted": fitted, "same": fitted.copy()}) == "fitted"


class TwoSignals:
    """Two random answers to every history of one item, over 300 items."""

    num_items = 300

    def __init__(self) -> None:
        self.tables = np.random.default_rng(0).normal(size=(2, 300, 300)).astype(np.float32)

    def raw(self, histories: Sequence[NDArray[np.int32]]) -> Iterator[Feature]:
        for name, table in zip("ab", self.tables, strict=True):
            yield Feature("text", name, table[[int(history[-1]) for history in histories]])


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_hidden_layer_is_kept_only_where_users_that_it_has_not_seen_are_better_off(together: bool, seed: int) -> None:
    signals, rng = TwoSignals(), np.random.default_rng(2)
    first, second = signals.tables
    truth = 5.0 * np.minimum(first, second) if together else 2.0 * first + 2.0 * second
    histories = rng.integers(0, 300, size=6000)
    targets = (truth[histories] + rng.gumbel(size=(6000, 300))).argmax(axis=1)
    cases = EvaluationCases(
        Sequences.from_lists([str(user) for user in range(6000)], [[item] for item in histories]),
        targets.astype(np.int32),
    )
    candidates = gather_candidates(signals, cases, seed=seed)
    assert _layer_pays(candidates, seed=seed, progress=SILENT) is together
    assert not _layer_pays(candidates.first(_LEAST_FITTING - 1), seed=seed, progress=SILENT)
    ranks = held_out_ranks(candidates, seed=seed)
    assert {name: one.shape for name, one in ranks.items()} == {
        "plain": candidates.starts.shape,
        "layered": candidates.starts.shape,
    }


def test_every_choice_looks_at_the_validation_split_alone(
    tiny_copy: Path, tiny_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    for module in (weighing, tuning, pipeline):
        read = module.evaluation_cases

        def noted(run: Run, split: Any, read: Callable[..., EvaluationCases] = read) -> EvaluationCases:
            asked.append(split)
            return read(run, split)

        monkeypatch.setattr(module, "evaluation_cases", noted)
    run = Run.open(tiny_copy)
    pipeline.train(run, load_config(TrainConfig, tiny_files / "train.yaml").model_copy(update={"epochs": 1}))
    weighing.weigh_evidence(run, EvidenceConfig(beam_width=10))
    tuning.tune_baselines(run, TuneConfig(baselines=("transitions",), trials=2))
    assert set(asked) == {"validation"}
    assert len(asked) >= 3


def test_the_rank_of_a_target_among_its_candidates_is_that_of_the_scores_that_are_served() -> None:
    signals, rng = TwoSignals(), np.random.default_rng(3)
    histories = rng.integers(0, 300, size=400)
    targets = (signals.tables[0][histories] + rng.gumbel(size=(400, 300))).argmax(axis=1).astype(np.int32)
    users = [str(user) for user in range(400)]
    cases = EvaluationCases(Sequences.from_lists(users, [[item] for item in histories]), targets)
    whole = gather_candidates(signals, cases)
    chosen = np.random.default_rng(4).random(len(whole.starts)) < 0.3
    part = whole.only(chosen)
    assert len(part.starts) == chosen.sum()
    np.testing.assert_array_equal(part.features[part.targets], whole.features[whole.targets[chosen]])
    blend = with_network(fit_blend(whole), whole)
    for candidates, expected in ((whole, _ranks(blend, whole)), (part, _ranks(blend, whole)[chosen])):
        np.testing.assert_array_equal(_ranks(blend, candidates), expected)
    ends = np.append(whole.starts[1:], len(whole.features))
    for user in range(5):
        rows = slice(whole.starts[user], ends[user])
        features, weights = whole.features[rows], np.array([blend.weights[name] for name in whole.names])
        assert blend.network is not None
        scores = features @ weights + blend.network.scores(features.T, features.max(axis=0), whole.lengths[user])
        better = scores > scores[whole.targets[user] - whole.starts[user]]
        assert _ranks(blend, whole)[user] == 1 + better.sum()


def test_a_loaded_recommender_scores_as_model_and_evidence_together_say(weighed: Path) -> None:
    recommender = Recommender.load(weighed)
    source = recommender.evidence
    assert source is not None
    history = evaluation_cases(Run.open(weighed), "test").histories[0]
    (ranked,) = recommender.rank([RankRequest(history)], 20)
    (alone,) = recommender.with_evidence(None).rank([RankRequest(history)], 20)
    (evidence,) = source.evidence([history], recommender.trie)
    assert isinstance(evidence, Evidence)
    own = {item.item_index: item.score for item in alone}
    place = {int(item): position for position, item in enumerate(recommender.trie.items)}
    for item in ranked:
        mass = evidence.mass[place[item.item_index]]
        model = item.model_score
        joined = (
            model + source.weight * np.log(mass)
            if source.join == "product"
            else np.logaddexp(np.log1p(-source.weight) + model, np.log(source.weight * mass))
        )
        assert item.score == pytest.approx(joined, abs=1e-4)
        assert model == pytest.approx(own.get(item.item_index, model), abs=1e-4)
    for share in recommender.shares(history, ranked):
        assert sum(share.values()) == pytest.approx(1)
        assert list(share.values()) == sorted(share.values(), reverse=True)


def test_in_a_mixture_the_model_speaks_by_its_part_of_the_probability(weighed: Path) -> None:
    loaded = Recommender.load(weighed)
    assert loaded.evidence is not None
    history = evaluation_cases(Run.open(weighed), "test").histories[0]
    for weight in (0.3, 0.9):
        recommender = loaded.with_evidence(replace(loaded.evidence, weight=weight, join="mixture"))
        (ranked,) = recommender.rank([RankRequest(history)], 20)
        for item, share in zip(ranked, recommender.shares(history, ranked), strict=True):
            assert sum(share.values()) == pytest.approx(1)
            of_model = (1 - weight) * np.exp(item.model_score - item.score)
            if len(share) > 1:  # else no signal lifts the item
                assert share["model"] == pytest.approx(of_model, abs=1e-3)


def test_history_items_have_no_mass(weighed: Path) -> None:
    recommender = Recommender.load(weighed)
    assert recommender.evidence is not None
    history = np.array([3, 7], np.int32)
    (evidence,) = recommender.evidence.evidence([history], recommender.trie)
    assert evidence is not None
    assert not evidence.mass[np.isin(recommender.trie.items, history)].any()
    assert evidence.mass.sum() == pytest.approx(1)


def test_a_seed_draws_an_answer_and_the_same_seed_draws_the_same(weighed: Path) -> None:
    recommender = Recommender.load(weighed)
    history = np.array([0, 3], np.int32)
    first, again, other = recommender.rank([RankRequest(history, draw=seed) for seed in (1, 1, 2)], 10)
    assert first == again
    assert [item.item_index for item in first] != [item.item_index for item in other]
    assert len({item.item_index for item in first} - {0, 3}) == 10


def test_pages_that_exclude_the_pages_before_are_the_one_long_list(weighed: Path) -> None:
    recommender = Recommender.load(weighed, beam_width=30)
    history = np.array([0, 3], np.int32)
    (whole,) = recommender.rank([RankRequest(history)], 28)
    shown: list[int] = []
    for _ in range(4):
        (page,) = recommender.rank([RankRequest(history, excluded=np.array(shown, np.int32))], 7)
        shown += [item.item_index for item in page]
    assert shown == [item.item_index for item in whole]


def test_evidence_can_be_left_out(weighed: Path, genrec: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    assert Recommender.load(weighed, evidence=False).evidence is None
    users = tmp_path / "users.jsonl"
    users.write_text('{"history": ["i0", "i3"]}\n')
    answers = []
    for options in ((), ("--no-evidence",)):
        out = tmp_path / "recs.jsonl"
        status, _, err = genrec("recommend", weighed, "--input", users, "--output", out, *options)
        assert status == 0, err
        answers.append(json.loads(out.read_text())["items"])
    model = Recommender.load(weighed, evidence=False).recommend(["i0", "i3"])
    assert [item["item_id"] for item in answers[1]] == [item.item_id for item in model]
    assert [item["score"] for item in answers[0]] != [item["score"] for item in answers[1]]


def test_an_evaluation_shows_the_model_with_evidence_without_it_and_the_evidence_alone(weighed_copy: Path) -> None:
    run = Run.open(weighed_copy)
    config = EvaluateConfig(baselines=("popularity", "evidence"), cutoffs=(5, 10), beam_width=30)
    methods = pipeline.evaluate(run, config).facts["methods"]
    assert list(methods) == ["model", "model alone", "popularity", "evidence"]
    without = pipeline.evaluate(run, config, evidence=False).facts["methods"]
    assert list(without) == ["model", "popularity", "evidence"]
    assert without["model"] == methods["model alone"]


def test_the_retriever_of_the_evidence_is_the_row_two_tower(weighed_copy: Path) -> None:
    run = Run.open(weighed_copy)
    source = EvidenceSource.load(run, catalog=Catalog.load(run))
    assert source is not None
    assert source.signals.retriever is not None
    assert "retriever" in source.blend.lifts(source.signals, np.array([0, 3], np.int32), [1])
    made, skipped = make_baselines(run, EvaluateConfig(baselines=("two-tower",)), Catalog.load(run))
    assert not skipped
    histories = [np.array([0, 3], np.int32)]
    catalog = Catalog.load(run)
    expected = TwoTower.load(retriever_file(run)).over(len(catalog), *load_content(run, "text", catalog=catalog))
    np.testing.assert_array_equal(made[0].scores(histories), expected.log_chances(histories))


def test_a_damaged_retriever_is_refused(weighed_copy: Path) -> None:
    retriever_file(Run.open(weighed_copy)).write_bytes(b"no tensors")
    with pytest.raises(RunError, match="checksum"):
        Recommender.load(weighed_copy)


def test_a_run_without_evidence_says_how_to_get_it(tiny_copy: Path) -> None:
    config = EvaluateConfig(baselines=("evidence",), cutoffs=(5,), beam_width=5)
    facts = pipeline.evaluate(Run.open(tiny_copy), config).facts
    assert list(facts["methods"]) == ["model"]
    assert "genrec evidence" in facts["skipped"]["evidence"]


def test_training_again_drops_the_evidence_that_was_weighed_beside_the_old_model(
    weighed_copy: Path, tiny_files: Path
) -> None:
    from genrec.config import load_config

    run = Run.open(weighed_copy)
    config = load_config(TrainConfig, tiny_files / "train.yaml")
    pipeline.train(run, config.model_copy(update={"seed": 1, "epochs": 1}))
    assert "evidence" not in run.stages
    assert Recommender.load(run.path).evidence is None


def test_items_that_are_added_have_evidence_at_once(weighed_copy: Path, tmp_path: Path) -> None:
    from genrec.catalogue_changes import add_items

    recommender = Recommender.load(weighed_copy)
    new = tmp_path / "new.jsonl"
    new.write_text('{"item_id": "n1", "title": "New film", "year": 1999, "genres": ["Comedy"]}\n')
    vectors = tmp_path / "new.npy"
    np.save(vectors, np.eye(8, dtype=np.float32)[:1])
    add_items(Run.open(weighed_copy), new, when="2024-01-01T00:00:00+00:00", precomputed={"text": vectors})
    assert recommender.refresh()
    assert recommender.evidence is not None
    (evidence,) = recommender.evidence.evidence([np.array([0, 3], np.int32)], recommender.trie)
    assert evidence is not None
    added = recommender.catalog.indices(["n1"])
    assert evidence.mass[recommender.trie.positions(added)] > 0
    assert "n1" in {item.item_id for item in recommender.recommend(["i0", "i3"], k=31)}


def test_after_every_change_a_running_recommender_answers_as_a_new_one(weighed_copy: Path, tmp_path: Path) -> None:
    from genrec.catalogue_changes import add_items, remove_items, update_items

    recommender, run, when = Recommender.load(weighed_copy), Run.open(weighed_copy), "2024-01-01T00:00:00+00:00"
    table, ids = tmp_path / "table.jsonl", tmp_path / "ids.txt"
    ids.write_text("i4\ni9\n")
    back: list[dict[str, object]] = [{"item_id": "i4", "title": "Film 4", "genres": ["Drama"]}]
    histories = [[f"i{number}", f"i{(number * 7 + 3) % 30}"] for number in range(10)]
    changes: list[tuple[list[dict[str, object]], Callable[[], object]]] = [
        ([], lambda: remove_items(run, ids, when=when)),
        (back, lambda: add_items(run, table, when=when)),
        ([{"item_id": "n1", "title": "New"}], lambda: add_items(run, table, when=when)),
        ([{"item_id": "i5", "title": "Another title"}], lambda: update_items(run, table, when=when)),
    ]
    for rows, change in changes:
        table.write_text("".join(json.dumps(row) + "\n" for row in rows))
        change()
        assert recommender.refresh()
        fresh = Recommender.load(weighed_copy)
        for allow in (None, {"genres": "Drama"}):
            assert recommender.recommend(histories, k=8, allow=allow) == fresh.recommend(histories, k=8, allow=allow)


def test_weights_of_another_format_and_damaged_ones_are_refused(weighed_copy: Path) -> None:
    weights_file(Run.open(weighed_copy)).write_text("{}")
    with pytest.raises(RunError, match="checksum"):
        Recommender.load(weighed_copy)


def test_the_command_and_inspect_show_what_speaks(tiny_copy: Path, genrec: Callable[..., tuple[int, str, str]]) -> None:
    status, out, err = genrec("evidence", tiny_copy, "--users", 30)
    assert status == 0, err
    assert "model alone" in out
    assert "Evidence is a weighted sum of signals; a hidden layer was not surely better." in out
    status, out, _ = genrec("inspect", tiny_copy)
    assert status == 0
    assert "of the answers speaks:" in out


def test_a_run_that_was_never_weighed_has_no_source(tiny_run: Path) -> None:
    recommender = Recommender.load(tiny_run)
    assert recommender.evidence is None
    assert EvidenceSource.load(Run.open(tiny_run), catalog=recommender.catalog) is None


def test_what_speaks_in_a_dialogue_is_its_own_evidence(weighed: Path) -> None:
    loaded = Recommender.load(weighed)
    assert loaded.evidence is not None
    history = evaluation_cases(Run.open(weighed), "test").histories[0]
    ranked = loaded.rank([RankRequest(history, in_dialogue=True)], 5)[0]
    assert loaded.shares(history, ranked, in_dialogue=True) == loaded.shares(history, ranked)
    other = replace(loaded.evidence, weight=loaded.evidence.weight / 2)
    loaded._live = replace(loaded.live, dialogue_evidence=other)
    expected = other.shares(history, ranked, loaded.trie)
    assert loaded.shares(history, ranked, in_dialogue=True) == expected != loaded.shares(history, ranked)
