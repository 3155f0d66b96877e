"""The formulas of alignment: fusing what is present, dropping some of it, contrasting pairs.

N rows (items or attribute texts), M modalities, W width of the common space, B pairs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def fuse(projections: Tensor, present: Tensor) -> Tensor:
    """Mean of the present projections (N, M, W) scaled to length 1, (N, W); zero where none is present.

    `present` is (N, M). What is absent has no part in the value and gets no gradient.
    """
    kept = torch.where(present[..., None], projections, 0.0)
    return F.normalize(kept.sum(dim=1), dim=1)


def drop_modalities(present: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """A smaller `present` (N, M): each present modality goes with `probability`, never an item's last one."""
    draws = torch.rand(present.shape, generator=generator).to(present.device)
    kept = present & (draws >= probability)
    # Where all would go, the one that drew highest stays.
    last = F.one_hot(draws.masked_fill(~present, -1.0).argmax(dim=1), present.shape[1]).bool() & present
    return torch.where(kept.any(dim=1, keepdim=True), kept, last)


def info_nce(
    queries: Tensor,
    candidates: Tensor,
    *,
    scale: Tensor,
    excluded: Tensor | None = None,
    log_q: Tensor | None = None,
) -> Tensor:
    """Mean cross-entropy of query `b` choosing candidate `b` among all candidates of the batch, ().

    `queries`, `candidates` (B, W) have length 1; `scale` () is 1/temperature. `excluded` (B, B) marks candidates
    that are no negatives of a query; the diagonal is never excluded. `log_q` (B,) is the logarithm of how likely a
    batch holds each candidate: subtracting it makes scores of frequent and of rare candidates comparable (Yi et
    al. 2019, "Sampling-bias-corrected neural modeling", eq. 3; as there, the positive is corrected too).
    """
    logits = scale * queries @ candidates.T  # (B, B)
    if log_q is not None:
        logits = logits - log_q[None, :]
    if excluded is not None:
        own = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
        logits = logits.masked_fill(excluded & ~own, -torch.inf)
    return F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))


def symmetric_info_nce(
    left: Tensor,
    right: Tensor,
    *,
    scale: Tensor,
    excluded: tuple[Tensor, Tensor] | None = None,
    log_q: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """InfoNCE in both directions, averaged (CLIP: Radford et al. 2021, sec. 2.3), ().

    `excluded` and `log_q` are (left to right, right to left): the first of each speaks of `right` as candidates.
    """
    there, back = excluded if excluded is not None else (None, None)
    of_right, of_left = log_q if log_q is not None else (None, None)
    forth = info_nce(left, right, scale=scale, excluded=there, log_q=of_right)
    return (forth + info_nce(right, left, scale=scale, excluded=back, log_q=of_left)) / 2


def false_negatives(sources: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Which candidates of a batch of item pairs are no negatives, two (B, B), for both directions.

    Pairs are (`sources[b]`, `targets[b]`), item numbers (B,). Another pair's target is no negative of a source
    where it is the source's own target, or the source itself.
    """
    there = (targets[None, :] == targets[:, None]) | (targets[None, :] == sources[:, None])
    back = (sources[None, :] == sources[:, None]) | (sources[None, :] == targets[:, None])
    return there, back


def cosine_loss(predicted: Tensor, actual: Tensor) -> Tensor:
    """Mean of 1 - cosine of rows, ()."""
    return (1.0 - F.cosine_similarity(predicted, actual, dim=1)).mean()
