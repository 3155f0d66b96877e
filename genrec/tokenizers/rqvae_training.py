"""How RQ-VAE learns: reconstruction, codebook and commitment losses, restarts, early stop.

N items, D width, Z latent width, B batch, L levels, K codes per level.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from genrec.progress import Progress
from genrec.tokenizers.kmeans import squared_distances
from genrec.tokenizers.networks import SkipMLP
from genrec.tokenizers.quantizer import ResidualQuantizer, fit_last_level
from genrec.tokenizers.sinkhorn import update_potentials

# An epoch that lowers the error by less than this share of it does not count as better.
_PLATEAU = 1e-3


@dataclass(frozen=True)
class RQVAEOptions:
    """What decides an RQ-VAE besides levels and codebook size. Defaults: docs/experiments.md."""

    latent_width: int = 256
    hidden_width: int = 512
    epochs: int = 15
    batch_size: int = 1024
    learning_rate: float = 1e-3
    encoder_learning_rate: float = 1e-5
    weight_decay: float = 1e-2
    commitment: float = 0.25  # β of VQ-VAE
    prefix_dropout: float = 0.1  # share of a batch that is decoded from a prefix
    patience: int = 3  # epochs without a better reconstruction before training stops


@dataclass
class RQVAEParts:
    """What an RQ-VAE is made of."""

    mean: Tensor  # (D,)
    scale: Tensor  # ()
    encoder: SkipMLP  # D → Z
    decoder: SkipMLP  # Z → D
    quantizer: ResidualQuantizer  # in Z

    def latents(self, vectors: Tensor) -> Tensor:
        """Encoded vectors (N, Z)."""
        latents: Tensor = self.encoder((vectors - self.mean) / self.scale)
        return latents


def train(
    parts: RQVAEParts,
    points: Tensor,
    options: RQVAEOptions,
    *,
    generator: torch.Generator,
    progress: Progress,
) -> dict[str, float]:
    """Train `parts` in place on standardised points (N, D); keeps the epoch that reconstructs best.

    Early stop watches the catalogue itself: its items are what the codes are for. Returns the relative squared
    error before (`start`) and after (`best`), how many `epochs` were run and how many codes `restarted`.
    """
    parts.quantizer.codebooks.requires_grad_(True)
    optimizer = _optimizer(parts, options)
    report = {"start": _error(parts, points), "best": 0.0, "epochs": 0, "restarted": 0}
    report["best"] = report["start"]
    best, waited = copy.deepcopy(parts), 0
    with progress.track("RQ-VAE", total=options.epochs, unit="epochs") as task:
        for epoch in range(options.epochs):
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * (1.0 - epoch / options.epochs)
            report["restarted"] += _epoch(parts, points, options, optimizer, generator=generator)
            report["epochs"] = epoch + 1
            error = _error(parts, points)
            task.advance(note=f"error {error:.4f}")
            waited = 0 if error < report["best"] * (1.0 - _PLATEAU) else waited + 1
            if error < report["best"]:
                report["best"], best = error, copy.deepcopy(parts)
            if waited >= options.patience:
                break
    _restore(parts, best)
    return report


def _epoch(
    parts: RQVAEParts,
    points: Tensor,
    options: RQVAEOptions,
    optimizer: torch.optim.Optimizer,
    *,
    generator: torch.Generator,
) -> int:
    """One pass in seeded order; then prices are updated and dead codes restarted. How many were."""
    for batch in torch.randperm(len(points), generator=generator).split(options.batch_size):
        loss = _loss(parts, points[batch], options, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return _refresh(parts, points, generator)


def _loss(parts: RQVAEParts, points: Tensor, options: RQVAEOptions, generator: torch.Generator) -> Tensor:
    latents = parts.encoder(points)  # (B, Z)
    codes, partial = parts.quantizer.walk(latents)  # (B, L), (L, B, Z); gradients reach the codebooks
    codebook = torch.zeros(())
    commitment = torch.zeros(())
    before = torch.zeros_like(latents)
    for level, total in enumerate(partial):
        code_vectors = parts.quantizer.codebooks[level][codes[:, level]]
        residual = latents - before
        codebook = codebook + F.mse_loss(code_vectors, residual.detach())
        commitment = commitment + F.mse_loss(residual, code_vectors.detach())
        before = total.detach()
    kept = torch.full((len(points),), len(partial) - 1)
    if len(partial) > 1:
        cut = torch.rand(len(points), generator=generator) < options.prefix_dropout
        shorter = torch.randint(len(partial) - 1, (len(points),), generator=generator)
        kept = torch.where(cut, shorter, kept)
    quantized = partial[kept, torch.arange(len(points))]
    # Straight-through (van den Oord et al. 2017): the decoder reads codes, the gradient passes by them.
    through = latents + (quantized - latents).detach()
    return F.mse_loss(parts.decoder(through), points) + codebook + options.commitment * commitment


@torch.no_grad()
def _refresh(parts: RQVAEParts, points: Tensor, generator: torch.Generator) -> int:
    """Follow the moved latents: prices of every level, dead codes, and the last level's view."""
    quantizer = parts.quantizer
    residuals = parts.encoder(points)
    restarted = 0
    codes = []
    for level in range(quantizer.num_levels - 1):
        dead = _unused(quantizer, residuals, level)
        if len(dead):
            restarted += len(dead)
            chosen = torch.randperm(len(points), generator=generator)[: len(dead)]
            quantizer.codebooks[level][dead] = residuals[chosen]
            # At distance zero and the best price, a restarted code has at least the item it was set on.
            quantizer.potentials[level][dead] = quantizer.potentials[level].max()
        # After the restarts: a code far from all items would be offered at any price.
        distances = squared_distances(residuals, quantizer.codebooks[level])
        quantizer.potentials[level] = update_potentials(distances, quantizer.potentials[level])
        code = quantizer.assign(residuals, level)
        codes.append(code)
        residuals = residuals - quantizer.codebooks[level][code]
    dead = _unused(quantizer, residuals, quantizer.num_levels - 1)
    if len(dead):
        prefixes = torch.stack(codes, dim=1) if codes else torch.zeros(len(points), 0, dtype=torch.int64)
        fit_last_level(quantizer, residuals, prefixes, generator=generator)
    return restarted + len(dead)


def _unused(quantizer: ResidualQuantizer, residuals: Tensor, level: int) -> Tensor:
    """Codes of a level that no residual takes, (≤ K,)."""
    code = quantizer.assign(residuals, level)
    return (torch.bincount(code, minlength=quantizer.codebooks.shape[1]) == 0).nonzero().flatten()


@torch.no_grad()
def _error(parts: RQVAEParts, points: Tensor) -> float:
    """Squared error of the reconstruction as a share of the variance."""
    _, partial = parts.quantizer.walk(parts.encoder(points))
    error = (parts.decoder(partial[-1]) - points).square().sum()
    return float(error / points.square().sum().clamp(min=1e-12))


def _optimizer(parts: RQVAEParts, options: RQVAEOptions) -> torch.optim.Optimizer:
    groups = [
        {"params": list(parts.decoder.parameters()), "initial_lr": options.learning_rate},
        {"params": list(parts.encoder.parameters()), "initial_lr": options.encoder_learning_rate},
        # Decay would pull code vectors, which are means of data, to the origin.
        {
            "params": [parts.quantizer.codebooks],
            "initial_lr": options.encoder_learning_rate,
            "weight_decay": 0.0,
        },
    ]
    return torch.optim.AdamW(groups, lr=options.learning_rate, weight_decay=options.weight_decay)


def _restore(parts: RQVAEParts, best: RQVAEParts) -> None:
    parts.encoder.load_state_dict(best.encoder.state_dict())
    parts.decoder.load_state_dict(best.decoder.state_dict())
    parts.quantizer = best.quantizer
    parts.quantizer.codebooks = best.quantizer.codebooks.detach()
