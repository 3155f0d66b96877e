"""Candidates: what a blend learns from. A user's best items of every signal, with what all signals say of them.

C users, N candidates of all users together, F features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from genrec.baselines.signals import Feature, SignalSource, shapes
from genrec.data.sequences import EvaluationCases
from genrec.progress import SILENT, Progress

_PER_SIGNAL = (25, 100)  # a user's candidates are so many best items of every signal: the fewer users, the more,
_OF_SIGNAL = 1_000_000  # for all users together about so many,
_DRAWN = 20  # and so many other items, which keep what no signal asks for low
_USERS_AT_ONCE = 64


@dataclass(frozen=True)
class Candidates:
    """Users whose target is among their candidates: features, and where each user's rows begin."""

    features: NDArray[np.float32]  # (N, F)
    starts: NDArray[np.int64]  # (C,)
    targets: NDArray[np.int64]  # (C,) row of each user's target
    lengths: NDArray[np.int64]  # (C,) of each user's history
    names: tuple[str, ...]
    scales: dict[str, float]

    def first(self, users: int) -> Candidates:
        """Those of the first so many users; all where there are no more."""
        if users >= len(self.starts):
            return self
        end = self.starts[users]
        kept = self.starts[:users], self.targets[:users], self.lengths[:users]
        return Candidates(self.features[:end], *kept, self.names, self.scales)

    def only(self, users: NDArray[np.bool_]) -> Candidates:
        """Those of some users, (C,)."""
        sizes = np.diff(self.starts, append=len(self.features))
        kept = np.cumsum(sizes[users]) - sizes[users]
        places = kept + (self.targets - self.starts)[users]
        return Candidates(
            self.features[np.repeat(users, sizes)], kept, places, self.lengths[users], self.names, self.scales
        )


def gather_candidates(
    signals: SignalSource,
    cases: EvaluationCases,
    *,
    may_teach: NDArray[np.bool_] | None = None,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Candidates:
    """Every user's candidates (the best of each signal, without the history) with their features, users as they are
    drawn: who comes first in a file is no sample.

    Users whose target is not among them teach nothing about the order at the top and are left out. Only items of
    `may_teach` (I,) are candidates: of an item that was held out nothing is learned, not even that it is wrong.
    """
    cases = cases.shuffled(seed)
    histories = list(cases.histories)
    drawing = np.random.default_rng(len(cases) if seed == 0 else [len(cases), seed])
    fewest, most = _PER_SIGNAL
    per_signal = min(max(_OF_SIGNAL // max(len(cases), 1), fewest), most)
    rows: list[NDArray[np.float32]] = []
    targets: list[int] = []
    lengths: list[int] = []
    names: tuple[str, ...] = ()
    scales: dict[str, float] = {}
    with progress.track("Reading signals", len(cases), "users") as task:
        for start in range(0, len(cases), _USERS_AT_ONCE):
            batch = histories[start : start + _USERS_AT_ONCE]
            raw = list(signals.raw(batch))
            # Of the first users: scales only bring features to one size, the weights do the rest.
            scales = scales or {one.name: _scale(one) for one in raw}
            for row, history in enumerate(batch):
                drawn = drawing.integers(signals.num_items, size=_DRAWN)
                items = np.setdiff1d(np.concatenate([*_best_items(raw, row, per_signal), drawn]), history)
                items = items if may_teach is None else items[may_teach[items]]
                target = np.flatnonzero(items == cases.targets[start + row])
                if len(target):
                    names, values = _features(raw, row, items, scales)
                    rows.append(values)
                    targets.append(int(target[0]))
                    lengths.append(len(history))
            task.advance(len(batch))
    sizes = np.array([len(values) for values in rows], dtype=np.int64)
    starts = np.cumsum(sizes) - sizes
    features = np.concatenate(rows) if rows else np.zeros((0, len(names)), np.float32)
    places = starts + np.array(targets, dtype=np.int64)
    return Candidates(features, starts, places, np.array(lengths, dtype=np.int64), names, scales)


def _scale(signal: Feature) -> float:
    """Root mean square where the signal says something; 1 where it says nothing at all."""
    spoken = signal.values[signal.values != 0]
    return float(np.sqrt(np.mean(spoken.astype(np.float64) ** 2))) if len(spoken) else 1.0


def _best_items(raw: Sequence[Feature], row: int, size: int) -> list[NDArray[np.int64]]:
    """The best items of a user by every signal."""
    size = min(size, raw[0].values.shape[1])
    return [np.argpartition(-signal.values[row], size - 1)[:size] for signal in raw]


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
