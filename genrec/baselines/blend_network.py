"""A hidden layer on top of a blend: how signals speak together, which a weighted sum cannot say.

    score = blend + Σ_h out_h · relu(x·items_h + best·context_h + log(1 + length)·length_h + bias_h)

x are an item's features, `best` the highest value of every feature among the items that the user could be
recommended: a signal far below its best says something else than one that is near it, and a signal that is weak
everywhere has little to say at all. Some two thousand numbers, none of which belongs to an item or a user. They are
learned by the same saturating likelihood as the blend's weights, beginning with the blend as it is.

C users, N candidates of all users together, F features, H hidden units.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from genrec.baselines.candidates import Candidates
from genrec.progress import SILENT, Progress

Floats = NDArray[np.float32]

_SCALE_OF = 1000  # users over whom inputs are brought to one size
_LEAST_SPREAD = 1e-6
_VECTORS = ("length", "bias", "out")


@dataclass(frozen=True)
class NetworkSettings:
    """Sizes and training choices, compared on histories without their last item (docs/experiments.md)."""

    hidden: int = 32
    epochs: int = 6
    users_per_step: int = 64
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2


@dataclass(frozen=True, eq=False)
class BlendNetwork:
    """What was learned, as it is applied."""

    items: Floats  # (F, H)
    context: Floats  # (F, H)
    length: Floats  # (H,)
    bias: Floats  # (H,)
    out: Floats  # (H,)

    def scores(self, features: Floats, best: Floats, length: int) -> Floats:
        """What it adds to items of these features, (F, K) → (K,), for a user with `best` (F,) and a history so long."""
        user = best @ self.context + np.float32(np.log1p(length)) * self.length + self.bias
        hidden = self.items.T @ features
        hidden += user[:, None]
        return np.asarray(self.out @ np.maximum(hidden, 0.0, out=hidden), dtype=np.float32)

    @property
    def as_json(self) -> dict[str, Any]:
        """Plain values, for a file."""
        return {name: values.tolist() for name, values in vars(self).items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> BlendNetwork:
        """The reverse of `as_json`. Raises KeyError or ValueError where something is missing or misshapen."""
        read = {name: np.asarray(values[name], dtype=np.float32) for name in cls.__dataclass_fields__}
        shape = read["items"].shape
        if len(shape) != 2 or read["context"].shape != shape or any(read[name].shape != shape[1:] for name in _VECTORS):
            raise ValueError(f"a network of shape {shape} whose other parts have other shapes")
        return cls(**read)


class _Net(nn.Module):
    """The network while it learns: inputs of one size, the best values as distances to them."""

    def __init__(self, features: Tensor, starts: NDArray[np.int64], lengths: Tensor, settings: NetworkSettings) -> None:
        super().__init__()
        behind, context = _behind(features, starts)
        inputs = torch.cat([features, behind, torch.log1p(lengths)[context][:, None]], dim=1)
        self.register_buffer("mean", inputs.mean(dim=0))
        self.register_buffer("spread", inputs.std(dim=0, correction=0).clamp_min(_LEAST_SPREAD))
        self.mean: Tensor
        self.spread: Tensor
        self.hidden = nn.Linear(inputs.shape[1], settings.hidden)
        self.out = nn.Linear(settings.hidden, 1, bias=False)
        nn.init.zeros_(self.out.weight)

    def forward(self, features: Tensor, starts: NDArray[np.int64], lengths: Tensor) -> Tensor:
        """What it adds to every row, (N,)."""
        behind, context = _behind(features, starts)
        inputs = torch.cat([features, behind, torch.log1p(lengths)[context][:, None]], dim=1)
        hidden = self.hidden((inputs - self.mean) / self.spread)
        return self.out(hidden.relu()).squeeze(1)

    def folded(self) -> BlendNetwork:
        """The same function of plain inputs."""
        weights = (self.hidden.weight / self.spread).T.detach()
        bias = self.hidden.bias.detach() - self.mean @ weights
        num_features = (len(weights) - 1) // 2
        own, behind, length = weights[:num_features], weights[num_features:-1], weights[-1]
        arrays = [own + behind, -behind, length, bias, self.out.weight.detach().squeeze(0)]
        return BlendNetwork(*(values.numpy().astype(np.float32) for values in arrays))


def _behind(features: Tensor, starts: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """How far every feature is behind its best of the user, (N, F), and the user of every row, (N,)."""
    best = torch.from_numpy(np.maximum.reduceat(features.numpy(), starts, axis=0))
    context = torch.from_numpy(np.repeat(np.arange(len(starts)), np.diff(starts, append=len(features))))
    return features - best[context], context


def fit_network(
    candidates: Candidates,
    weights: Mapping[str, float],
    *,
    q: float,
    settings: NetworkSettings | None = None,
    seed: int = 0,
    progress: Progress = SILENT,
) -> BlendNetwork:
    """Learn what to add to the sum with `weights` by feature name. `q` is that of the likelihood.

    Deterministic for a seed and a number of threads; the caller's global torch generator is left as it was.
    """
    settings = settings or NetworkSettings()
    features = candidates.features
    fixed = features @ np.array([weights[name] for name in candidates.names], dtype=np.float32)
    starts, lengths = candidates.starts, torch.as_tensor(candidates.lengths, dtype=torch.float32)
    ends = np.append(starts[1:], len(features))
    some = min(_SCALE_OF, len(starts))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = _Net(torch.from_numpy(features[: ends[some - 1]]), starts[:some], lengths[:some], settings)
        optimizer = torch.optim.AdamW(net.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
        steps = settings.epochs * -(-len(starts) // settings.users_per_step)
        decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
        order = np.random.default_rng(seed)
        with progress.track("Fitting the hidden layer", settings.epochs, "epochs") as task:
            for _ in range(settings.epochs):
                users, total = order.permutation(len(starts)), 0.0
                for first in range(0, len(users), settings.users_per_step):
                    batch = users[first : first + settings.users_per_step]
                    rows = np.concatenate([np.arange(starts[user], ends[user]) for user in batch])
                    sizes = ends[batch] - starts[batch]
                    begin = np.cumsum(sizes) - sizes
                    added = net(torch.from_numpy(features[rows]), begin, lengths[torch.from_numpy(batch)])
                    targets = torch.from_numpy(begin + candidates.targets[batch] - starts[batch])
                    loss = _loss(torch.from_numpy(fixed[rows]) + added, sizes, targets, q)
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    decay.step()
                    total += loss.item() * len(batch)
                task.advance(note=f"loss {total / len(users):.4f}")
    return net.folded()


def _loss(logits: Tensor, sizes: NDArray[np.int64], targets: Tensor, q: float) -> Tensor:
    """Minus the mean of (P(target)^q − 1) / q over users; q = 1 would be the plain probability."""
    users = torch.from_numpy(np.repeat(np.arange(len(sizes)), sizes))
    empty = logits.new_full((len(sizes),), -torch.inf)
    highest = empty.scatter_reduce(0, users, logits, "amax").detach()
    total = logits.new_zeros(len(sizes)).index_add(0, users, (logits - highest[users]).exp())
    log_target = logits[targets] - highest - total.log()
    return -((q * log_target).exp().mean() - 1) / q
