"""A small causal transformer over item ids, trained with cross-entropy over the full catalogue.

The network and training step behind the SASRec baseline, and the `sequential` behaviour vectors: what a model that
predicts the next item has learned about every item. `train_epoch` trains the two-tower retriever as well.

B sequences, T positions, D width, N targets of a batch, I items.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from genrec.data.sequences import Sequences
from genrec.memory import freed_memory_kept
from genrec.precision import multiplies_bfloat16
from genrec.progress import SILENT, Progress

_PADDING = -1
_ROWS_IN_CACHE = 128
_EMBEDDING_EPOCHS = 10  # a fixed number: vectors from behaviour look at no validation split


@dataclass(frozen=True)
class SequentialSettings:
    """Sizes and steps of the network."""

    width: int = 128
    num_layers: int = 2
    num_heads: int = 2
    max_length: int = 50
    dropout: float = 0.4
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    batch_positions: int = 1024


def train_item_embeddings(
    sequences: Sequences, num_items: int, *, width: int, seed: int, progress: Progress = SILENT
) -> NDArray[np.float32]:
    """The item embeddings (I, D) of a model that was trained on these histories alone.

    The caller's global torch generator is left as it was.
    """
    settings = SequentialSettings(width=width + width % 2, num_layers=1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SequentialModel(num_items, settings)
        optimizer = make_optimizer(model, settings)
        windows, rng = cut_windows(sequences, settings.max_length), np.random.default_rng(seed)
        with freed_memory_kept(), progress.track("behaviour", _EMBEDDING_EPOCHS, "epochs") as task:
            for _ in range(_EMBEDDING_EPOCHS):
                loss = train_epoch(model, optimizer, make_batches(windows, settings, rng))
                task.advance(note=f"loss {loss:.3f}")
    vectors: NDArray[np.float32] = model.items.weight.detach().numpy()[:, :width]
    return vectors


def make_optimizer(model: nn.Module, settings: SequentialSettings) -> torch.optim.Optimizer:
    """AdamW over all weights."""
    return torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)


class NextItemModel(Protocol):
    """What `train_epoch` trains: a module whose hidden states are scored against one row per item."""

    def __call__(self, inputs: Tensor) -> Tensor:
        """Items (B, T), padded at the end, to hidden states (B, T, D)."""
        ...

    def output_rows(self) -> Tensor:
        """The row of every item, (I, D)."""
        ...

    def train(self) -> Any:
        """Switch dropout on."""
        ...


class ItemNetwork(nn.Module):
    """Item ids (B, T) to hidden states (B, T, D); the item embeddings are also the output matrix."""

    def __init__(self, num_items: int, width: int) -> None:
        super().__init__()
        self.items = nn.Embedding(num_items, width)
        nn.init.normal_(self.items.weight, std=0.02)

    def __call__(self, inputs: Tensor) -> Tensor:
        """Items (B, T), padded at the end, to hidden states (B, T, D)."""
        states: Tensor = super().__call__(inputs)
        return states

    def output_rows(self) -> Tensor:
        """The item embeddings."""
        return self.items.weight


class SequentialModel(ItemNetwork):
    """A causal transformer with learned positions."""

    def __init__(self, num_items: int, settings: SequentialSettings) -> None:
        super().__init__(num_items, settings.width)
        self.positions = nn.Embedding(settings.max_length, settings.width)
        self.dropout = nn.Dropout(settings.dropout)
        self.layers = nn.ModuleList(_Layer(settings) for _ in range(settings.num_layers))
        self.norm = nn.LayerNorm(settings.width)
        nn.init.normal_(self.positions.weight, std=0.02)

    def forward(self, inputs: Tensor) -> Tensor:
        """Hidden state after each position, (B, T, D). Padding stands at the end, where nothing looks."""
        # As in the paper's own code: at the size that the output wants, an item would be lost among what layers add.
        items = math.sqrt(self.items.embedding_dim) * self.items(inputs.clamp(min=0))
        hidden = items + self.positions.weight[: inputs.shape[1]]
        hidden = self.dropout(hidden)
        for layer in self.layers:
            hidden = layer(hidden)
        states: Tensor = self.norm(hidden)
        return states


class _Layer(nn.Module):
    """Causal attention and a feed-forward part, each on a residual branch with dropout."""

    def __init__(self, settings: SequentialSettings) -> None:
        super().__init__()
        width = settings.width
        self.num_heads = settings.num_heads
        self.attention_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        batch, length, width = hidden.shape
        heads = self.query_key_value(self.attention_norm(hidden)).view(batch, length, 3, self.num_heads, -1)
        query, key, value = heads.permute(2, 0, 3, 1, 4)  # each (B, heads, T, D / heads)
        # Written out: at 50 positions and narrow heads the fused kernel's backward pass is slower on a CPU.
        match = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])  # (B, heads, T, T)
        # In place: filling would copy all heads, here and in the backward pass.
        match += torch.full((length, length), -torch.inf, dtype=match.dtype).triu(1)
        attention = torch.softmax(match, dim=-1).to(value.dtype)
        attended = (attention @ value).transpose(1, 2).reshape(batch, length, width)
        hidden = hidden + self.dropout(self.attention_out(attended))
        result: Tensor = hidden + self.dropout(self.feed_forward(hidden))
        return result


class FullCrossEntropy(torch.autograd.Function):
    """Sum of cross-entropies of a softmax over all items, on a CPU; products as autocast says, exponentials in float32.

    The gradient is made in the forward pass, a few rows at a time, so that the (N, I) logits stay in the
    processor's cache: half the time of `F.cross_entropy` on a CPU.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        """Hidden (N, D), weight (I, D), targets (N,) -> loss (); keeps d loss / d hidden and / d weight."""
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32
        rows, columns = hidden.to(dtype), weight.to(dtype)
        error = torch.empty(len(rows), len(columns), dtype=dtype)  # softmax minus one-hot, (N, I)
        loss = torch.zeros(())
        for start in range(0, len(rows), _ROWS_IN_CACHE):
            piece = slice(start, start + _ROWS_IN_CACHE)
            shares = torch.softmax(rows[piece] @ columns.T, dim=1, dtype=torch.float32)
            target = targets[piece, None]
            hit = shares.gather(1, target)
            loss -= hit.clamp(min=1e-30).log().sum()
            error[piece] = shares.scatter_(1, target, hit - 1.0)
        of_weight = (error.T @ rows).float() if ctx.needs_input_grad[1] else None
        ctx.save_for_backward((error @ columns).float(), of_weight)
        return loss

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None]:
        """Scale what the forward pass kept."""
        of_hidden, of_weight = ctx.saved_tensors
        return of_hidden * gradients[0], None if of_weight is None else of_weight * gradients[0], None


def train_epoch(
    model: NextItemModel,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[Sequence[NDArray[np.int32]]],
    *,
    rate: Callable[[float], float] | None = None,
) -> float:
    """One pass over the batches; returns the mean loss per target in nats.

    `rate` gives the learning rate after a share of the pass; None leaves the optimizer's own.
    """
    model.train()
    total, count = 0.0, 0
    for number, batch in enumerate(batches):
        if rate is not None:
            for group in optimizer.param_groups:
                group["lr"] = rate(number / len(batches))
        tokens = pad(batch)  # (B, T + 1)
        inputs, targets = tokens[:, :-1], tokens[:, 1:]
        present = targets != _PADDING
        rows = model.output_rows()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=multiplies_bfloat16()):
            hidden = model(inputs)[present]  # (N, D): padding costs no row of the softmax
            loss = FullCrossEntropy.apply(hidden, rows, targets[present])  # type: ignore[no-untyped-call]
        optimizer.zero_grad()
        (loss / len(hidden)).backward()
        optimizer.step()
        total += loss.item()
        count += len(hidden)
    return total / max(count, 1)


def cut_windows(sequences: Sequences, max_length: int) -> list[NDArray[np.int32]]:
    """Histories cut into windows of up to `max_length` inputs and one more target, from the latest back.

    Neighbouring windows share one item, so that every item but a user's first is a target exactly once.
    """
    windows = []
    for history in sequences:
        end = len(history)
        while end >= 2:
            start = max(0, end - max_length - 1)
            windows.append(history[start:end])
            end = start + 1
    return windows


def make_batches(
    windows: list[NDArray[np.int32]], settings: SequentialSettings, rng: np.random.Generator
) -> list[list[NDArray[np.int32]]]:
    """Shuffled batches of about `batch_positions` targets, each of windows of similar length."""
    shuffled = rng.permutation(len(windows))
    lengths = np.array([len(windows[number]) for number in shuffled])
    # Sorting neighbourhoods of the shuffled order keeps padding small without fixing who meets whom.
    noisy = lengths * np.exp(rng.normal(scale=0.1, size=len(lengths)))
    batches: list[list[NDArray[np.int32]]] = [[]]
    positions = 0
    for number in shuffled[np.argsort(noisy)]:
        if positions >= settings.batch_positions:
            batches.append([])
            positions = 0
        batches[-1].append(windows[number])
        positions += len(windows[number]) - 1
    order = rng.permutation(len(batches))
    return [batches[number] for number in order if batches[number]]


def pad(histories: Sequence[NDArray[np.int32]]) -> Tensor:
    """Histories as one int64 tensor (B, T), filled up at the end with `_PADDING`."""
    rows = [torch.from_numpy(history.astype(np.int64)) for history in histories]
    return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=_PADDING)
