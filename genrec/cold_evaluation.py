"""Held-out items as targets: how well each method recommends what no training has seen.

A case is any interaction with a held-out item, after everything earlier of its user. Every method answers it
twice: over all items, where it has to prefer an unknown item to thousands of known ones, and among the held-out
items alone, which is how new arrivals are recommended and what papers call cold-item recommendation.

C cases, I items, k list length.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from genrec import metrics
from genrec.baselines.base import Baseline, rank_all
from genrec.data.sequences import EvaluationCases
from genrec.progress import SILENT, Progress
from genrec.report import MODEL, ColdMethod, ColdResult, Estimate

RANDOM = "random"
FIGURES: dict[str, tuple[Callable[[NDArray[np.float64], int], NDArray[np.float64]], int]] = {
    "recall@10": (metrics.recall, 10),
    "recall@50": (metrics.recall, 50),
    "ndcg@10": (metrics.ndcg, 10),
}
LONGEST = 50


class AskModel(Protocol):
    """The model's ranked items."""

    def __call__(self, cases: EvaluationCases, *, k: int, allowed: NDArray[np.bool_]) -> NDArray[np.int32]:
        """The k best items of `allowed` (I,) for every case, (C, k)."""
        ...


def evaluate_cold(
    cases: EvaluationCases,
    *,
    cold: NDArray[np.bool_],
    live: NDArray[np.bool_],
    baselines: Sequence[Baseline],
    ask_model: AskModel | None,
    seed: int,
    progress: Progress = SILENT,
) -> ColdResult:
    """Both figures of every method on the cases of held-out items.

    `cold` (I,) are the held-out items, `live` (I,) those that may be recommended; `baselines` are fitted. The
    row `random` is the exact expectation of a random order of the items that a case may be answered with.
    """
    pools = {"all": live, "cold": live & cold}
    histories = list(cases.histories)
    rank = partial(rank_all, num_items=len(cold), seed=seed, progress=progress)
    rows: dict[str, dict[str, dict[str, Estimate]]] = {RANDOM: {}}
    seconds: dict[str, float] = {RANDOM: 0.0}
    for pool, allowed in pools.items():
        rows[RANDOM][pool] = _estimates(_random_values(histories, allowed), cases.targets, seed)
        answers: dict[str, Callable[[], NDArray[np.int32]]] = {}
        if ask_model is not None:
            answers[MODEL] = partial(ask_model, cases, k=LONGEST, allowed=allowed)
        for baseline in baselines:
            answers[baseline.name] = partial(rank, baseline, histories, LONGEST, allowed=allowed)
        for name, answer in answers.items():
            started = time.perf_counter()
            ranks = metrics.target_ranks(answer(), cases.targets)
            values = np.stack([metric(ranks, k) for metric, k in FIGURES.values()], axis=1)  # (C, M)
            rows.setdefault(name, {})[pool] = _estimates(values, cases.targets, seed)
            seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - started
    return ColdResult(
        num_items=int(pools["cold"].sum()),
        num_all_items=int(live.sum()),
        num_cases=len(cases),
        methods=[
            ColdMethod(name, found["all"], found["cold"], round(seconds[name], 3)) for name, found in rows.items()
        ],
    )


def _random_values(histories: Sequence[NDArray[np.int32]], allowed: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Expected figures of a random order of the allowed items outside the history, per case, (C, M)."""
    taken = np.array([allowed[np.unique(history)].sum() for history in histories])
    choices = np.maximum(int(allowed.sum()) - taken, 1)  # (C,)
    every_rank = np.arange(1, LONGEST + 1, dtype=np.float64)
    # The target stands on each of `choices` ranks with the same probability.
    possible = every_rank[None, :] <= choices[:, None]  # (C, k)
    sums = [possible @ metric(every_rank, k) for metric, k in FIGURES.values()]
    return np.stack(sums, axis=1) / choices[:, None]


def _estimates(values: NDArray[np.float64], targets: NDArray[np.int32], seed: int) -> dict[str, Estimate]:
    """Means over the cases (C, M) with intervals from resampling the *items*, each with all its cases.

    The question is what other new items would have got; cases of one item hit or miss together, and resampling
    the cases would take them for independent.
    """
    _, owner = np.unique(targets, return_inverse=True)
    counts = np.bincount(owner).astype(np.float64)  # (items,)
    sums = np.stack([np.bincount(owner, weights=column) for column in values.T], axis=1)  # (items, M)
    means = metrics.bootstrap_means(np.concatenate([sums, counts[:, None]], axis=1), seed=seed)
    low, high = np.quantile(means[:, :-1] / means[:, -1:], [0.025, 0.975], axis=0)
    mean = values.mean(axis=0)
    return {
        name: Estimate(float(mean[column]), float(low[column]), float(high[column]))
        for column, name in enumerate(FIGURES)
    }
