"""The encoder and decoder of RQ-VAE: a linear map with an MLP that corrects it.

The linear maps start as the principal components of the data and the MLPs at zero, so training starts where
residual k-means ends instead of from noise, and only has to be better than it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SkipMLP(nn.Module):
    """`x W + MLP(x)`, from width D to width E; the last layer of the MLP starts at zero."""

    def __init__(self, linear: Tensor, *, hidden_width: int) -> None:
        super().__init__()
        width_in, width_out = linear.shape
        self.linear = nn.Parameter(linear.clone().contiguous())  # (D, E)
        self.mlp = nn.Sequential(
            nn.Linear(width_in, hidden_width),
            nn.GELU(),
            nn.Linear(hidden_width, hidden_width),
            nn.GELU(),
            nn.Linear(hidden_width, width_out),
        )
        last = self.mlp[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, values: Tensor) -> Tensor:
        """Map (N, D) to (N, E)."""
        corrected: Tensor = values @ self.linear + self.mlp(values)
        return corrected


def principal_components(vectors: Tensor, width: int) -> Tensor:
    """The `width` directions of largest variance of centred vectors (N, D), as columns (D, width)."""
    covariance = vectors.T.double() @ vectors.double() / len(vectors)
    return torch.linalg.eigh(covariance).eigenvectors[:, -width:].flip(1).float()
