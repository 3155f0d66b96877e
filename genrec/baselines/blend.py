"""A blend: signals weighed by what users of the validation split took next.

P(item) is the softmax of a weighted sum of features. The weights maximise the mean of P(target)^q over validation
users, the saturating likelihood of Ferrari & Yang (2010, "Maximum Lq-likelihood"): at q = 1/3 a user whose next item
nobody could foresee hardly counts, and what decides is the order at the top of the lists. A ridge keeps features that
say the same from growing against each other. Where users are many, a hidden layer (`blend_network`) learns what a sum
cannot say and is added to it.

B histories, I items, K items of one history, N candidates of all users together, F features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from genrec.baselines.blend_network import BlendNetwork, fit_network
from genrec.baselines.candidates import Candidates
from genrec.baselines.signals import SignalSource, shapes
from genrec.data.sequences import Sequences
from genrec.progress import SILENT, Progress

Floats = NDArray[np.float64]

_Q = 1 / 3
_RIDGE = 1e-3
_STEPS = {"maxiter": 150}
_SUM_OF = 3000  # users who fit a sum: it has few weights, and more users cost minutes
_NUMBERS_AT_ONCE = 8_000_000  # features of a block of users: 32 MB


@dataclass(frozen=True, eq=False)
class Blend:
    """Weights by feature name, scales by signal name, and the hidden layer where there is one."""

    weights: Mapping[str, float]
    scales: Mapping[str, float]
    network: BlendNetwork | None = None

    def scores(self, signals: SignalSource, histories: Sequence[NDArray[np.int32]]) -> NDArray[np.float32]:
        """What it says of every item, (B, I)."""
        found = np.zeros((len(histories), signals.num_items), dtype=np.float32)
        block = max(1, _NUMBERS_AT_ONCE // max(1, signals.num_items * len(self.weights)))
        for start in range(0, len(histories), block):
            batch = histories[start : start + block]
            _, features = self._read(signals, batch)
            for row, history in enumerate(batch):
                found[start + row] = self._of_items(features[:, row], self._best(features[:, row], history), history)
        return found

    def lifts(
        self, signals: SignalSource, history: NDArray[np.int32], items: Sequence[int]
    ) -> dict[str, NDArray[np.float32]]:
        """By how much each group of signals lifts items (K,) above what they would have if it said the average, (K,).

        The average is over the catalogue. In a sum that is the group's part of the score above its average.
        """
        groups, read = self._read(signals, [history])
        features = read[:, 0]
        chosen, average, best = features[:, list(items)], features.mean(axis=1), self._best(features, history)
        full = self._of_items(chosen, best, history)
        found = {}
        for group in dict.fromkeys(filter(None, groups)):  # a signal that the catalogue lacks has none
            without = chosen.copy()
            rows = [row for row, name in enumerate(groups) if name == group]
            without[rows] = average[rows, None]
            found[group] = full - self._of_items(without, best, history)
        return found

    def _read(
        self, signals: SignalSource, histories: Sequence[NDArray[np.int32]]
    ) -> tuple[list[str], NDArray[np.float32]]:
        """The group of every feature, (F,), and its values, (F, B, I), in the order of the weights.

        A changed catalogue may have a signal that it did not have, which no weight is for, and lack one, which says 0.
        """
        features = np.zeros((len(self.weights), len(histories), signals.num_items), dtype=np.float32)
        places, groups = {name: row for row, name in enumerate(self.weights)}, [""] * len(self.weights)
        for signal in signals.raw(histories):
            scale = self.scales.get(signal.name)
            for feature in () if scale is None else shapes(signal, scale):
                features[places[feature.name]], groups[places[feature.name]] = feature.values, feature.group
        return groups, features

    def _best(self, features: NDArray[np.float32], history: NDArray[np.int32]) -> NDArray[np.float32]:
        """The highest value of every feature, (F, I), among items that are not of the history, (F,); 0 without any.

        Only the hidden layer asks for it.
        """
        if self.network is None:
            return np.zeros(len(features), dtype=np.float32)
        others = features.copy() if len(history) else features
        others[:, history] = -np.inf
        best = others.max(axis=1)
        return np.where(np.isfinite(best), best, np.float32(0.0))

    def _of_items(
        self, features: NDArray[np.float32], best: NDArray[np.float32], history: NDArray[np.int32]
    ) -> NDArray[np.float32]:
        """What it says of items with these features, (F, K) → (K,)."""
        total = np.array(list(self.weights.values()), dtype=np.float32) @ features
        if self.network is not None:
            total += self.network.scores(features, best, len(history))
        return np.asarray(total, dtype=np.float32)

    @property
    def as_json(self) -> dict[str, Any]:
        """Plain values, for a file."""
        return {
            "weights": dict(self.weights),
            "scales": dict(self.scales),
            "network": None if self.network is None else self.network.as_json,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Blend:
        """The reverse of `as_json`. Raises KeyError, TypeError or ValueError for what it never wrote."""
        network = values["network"]
        return cls(
            values["weights"],
            values["scales"],
            None if network is None else BlendNetwork.from_json(network),
        )


def fit_blend(candidates: Candidates) -> Blend:
    """The weights of a sum under which the candidates' targets stand best. Deterministic."""
    some = candidates.first(_SUM_OF)
    found = np.zeros(len(some.names))
    for q in (1.0, _Q) if len(some.starts) else ():  # the likelihood itself is convex: a good place to start
        found = minimize(_loss, found, args=(some, q), jac=True, method="L-BFGS-B", options=_STEPS).x
    weights = {name: float(weight) for name, weight in zip(some.names, found, strict=True)}
    return Blend(weights, candidates.scales)


def with_network(blend: Blend, candidates: Candidates, *, seed: int = 0, progress: Progress = SILENT) -> Blend:
    """A fitted blend and what a hidden layer adds to it."""
    return replace(blend, network=fit_network(candidates, blend.weights, q=_Q, seed=seed, progress=progress))


def held_out_ranks(
    candidates: Candidates, *, seed: int = 0, progress: Progress = SILENT
) -> dict[str, NDArray[np.int64]]:
    """Whether a hidden layer pays: the rank of every user's target among its candidates, from 1, (C,), under the
    `plain` sum and the `layered` one, each fitted on the other half of the users."""
    first = np.random.default_rng(seed).permutation(len(candidates.starts)) < len(candidates.starts) // 2
    found = {name: np.zeros(len(first), dtype=np.int64) for name in ("plain", "layered")}
    for fits in (first, ~first):
        part = candidates.only(fits)
        plain = fit_blend(part)
        asked = candidates.only(~fits)
        for name, blend in (("plain", plain), ("layered", with_network(plain, part, seed=seed, progress=progress))):
            found[name][~fits] = _ranks(blend, asked)
    return found


def _ranks(blend: Blend, candidates: Candidates) -> NDArray[np.int64]:
    """The rank of every user's target among its candidates, (C,); of equal scores the target's is the last."""
    totals = candidates.features @ np.array([blend.weights[name] for name in candidates.names], dtype=np.float32)
    ends = np.append(candidates.starts[1:], len(totals))
    ranks = np.zeros(len(ends), dtype=np.int64)
    for user, (start, end) in enumerate(zip(candidates.starts, ends, strict=True)):
        scores = totals[start:end]
        if blend.network is not None:
            features = candidates.features[start:end]
            length = int(candidates.lengths[user])
            scores = scores + blend.network.scores(features.T, features.max(axis=0), length)
        ranks[user] = np.count_nonzero(scores >= scores[candidates.targets[user] - start])
    return ranks


def _loss(weights: Floats, candidates: Candidates, q: float) -> tuple[float, Floats]:
    """Minus the mean of (P(target)^q − 1) / q (q = 1 stands for the logarithm), with its gradient."""
    features, starts = candidates.features, candidates.starts
    sizes = np.diff(starts, append=len(features))
    logits = (features @ weights.astype(np.float32)).astype(np.float64)
    logits -= np.repeat(np.maximum.reduceat(logits, starts), sizes)
    chances = np.exp(logits)
    total = np.add.reduceat(chances, starts)
    log_target = logits[candidates.targets] - np.log(total)
    pull = np.ones(len(starts)) if q == 1.0 else np.exp(q * log_target)
    value = log_target.mean() if q == 1.0 else (pull.mean() - 1) / q
    rows = -np.repeat(pull / total, sizes) * chances
    np.add.at(rows, candidates.targets, pull)
    slope = (rows.astype(np.float32) @ features).astype(np.float64) / len(starts)
    return float(-value + _RIDGE * weights @ weights), -slope + 2 * _RIDGE * weights


class BlendBaseline:
    """Signals and weights as a method of its own: what the evidence is worth without any language model."""

    name = "evidence"

    def __init__(self, signals: SignalSource, blend: Blend) -> None:
        self._signals, self._blend = signals, blend

    def fit(self, sequences: Sequences, num_items: int, *, seed: int, progress: Progress = SILENT) -> None:
        """Learn nothing: the weights are the run's, and the signals have counted when they were made."""
        assert self._signals.num_items == num_items

    def scores(self, histories: Sequence[NDArray[np.int32]]) -> NDArray[np.float32]:
        """The blend's scores, (B, I)."""
        return self._blend.scores(self._signals, histories)
