"""GRU4Rec with its embeddings on both sides and a softmax over all items.

A recurrent network over item ids (Hidasi et al. 2016) as its authors improved it: the embeddings of items are also
the output matrix, and the loss ranks the next item against many others at once (Hidasi & Karatzoglou 2018). They
sample those others; here they are all items, which their losses approximate. How it is trained: `next_item`.

B histories, T positions, D width, I items.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from genrec.baselines.next_item import NextItemBaseline, NextItemSettings
from genrec.encoders.sequential import ItemNetwork


class _GRU(ItemNetwork):
    """Gated recurrent units, with dropout before and behind them."""

    def __init__(self, num_items: int, settings: NextItemSettings) -> None:
        super().__init__(num_items, settings.width)
        width, layers = settings.width, settings.num_layers
        self.dropout = nn.Dropout(settings.dropout)
        between = settings.dropout if layers > 1 else 0.0
        self.recurrence = nn.GRU(width, width, layers, batch_first=True, dropout=between)

    def forward(self, inputs: Tensor) -> Tensor:
        """Hidden state after each position, (B, T, D). Padding stands at the end, where nothing looks."""
        with torch.autocast("cpu", enabled=False):  # many small steps, which gain nothing from bfloat16
            # As large as SASRec's: the rows are small because they are the output matrix as well.
            items = math.sqrt(self.items.embedding_dim) * self.items(inputs.clamp(min=0))
            hidden, _ = self.recurrence(self.dropout(items))
            states: Tensor = self.dropout(hidden)
        return states


class GRU4Rec(NextItemBaseline):
    """A gated recurrent unit over item ids, one layer."""

    name = "gru4rec"
    # The best of a few on both Amazon Beauty and MovieLens (docs/experiments.md).
    DEFAULTS: ClassVar[Mapping[str, Any]] = {
        "num_layers": 1,
        "width": 128,
        "dropout": 0.2,
        "learning_rate": 2e-3,
        "weight_decay": 0.01,
        "epochs": 8,
    }
    SPACE: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "num_layers": (1, 2),
        "dropout": (0.2, 0.1, 0.3, 0.4),
        "learning_rate": (2e-3, 1e-3, 3e-3, 5e-3),
        "width": (128, 64, 256),
        "weight_decay": (0.01, 0.0, 0.1),
        "batch_positions": (256, 512, 1024),
        "epochs": (8, 12, 20),
    }

    def _network(self, num_items: int, settings: NextItemSettings) -> ItemNetwork:
        return _GRU(num_items, settings)
