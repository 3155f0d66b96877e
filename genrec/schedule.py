"""The one learning-rate schedule of genrec."""

from __future__ import annotations

import math


def learning_rate_share(progress: float, *, warmup: float) -> float:
    """Share of the full rate: linear over the first `warmup` of the training, then a cosine down to a twentieth.

    `progress` and `warmup` are shares of the training, 0 to 1.
    """
    if progress < warmup:
        return (progress + 1e-3) / (warmup + 1e-3)
    phase = (progress - warmup) / (1 - warmup)
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * phase))
