"""Formulas of preference optimisation over semantic IDs: rewards of a ranked list, group advantages, losses.

Log-probabilities of an item are sums over its levels, each normalised over the codes of the level, as in decoding.

Shapes: B prompts, G items of a prompt's group, L levels.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float32]


def ranking_reward(hits: NDArray[np.bool_]) -> Floats:
    """1 for the wanted item, and for the others a penalty that is the larger the higher they stand: (B, G) → (B, G).

    `hits` follow the ranking, best first. MiniOneRec (Kong et al. 2025): the penalty of rank r is 1 / log2(r + 1), as a
    share of those of all wrong items of the list. Without the penalty a list that misses has nothing to learn from.
    """
    discount = 1 / np.log2(np.arange(2, hits.shape[1] + 2))
    penalty = np.where(hits, 0.0, discount)
    share = penalty / np.maximum(penalty.sum(axis=1, keepdims=True), 1e-12)
    return np.asarray(hits - share, dtype=np.float32)


def graded_reward(hits: NDArray[np.bool_], likeness: Floats) -> Floats:
    """`ranking_reward` where a wrong item is forgiven its likeness to the wanted one, from 0 to 1; all are (B, G)."""
    return np.asarray(np.where(hits, 1.0, ranking_reward(hits) * (1 - likeness)), dtype=np.float32)


def group_advantages(rewards: Tensor) -> Tensor:
    """How much better than its group each item is, in standard deviations: (B, G) → (B, G); 0 where all are equal.

    DeepSeekMath (Shao et al. 2024, sec. 4.1.2).
    """
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    deviation = rewards.std(dim=1, keepdim=True, unbiased=False)
    return torch.where(deviation > 1e-6, centred / deviation.clamp(min=1e-6), torch.zeros_like(centred))


def grpo_loss(policy: Tensor, reference: Tensor, advantages: Tensor, *, kl_weight: float) -> Tensor:
    """GRPO for one update per rollout, in which the ratio of probabilities is 1 and nothing is clipped.

    Log-probabilities per level (B, G, L), advantages (B, G). The estimate of the divergence from the reference is
    that of Shao et al. 2024, eq. 4. Deviation: rollouts are the beam's best items, not samples, so this raises and
    lowers what the beam shows and is no unbiased gradient of the expected reward.
    """
    ratio = (policy - policy.detach()).exp()
    gap = reference - policy
    divergence = gap.exp() - gap - 1
    return (kl_weight * divergence - ratio * advantages[..., None]).mean()


def dpo_loss(chosen: Tensor, rejected: Tensor, *, beta: float) -> Tensor:
    """Softmax-DPO with several rejected items (Chen et al. 2024, eq. 11); one of them is DPO (Rafailov et al. 2023).

    Log-probabilities of whole items minus those of the reference: chosen (B,), rejected (B, N).
    """
    margins = beta * (rejected - chosen[:, None])  # (B, N)
    return F.softplus(margins.logsumexp(dim=1)).mean()
