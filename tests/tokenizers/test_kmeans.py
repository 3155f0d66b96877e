"""Balanced k-means on data where prices lag behind the centres."""

from __future__ import annotations

import pytest
import torch

from genrec.tokenizers.kmeans import fit_kmeans


def points_of(kind: str, generator: torch.Generator) -> torch.Tensor:
    """1,200 points that are about equally far from each other."""
    points = torch.randn(1200, 200, generator=generator)
    if kind == "lengths differ":
        return points * torch.exp(0.5 * torch.randn(1200, 1, generator=generator))
    if kind == "heavy tails":
        return points * torch.randn(1200, 200, generator=generator) ** 3
    # A third has a modality of its own variance, as items with a poster among items without.
    points[:400] = 0.03 * points[:400] @ torch.randn(200, 200, generator=generator)
    points[:, 100:] *= 2
    return points


@pytest.mark.parametrize("kind", ["lengths differ", "heavy tails", "two kinds of items"])
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("weighted", [False, True])
def test_no_cluster_takes_nearly_all_points(kind: str, seed: int, weighted: bool):
    generator = torch.Generator().manual_seed(seed)
    points = points_of(kind, generator)
    weights = torch.rand(1200, generator=generator) + 0.5 if weighted else None
    weights = None if weights is None else weights / weights.mean()
    clusters = fit_kmeans(points, 128, generator=generator, balanced=True, weights=weights)
    shares = torch.bincount(clusters.assign(points), weights=weights, minlength=128) / 1200
    assert float((-shares * shares.clamp(min=1e-12).log()).sum().exp()) > 64  # were 2 to 90 of 128


def test_points_that_are_equal_end_in_one_cluster_and_the_search_ends():
    generator = torch.Generator().manual_seed(0)
    points = torch.cat([torch.zeros(800, 4), torch.randn(10, 4, generator=generator)])
    clusters = fit_kmeans(points, 32, generator=generator, balanced=True)
    assert len(clusters.assign(points)[:800].unique()) == 1
