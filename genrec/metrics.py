"""Ranking metrics over items: from recommended lists and targets to figures with intervals. NumPy only.

The one idea: everything about accuracy follows from the rank of the target in the returned list
(1 is best, infinity if it is not there). Each accuracy metric is therefore one number per case, (C,),
whose mean is the reported figure and whose resampled mean is the interval. Hits are counted in items.

C cases, k list length, I items, M columns (metrics), S bootstrap samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

EMPTY = -1  # fills the end of a list that is shorter than k

# From most to least popular; see `popularity_groups`.
GROUPS = ("head", "mid", "tail", "cold")
_HEAD_SHARE, _HEAD_AND_MID_SHARE = 0.2, 0.8


def pad_rankings(rankings: Sequence[Sequence[int]], k: int) -> NDArray[np.int32]:
    """Ranked lists of item indices as one array (C, k), best first, `EMPTY` where a list is short."""
    padded = np.full((len(rankings), k), EMPTY, dtype=np.int32)
    for row, ranking in enumerate(rankings):
        best = np.asarray(ranking[:k], dtype=np.int32)
        padded[row, : len(best)] = best
    return padded


def target_ranks(ranked: NDArray[np.int32], targets: NDArray[np.int32]) -> NDArray[np.float64]:
    """Rank of each target in its list, (C,), counted from 1; infinity if it is absent.

    `ranked` is (C, k) as `pad_rankings` makes it, `targets` is (C,).
    """
    hits = ranked == targets[:, None]  # (C, k)
    return np.where(hits.any(axis=1), hits.argmax(axis=1) + 1.0, np.inf)


def recall(ranks: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """Recall@k per case, (C,): 1 if the target is among the first k. With one target it equals the hit rate."""
    return (ranks <= k).astype(np.float64)


def ndcg(ranks: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """NDCG@k per case, (C,): 1 / log2(rank + 1) within the first k, else 0.

    Järvelin & Kekäläinen 2002, with one relevant item of gain 1, so that the ideal DCG is 1.
    """
    return np.where(ranks <= k, 1.0 / np.log2(ranks + 1.0), 0.0)


def mrr(ranks: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """Reciprocal rank per case, (C,): 1 / rank within the first k, else 0 (Voorhees 1999)."""
    return np.where(ranks <= k, 1.0 / ranks, 0.0)


def recommendation_counts(ranked: NDArray[np.int32], num_items: int, k: int) -> NDArray[np.int64]:
    """How often each item stands among the first k of a list, (I,)."""
    shown = ranked[:, :k].ravel()
    return np.bincount(shown[shown != EMPTY], minlength=num_items).astype(np.int64)


def coverage(counts: NDArray[np.int64]) -> float:
    """Share of the catalogue that is recommended at least once (Ge et al. 2010); counts (I,)."""
    return float(np.mean(counts > 0))


def gini(counts: NDArray[np.int64]) -> float:
    """Gini coefficient of the recommendation counts (I,), over the whole catalogue.

    0: every item is recommended equally often; towards 1: one item takes every place. With counts c
    sorted upwards, G = sum_i (2i - I - 1) c_i / (I sum c) (Shani & Gunawardana 2011, who
    divide by I - 1 instead of I). NaN if nothing was recommended.
    """
    total = int(counts.sum())
    if total == 0:
        return float("nan")
    num_items = len(counts)
    weights = 2 * np.arange(1, num_items + 1) - num_items - 1
    return float((weights * np.sort(counts)).sum() / (num_items * total))


def popularity_groups(training_counts: NDArray[np.int64]) -> NDArray[np.int8]:
    """Group of every item, (I,), as a position in `GROUPS`, from its number of training interactions (I,).

    Head: the most popular items that together hold 20 % of the interactions; mid: the next 60 %; tail: the
    last 20 % (as Abdollahpouri et al. 2021 do); cold: no training interaction. An item is placed by the
    share of the interactions on strictly more popular items, so equally popular items share a group.
    """
    values, inverse, num_items = np.unique(training_counts, return_inverse=True, return_counts=True)
    mass = (values * num_items)[::-1]  # interactions per count value, most popular first
    total = max(int(mass.sum()), 1)
    above = ((np.cumsum(mass) - mass) / total)[::-1]  # share on strictly more popular items, per value
    of_value = np.where(above < _HEAD_SHARE, 0, np.where(above < _HEAD_AND_MID_SHARE, 1, 2))
    of_value[values == 0] = 3
    groups: NDArray[np.int8] = of_value[inverse].astype(np.int8)
    return groups


def tail_share(counts: NDArray[np.int64], groups: NDArray[np.int8]) -> float:
    """Share of the recommendations that show an item outside the popular ones, which hold 80 % of training.

    Counts and groups are (I,); what counts is the groups "tail" and "cold". The idea of APLT
    (Abdollahpouri et al. 2019), averaged over places and not over users. NaN if there are none.
    """
    total = int(counts.sum())
    return float(counts[groups >= 2].sum() / total) if total else float("nan")


def stratified_mean(values: NDArray[np.float64], groups: NDArray[np.int8]) -> dict[str, tuple[float | None, int]]:
    """Per group of `GROUPS`: the mean of a per-case metric (C,) over its cases and their number.

    `groups` is the group of each case's *target*, (C,). A group without cases has None for a mean.
    """
    found: dict[str, tuple[float | None, int]] = {}
    for number, name in enumerate(GROUPS):
        chosen = values[groups == number]
        found[name] = (float(chosen.mean()) if len(chosen) else None, len(chosen))
    return found


def bootstrap_means(values: NDArray[np.float64], *, seed: int, samples: int = 1000) -> NDArray[np.float64]:
    """Means of `values` (C, M) over `samples` resamples of the cases, (S, M).

    All columns see the same resamples: the difference of two columns is a paired comparison. The same seed
    and C give the same resamples, whatever the columns are.
    """
    rng = np.random.default_rng(seed)
    num_cases = len(values)
    means = np.empty((samples, values.shape[1]))
    step = max(1, 2_000_000 // max(num_cases, 1))
    for start in range(0, samples, step):
        size = min(step, samples - start)
        drawn = rng.integers(num_cases, size=(size, num_cases))
        flat = drawn + np.arange(size)[:, None] * num_cases
        times = np.bincount(flat.ravel(), minlength=size * num_cases).reshape(size, num_cases)
        means[start : start + size] = times @ values / num_cases
    return means


def bootstrap_intervals(
    values: NDArray[np.float64], *, seed: int, samples: int = 1000, level: float = 0.95
) -> NDArray[np.float64]:
    """Percentile bootstrap interval of every column's mean, (M, 2): low and high (Efron & Tibshirani 1993).

    `values` is (C, M). The cases are resampled, so the interval speaks about other users and not about
    other training seeds. For a paired comparison pass a column of differences.
    """
    if len(values) == 0:
        return np.full((values.shape[1], 2), np.nan)
    means = bootstrap_means(values, seed=seed, samples=samples)
    outside = (1.0 - level) / 2
    intervals: NDArray[np.float64] = np.quantile(means, [outside, 1.0 - outside], axis=0).T
    return intervals
