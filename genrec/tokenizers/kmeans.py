"""Points to cluster centres: Lloyd's k-means with k-means++ seeding, plain or balanced, on torch.

What every codebook starts from. Large data is sampled once, 256 points per cluster, the rule of faiss: more
points move the centres by less than their own noise.

N points, D width, K clusters.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from genrec.tokenizers.sinkhorn import update_potentials

POINTS_PER_CLUSTER = 256
# Iterations of prices per round. Two are enough where centres move little. Where all points are about equally far from
# each other (many columns, of which few say the same) prices lag behind the centres, and one cluster takes nearly all.
_PATIENCE = (2, 10, 50)
_CHUNK = 65_536  # rows of one distance matrix: 64 MiB of float32 with K = 256


@dataclass
class Clusters:
    """Centres (K, D) and the potential of each (K,), zero where nothing was balanced."""

    centres: Tensor
    potentials: Tensor

    def assign(self, points: Tensor) -> Tensor:
        """The cluster of every point, int64 (N,): the least squared distance minus potential."""
        return torch.cat([self.costs(chunk).argmin(dim=1) for chunk in points.split(_CHUNK)])

    def costs(self, points: Tensor) -> Tensor:
        """Squared distance minus potential, (N, K): lowest first."""
        return squared_distances(points, self.centres) - self.potentials


def fit_kmeans(
    points: Tensor,
    num_clusters: int,
    *,
    generator: torch.Generator,
    balanced: bool,
    weights: Tensor | None = None,
    rounds: int = 30,
) -> Clusters:
    """Clusters of `points` (N, D), N ≥ 1. Stops early when no point changes its cluster.

    `balanced` gives every cluster about N / K points, or a Kth of their `weights` (N,), by prices (sinkhorn.py); it
    also ends in better optima, because k-means++ seeds clusters on outliers that plain Lloyd rounds never fill. A
    cluster that lost all of its points takes over the point that lies farthest from its own centre.
    """
    limit = num_clusters * POINTS_PER_CLUSTER
    if len(points) > limit:
        chosen = torch.randperm(len(points), generator=generator)[:limit]
        points, weights = points[chosen], None if weights is None else weights[chosen] / weights[chosen].mean()
    seeds = _seed_centres(points, num_clusters, generator)
    for iterations in _PATIENCE if balanced else (0,):
        clusters = _lloyd(points, seeds, weights, iterations=iterations, rounds=rounds)
        if not balanced or _evenly_used(clusters.assign(points), num_clusters, weights):
            break
        # The centres moved once more after the last prices were made: perhaps that is all that is wrong.
        distances = squared_distances(points, clusters.centres)
        clusters.potentials = update_potentials(
            distances, clusters.potentials, weights=weights, iterations=_PATIENCE[-1]
        )
        if _evenly_used(clusters.assign(points), num_clusters, weights):
            break
    return clusters


def _lloyd(points: Tensor, centres: Tensor, weights: Tensor | None, *, iterations: int, rounds: int) -> Clusters:
    """Clusters after rounds from `centres` on, with so many iterations of prices in each round."""
    clusters = Clusters(centres, torch.zeros(len(centres)))
    previous: Tensor | None = None
    for _ in range(rounds):
        distances = squared_distances(points, clusters.centres)
        if iterations:
            clusters.potentials = update_potentials(
                distances, clusters.potentials, weights=weights, iterations=iterations
            )
        nearest = (distances - clusters.potentials).argmin(dim=1)
        if previous is not None and torch.equal(nearest, previous):
            break
        previous = nearest
        clusters.centres = _means(points, nearest, distances)
    return clusters


def _evenly_used(codes: Tensor, num_clusters: int, weights: Tensor | None) -> bool:
    """Whether as many clusters are used as half of them, or of the points, would be if all were used equally."""
    shares = torch.bincount(codes, weights=weights, minlength=num_clusters) / len(codes)
    perplexity = float((-shares * shares.clamp(min=1e-12).log()).sum().exp())
    return perplexity >= 0.5 * min(num_clusters, len(codes))


def means(points: Tensor, codes: Tensor, num_clusters: int) -> Tensor:
    """Mean (K, D) of the points (N, D) under every code, zero where there is none."""
    sums = torch.zeros(num_clusters, points.shape[1]).index_add_(0, codes, points)
    return sums / torch.bincount(codes, minlength=num_clusters).clamp(min=1).unsqueeze(1)


def squared_distances(points: Tensor, centres: Tensor) -> Tensor:
    """Squared Euclidean distances (N, K), never below zero."""
    norms = points.square().sum(1, keepdim=True) + centres.square().sum(1)
    return torch.addmm(norms, points, centres.T, alpha=-2.0).clamp_(min=0.0)


def _means(points: Tensor, nearest: Tensor, distances: Tensor) -> Tensor:
    num_clusters = distances.shape[1]
    centres = means(points, nearest, num_clusters)
    empty = (torch.bincount(nearest, minlength=num_clusters) == 0).nonzero().flatten()
    if len(empty):
        own = distances.gather(1, nearest.unsqueeze(1)).squeeze(1)
        farthest = own.topk(min(len(empty), len(points))).indices
        centres[empty[: len(farthest)]] = points[farthest]
    return centres


def _seed_centres(points: Tensor, num_clusters: int, generator: torch.Generator) -> Tensor:
    """k-means++ (Arthur & Vassilvitskii 2007): each next centre is drawn by squared distance to the others."""
    norms = points.square().sum(1)
    index = int(torch.randint(len(points), (1,), generator=generator))
    chosen = [index]
    nearest = torch.full((len(points),), torch.inf)
    for _ in range(num_clusters - 1):
        distances = (norms - 2.0 * (points @ points[index]) + norms[index]).clamp_(min=0.0)
        nearest = torch.minimum(nearest, distances)
        nearest[index] = 0.0
        # Fewer different points than clusters: what is left to draw are copies of centres.
        weights = nearest if float(nearest.sum()) > 0.0 else torch.ones_like(nearest)
        # By inverse cumulative sum: torch.multinomial stops at 2^24 points.
        cumulative = weights.double().cumsum(0)
        draw = torch.rand(1, generator=generator, dtype=torch.float64) * cumulative[-1]
        index = min(int(torch.searchsorted(cumulative, draw, right=True)), len(points) - 1)
        chosen.append(index)
    return points[chosen].clone()
