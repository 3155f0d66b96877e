"""Histories of users as one flat array: what training, baselines and evaluation read.

U users, N interactions. All item numbers are rows of the catalogue (`item_index`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Sequences:
    """One history per user, oldest first: user `u` has `items[offsets[u] : offsets[u + 1]]`."""

    user_ids: list[str]  # (U,)
    offsets: NDArray[np.int64]  # (U + 1,)
    items: NDArray[np.int32]  # (N,)

    @classmethod
    def from_lists(cls, user_ids: Sequence[str], histories: Sequence[Sequence[int]]) -> Sequences:
        """Build from one list of item indices per user."""
        lengths = np.fromiter((len(history) for history in histories), dtype=np.int64, count=len(histories))
        flat = [item for history in histories for item in history]
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        return cls(list(user_ids), offsets, np.asarray(flat, dtype=np.int32))

    def __len__(self) -> int:
        return len(self.user_ids)

    def __getitem__(self, user: int) -> NDArray[np.int32]:
        if not 0 <= user < len(self.user_ids):
            raise IndexError(user)
        return self.items[self.offsets[user] : self.offsets[user + 1]]

    def __iter__(self) -> Iterator[NDArray[np.int32]]:
        return (self[user] for user in range(len(self)))


@dataclass(frozen=True)
class EvaluationCases:
    """What to predict: after `histories[c]`, user `user_ids[c]` took `targets[c]`.

    For the test split the history contains the validation item; leaving it out costs almost half the recall.
    """

    histories: Sequences  # C users
    targets: NDArray[np.int32]  # (C,)

    @property
    def user_ids(self) -> list[str]:
        """User of every case, (C,)."""
        return self.histories.user_ids

    def __len__(self) -> int:
        return len(self.targets)

    def sample(self, size: int, *, seed: int) -> EvaluationCases:
        """A seeded sample of `size` cases, in the original order (all of them if there are fewer)."""
        if size >= len(self):
            return self
        return self._at(np.sort(np.random.default_rng(seed).choice(len(self), size=size, replace=False)))

    def select(self, kept: NDArray[np.bool_]) -> EvaluationCases:
        """The cases under a mask, (C,), in the original order."""
        return self if kept.all() else self._at(np.flatnonzero(kept))

    def shuffled(self, seed: int) -> EvaluationCases:
        """All cases in an order that is drawn."""
        return self._at(np.random.default_rng([len(self), seed]).permutation(len(self)))

    def _at(self, chosen: NDArray[np.int64]) -> EvaluationCases:
        histories = [self.histories[int(case)] for case in chosen]
        users = [self.user_ids[int(case)] for case in chosen]
        return EvaluationCases(
            Sequences.from_lists(users, [history.tolist() for history in histories]), self.targets[chosen]
        )
