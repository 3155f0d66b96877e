"""Distances to a price per code, so that cheapest-first assignment uses all codes about equally.

Points may weigh differently: with the uses of an item as its weight, a code is used about as often as any other, so
popular items have few companions under it and rare ones many.

The balanced assignment of LC-Rec (Zheng et al. 2023, sec. 3.1) solves an entropic transport problem
(Cuturi 2013) for one batch of items, so an item's code depends on the others in its batch. We keep only
the solution's potential of every code: `argmin_k distance_k − potential_k` reads one item alone, gives the
same code in any batch, and a new item is encoded like an old one.

N points, K codes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Temperature as a share of the mean distance to the nearest centre; smaller is closer to exactly even.
EPSILON = 0.05


def update_potentials(
    distances: Tensor, potentials: Tensor, *, weights: Tensor | None = None, iterations: int = 2
) -> Tensor:
    """Better potentials (K,), in the unit of the squared distances (N, K), from earlier ones.

    `weights` (N,) are positive with mean 1; None = all 1.

    Two iterations per round of k-means are enough where the centres move little between rounds. The log
    domain keeps the smallest temperature finite in float32. Where all distances are zero, so are they.
    """
    num_points, num_codes = distances.shape
    scale = EPSILON * max(float(distances.min(dim=1).values.mean()), 1e-3 * float(distances.mean()))
    if scale <= 0.0:
        return torch.zeros_like(potentials)
    costs = distances / scale
    scaled = potentials / scale
    log_share = math.log(num_points / num_codes)
    for _ in range(iterations):
        rows = torch.logsumexp(scaled - costs, dim=1, keepdim=True)  # (N, 1): every point is given once
        given = -costs - rows if weights is None else weights.log()[:, None] - costs - rows
        scaled = log_share - torch.logsumexp(given, dim=0)  # every code takes its share of the weight
    return (scaled - scaled.mean()) * scale
