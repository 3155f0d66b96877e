"""A run and a split to a report: the model's ranked items beside the baselines, over the full catalogue.

Every method answers the same cases with ranked items; everything reported follows from these lists. The
model comes in as a function, so this module knows no engine. Results that a reader could mistake are
refused or said in words: a baseline that cannot run, targets that nobody can reach, a beam too narrow for
the longest list.

C cases, k list length, I items.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from genrec import metrics
from genrec.baselines.base import Baseline, item_counts, rank_all
from genrec.baselines_of_run import BASELINES, baseline_inputs, make_baselines, tuned_file, tuned_settings
from genrec.cold_evaluation import evaluate_cold
from genrec.config import EvaluateConfig, dump_config
from genrec.data.catalog import Catalog, removed_items
from genrec.data.sequences import EvaluationCases, Sequences
from genrec.data.splits import cold_cases, cold_items, evaluation_cases, training_sequences
from genrec.errors import ConfigError, DataError, ModelError
from genrec.files import atomic_file
from genrec.progress import SILENT, Progress
from genrec.report import (
    MODEL,
    ColdResult,
    Comparison,
    Estimate,
    EvaluationResult,
    MethodResult,
    html_report,
    markdown_report,
    terminal_lines,
)
from genrec.run import Run, StageReport, write_json

_BOOTSTRAP_SAMPLES = 1000
_USERS_AT_ONCE = 64
_METRICS = {"recall": metrics.recall, "ndcg": metrics.ndcg, "mrr": metrics.mrr}


class Recommend(Protocol):
    """The model as a function."""

    def __call__(
        self, histories: list[NDArray[np.int32]], k: int, allowed: NDArray[np.bool_] | None = None
    ) -> list[list[int]]:
        """For each history up to k item indices, best first, without those of the history.

        Of the items in `allowed` (I,), where it is given; it is for held-out items only.
        """
        ...


def evaluate(
    run: Run,
    config: EvaluateConfig,
    *,
    recommend: Recommend | Mapping[str, Recommend] | None,
    model_files: Sequence[Path] = (),
    progress: Progress = SILENT,
) -> StageReport:
    """Evaluate a run's model (or, with `recommend=None`, the baselines alone) on a split.

    A mapping gives several rows, such as the model without its evidence; the one called `model` is compared.
    `model_files` are the files behind `recommend`: when they change, the manifest drops this evaluation.
    Writes `evaluation/<split>.json` and a report in Markdown and HTML, and records the stage
    `evaluate:<split>`. Raises ConfigError for an unknown baseline or a beam narrower than the longest list,
    DataError where the split has no case, RunError where the run lacks a stage or is damaged.
    """
    started = run.begin()
    check_config(config, with_model=recommend is not None)
    catalog = Catalog.load(run)
    cases = evaluation_cases(run, config.split)
    if len(cases) == 0:
        raise DataError(
            f"The {config.split} split of {run.path} has no user to evaluate.",
            "Ingest again with another split or a smaller --min-interactions.",
        )
    live = ~removed_items(run, catalog=catalog)
    num_removed = int((~live[cases.targets]).sum())
    cases = cases.select(live[cases.targets])
    if config.max_users is not None:
        cases = cases.sample(config.max_users, seed=config.users_seed)
    tuned = tuned_settings(run, config.baselines)
    baselines, skipped = make_baselines(run, config, catalog)
    for name, reason in skipped.items():
        progress.say(f"{name} is left out: {reason}")
    result = evaluate_methods(
        training_sequences(run),
        cases,
        num_items=len(catalog),
        config=config,
        baselines=baselines,
        recommend=recommend,
        live=live,
        progress=progress,
    )
    model = named_models(recommend).get(MODEL)
    cold = _evaluate_cold(run, config, live, baselines=baselines, recommend=model, progress=progress)
    result = replace(result, skipped=skipped, tuned=tuned, cold=cold, num_removed_targets=num_removed)
    result = replace(result, new_share=0.0 if model is None else config.new_share)
    outputs = _write(run, result)
    report = StageReport(
        stage=f"evaluate:{config.split}",
        facts=result.facts,
        words=[*terminal_lines(result), f"Report: {outputs[-1]}"],
        next_command=f"genrec recommend {run.path} --input users.jsonl --output recs.jsonl",
    )
    run.record(
        report,
        config=dump_config(config),
        seed=config.seed,
        inputs=[
            *baseline_inputs(run, config.baselines, dense_modality=config.dense_modality),
            *([tuned_file(run)] if tuned else []),
            *model_files,
        ],
        outputs=outputs,
        started=started,
    )
    return report


def _evaluate_cold(
    run: Run,
    config: EvaluateConfig,
    live: NDArray[np.bool_],
    *,
    baselines: Sequence[Baseline],
    recommend: Recommend | None,
    progress: Progress,
) -> ColdResult | None:
    """The figures of held-out items, by fitted baselines and the model; None where there are no such cases."""
    cases = cold_cases(run)
    cases = cases.select(live[cases.targets])
    if len(cases) == 0:
        return None
    if config.max_users is not None:
        cases = cases.sample(config.max_users, seed=config.users_seed)
    cold = cold_items(run)
    return evaluate_cold(
        cases,
        cold=cold,
        live=live,
        baselines=baselines,
        ask_model=None if recommend is None else partial(_ask_model, recommend, num_items=len(cold), progress=progress),
        seed=config.seed,
        progress=progress,
    )


def evaluate_methods(
    training: Sequences,
    cases: EvaluationCases,
    *,
    num_items: int,
    config: EvaluateConfig,
    baselines: Sequence[Baseline],
    recommend: Recommend | Mapping[str, Recommend] | None = None,
    live: NDArray[np.bool_] | None = None,
    progress: Progress = SILENT,
) -> EvaluationResult:
    """Fit the baselines, let everyone rank the cases and measure: `evaluate` without files.

    Only the items of `live` (I,) are recommended, None means all; the model knows from its trie which they are.
    """
    k = max(config.cutoffs)
    live = np.ones(num_items, dtype=np.bool_) if live is None else live
    answers: dict[str, tuple[NDArray[np.int32], float]] = {}
    for name, model in named_models(recommend).items():
        started = time.perf_counter()
        ranked = _ask_model(model, cases, k=k, num_items=num_items, progress=progress)
        answers[name] = ranked, time.perf_counter() - started
    histories = list(cases.histories)
    for baseline in baselines:
        started = time.perf_counter()
        baseline.fit(training, num_items, seed=config.seed, progress=progress)
        ranked = rank_all(
            baseline, histories, k, num_items=num_items, seed=config.seed, allowed=live, progress=progress
        )
        answers[baseline.name] = ranked, time.perf_counter() - started
    groups = metrics.popularity_groups(item_counts(training, num_items))
    methods = [
        _measure(name, ranked, cases.targets, groups, live=live, config=config, seconds=seconds)
        for name, (ranked, seconds) in answers.items()
    ]
    pairs = zip(histories, cases.targets, strict=True)
    return EvaluationResult(
        split=config.split,
        num_cases=len(cases),
        num_items=int(live.sum()),
        num_repeats=sum(bool((history == target).any()) for history, target in pairs),
        headline=_headline(config),
        cutoffs=tuple(sorted(config.cutoffs)),
        seed=config.seed,
        bootstrap_samples=_BOOTSTRAP_SAMPLES,
        methods=methods,
        comparisons=_compare({name: ranked for name, (ranked, _) in answers.items()}, cases, config),
    )


def named_models(recommend: Recommend | Mapping[str, Recommend] | None) -> Mapping[str, Recommend]:
    """The rows that models make, by name; a single one is called `model`."""
    if recommend is None:
        return {}
    return recommend if isinstance(recommend, Mapping) else {MODEL: recommend}


def _measure(
    name: str,
    ranked: NDArray[np.int32],
    targets: NDArray[np.int32],
    groups: NDArray[np.int8],
    *,
    live: NDArray[np.bool_],
    config: EvaluateConfig,
    seconds: float,
) -> MethodResult:
    """One method's row, from its ranked items (C, k), the popularity group of every item and which are live, (I,)."""
    ranks = metrics.target_ranks(ranked, targets)
    k = _headline(config)
    names = [(metric, cutoff) for cutoff in sorted(config.cutoffs) for metric in _METRICS]
    values = np.stack([_METRICS[metric](ranks, cutoff) for metric, cutoff in names], axis=1)  # (C, M)
    intervals = metrics.bootstrap_intervals(values, seed=config.seed, samples=_BOOTSTRAP_SAMPLES)
    counts = metrics.recommendation_counts(ranked, len(groups), k)[live]
    recommended = bool(counts.any())
    return MethodResult(
        name=name,
        metrics={
            f"{metric}@{cutoff}": Estimate(float(mean), float(low), float(high))
            for (metric, cutoff), mean, (low, high) in zip(names, values.mean(axis=0), intervals, strict=True)
        },
        coverage=metrics.coverage(counts),
        gini=metrics.gini(counts) if recommended else None,
        tail_share=metrics.tail_share(counts, groups[live]) if recommended else None,
        group_recall=metrics.stratified_mean(metrics.recall(ranks, k), groups[targets]),
        recall_curve=[float((ranks <= cutoff).mean()) for cutoff in range(1, max(config.cutoffs) + 1)],
        seconds=round(seconds, 3),
    )


def _compare(answers: dict[str, NDArray[np.int32]], cases: EvaluationCases, config: EvaluateConfig) -> list[Comparison]:
    """NDCG of the model minus each baseline's, per case, with a paired bootstrap interval."""
    names = [name for name in answers if name != MODEL]
    if MODEL not in answers or not names:
        return []
    k = _headline(config)
    ndcg = {name: metrics.ndcg(metrics.target_ranks(r, cases.targets), k) for name, r in answers.items()}
    values = np.stack([ndcg[MODEL] - ndcg[name] for name in names], axis=1)  # (C, baselines)
    intervals = metrics.bootstrap_intervals(values, seed=config.seed, samples=_BOOTSTRAP_SAMPLES)
    means = values.mean(axis=0)
    return [
        Comparison(name, Estimate(float(mean), float(low), float(high)))
        for name, mean, (low, high) in zip(names, means, intervals, strict=True)
    ]


def _ask_model(
    recommend: Recommend,
    cases: EvaluationCases,
    *,
    k: int,
    num_items: int,
    progress: Progress,
    allowed: NDArray[np.bool_] | None = None,
) -> NDArray[np.int32]:
    """The model's ranked items, (C, k). Raises ModelError for an answer that no method may give."""
    ranked = np.empty((len(cases), k), dtype=np.int32)
    with progress.track(f"Ranking with {MODEL}", len(cases), "users") as task:
        for start in range(0, len(cases), _USERS_AT_ONCE):
            stop = min(start + _USERS_AT_ONCE, len(cases))
            histories = [cases.histories[case] for case in range(start, stop)]
            answers = recommend(histories, k) if allowed is None else recommend(histories, k, allowed)
            for history, answer in zip(histories, answers, strict=True):
                _check_answer(history, answer, num_items, allowed=allowed)
            ranked[start:stop] = metrics.pad_rankings(answers, k)
            task.advance(stop - start)
    return ranked


def _check_answer(
    history: NDArray[np.int32], answer: Sequence[int], num_items: int, *, allowed: NDArray[np.bool_] | None
) -> None:
    outside = [item for item in answer if not 0 <= item < num_items or (allowed is not None and not allowed[item])]
    repeated = len(set(answer)) < len(answer)
    known = set(history.tolist()) & set(answer)
    if outside or repeated or known:
        wrong = (
            f"items {outside} that are not in the catalogue or not allowed"
            if outside
            else "the same item twice"
            if repeated
            else f"items {sorted(known)} of the user's own history"
        )
        raise ModelError(
            f"The model's answer holds {wrong}.",
            "Figures over such answers cannot be compared; exclude history items and check the trie.",
        )


def _headline(config: EvaluateConfig) -> int:
    return 10 if 10 in config.cutoffs else max(config.cutoffs)


def check_config(config: EvaluateConfig, *, with_model: bool) -> None:
    """Refuse what could only fail later. Raises ConfigError; `evaluate` says when."""
    unknown = [name for name in config.baselines if name not in BASELINES]
    if unknown:
        raise ConfigError(f"Unknown baseline {', '.join(unknown)}.", f"Known: {', '.join(BASELINES)}.")
    if with_model and max(config.cutoffs) > config.beam_width:
        raise ConfigError(
            f"Cutoff {max(config.cutoffs)} asks for more items than a beam of {config.beam_width} returns.",
            "Raise beam_width or leave out the longer cutoffs.",
        )


def _write(run: Run, result: EvaluationResult) -> list[Path]:
    """Write the three files of a split; the page comes last. Each split has its own."""
    folder = run.path / "evaluation"
    stem = "report" if result.split == "test" else f"report-{result.split}"
    title = f"Evaluation of {run.path.resolve().name}, {result.split} split"
    data, page = folder / f"{result.split}.json", folder / f"{stem}.html"
    words = folder / f"{stem}.md"
    write_json(data, result.as_json)
    for path, text in (
        (words, markdown_report(result, title=title)),
        (page, html_report(result, title=title)),
    ):
        with atomic_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return [data, words, page]
