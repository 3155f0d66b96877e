"""A trained run learns from its own lists; the better of before and after is kept in a run of its own."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from genrec import pipeline
from genrec.baselines_of_run import tuned_file
from genrec.catalogue_changes import remove_items
from genrec.config import EvaluateConfig, ReinforceConfig, TuneConfig
from genrec.data.catalog import Catalog, removed_items
from genrec.data.splits import evaluation_cases, training_sequences
from genrec.errors import DataError, RunError
from genrec.pipeline import validation_cases
from genrec.recommender import Recommender
from genrec.reinforcement import _Drawing, _likeness, _with_target, reinforce
from genrec.run import Run, read_json
from genrec.tuning import tune_baselines

QUICK = {"group_size": 4, "users_per_step": 4, "steps": 2, "validate_every": 1, "validation_users": 10}


def quick(**changes: object) -> ReinforceConfig:
    return ReinforceConfig.model_validate({**QUICK, "precision": "float32", **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"reward": "rule"},
        {"reward": "ranking"},
        {"reward": "collaborative"},
        {"reward": "semantic"},
        {"method": "dpo", "negatives": "beam"},
        {"method": "dpo", "negatives": "random"},
    ],
    ids=lambda changes: "-".join(changes.values()),
)
def test_every_method_makes_a_run_that_recommends_and_is_no_worse(
    changes: dict[str, str], tiny_run: Path, tmp_path: Path
):
    report = reinforce(Run(tiny_run), quick(**changes, learning_rate=1e-3), out=tmp_path / "out")
    history = report.facts["history"]
    assert [entry["step"] for entry in history] == [0.0, 1.0, 2.0]
    assert report.facts["after"] == max(entry["ndcg@10"] for entry in history) >= report.facts["before"]
    assert Run(tmp_path / "out").require("train").report["before"] == report.facts["before"]
    assert len(Recommender.load(tmp_path / "out").recommend(["i1"], k=5)) == 5
    old, new = (load_file(folder / "model" / "model.safetensors") for folder in (tiny_run, tmp_path / "out"))
    changed = any(not torch.equal(old[name], new[name]) for name in old)
    assert changed == (report.facts["after"] > report.facts["before"])


def test_the_wanted_item_becomes_likelier(tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Many small updates on one and the same step raise its targets' log-probabilities."""
    from genrec import reinforcement

    original, gained = reinforcement.item_log_probabilities, []

    def watched(model, vocabulary, prompts, items):
        found = original(model, vocabulary, prompts, items)
        gained.append(found.detach().sum(dim=-1))
        return found

    monkeypatch.setattr(reinforcement, "item_log_probabilities", watched)
    same = reinforcement._Drawing.step
    monkeypatch.setattr(reinforcement._Drawing, "step", lambda self, number: same(self, 1))
    steps = []
    learn = reinforcement._learn

    def kept(step, *others):
        steps.append(step)
        return learn(step, *others)

    monkeypatch.setattr(reinforcement, "_learn", kept)
    config = quick(method="dpo", negatives="random", steps=10, validate_every=10, learning_rate=3e-3)
    reinforce(Run(tiny_run), config, out=tmp_path / "out")
    wanted = torch.from_numpy(steps[0].items == steps[0].targets[:, None])
    first, last = gained[0][wanted].mean(), gained[-2][wanted].mean()
    others = gained[-2][~wanted].mean() - gained[0][~wanted].mean()
    assert last - first > others + 0.1


def test_lists_hold_their_target_and_come_from_training_alone(tiny_run: Path):
    run, config = Run(tiny_run), quick(users_per_step=30)
    drawing = _Drawing(run, Recommender.load(tiny_run), config)
    step, again = drawing.step(3), drawing.step(3)
    assert (step.items == again.items).all()
    assert (step.targets == again.targets).all()
    assert (step.items == step.targets[:, None]).any(axis=1).all()
    # Each prompt ends in the item before the target in somebody's training history.
    own = Recommender.load(tiny_run).live.own_tokens
    assert own is not None
    pairs = {(own[h[n - 1]], h[n]) for h in map(list, training_sequences(run)) for n in range(1, len(h))}
    found = [(prompt[-1], target) for prompt, target in zip(step.prompts, step.targets, strict=True)]
    assert len(found) == 30
    assert set(found) <= pairs


def test_drawn_negatives_are_never_the_target(tiny_run: Path):
    config = quick(method="dpo", negatives="random", users_per_step=30, group_size=8)
    drawing = _Drawing(Run(tiny_run), Recommender.load(tiny_run), config)
    steps = [drawing.step(number) for number in range(40)]
    for step in steps:
        assert ((step.items == step.targets[:, None]).sum(axis=1) == 1).all()
    drawn = np.concatenate([step.items[:, :-1].ravel() for step in steps])
    assert set(drawn.tolist()) == set(drawing._known.tolist())  # and may be anything else


def test_a_target_that_is_missing_takes_the_last_place():
    items = np.array([[1, 2, 3], [4, 5, 6]], dtype=np.int32)
    assert _with_target(items, np.array([2, 9], dtype=np.int32)).tolist() == [[1, 2, 3], [4, 5, 9]]


@pytest.mark.parametrize("reward", ["collaborative", "semantic"])
def test_likeness_is_one_for_the_item_itself_and_lies_between_nothing_and_one(reward: str, tiny_run: Path):
    likeness = _likeness(Run(tiny_run), quick(reward=reward))
    assert likeness is not None
    targets = np.arange(4, dtype=np.int32)
    items = np.array([[target, 10, 20] for target in targets], dtype=np.int32)
    found = likeness(targets, items)
    assert found.shape == (4, 3)
    np.testing.assert_allclose(found[:, 0], 1.0, atol=1e-6)
    assert (found >= 0).all()
    assert (found <= 1 + 1e-6).all()
    assert _likeness(Run(tiny_run), quick(reward="ranking")) is None


def test_the_settings_of_tuned_baselines_come_along(tiny_copy: Path, tmp_path: Path):
    tune_baselines(Run(tiny_copy), TuneConfig(baselines=("transitions",), trials=2, users=20))
    reinforce(Run(tiny_copy), quick(steps=1), out=tmp_path / "out")
    out = Run(tmp_path / "out")
    config = EvaluateConfig(baselines=("transitions",), cutoffs=(5,), beam_width=10)
    pipeline.evaluate(out, config)
    assert read_json(out.path / "evaluation" / "test.json")["tuned"].keys() == {"transitions"}
    tune_baselines(out, TuneConfig(baselines=("item-knn",), trials=1, users=20))
    assert list(read_json(tuned_file(out))["baselines"]) == ["transitions", "item-knn"]


def test_what_cannot_be_is_refused(tiny_run: Path, tmp_path: Path):
    with pytest.raises(RunError, match="exists already"):
        reinforce(Run(tiny_run), quick(), out=tmp_path)
    with pytest.raises(DataError, match="fewer than 30 items left"):
        reinforce(Run(tiny_run), quick(group_size=30), out=tmp_path / "out")


def test_removed_items_are_neither_learned_nor_validated(tiny_copy: Path, tmp_path: Path):
    run = Run(tiny_copy)
    (tmp_path / "gone.txt").write_text("i0\ni3\ni6\ni9\n")
    remove_items(run, tmp_path / "gone.txt", when="2026-01-01")
    removed = set(np.flatnonzero(removed_items(run, catalog=Catalog.load(run))).tolist())
    recommender = Recommender.load(tiny_copy)
    assert removed & set(evaluation_cases(run, "validation").targets.tolist())
    assert not removed & set(validation_cases(run, recommender.catalog, size=100, seed=0).targets.tolist())
    drawing = _Drawing(run, recommender, quick(users_per_step=60))
    steps = [drawing.step(number) for number in range(3)]
    assert len(removed) == 4
    assert not removed & {int(item) for step in steps for item in step.items.ravel()}


def test_a_run_without_anything_to_learn_or_to_validate_is_refused(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from genrec import reinforcement

    none = np.zeros(30, dtype=np.bool_)
    with monkeypatch.context() as patched:
        patched.setattr(reinforcement, "cold_items", lambda run: ~none)
        with pytest.raises(DataError, match="no training history has an item that can be learned from"):
            reinforce(Run(tiny_run), quick(), out=tmp_path / "out")
    monkeypatch.setattr(pipeline, "removed_items", lambda run, catalog: ~none)
    with pytest.raises(DataError, match="the run has no validation cases"):
        reinforce(Run(tiny_run), quick(), out=tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_what_is_stopped_while_the_run_is_written_leaves_no_half_of_one(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from genrec import reinforcement

    def stopped(*arguments: object, **options: object) -> None:
        assert not (tmp_path / "out").exists()  # a kill here would leave no run with a record and no weights
        raise RunError("stopped")

    monkeypatch.setattr(reinforcement, "save_model_folder", stopped)
    with pytest.raises(RunError, match="stopped"):
        reinforce(Run(tiny_run), quick(steps=1), out=tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_the_recipe_prints_what_it_gained(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_run: Path, tmp_path: Path
):
    config = tmp_path / "reinforce.yaml"
    config.write_text("".join(f"{name}: {value}\n" for name, value in QUICK.items()))
    recipe = Path(__file__).resolve().parents[1] / "train" / "reinforce.py"
    arguments = [str(recipe), str(tiny_run), "--out", str(tmp_path / "out"), "--config", str(config), "--json"]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit) as ending:
        runpy.run_path(str(recipe), run_name="__main__")
    assert ending.value.code == 0
    assert json.loads(capsys.readouterr().out)["reinforcement"]["method"] == "grpo"
