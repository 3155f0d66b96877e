"""A two-tower retriever: a learned next-item score from what items say and what followed them.

One tower reads a history, the other an item; the score is their inner product plus the item's bias:

    history   Σ_k r_k · (A·content(h_k) + p(h_k))    over the last items, k steps back, r_k learned
    item      B·content(j) + q(j)

`p` and `q` are free vectors per item, what its content does not say. So it is a factorised Markov chain (Rendle et al.
2010; over several steps as Fossil, He & McAuley 2016) whose items share their content, trained with cross-entropy over
all items as SASRec is here. Nothing stands between content and score but two matrices: on sparse catalogues this is
far ahead of a transformer over item ids (docs/experiments.md). An item that nobody took has content alone and the bias
of the least popular items, so new items can be retrieved at once.

B histories, T positions, I items, M items that training knows, D width of the content, W width of the towers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn

from genrec.baselines.base import centred_directions, item_counts, mean_vector
from genrec.data.sequences import Sequences
from genrec.encoders.sequential import SequentialSettings, cut_windows, make_batches, train_epoch
from genrec.errors import RunError
from genrec.memory import freed_memory_kept
from genrec.progress import SILENT, Progress
from genrec.schedule import learning_rate_share

_RARE = 2  # a new item has the bias of items with at most so many interactions
_EXP_FLOOR = -60.0


@dataclass(frozen=True)
class TwoTowerSettings(SequentialSettings):
    """Sizes and training choices, compared on histories without their last two items (Amazon Beauty, MovieLens)."""

    width: int = 128
    dropout: float = 0.3
    learning_rate: float = 2e-3
    warmup: float = 0.05
    steps_back: int = 5
    epochs: int = 12  # a fixed number: validation users teach the blend, and must not have chosen its inputs


class _Net(nn.Module):
    """Both towers over the M known items, while they are trained. The last column of a hidden state is 1."""

    def __init__(self, content: Tensor, settings: TwoTowerSettings) -> None:
        super().__init__()
        num_items, depth = content.shape
        width = settings.width
        self.register_buffer("content", content)
        self.content: Tensor
        self.history_map = nn.Parameter(torch.randn(depth, width) / math.sqrt(max(depth, 1)))
        self.item_map = nn.Parameter(torch.randn(depth, width) / math.sqrt(max(depth, 1) * width))
        self.history_free = nn.Parameter(0.02 * torch.randn(num_items, width))
        self.item_free = nn.Parameter(0.02 * torch.randn(num_items, width))
        self.bias = nn.Parameter(torch.zeros(num_items))
        self.log_recency = nn.Parameter(-math.log(2) * torch.arange(settings.steps_back))
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, inputs: Tensor) -> Tensor:
        """Items (B, T), -1 after the end → hidden state after each position, (B, T, W + 1)."""
        rows = self.content @ self.history_map + self.history_free
        items = self.dropout(rows[inputs.clamp(min=0)])
        weights = self.log_recency.exp()
        hidden = weights[0] * items
        for back in range(1, min(len(weights), inputs.shape[1])):
            hidden = hidden + weights[back] * nn.functional.pad(items[:, :-back], (0, 0, back, 0))
        hidden = self.dropout(hidden)
        return torch.cat([hidden, hidden.new_ones(*hidden.shape[:2], 1)], dim=-1)

    def output_rows(self) -> Tensor:
        """Both parts of every item, and its bias, (M, W + 1)."""
        return torch.cat([self.content @ self.item_map + self.item_free, self.bias[:, None]], dim=1)


@dataclass(frozen=True, eq=False)
class TwoTower:
    """Trained towers as they are stored. `known` (M,) are the items that training has seen, by row of the catalogue."""

    centre: NDArray[np.float32]  # (D,), taken from vectors before they become directions
    known: NDArray[np.int32]
    history_map: NDArray[np.float32]  # (D, W)
    item_map: NDArray[np.float32]  # (D, W)
    history_free: NDArray[np.float32]  # (M, W)
    item_free: NDArray[np.float32]  # (M, W)
    bias: NDArray[np.float32]  # (M,)
    recency: NDArray[np.float32]  # (K,)
    new_bias: NDArray[np.float32]  # (), of an item outside `known`

    @classmethod
    def load(cls, path: Path) -> TwoTower:
        """Read what `save` wrote. Raises RunError where it is something else."""
        try:
            return cls(**load_file(path))
        except (OSError, SafetensorError, TypeError) as error:  # TypeError: other tensors than these
            raise RunError(f"{path} cannot be read: {error}.", "Run `genrec evidence RUN` again.") from error

    def save(self, path: Path) -> None:
        """Write safetensors."""
        save_file({name: np.ascontiguousarray(values) for name, values in vars(self).items()}, path)

    def over(
        self,
        num_items: int,
        vectors: NDArray[np.float32] | None = None,
        mask: NDArray[np.bool_] | None = None,
        *,
        forgotten: NDArray[np.bool_] | None = None,
    ) -> TowerScores:
        """Scores over a catalogue of which the first rows are those of training; vectors (I, D), mask (I,).

        Items of `forgotten` (I,) have become others since: they are taken for new. Raises
        RunError where the vectors are of another width than those of training, or where there are none.
        """
        directions = _directions(num_items, vectors, mask, centre=self.centre)
        if directions.shape[1] != len(self.centre):
            raise RunError(
                f"the retriever was trained on vectors of width {len(self.centre)}, these have {directions.shape[1]}.",
                "Run `genrec evidence RUN` again.",
            )
        shape = (len(directions), self.item_map.shape[1])
        same = np.ones(len(self.known), np.bool_) if forgotten is None else ~forgotten[self.known]
        known = self.known[same]
        free = {}
        for name, values in (("history", self.history_free), ("item", self.item_free)):
            free[name] = np.zeros(shape, dtype=np.float32)
            free[name][known] = values[same]
        bias = np.full(len(directions), self.new_bias, dtype=np.float32)
        bias[known] = self.bias[same]
        return TowerScores(
            directions @ self.history_map + free["history"],
            directions @ self.item_map + free["item"],
            bias,
            self.recency,
        )


@dataclass(frozen=True, eq=False)
class TowerScores:
    """Both towers of every item, ready to score histories."""

    histories: NDArray[np.float32]  # (I, W)
    items: NDArray[np.float32]  # (I, W)
    bias: NDArray[np.float32]  # (I,)
    recency: NDArray[np.float32]  # (K,)

    def log_chances(self, histories: Sequence[NDArray[np.int32]]) -> NDArray[np.float32]:
        """Logarithm of every item's probability to come next, (B, I)."""
        states = np.zeros((len(histories), self.items.shape[1]), dtype=np.float32)
        for row, history in enumerate(histories):
            last = history[::-1][: len(self.recency)]
            states[row] = self.recency[: len(last)] @ self.histories[last]
        scores = states @ self.items.T + self.bias
        scores -= scores.max(axis=1, keepdims=True)
        scores -= np.log(np.exp(np.maximum(scores, _EXP_FLOOR)).sum(axis=1, keepdims=True))
        return np.asarray(scores, dtype=np.float32)


def train_two_tower(
    sequences: Sequences,
    num_items: int,
    *,
    vectors: NDArray[np.float32] | None = None,
    mask: NDArray[np.bool_] | None = None,
    seed: int,
    settings: TwoTowerSettings | None = None,
    progress: Progress = SILENT,
) -> TwoTower:
    """Train on histories alone. Content is vectors (I, D) with mask (I,); None trains the free vectors alone.

    Deterministic for a seed and a number of threads; the caller's global torch generator is left as it was.
    """
    settings = settings or TwoTowerSettings()
    centre = np.zeros(0, np.float32) if vectors is None or mask is None else mean_vector(vectors, mask)
    directions = _directions(num_items, vectors, mask, centre=centre)
    scale = np.float32(math.sqrt(directions.shape[1]))  # numbers of unit variance in place of unit vectors
    counts = item_counts(sequences, num_items)
    known = np.flatnonzero(counts).astype(np.int32)
    row_of = np.full(num_items, -1, dtype=np.int32)
    row_of[known] = np.arange(len(known), dtype=np.int32)
    compact = Sequences(sequences.user_ids, sequences.offsets, row_of[sequences.items])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = _Net(torch.from_numpy(directions[known] * scale), settings)
        _train(net, compact, settings, seed=seed, progress=progress)
    state = {name: values.detach().numpy() for name, values in net.named_parameters()}
    rare = state["bias"][counts[known] <= _RARE]
    return TwoTower(
        centre,
        known,
        scale * state["history_map"],
        scale * state["item_map"],
        state["history_free"],
        state["item_free"],
        state["bias"],
        np.exp(state["log_recency"]),
        np.asarray(rare.mean() if len(rare) else state["bias"].min(initial=0.0), dtype=np.float32),
    )


def _directions(
    num_items: int,
    vectors: NDArray[np.float32] | None,
    mask: NDArray[np.bool_] | None,
    *,
    centre: NDArray[np.float32],
) -> NDArray[np.float32]:
    if vectors is None or mask is None:
        return np.zeros((num_items, 0), dtype=np.float32)
    return centred_directions(vectors, mask, centre=centre if len(centre) else None)


def _train(net: _Net, sequences: Sequences, settings: TwoTowerSettings, *, seed: int, progress: Progress) -> None:
    flat = [weight for weight in net.parameters() if weight.ndim == 1]
    matrices = [weight for weight in net.parameters() if weight.ndim > 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": flat, "weight_decay": 0.0}],
        lr=settings.learning_rate,
    )
    windows = cut_windows(sequences, settings.max_length)
    rng = np.random.default_rng(seed)
    with freed_memory_kept(), progress.track("Training the retriever", settings.epochs, "epochs") as task:
        for epoch in range(settings.epochs if windows else 0):
            loss = train_epoch(
                net, optimizer, make_batches(windows, settings, rng), rate=partial(_rate, settings, epoch)
            )
            task.advance(note=f"loss {loss:.3f}")


def _rate(settings: TwoTowerSettings, epoch: int, share: float) -> float:
    progress = (epoch + share) / settings.epochs
    return settings.learning_rate * learning_rate_share(progress, warmup=settings.warmup)


class TwoTowerBaseline:
    """The retriever as a method of its own. Vectors (I, D) and mask (I,) None: free vectors alone.

    `trained` is taken as it is, and nothing is trained.
    """

    name = "two-tower"

    def __init__(
        self,
        vectors: NDArray[np.float32] | None = None,
        mask: NDArray[np.bool_] | None = None,
        *,
        trained: TowerScores | None = None,
    ) -> None:
        self._vectors, self._mask, self._scores = vectors, mask, trained

    def fit(self, sequences: Sequences, num_items: int, *, seed: int, progress: Progress = SILENT) -> None:
        """Train a fixed number of epochs, unless this was made of a trained one."""
        if self._scores is not None:
            return
        tower = train_two_tower(
            sequences, num_items, vectors=self._vectors, mask=self._mask, seed=seed, progress=progress
        )
        self._scores = tower.over(num_items, self._vectors, self._mask)

    def scores(self, histories: Sequence[NDArray[np.int32]]) -> NDArray[np.float32]:
        """Log-probability of every item as the next one, (B, I)."""
        assert self._scores is not None, "fit comes first"
        return self._scores.log_chances(histories)
