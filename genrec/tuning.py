"""The stage `tune`: settings of baselines, chosen on the validation split, the same number of trials for each.

A baseline that was not tuned proves little when a model is above it. The first trial has the defaults, the others are
drawn from the baseline's `SPACE` (random search, Bergstra & Bengio 2012); the best validation NDCG@10 wins. From then
on `genrec evaluate` makes the baseline with what was chosen, and says so.

A trial is written down when it is done, so that a killed search goes on with the next one.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genrec import metrics
from genrec.baselines.base import rank_all
from genrec.baselines_of_run import (
    NEURAL,
    SPACES,
    TUNING,
    Settings,
    baseline_inputs,
    default_settings,
    make_baseline,
    tuned_file,
)
from genrec.config import TuneConfig, dump_config
from genrec.data.catalog import Catalog, removed_items
from genrec.data.sequences import EvaluationCases, Sequences
from genrec.data.splits import evaluation_cases, training_sequences
from genrec.errors import ConfigError, DataError, RunError
from genrec.progress import SILENT, Progress
from genrec.report import words
from genrec.run import Run, StageReport, file_checksum, read_json, write_json, writes

_K = 10
_TRIED = "trials.json"  # beside the chosen settings, while a search is under way


@writes("genrec tune")
def tune_baselines(run: Run, config: TuneConfig, *, progress: Progress = SILENT) -> StageReport:
    """Try settings, write the best of each baseline to `evaluation/tuned.json` and record the stage.

    Baselines that were tuned before and are not named keep their settings, unless the file is lost or damaged. Raises
    ConfigError for a baseline that has nothing to choose, DataError where there are no validation users or no baseline
    can run; one of several that cannot is left out with the reason.
    """
    started = run.begin()
    check_config(config)
    catalog = Catalog.load(run)
    live = ~removed_items(run, catalog=catalog)
    cases = evaluation_cases(run, "validation")
    cases = cases.select(live[cases.targets]).sample(config.users, seed=config.seed)
    if len(cases) == 0:
        raise DataError(
            f"{run.path} has no validation user.", "Ingest data in which users have three interactions or more."
        )
    config = config.model_copy(update={"baselines": tuple(dict.fromkeys(config.baselines))})
    made = {name: make_baseline(name, run, catalog, settings={}) for name in config.baselines}
    reasons = {name: reason for name, reason in made.items() if isinstance(reason, str)}
    if len(reasons) == len(config.baselines):
        raise DataError(f"none of the baselines can run: {'; '.join(map(': '.join, reasons.items()))}", "Name others.")
    config = config.model_copy(update={"baselines": tuple(name for name in config.baselines if name not in reasons)})
    earlier = _earlier(run, progress)
    search = _Search(run, config)
    bench = _Bench(run, catalog, training_sequences(run), cases, live, config.seed)
    planned = {name: draw_settings(SPACES[name], config.trials, seed=config.seed) for name in config.baselines}
    for name, drawn in planned.items():
        slow = name in NEURAL  # a training shows its own progress
        with (SILENT if slow else progress).track(f"Tuning {name}", len(drawn), "trials") as task:
            for number, settings in enumerate(drawn, 1):
                if search.find(name, settings) is None:
                    if slow:
                        progress.say(f"{name}, trial {number} of {len(drawn)}: {words(settings)}")
                    search.add(name, settings, bench.measure(name, settings, progress if slow else SILENT))
                task.advance(note=search.note(name, drawn))
    chosen = {**earlier, **{name: search.best(name, drawn) for name, drawn in planned.items()}}
    write_json(tuned_file(run), {"baselines": chosen})
    report = StageReport(
        stage=TUNING,
        facts={name: {key: found[key] for key in ("settings", "ndcg@10", "default")} for name, found in chosen.items()},
        words=[
            *(_line(name, chosen[name], len(cases)) for name in planned),
            *(f"{name} is left out: {reason}" for name, reason in reasons.items()),
        ],
        next_command=f"genrec evaluate {run.path}",
    )
    run.record(
        report,
        config=dump_config(config),
        seed=config.seed,
        inputs=baseline_inputs(run, tuple(chosen)),
        outputs=[tuned_file(run)],
        started=started,
    )
    search.path.unlink()
    return report


def check_config(config: TuneConfig) -> None:
    """Raise ConfigError for a baseline that has nothing to choose."""
    unknown = [name for name in config.baselines if name not in SPACES]
    if unknown:
        raise ConfigError(f"{', '.join(unknown)} cannot be tuned.", f"Can be: {', '.join(SPACES)}.")


def draw_settings(space: Mapping[str, Sequence[Any]], trials: int, *, seed: int) -> list[Settings]:
    """The defaults as {}, then other settings at random, none twice; fewer than `trials` where there are no more.

    Only what differs from the defaults is in a setting. The first n of a longer list are the list of n.
    """
    names, size = list(space), prod(len(values) for values in space.values())
    default = {name: values[0] for name, values in space.items()}
    order = np.random.default_rng(seed).permutation(np.arange(1, size))[: trials - 1]
    combinations = list(product(*space.values()))
    found = [dict(zip(names, combinations[number], strict=True)) for number in (0, *order)]
    return [{name: value for name, value in one.items() if value != default[name]} for one in found]


def _earlier(run: Run, progress: Progress) -> dict[str, Any]:
    """What was chosen before, by baseline; nothing where the file is lost or damaged, which is said."""
    if TUNING not in run.stages:
        return {}
    try:
        run.require(TUNING)
    except RunError as error:
        progress.say(f"{error.message} What it says of baselines that are not named now is lost: tune them again.")
        return {}
    return dict(read_json(tuned_file(run))["baselines"])


class _Search:
    """The trials so far, on disk; those of other data, users, seeds or defaults are not looked at."""

    def __init__(self, run: Run, config: TuneConfig) -> None:
        self.path = tuned_file(run).with_name(_TRIED)
        self._of: dict[str, dict[str, Any]] = {}  # by baseline: what its trials depend on
        for name in config.baselines:
            read = {str(file.relative_to(run.path)): file_checksum(file) for file in baseline_inputs(run, [name])}
            self._of[name] = {**read, "users": config.users, "seed": config.seed, "defaults": default_settings(name)}
        self._state: dict[str, Any] = {}  # by baseline: `of` and `trials`
        if self.path.exists():
            try:
                before = read_json(self.path).items()
                self._state = {name: {"of": one["of"], "trials": list(one["trials"])} for name, one in before}
            except (RunError, KeyError, TypeError, AttributeError) as error:
                raise RunError(f"{self.path} is damaged.", "Delete it: the trials in it are made again.") from error

    def _trials(self, name: str) -> list[dict[str, Any]]:
        if name not in self._state or self._state[name]["of"] != self._of[name]:
            self._state[name] = {"of": self._of[name], "trials": []}
        trials: list[dict[str, Any]] = self._state[name]["trials"]
        return trials

    def find(self, name: str, settings: Settings) -> dict[str, Any] | None:
        """What a trial found, None where it was not made."""
        return next((one for one in self._trials(name) if one["settings"] == settings), None)

    def add(self, name: str, settings: Settings, figures: Mapping[str, float]) -> None:
        """Write a trial down."""
        self._trials(name).append({"settings": dict(settings), **figures})
        write_json(self.path, self._state)

    def best(self, name: str, drawn: Sequence[Settings]) -> dict[str, Any]:
        """The best of the trials that were drawn and made, with what the defaults found and with all of these."""
        made = [one for settings in drawn if (one := self.find(name, settings)) is not None]
        best = max(made, key=lambda one: one[f"ndcg@{_K}"])
        return {**best, "default": made[0][f"ndcg@{_K}"], "trials": made, "defaults": default_settings(name)}

    def note(self, name: str, drawn: Sequence[Settings]) -> str:
        """The best trial in a few words."""
        best = self.best(name, drawn)
        return f"{name}: NDCG@{_K} {best[f'ndcg@{_K}']:.4f} with {words(best['settings'])}"


@dataclass(frozen=True, eq=False)
class _Bench:
    """Where all trials are measured."""

    run: Run
    catalog: Catalog
    training: Sequences
    cases: EvaluationCases
    live: NDArray[np.bool_]  # (I,)
    seed: int

    def measure(self, name: str, settings: Settings, progress: Progress) -> dict[str, float]:
        """Figures on the validation users, of a baseline that can run."""
        started = time.monotonic()
        baseline = make_baseline(name, self.run, self.catalog, settings=settings)
        assert not isinstance(baseline, str)
        baseline.fit(self.training, len(self.catalog), seed=self.seed, progress=progress)
        histories = list(self.cases.histories)
        ranked = rank_all(baseline, histories, _K, num_items=len(self.catalog), seed=self.seed, allowed=self.live)
        ranks = metrics.target_ranks(ranked, self.cases.targets)
        return {
            f"recall@{_K}": round(float(metrics.recall(ranks, _K).mean()), 6),
            f"ndcg@{_K}": round(float(metrics.ndcg(ranks, _K).mean()), 6),
            "seconds": round(time.monotonic() - started, 1),
        }


def _line(name: str, found: Mapping[str, Any], num_users: int) -> str:
    figures = (
        f"NDCG@{_K} {found[f'ndcg@{_K}']:.4f} on {num_users:,} validation users ({found['default']:.4f} by default)"
    )
    return f"{name}: {figures} with {words(found['settings'])}, the best of {len(found['trials'])} trials"
