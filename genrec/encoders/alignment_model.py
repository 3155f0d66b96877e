"""What alignment trains: vectors of every row, read from memory or made by a live encoder, and the heads on them.

R rows: items first, then attribute texts, which are rows of modality `text` only. N chosen rows, M modalities,
D width of a modality, W width of the common space.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from genrec.encoders.alignment_heads import Heads


@dataclass(frozen=True, eq=False)
class Features:
    """Vectors of all rows by modality, as the run's encoders made them."""

    vectors: dict[str, Tensor]  # each (R, D), zero where missing
    present: Tensor  # (R, M)

    def to(self, device: torch.device) -> Features:
        """The same on a device."""
        vectors = {name: rows.to(device) for name, rows in self.vectors.items()}
        return Features(vectors, self.present.to(device))


class LiveEncoder(Protocol):
    """An encoder in training, with the inputs of all rows."""

    def vectors(self, rows: Tensor) -> Tensor:
        """Vectors (N, D) of present rows (N,), with gradients."""
        ...


class AlignmentModel(nn.Module):
    """Heads over features; `live` encoders take the place of the vectors of their modalities."""

    def __init__(self, heads: Heads, features: Features, live: Mapping[str, LiveEncoder] | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.features = features
        self.live = dict(live or {})
        self.live_modules = nn.ModuleList([encoder for encoder in self.live.values() if isinstance(encoder, nn.Module)])

    @property
    def modalities(self) -> list[str]:
        """Names, in the order of columns."""
        return list(self.features.vectors)

    def project(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Projections (N, M, W) of rows (N,), zero where missing, and what is present (N, M).

        Only present vectors go through a head, so a missing one can have no gradient.
        """
        present = self.features.present[rows]
        columns = []
        for column, modality in enumerate(self.modalities):
            here = present[:, column].nonzero().flatten()
            projected = torch.zeros(len(rows), self.heads.width, device=rows.device)
            if len(here):
                known = self.vectors(modality, rows[here])
                projected = projected.index_put((here,), self.heads[modality](known))
            columns.append(projected)
        return torch.stack(columns, dim=1), present

    def vectors(self, modality: str, rows: Tensor) -> Tensor:
        """Vectors (N, D) of present rows (N,): live ones where the encoder is in training."""
        if modality in self.live:
            return self.live[modality].vectors(rows)
        return self.features.vectors[modality][rows]
