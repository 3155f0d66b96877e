"""SASRec trained with cross-entropy over the full catalogue: the neural baseline, and not a weak one.

A causal transformer over item ids (Kang & McAuley 2018). We deviate where the paper's choices are known
to cost accuracy: instead of a binary loss against one sampled negative, every position predicts the next
item by a softmax over all items (Klenitskiy & Vasilev 2023), and layers normalise first. How it is trained:
`next_item`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from genrec.baselines.next_item import NextItemBaseline, NextItemSettings
from genrec.encoders.sequential import ItemNetwork, SequentialModel


class SASRec(NextItemBaseline):
    """Self-attentive sequential recommendation."""

    name = "sasrec"
    SPACE: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "dropout": (0.3, 0.2, 0.4, 0.5),
        "learning_rate": (3e-3, 1e-3, 2e-3, 5e-3),
        "width": (64, 128),
        "num_layers": (2, 1, 3),
        "weight_decay": (0.1, 0.0, 0.3),
        "batch_positions": (256, 512, 1024),
        "epochs": (12, 8, 20),
    }

    def _network(self, num_items: int, settings: NextItemSettings) -> ItemNetwork:
        return SequentialModel(num_items, settings)
