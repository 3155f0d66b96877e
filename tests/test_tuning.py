"""The stage `tune` on a tiny run: the best trial wins, a killed search goes on, and evaluations compare with it."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from genrec import pipeline, tuning
from genrec.baselines.next_item import NextItemSettings
from genrec.baselines_of_run import (
    COUNTING,
    NEURAL,
    OF_TEXTS,
    SPACES,
    Settings,
    default_settings,
    make_baselines,
    tuned_file,
    tuned_settings,
)
from genrec.config import EmbedConfig, EvaluateConfig, TuneConfig
from genrec.data.catalog import Catalog
from genrec.encoders.embed import embed
from genrec.errors import ConfigError, DataError, RunError
from genrec.progress import Progress, SilentProgress, Task
from genrec.run import Run, read_json
from genrec.tuning import draw_settings, tune_baselines

TRANSITIONS = TuneConfig(baselines=("transitions",), trials=6, users=30)


def test_the_first_value_of_every_choice_is_the_default() -> None:
    for name, kind in (COUNTING | OF_TEXTS).items():
        defaults = {key: value.default for key, value in inspect.signature(kind).parameters.items()}
        assert {key: values[0] for key, values in SPACES[name].items()}.items() <= defaults.items()
    for name, kind in NEURAL.items():
        defaults = vars(NextItemSettings(**kind.DEFAULTS))
        assert {key: values[0] for key, values in SPACES[name].items()}.items() <= defaults.items()


def test_settings_begin_with_the_defaults_repeat_nothing_and_grow_at_the_end() -> None:
    space = {"a": (1, 2, 3), "b": (0.5, 0.7)}
    every = draw_settings(space, 100, seed=0)
    assert every[0] == {}
    assert len({json.dumps(one, sort_keys=True) for one in every}) == len(every) == 6
    assert draw_settings(space, 3, seed=0) == every[:3]
    assert draw_settings(space, 100, seed=1) != every


def test_the_best_trial_is_chosen_and_the_baseline_is_made_with_it(tiny_copy: Path) -> None:
    run = Run.open(tiny_copy)
    report = tune_baselines(run, TRANSITIONS)
    found = read_json(tuned_file(run))["baselines"]["transitions"]
    assert len(found["trials"]) == 6
    assert found["ndcg@10"] == max(one["ndcg@10"] for one in found["trials"])
    assert found["default"] == found["trials"][0]["ndcg@10"]
    assert report.facts["transitions"]["settings"] == found["settings"]
    assert not list(tuned_file(run).parent.glob("trials*"))

    worse = min(found["trials"], key=lambda one: one["ndcg@10"])["settings"]
    (made,), _ = make_baselines(run, EvaluateConfig(baselines=("transitions",)), Catalog.load(run))
    histories = [history for history in tuning.evaluation_cases(run, "test").histories][:5]
    for settings, same in ((found["settings"], True), (worse, False)):
        other = COUNTING["transitions"](**settings)
        for baseline in (made, other):
            baseline.fit(tuning.training_sequences(run), len(Catalog.load(run)), seed=0)
        assert (made.scores(histories) == other.scores(histories)).all() == same


def test_a_baseline_that_is_named_twice_is_tuned_once_or_refused_once(tiny_copy: Path) -> None:
    run = Run.open(tiny_copy)
    twice = tune_baselines(run, TRANSITIONS.model_copy(update={"baselines": ("transitions", "transitions")}))
    assert list(twice.facts) == ["transitions"]
    embed(run, EmbedConfig(text_model=None, behaviour_model="spectral"))
    with pytest.raises(DataError, match="none of the baselines can run"):
        tune_baselines(run, TRANSITIONS.model_copy(update={"baselines": ("star", "star")}))


def test_an_evaluation_says_what_was_tuned_and_is_stale_after_another_search(tiny_copy: Path) -> None:
    run = Run.open(tiny_copy)
    tune_baselines(run, TRANSITIONS)
    config = EvaluateConfig(baselines=("popularity", "transitions"), cutoffs=(10,), beam_width=10)
    pipeline.evaluate(run, config)
    found = read_json(run.path / "evaluation" / "test.json")
    chosen = read_json(tuned_file(run))["baselines"]["transitions"]["settings"]
    assert found["tuned"] == {"transitions": chosen}
    assert "transitions was tuned on validation" in (run.path / "evaluation" / "report.md").read_text()
    assert "evaluate:test" in run.stages
    tune_baselines(run, TuneConfig(baselines=("hybrid",), trials=2, users=30))
    assert list(read_json(tuned_file(run))["baselines"]) == ["transitions", "hybrid"]
    assert "evaluate:test" not in run.stages


def test_a_baseline_that_cannot_run_is_left_out_before_the_first_trial(
    tiny_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run.open(tiny_copy)
    monkeypatch.setattr(COUNTING["ease"], "MOST_ITEMS", 10)
    report = tune_baselines(run, TuneConfig(baselines=("ease", "transitions"), trials=1, users=20))
    assert "ease is left out: it inverts a matrix of all pairs of items, here 30" in report.words[-1]
    assert list(read_json(tuned_file(run))["baselines"]) == ["transitions"]
    with pytest.raises(DataError, match="none of the baselines can run: ease: it inverts"):
        tune_baselines(run, TuneConfig(baselines=("ease",), trials=1, users=20))


def test_what_was_chosen_stays_when_the_defaults_of_a_later_version_are_others(
    tiny_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run.open(tiny_copy)
    tune_baselines(run, TRANSITIONS)
    chosen = default_settings("transitions") | tuned_settings(run, ["transitions"])["transitions"]
    space = {name: values[::-1] for name, values in COUNTING["transitions"].SPACE.items()}
    monkeypatch.setattr(COUNTING["transitions"], "SPACE", space)
    monkeypatch.setitem(SPACES, "transitions", space)
    assert default_settings("transitions") | tuned_settings(run, ["transitions"])["transitions"] == chosen
    assert default_settings("transitions") != chosen


def test_a_killed_search_goes_on_with_the_next_trial(tiny_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, asked, measure = Run.open(tiny_copy), [], tuning._Bench.measure

    def dying(bench: tuning._Bench, name: str, settings: Settings, progress: Progress) -> dict[str, float]:
        asked.append(settings)
        if len(asked) == 4:
            raise KeyboardInterrupt
        return measure(bench, name, settings, progress)

    monkeypatch.setattr(tuning._Bench, "measure", dying)
    with pytest.raises(KeyboardInterrupt):
        tune_baselines(run, TRANSITIONS)
    assert "tune" not in run.stages
    tune_baselines(run, TRANSITIONS)
    assert len(asked) == 7  # the fourth twice
    assert asked[3] == asked[4]
    whole = read_json(tuned_file(run))["baselines"]["transitions"]
    assert [one["settings"] for one in whole["trials"]] == [*asked[:3], *asked[4:]]


def test_trials_of_other_users_do_not_count(tiny_copy: Path) -> None:
    run = Run.open(tiny_copy)
    tuned_file(run).parent.mkdir(exist_ok=True)
    made = [{"settings": {}, "recall@10": 9.0, "ndcg@10": 9.0}]
    stale = {"transitions": {"of": {"users": 7}, "trials": made}}
    tuned_file(run).with_name("trials.json").write_text(json.dumps(stale))
    tune_baselines(run, TRANSITIONS)
    assert read_json(tuned_file(run))["baselines"]["transitions"]["default"] <= 1


def test_a_shorter_search_counts_its_own_trials_alone_and_other_baselines_keep_theirs(
    tiny_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, asked, measure = Run.open(tiny_copy), [], tuning._Bench.measure

    def dying(bench: tuning._Bench, name: str, settings: Settings, progress: Progress) -> dict[str, float]:
        asked.append(name)
        if asked.count("star") == 2:
            raise KeyboardInterrupt
        return measure(bench, name, settings, progress) | ({"ndcg@10": 9.0} if len(asked) == 6 else {})

    monkeypatch.setattr(tuning._Bench, "measure", dying)
    with pytest.raises(KeyboardInterrupt):
        tune_baselines(run, TuneConfig(baselines=("transitions", "star"), trials=6, users=30))
    assert asked == ["transitions"] * 6 + ["star"] * 2
    tune_baselines(run, TuneConfig(baselines=("transitions",), trials=4, users=30))
    found = read_json(tuned_file(run))["baselines"]["transitions"]
    assert (len(asked), len(found["trials"])) == (8, 4)
    assert found["ndcg@10"] <= 1


@pytest.mark.parametrize("content", ["garbage", "[]", '{"transitions": 3}', '{"transitions": {}}'])
def test_damaged_trials_are_an_error_that_says_what_to_do(tiny_copy: Path, content: str) -> None:
    run = Run.open(tiny_copy)
    tuned_file(run).parent.mkdir(exist_ok=True)
    tuned_file(run).with_name("trials.json").write_text(content)
    with pytest.raises(RunError, match=r"trials\.json is damaged.*Delete it"):
        tune_baselines(run, TRANSITIONS)


def test_what_cannot_be_tuned_is_refused_with_what_can(tiny_copy: Path) -> None:
    run = Run.open(tiny_copy)
    with pytest.raises(ConfigError, match=r"popularity cannot be tuned.*item-knn"):
        tune_baselines(run, TuneConfig(baselines=("popularity",)))
    for file in (run.path / "embeddings").iterdir():
        if file.name.startswith("text"):
            file.unlink()
    with pytest.raises(DataError, match=r"none of the baselines can run: star: .*genrec embed"):
        tune_baselines(run, TuneConfig(baselines=("star",), trials=2))


def test_settings_that_were_changed_by_hand_are_refused(tiny_copy: Path) -> None:
    run = Run.open(tiny_copy)
    tune_baselines(run, TRANSITIONS)
    tuned_file(run).write_text('{"baselines": {}}')
    with pytest.raises(RunError, match=r"tuned\.json"):
        make_baselines(run, EvaluateConfig(baselines=("transitions",)), Catalog.load(run))


@pytest.mark.parametrize("damage", [Path.unlink, lambda file: file.write_text("{}")], ids=["lost", "changed"])
def test_settings_that_are_lost_are_said_before_the_first_trial_and_chosen_anew(
    tiny_copy: Path, damage: Callable[[Path], object]
) -> None:
    run, said = Run.open(tiny_copy), list[str]()
    tune_baselines(run, TuneConfig(baselines=("transitions", "item-knn"), trials=2, users=30))
    damage(tuned_file(run))
    config = EvaluateConfig(baselines=("popularity",), cutoffs=(5,), beam_width=10)
    pipeline.evaluate(run, config)  # nothing here was tuned

    class Listener(SilentProgress):
        def say(self, line: str) -> None:
            said.append(line)

        @contextmanager
        def track(self, label: str, total: int, unit: str) -> Iterator[Task]:
            said.append(label)
            with super().track(label, total, unit) as task:
                yield task

    tune_baselines(run, TRANSITIONS, progress=Listener())
    assert "tuned.json" in said[0]
    assert "tune them again" in said[0]
    assert said[1] == "Tuning transitions"
    assert list(read_json(tuned_file(run))["baselines"]) == ["transitions"]
    make_baselines(run, EvaluateConfig(baselines=("transitions", "item-knn")), Catalog.load(run))


def test_the_verb_prints_what_it_chose(tiny_copy: Path, genrec: Callable[..., tuple[int, str, str]]) -> None:
    status, out, err = genrec("tune", tiny_copy, "--baselines", "sasrec,ease", "--trials", "1", "--users", "20")
    assert status == 0, err
    assert "sasrec, trial 1 of 1: the defaults" in err
    assert "sasrec: NDCG@10" in out
    assert "the best of 1 trials" in out
    assert "genrec evaluate" in out
