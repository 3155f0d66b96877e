"""Networks over item ids that are trained to name the next item: SASRec and GRU4Rec differ in the network alone.

Every position of a training history predicts the next item by a softmax over all items, for a fixed number of epochs
under a learning rate that rises and falls; the weights are those of the epoch with the best validation NDCG@10.

B histories, T positions, D width, I items.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from genrec.baselines.base import top_k
from genrec.data.sequences import EvaluationCases, Sequences
from genrec.encoders.sequential import (
    ItemNetwork,
    SequentialSettings,
    cut_windows,
    make_batches,
    make_optimizer,
    pad,
    train_epoch,
)
from genrec.memory import freed_memory_kept
from genrec.precision import multiplies_bfloat16
from genrec.progress import SILENT, Progress
from genrec.schedule import learning_rate_share


@dataclass(frozen=True)
class NextItemSettings(SequentialSettings):
    """Sizes and training choices; the defaults were compared on validation splits only (Amazon Beauty, MovieLens)."""

    width: int = 64
    dropout: float = 0.3
    learning_rate: float = 3e-3  # the highest
    warmup: float = 0.05
    batch_positions: int = 256
    epochs: int = 12
    validation_users: int = 5000


class NextItemBaseline(ABC):
    """A network of item ids as a baseline; `validation` decides when to stop and is not learned from."""

    name: str
    DEFAULTS: ClassVar[Mapping[str, Any]] = {}  # where they are not those of the settings

    def __init__(self, validation: EvaluationCases, settings: NextItemSettings | None = None) -> None:
        self._validation = validation
        self._settings = settings or NextItemSettings(**self.DEFAULTS)

    @abstractmethod
    def _network(self, num_items: int, settings: NextItemSettings) -> ItemNetwork:
        """A network with fresh weights."""

    def fit(self, sequences: Sequences, num_items: int, *, seed: int, progress: Progress = SILENT) -> None:
        """Train, and keep the weights of the epoch that names the most next items of validation users.

        The caller's global torch generator is left as it was.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._train(sequences, num_items, seed, progress)

    def _train(self, sequences: Sequences, num_items: int, seed: int, progress: Progress) -> None:
        settings = self._settings
        self._num_items, self._model = num_items, self._network(num_items, settings)
        windows = cut_windows(sequences, settings.max_length)
        rng = np.random.default_rng(seed)
        optimizer = make_optimizer(self._model, settings)
        cases = self._validation.sample(settings.validation_users, seed=seed)
        best, best_state = -1.0, self._model.state_dict()
        with freed_memory_kept(), progress.track(f"Training {self.name}", settings.epochs, "epochs") as task:
            for epoch in range(settings.epochs):
                rate = partial(_learning_rate, settings, epoch)
                loss = train_epoch(self._model, optimizer, make_batches(windows, settings, rng), rate=rate)
                quality = self._validation_ndcg(cases, seed)
                task.advance(note=f"loss {loss:.3f}, validation NDCG@10 {quality:.4f}")
                if quality > best:
                    best, best_state = quality, copy.deepcopy(self._model.state_dict())
        self._model.load_state_dict(best_state)

    def _validation_ndcg(self, cases: EvaluationCases, seed: int) -> float:
        found = 0.0
        for start in range(0, len(cases), 256):
            histories = [cases.histories[case] for case in range(start, min(start + 256, len(cases)))]
            ranked = top_k(self.scores(histories), 10, exclude=histories, seed=seed)
            hits = ranked == cases.targets[start : start + 256, None]
            found += float((hits / np.log2(np.arange(hits.shape[1]) + 2.0)).sum())
        return found / max(len(cases), 1)

    @torch.no_grad()
    def scores(self, histories: Sequence[NDArray[np.int32]]) -> NDArray[np.float32]:
        """Logits of every item as the next one, (B, I). An empty history gets zeros: nothing is known."""
        self._model.eval()
        scores = np.zeros((len(histories), self._num_items), dtype=np.float32)
        known = [row for row, history in enumerate(histories) if len(history)]
        if known:
            inputs = pad([histories[row][-self._settings.max_length :] for row in known])
            last = torch.tensor([min(len(histories[row]), self._settings.max_length) - 1 for row in known])
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=multiplies_bfloat16()):
                hidden = self._model(inputs)[torch.arange(len(known)), last]  # (B, D)
            # Float32, so that close items do not become ties.
            scores[known] = (hidden.float() @ self._model.output_rows().T).numpy()
        return scores


def _learning_rate(settings: NextItemSettings, epoch: int, of_epoch: float) -> float:
    """The rate after a share of this epoch, of `epochs`."""
    done = (epoch + of_epoch) / settings.epochs
    return settings.learning_rate * learning_rate_share(done, warmup=settings.warmup)
