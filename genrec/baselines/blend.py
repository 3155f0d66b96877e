"""A blend: signals weighed by what users of the validation split took next.

P(item) is the softmax of a weighted sum of features. The weights maximise the mean of P(target)^q over validation
users, the saturating likelihood of Ferrari & Yang (2010, "Maximum Lq-likelihood"): at q = 1/3 a user whose next item
nobody could foresee hardly counts, and what decides is the order at the top of the lists. A ridge keeps features that
say the same from growing against each other. Everything learned is the two dozen numbers of `Blend`.

A model's own scores may be one more feature, so that the other weights are what the model does not know yet.

C users, N candidates of all users together, F features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from genrec.baselines.signals import Feature, SignalSource, shapes
from genrec.data.sequences import EvaluationCases, Sequences
from genrec.progress import SILENT, Progress

Floats = NDArray[np.float64]

_Q = 1 / 3
_RIDGE = 1e-3
_STEPS = {"maxiter": 150}
_PER_SIGNAL = 50  # a user's candidates are so many best items of every signal
_BEYOND = 2.0  # an item that the model's beam did not find counts as so much below the last that it found
_USERS_AT_ONCE = 64
MODEL = "model"


@dataclass(frozen=True)
class ModelBeams:
    """A model's best items per user and their log-probabilities, (C, W); item −1 where there are fewer."""

    items: NDArray[np.int32]
    scores: NDArray[np.float32]

    def of(self, user: int, candidates: NDArray[np.int64], *, num_items: int) -> NDArray[np.float32]:
        """The user's scores of candidates."""
        found = self.items[user] >= 0
        scores = self.scores[user][found]
        values = np.full(num_items, scores.min() - _BEYOND if len(scores) else 0.0, dtype=np.float32)
        values[self.items[user][found]] = scores
        return values[candidates]


@dataclass(frozen=True)
class Blend:
    """Weights and scales. `weights` go by feature name, `scales` by signal name; `model_weight` is the model's own."""

    weights: Mapping[str, float]
    scales: Mapping[str, float]
    model_weight: float = 0.0

    def scores(self, signals: SignalSource, histories: Sequence[NDArray[np.int32]]) -> NDArray[np.float32]:
        """The weighted sum without the model, (B, I)."""
        return sum_of(self.by_group(signals, histories), (len(histories), signals.num_items))

    def by_group(self, signals: SignalSource, histories: Sequence[NDArray[np.int32]]) -> dict[str, NDArray[np.float32]]:
        """What each group of signals adds to every item, each (B, I)."""
        added: dict[str, NDArray[np.float32]] = {}
        for signal in signals.raw(histories):
            for feature in shapes(signal, self.scales[signal.name]):
                part = np.float32(self.weights[feature.name]) * feature.values
                added[feature.group] = added[feature.group] + part if feature.group in added else part
        return added

    @property
    def as_json(self) -> dict[str, Any]:
        """Plain values, for a file."""
        return {"weights": dict(self.weights), "scales": dict(self.scales), "model_weight": self.model_weight}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Blend:
        """The reverse of `as_json`. Raises KeyError where something is missing."""
        return cls(values["weights"], values["scales"], float(values["model_weight"]))


@dataclass(frozen=True)
class Candidates:
    """Users whose target is among their candidates: features, and where each user's rows begin."""

    features: NDArray[np.float32]  # (N, F)
    starts: NDArray[np.int64]  # (C,)
    targets: NDArray[np.int64]  # (C,) row of each user's target
    names: tuple[str, ...]
    scales: dict[str, float]


def fit_blend(candidates: Candidates, *, with_model: bool) -> Blend:
    """The weights under which the candidates' targets stand best. Deterministic."""
    kept = [row for row, name in enumerate(candidates.names) if with_model or name != MODEL]
    features = np.ascontiguousarray(candidates.features[:, kept])
    found = np.zeros(len(kept))
    for q in (1.0, _Q) if len(candidates.starts) else ():  # the likelihood itself is convex: a good place to start
        found = minimize(_loss, found, args=(features, candidates, q), jac=True, method="L-BFGS-B", options=_STEPS).x
    weights = {candidates.names[row]: float(weight) for row, weight in zip(kept, found, strict=True)}
    model_weight = weights.pop(MODEL, 0.0)
    return Blend(weights, candidates.scales, model_weight)


def _loss(weights: Floats, features: NDArray[np.float32], candidates: Candidates, q: float) -> tuple[float, Floats]:
    """Minus the mean of (P(target)^q − 1) / q (q = 1 stands for the logarithm), with its gradient."""
    starts, sizes = candidates.starts, np.diff(candidates.starts, append=len(features))
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


def gather_candidates(
    signals: SignalSource, cases: EvaluationCases, *, beams: ModelBeams | None = None, progress: Progress = SILENT
) -> Candidates:
    """Every user's candidates (the best of each signal and of the model, without the history) with their features.

    Users whose target is not among them teach nothing about the order at the top and are left out.
    """
    histories = list(cases.histories)
    rows: list[NDArray[np.float32]] = []
    targets: list[int] = []
    names: tuple[str, ...] = ()
    scales: dict[str, float] = {}
    with progress.track("Reading signals", len(cases), "users") as task:
        for start in range(0, len(cases), _USERS_AT_ONCE):
            batch = histories[start : start + _USERS_AT_ONCE]
            raw = list(signals.raw(batch))
            # Of the first users: scales only bring features to one size, the weights do the rest.
            scales = scales or {one.name: _scale(one) for one in raw}
            for row, history in enumerate(batch):
                user = start + row
                items = _candidate_items(raw, row, history, [] if beams is None else beams.items[user])
                target = np.flatnonzero(items == cases.targets[user])
                if len(target):
                    names, values = _features(raw, row, items, scales)
                    if beams is not None:
                        own = beams.of(user, items, num_items=signals.num_items)
                        names, values = (*names, MODEL), np.concatenate([values, own[:, None]], axis=1)
                    rows.append(values)
                    targets.append(int(target[0]))
            task.advance(len(batch))
    sizes = np.array([len(values) for values in rows], dtype=np.int64)
    starts = np.cumsum(sizes) - sizes
    features = np.concatenate(rows) if rows else np.zeros((0, len(names)), np.float32)
    return Candidates(features, starts, starts + np.array(targets, dtype=np.int64), names, scales)


def _scale(signal: Feature) -> float:
    """Root mean square where the signal says something; 1 where it says nothing at all."""
    spoken = signal.values[signal.values != 0]
    return float(np.sqrt(np.mean(spoken.astype(np.float64) ** 2))) if len(spoken) else 1.0


def _candidate_items(
    raw: Sequence[Feature], row: int, history: NDArray[np.int32], found: Sequence[int] | NDArray[np.int32]
) -> NDArray[np.int64]:
    chosen = {int(item) for item in found if item >= 0}
    for signal in raw:
        values = signal.values[row]
        size = min(_PER_SIGNAL, len(values))
        chosen.update(np.argpartition(-values, size - 1)[:size].tolist())
    return np.array(sorted(chosen - set(history.tolist())), dtype=np.int64)


def _features(
    raw: Sequence[Feature], row: int, items: NDArray[np.int64], scales: Mapping[str, float]
) -> tuple[tuple[str, ...], NDArray[np.float32]]:
    """Names (F,) and values (candidates, F) of one user."""
    made = [
        feature
        for signal in raw
        for feature in shapes(Feature(signal.group, signal.name, signal.values[row, items]), scales[signal.name])
    ]
    return tuple(feature.name for feature in made), np.stack([feature.values for feature in made], axis=1)


def sum_of(parts: Mapping[str, NDArray[np.float32]], shape: tuple[int, int]) -> NDArray[np.float32]:
    """The sum of what groups add, of the given shape (B, I)."""
    total = np.zeros(shape, dtype=np.float32)
    for part in parts.values():
        total += part
    return total


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
