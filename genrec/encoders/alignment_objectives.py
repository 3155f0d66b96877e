"""The three objectives of alignment: contrastive, reconstructive, autoregressive.

Each draws a batch of row numbers from a pool and turns it into a loss. N rows, M modalities, W width of the
common space, B pairs or histories, T items of a history.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from genrec.config import AlignConfig
from genrec.encoders.alignment_data import PairData, Pool, draw_attributes
from genrec.encoders.alignment_losses import (
    cosine_loss,
    drop_modalities,
    false_negatives,
    fuse,
    info_nce,
    symmetric_info_nce,
)
from genrec.encoders.alignment_model import AlignmentModel
from genrec.errors import ConfigError

Batch = Mapping[str, NDArray[np.int64]]
_FIRST_SCALE = 1 / 0.07  # CLIP: Radford et al. 2021, sec. 2.5; the bound too
_MAX_SCALE = 100.0
_ITEMS_PER_HISTORY = 16  # so many pairs cost about as much as a history
_HEADS, _LAYERS, _FEEDFORWARD = 4, 2, 2


class _Fusing(nn.Module):
    """Drops modalities in training and fuses what is left."""

    def __init__(self, config: AlignConfig) -> None:
        super().__init__()
        self.dropout = config.modality_dropout

    def fused(self, projections: Tensor, present: Tensor, generator: torch.Generator | None) -> Tensor:
        """Fused vectors (N, W) of projections (N, M, W)."""
        kept = present if generator is None else drop_modalities(present, self.dropout, generator)
        return fuse(projections, kept)


class Contrastive(_Fusing):
    """InfoNCE on two modalities of an item, on items used one after the other, on item and attribute text."""

    log_q: Tensor  # (2, I)
    log_q_attributes: Tensor  # (A,)

    def __init__(self, config: AlignConfig, data: PairData, present: Tensor) -> None:
        """`present` (R, M). Raises ConfigError where there is no pair of any kind to learn from."""
        super().__init__(config)
        self.data = data
        several = bool((present[torch.from_numpy(data.train.items)].sum(dim=1) > 1).sum() > 1)
        weights = {
            "modalities": config.modality_weight if several else 0.0,
            "behaviour": config.behaviour_weight if len(data.train.pairs) else 0.0,
            "attributes": config.attribute_weight if len(data.train.tagged) else 0.0,
        }
        self.weights = {kind: weight for kind, weight in weights.items() if weight > 0}
        if not self.weights:
            raise ConfigError(
                "There is nothing to align: no item has two modalities, none are used one after the other, no "
                "attribute is shared, or all their weights are 0.",
                "Embed a second modality, bring interactions, or raise a weight.",
            )
        # One temperature per kind: neighbours in a history agree far less than two modalities of an item.
        self.log_scales = nn.ParameterDict(
            {kind: nn.Parameter(torch.tensor(float(np.log(_FIRST_SCALE)))) for kind in self.weights}
        )
        self.register_buffer("log_q", torch.from_numpy(data.log_q), persistent=False)
        self.register_buffer("log_q_attributes", torch.from_numpy(data.log_q_attributes), persistent=False)

    @property
    def kinds(self) -> list[str]:
        """Kinds of pairs that have weight and data."""
        return list(self.weights)

    def draw(self, pool: Pool, size: int, rng: np.random.Generator) -> Batch:
        """Items without repetition, pairs as they come, tagged items with one attribute each."""
        batch: dict[str, NDArray[np.int64]] = {}
        if "modalities" in self.weights:
            batch["items"] = _sample(pool.items, size, rng)
        if "behaviour" in self.weights:
            chosen = _sample(np.arange(len(pool.pairs)), size, rng)
            batch["sources"], batch["targets"] = pool.pairs[chosen].T
        if "attributes" in self.weights:
            batch["tagged"] = _sample(pool.tagged, size, rng)
            batch["attributes"] = draw_attributes(self.data.attributes, batch["tagged"], rng)
        return batch

    def forward(self, model: AlignmentModel, batch: Mapping[str, Tensor], generator: torch.Generator | None) -> Tensor:
        """Weighted mean of the kinds' losses."""
        asked = {name: rows + (self.data.num_items if name == "attributes" else 0) for name, rows in batch.items()}
        unique, places = torch.unique(torch.cat(list(asked.values())), return_inverse=True)
        projections, present = model.project(unique)
        parts = {
            name: (projections[place], present[place])
            for name, place in zip(asked, places.split([len(rows) for rows in asked.values()]), strict=True)
        }
        losses: dict[str, Tensor] = {}
        if "modalities" in self.weights:
            losses["modalities"] = self._modalities(*parts["items"])
        if "behaviour" in self.weights:
            sources, targets = (self.fused(*parts[name], generator) for name in ("sources", "targets"))
            losses["behaviour"] = self._behaviour(sources, targets, batch)
        if "attributes" in self.weights:
            items = self.fused(*parts["tagged"], generator)
            losses["attributes"] = self._attributes(items, self.fused(*parts["attributes"], None), batch)
        total = sum(self.weights.values())
        return torch.stack([self.weights[kind] / total * loss for kind, loss in losses.items()]).sum()

    def _scale(self, kind: str) -> Tensor:
        return self.log_scales[kind].exp().clamp(max=_MAX_SCALE)

    def _modalities(self, projections: Tensor, present: Tensor) -> Tensor:
        """Mean over the pairs of modalities that two items or more of the batch have."""
        losses = [projections.sum() * 0.0]  # where no two items have a pair, nothing is learned
        for first in range(present.shape[1]):
            for second in range(first + 1, present.shape[1]):
                both = present[:, first] & present[:, second]
                if both.sum() > 1:
                    pair = projections[both, first], projections[both, second]
                    losses.append(symmetric_info_nce(*pair, scale=self._scale("modalities")))
        return torch.stack(losses).sum() / max(1, len(losses) - 1)

    def _behaviour(self, sources: Tensor, targets: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        if not len(sources):
            return sources.sum()
        log_q = self.log_q[1, batch["targets"]], self.log_q[0, batch["sources"]]
        excluded = false_negatives(batch["sources"], batch["targets"])
        return symmetric_info_nce(sources, targets, scale=self._scale("behaviour"), excluded=excluded, log_q=log_q)

    def _attributes(self, items: Tensor, texts: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        if not len(items):
            return items.sum()
        rows, columns = batch["tagged"].cpu().numpy(), batch["attributes"].cpu().numpy()
        # Whoever has another pair's attribute is no negative of it.
        has = torch.from_numpy(self.data.attributes.members[rows][:, columns].toarray()).to(items.device)
        every_item_alike = torch.zeros(len(items), device=items.device)
        return symmetric_info_nce(
            items,
            texts,
            scale=self._scale("attributes"),
            excluded=(has, has.T),
            log_q=(self.log_q_attributes[batch["attributes"]], every_item_alike),
        )


class Reconstructive(_Fusing):
    """Each modality in turn is masked and predicted from the others (cosine of the standardised vectors)."""

    kinds = ("modalities",)

    def __init__(self, config: AlignConfig, data: PairData, present: Tensor, *, widths: Mapping[str, int]) -> None:
        """`present` (R, M). Raises ConfigError where no item has two modalities."""
        super().__init__(config)
        self.several = (present.sum(dim=1) > 1).numpy()
        if not self.several[data.train.items].any():
            raise ConfigError(
                "The reconstructive objective needs items with two modalities, and there is none.",
                "Embed a second modality, or choose objective: contrastive.",
            )
        self.decoders = nn.ModuleList(
            [
                nn.Sequential(
                    nn.Linear(config.width, config.hidden_width), nn.GELU(), nn.Linear(config.hidden_width, w)
                )
                for w in widths.values()
            ]
        )

    def draw(self, pool: Pool, size: int, rng: np.random.Generator) -> Batch:
        """Items with two modalities or more."""
        return {"items": _sample(pool.items[self.several[pool.items]], size, rng)}

    def forward(self, model: AlignmentModel, batch: Mapping[str, Tensor], generator: torch.Generator | None) -> Tensor:
        """Mean over the modalities. Targets are the vectors as embedded, so a live encoder cannot make them easy."""
        rows = batch["items"]
        projections, present = model.project(rows)
        losses = [projections.sum() * 0.0]
        for column, modality in enumerate(model.modalities):
            here = present[:, column]
            if not here.any():
                continue
            rest = present[here].clone()
            rest[:, column] = False
            predicted = self.decoders[column](self.fused(projections[here], rest, generator))
            actual = model.heads[modality].standardised(model.features.vectors[modality][rows[here]])
            losses.append(cosine_loss(predicted, actual))
        return torch.stack(losses).sum() / max(1, len(losses) - 1)


class Autoregressive(_Fusing):
    """A small causal transformer reads a history's fused vectors and predicts the next one (InfoNCE, logQ).

    It teaches the heads and is thrown away: the run keeps the heads.
    """

    log_q: Tensor  # (I,)

    kinds = ("behaviour",)

    def __init__(self, config: AlignConfig, data: PairData) -> None:
        """Raises ConfigError where there is no history of two items."""
        super().__init__(config)
        if not data.train.histories:
            raise ConfigError(
                "The autoregressive objective needs training histories of two items, and there is none.",
                "Choose objective: contrastive.",
            )
        if config.width % _HEADS:
            raise ConfigError(
                f"width {config.width} is no multiple of {_HEADS}.", "The autoregressive objective needs one."
            )
        self.length = config.history_items + 1  # the last one is only predicted
        layer = nn.TransformerEncoderLayer(
            config.width, _HEADS, _FEEDFORWARD * config.width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.transformer = nn.TransformerEncoder(layer, _LAYERS, enable_nested_tensor=False)
        self.positions = nn.Parameter(0.02 * torch.randn(config.history_items, config.width))
        self.log_scale = nn.Parameter(torch.tensor(float(np.log(_FIRST_SCALE))))
        self.register_buffer("log_q", torch.from_numpy(data.log_q[1]), persistent=False)

    def draw(self, pool: Pool, size: int, rng: np.random.Generator) -> Batch:
        """Random windows of histories (B, T + 1), −1 after their ends."""
        chosen = _sample(np.arange(len(pool.histories)), max(2, size // _ITEMS_PER_HISTORY), rng)
        windows = np.full((len(chosen), self.length), -1, dtype=np.int64)
        for row, history in enumerate(chosen):
            items = pool.histories[history]
            start = int(rng.integers(max(1, len(items) - self.length + 1)))
            window = items[start : start + self.length]
            windows[row, : len(window)] = window
        return {"windows": windows}

    def forward(self, model: AlignmentModel, batch: Mapping[str, Tensor], generator: torch.Generator | None) -> Tensor:
        """InfoNCE of all positions of the batch, each against the others' next items."""
        windows = batch["windows"]
        unique, places = torch.unique(windows.clamp(min=0), return_inverse=True)
        fused = self.fused(*model.project(unique), generator)[places]  # (B, T + 1, W)
        length = windows.shape[1] - 1
        later = torch.ones(length, length, dtype=torch.bool, device=windows.device).triu(1)
        states = self.transformer(fused[:, :-1] + self.positions, mask=later)
        asked = windows[:, 1:] >= 0  # padding stands at the end, where no asked position sees it
        targets, sources = windows[:, 1:][asked], windows[:, :-1][asked]
        return info_nce(
            F.normalize(states[asked], dim=1),
            fused[:, 1:][asked],
            scale=self.log_scale.exp().clamp(max=_MAX_SCALE),
            excluded=false_negatives(sources, targets)[0],
            log_q=self.log_q[targets],
        )


Objective = Contrastive | Reconstructive | Autoregressive


def make_objective(config: AlignConfig, data: PairData, model: AlignmentModel) -> Objective:
    """The objective that the configuration names. Raises ConfigError where the data cannot serve it."""
    present = model.features.present.cpu()
    if config.objective == "contrastive":
        return Contrastive(config, data, present)
    if config.objective == "reconstructive":
        return Reconstructive(config, data, present, widths=model.heads.widths)
    return Autoregressive(config, data)


def _sample(rows: NDArray[np.int64], size: int, rng: np.random.Generator) -> NDArray[np.int64]:
    return rng.choice(rows, size=min(size, len(rows)), replace=False, shuffle=True) if len(rows) else rows
