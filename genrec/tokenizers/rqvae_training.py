"""How RQ-VAE learns: reconstruction, codebook and commitment losses, pairs that should agree, restarts, early stop.

N items, D width, Z latent width, B batch, L levels, K codes of a level, M modalities, P pairs.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from genrec.memory import freed_memory_kept
from genrec.progress import Progress
from genrec.tokenizers.base import Makeup
from genrec.tokenizers.kmeans import squared_distances
from genrec.tokenizers.networks import SkipMLP
from genrec.tokenizers.quantizer import ResidualQuantizer, fit_last_level
from genrec.tokenizers.sinkhorn import update_potentials

# An epoch that lowers the error by less than this share of it does not count as better.
_PLATEAU = 1e-3


@dataclass(frozen=True)
class RQVAEOptions:
    """What decides an RQ-VAE besides the codebook sizes. Defaults: docs/experiments.md."""

    latent_width: int = 256
    hidden_width: int = 512
    epochs: int = 15
    batch_size: int = 1024
    learning_rate: float = 1e-3
    encoder_learning_rate: float = 1e-5
    weight_decay: float = 1e-2
    commitment: float = 0.25  # β of VQ-VAE
    prefix_dropout: float = 0.1  # share of a batch that is decoded from a prefix
    balance: float = 0.0  # codes take equal shares of (uses + 1) to this power
    separate: bool = True  # the last level separates items that share a prefix
    modality_dropout: float = 0.3  # share of a batch that loses one of its modalities
    pair_weight: float = 0.0  # of the contrastive loss on items that were used one after the other
    pair_level: int = 2  # the first level (from 0) after which pairs should agree; early levels keep the content
    pair_temperature: float = 0.1
    patience: int = 3  # epochs without a better reconstruction before training stops


@dataclass
class RQVAEParts:
    """What an RQ-VAE is made of."""

    mean: Tensor  # (D,)
    scale: Tensor  # ()
    encoder: SkipMLP  # D → Z
    decoders: list[SkipMLP]  # M × (Z → D_m)
    quantizer: ResidualQuantizer  # in Z

    def latents(self, vectors: Tensor) -> Tensor:
        """Encoded vectors (N, Z)."""
        latents: Tensor = self.encoder((vectors - self.mean) / self.scale)
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """Standardised vectors (N, D), every modality by its own decoder."""
        return torch.cat([decoder(latents) for decoder in self.decoders], dim=1)


@dataclass(frozen=True)
class TrainingData:
    """Standardised points (N, D), and what is known of them."""

    points: Tensor
    counts: Tensor  # (N, D), 1 where a number is the item's own, 0 where it was guessed
    present: Tensor  # bool (N, M)
    guessed: Tensor  # (N, D): every block as if it were missing
    owner: Tensor  # (D,): the modality of every column
    pairs: Tensor  # (P, 2)
    pair_share: Tensor  # (N,) share of the pairs whose second item is this one
    weights: Tensor | None  # (N,) of which balanced codes take equal shares

    @classmethod
    def of(
        cls, points: Tensor, makeup: Makeup, *, mean: Tensor, scale: Tensor, weights: Tensor | None = None
    ) -> TrainingData:
        """From standardised points and the makeup of the vectors that they were (`points * scale + mean`)."""
        num_items, width = points.shape
        widths = makeup.widths or (width,)
        owner = torch.repeat_interleave(torch.arange(len(widths)), torch.tensor(widths))
        present = torch.ones(num_items, len(widths), dtype=torch.bool)
        if makeup.present is not None:
            present = torch.from_numpy(makeup.present)
        guessed = points
        if makeup.without:
            guessed = (torch.cat([torch.from_numpy(block) for block in makeup.without], dim=1) - mean) / scale
        pairs = torch.zeros(0, 2, dtype=torch.int64) if makeup.pairs is None else torch.from_numpy(makeup.pairs)
        share = torch.bincount(pairs[:, 1], minlength=num_items) / max(1, len(pairs))
        return cls(points, present[:, owner].float(), present, guessed, owner, pairs, share, weights)

    def inputs(self, rows: Tensor, dropout: float, generator: torch.Generator) -> Tensor:
        """Points of `rows` (B, D); a share of those with two modalities or more loses one, as if it were missing."""
        points = self.points[rows]
        present = self.present[rows]
        if present.shape[1] == 1 or dropout == 0.0:
            return points
        lottery = torch.rand(present.shape, generator=generator).masked_fill(~present, -1.0)
        loses = (torch.rand(len(rows), generator=generator) < dropout) & (present.sum(dim=1) > 1)
        lost = torch.where(loses, lottery.argmax(dim=1), -1)  # (B,)
        return torch.where(self.owner[None] == lost[:, None], self.guessed[rows], points)


def train(
    parts: RQVAEParts,
    data: TrainingData,
    options: RQVAEOptions,
    *,
    generator: torch.Generator,
    progress: Progress,
) -> dict[str, float]:
    """Train `parts` in place; keeps the epoch that reconstructs best, or the last one where pairs are learned too.

    Early stop watches the catalogue itself: its items are what the codes are for. Returns the relative squared
    error before (`start`) and after (`best`), how many `epochs` were run and how many codes `restarted`.
    """
    for codebook in parts.quantizer.codebooks:
        codebook.requires_grad_(True)
    optimizer = _optimizer(parts, options)
    report = {"start": _error(parts, data), "best": 0.0, "epochs": 0, "restarted": 0}
    report["best"] = report["start"]
    best, waited = copy.deepcopy(parts), 0
    with freed_memory_kept(), progress.track("RQ-VAE", total=options.epochs, unit="epochs") as task:
        for epoch in range(options.epochs):
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * (1.0 - epoch / options.epochs)
            report["restarted"] += _epoch(parts, data, options, optimizer, generator=generator)
            report["epochs"] = epoch + 1
            error = _error(parts, data)
            task.advance(note=f"error {error:.4f}")
            waited = 0 if error < report["best"] * (1.0 - _PLATEAU) else waited + 1
            # Codes that follow behaviour reconstruct content a little worse: that is what was asked for.
            if error < report["best"] or options.pair_weight > 0.0:
                report["best"], best = error, copy.deepcopy(parts)
            if waited >= options.patience and options.pair_weight == 0.0:
                break
    _restore(parts, best)
    return report


def _epoch(
    parts: RQVAEParts,
    data: TrainingData,
    options: RQVAEOptions,
    optimizer: torch.optim.Optimizer,
    *,
    generator: torch.Generator,
) -> int:
    """One pass in seeded order; then prices are updated and dead codes restarted. How many were."""
    for rows in torch.randperm(len(data.points), generator=generator).split(options.batch_size):
        loss = _loss(parts, data, rows, options, generator)
        if options.pair_weight > 0.0 and len(data.pairs):
            drawn = torch.randint(len(data.pairs), (options.batch_size,), generator=generator)
            loss = loss + options.pair_weight * _pair_loss(parts, data, data.pairs[drawn], options)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return _refresh(parts, data, generator)


def _loss(
    parts: RQVAEParts, data: TrainingData, rows: Tensor, options: RQVAEOptions, generator: torch.Generator
) -> Tensor:
    latents = parts.encoder(data.inputs(rows, options.modality_dropout, generator))  # (B, Z)
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
    kept = torch.full((len(rows),), len(partial) - 1)
    if len(partial) > 1:
        cut = torch.rand(len(rows), generator=generator) < options.prefix_dropout
        shorter = torch.randint(len(partial) - 1, (len(rows),), generator=generator)
        kept = torch.where(cut, shorter, kept)
    quantized = partial[kept, torch.arange(len(rows))]
    # Straight-through (van den Oord et al. 2017): the decoder reads codes, the gradient passes by them.
    through = latents + (quantized - latents).detach()
    counts = data.counts[rows]
    error = (parts.decode(through) - data.points[rows]).square() * counts
    return error.sum() / counts.sum().clamp(min=1.0) + codebook + options.commitment * commitment


def _pair_loss(parts: RQVAEParts, data: TrainingData, pairs: Tensor, options: RQVAEOptions) -> Tensor:
    """InfoNCE between the quantized sums of pairs (B, 2), from `pair_level` on, mean over levels.

    In the spirit of LETTER (Wang et al. 2024, sec. 3.2) and MACRec; unlike theirs, only late levels take part. The
    other second items of the batch are the negatives; popular ones stand there too often, which is corrected by
    their share of the pairs (Yi et al. 2019).
    """
    latents = parts.encoder(data.points[pairs.flatten()])
    _, partial = parts.quantizer.walk(latents)
    levels = partial[min(options.pair_level, len(partial) - 1) :]
    # The value is the codes'; codebooks get its gradient, and past them (straight-through) so does the encoder.
    through = F.normalize(levels + (latents - latents.detach()), dim=2)
    first, second = through[:, 0::2], through[:, 1::2]  # (levels, B, Z)
    scores = first @ second.transpose(1, 2) / options.pair_temperature - data.pair_share[pairs[:, 1]].log()
    same = (pairs[:, 1][:, None] == pairs[:, 1][None]) & ~torch.eye(len(pairs), dtype=torch.bool)
    scores = scores.masked_fill(same, -torch.inf)  # the right answer, drawn twice, is no negative
    labels = torch.arange(len(pairs)).expand(len(levels), -1)
    return F.cross_entropy(scores.flatten(0, 1), labels.flatten())


@torch.no_grad()
def _refresh(parts: RQVAEParts, data: TrainingData, generator: torch.Generator) -> int:
    """Follow the moved latents: prices of every level, dead codes, and the last level's view."""
    quantizer, points = parts.quantizer, data.points
    levels = quantizer.num_levels - 1 if quantizer.view.shape[1] else quantizer.num_levels
    residuals = parts.encoder(points)
    restarted = 0
    codes = []
    for level in range(levels):
        dead = _unused(quantizer, residuals, level)
        if len(dead):
            restarted += len(dead)
            chosen = torch.randperm(len(points), generator=generator)[: len(dead)]
            quantizer.codebooks[level][dead] = residuals[chosen]
            # At distance zero and the best price, a restarted code has at least the item it was set on.
            quantizer.potentials[level][dead] = quantizer.potentials[level].max()
        # After the restarts: a code far from all items would be offered at any price.
        distances = squared_distances(residuals, quantizer.codebooks[level])
        quantizer.potentials[level] = update_potentials(distances, quantizer.potentials[level], weights=data.weights)
        code = quantizer.assign(residuals, level)
        codes.append(code)
        residuals = residuals - quantizer.codebooks[level][code]
    if levels == quantizer.num_levels:
        return restarted
    dead = _unused(quantizer, residuals, levels)
    if len(dead):
        prefixes = torch.stack(codes, dim=1) if codes else torch.zeros(len(points), 0, dtype=torch.int64)
        fit_last_level(quantizer, residuals, prefixes, generator=generator)
    return restarted + len(dead)


def _unused(quantizer: ResidualQuantizer, residuals: Tensor, level: int) -> Tensor:
    """Codes of a level that no residual takes, (≤ K,)."""
    code = quantizer.assign(residuals, level)
    return (torch.bincount(code, minlength=len(quantizer.codebooks[level])) == 0).nonzero().flatten()


@torch.no_grad()
def _error(parts: RQVAEParts, data: TrainingData) -> float:
    """Squared error of the reconstruction as a share of the variance, over what items really have."""
    _, partial = parts.quantizer.walk(parts.encoder(data.points))
    error = ((parts.decode(partial[-1]) - data.points).square() * data.counts).sum()
    return float(error / (data.points.square() * data.counts).sum().clamp(min=1e-12))


def _optimizer(parts: RQVAEParts, options: RQVAEOptions) -> torch.optim.Optimizer:
    groups = [
        {
            "params": [p for decoder in parts.decoders for p in decoder.parameters()],
            "initial_lr": options.learning_rate,
        },
        {"params": list(parts.encoder.parameters()), "initial_lr": options.encoder_learning_rate},
        # Decay would pull code vectors, which are means of data, to the origin.
        {
            "params": parts.quantizer.codebooks,
            "initial_lr": options.encoder_learning_rate,
            "weight_decay": 0.0,
        },
    ]
    return torch.optim.AdamW(groups, lr=options.learning_rate, weight_decay=options.weight_decay)


def _restore(parts: RQVAEParts, best: RQVAEParts) -> None:
    parts.encoder.load_state_dict(best.encoder.state_dict())
    for decoder, kept in zip(parts.decoders, best.decoders, strict=True):
        decoder.load_state_dict(kept.state_dict())
    parts.quantizer = best.quantizer
    parts.quantizer.codebooks = [codebook.detach() for codebook in best.quantizer.codebooks]
