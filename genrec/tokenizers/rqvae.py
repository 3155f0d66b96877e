"""RQ-VAE: an encoder, residual codebooks and a decoder, learned together. The default tokenizer.

Lee et al. 2022 (residual quantization), TIGER (Rajput et al. 2023, sec. 3.1), LC-Rec (Zheng et al. 2023).
We deviate where it was measured to help (docs/experiments.md): encoder and decoder start as principal
components and codebooks as balanced k-means, so epoch 0 is as good as residual k-means; the encoder learns
slower than the decoder, or it shrinks its output until codes die; the last level separates items that share
a prefix (quantizer.py); and some items are decoded from a prefix (quantizer dropout, SoundStream,
Zeghidour et al. 2021), so that early codes mean something on their own.

Vectors of several modalities (fusion.py) have one decoder each, and a missing one costs nothing.

N items, D width, Z latent width, L levels, K codes of a level, M modalities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genrec.errors import RunError
from genrec.progress import SILENT, Progress
from genrec.tokenizers.base import PLAIN, Makeup, check_vectors
from genrec.tokenizers.files import quantizer_from, quantizer_tensors, read_tokenizer, write_tokenizer
from genrec.tokenizers.networks import SkipMLP, principal_components
from genrec.tokenizers.quantizer import ResidualQuantizer, fit_quantizer
from genrec.tokenizers.rqvae_training import RQVAEOptions, RQVAEParts, TrainingData, train

_CHUNK = 16_384  # items that are encoded or decoded at once


class RQVAE:
    """The learned tokenizer. `train_report` says after `fit` how training went."""

    method = "rqvae"

    def __init__(self, *, codebook_sizes: Sequence[int], options: RQVAEOptions | None = None) -> None:
        self.codebook_sizes = tuple(codebook_sizes)
        self.options = options or RQVAEOptions()
        self.train_report: dict[str, float] = {}
        self._parts: RQVAEParts | None = None

    def fit(
        self,
        vectors: NDArray[np.float32],
        *,
        seed: int,
        makeup: Makeup = PLAIN,
        progress: Progress = SILENT,
    ) -> None:
        """Learn from vectors (N, D). Raises DataError where there are fewer of them than codes on a level."""
        check_vectors(vectors, codebook_sizes=self.codebook_sizes)
        generator = torch.Generator().manual_seed(seed)
        points = torch.from_numpy(vectors)
        mean = points.mean(dim=0)
        # One scale for all dimensions: a scale each would let near-constant dimensions count like the rest.
        scale = (points - mean).square().mean().sqrt().clamp(min=1e-12)
        points = (points - mean) / scale
        width = points.shape[1]
        axes = principal_components(points, min(self.options.latent_width, width))
        weights = _weights(makeup, self.options.balance)
        heads = axes.T.split(list(makeup.widths or (width,)), dim=1)
        parts = RQVAEParts(
            mean=mean,
            scale=scale,
            encoder=_network(axes, self.options, seed),
            decoders=[_network(head, self.options, seed) for head in heads],
            quantizer=fit_quantizer(
                points @ axes,
                sizes=self.codebook_sizes,
                balanced=True,
                separate=self.options.separate,
                generator=generator,
                progress=progress,
                weights=weights,
            ),
        )
        data = TrainingData.of(points, makeup, mean=mean, scale=scale, weights=weights)
        self.train_report = train(parts, data, self.options, generator=generator, progress=progress)
        self._parts = parts

    @torch.no_grad()
    def encode(self, vectors: NDArray[np.float32]) -> NDArray[np.uint16]:
        """Codes (N, L) of vectors (N, D)."""
        parts = self._fitted()
        chunks = torch.from_numpy(vectors).split(_CHUNK)
        codes = torch.cat([parts.quantizer.encode(parts.latents(chunk)) for chunk in chunks])
        return codes.numpy().astype(np.uint16)

    @torch.no_grad()
    def reconstruct(self, codes: NDArray[np.uint16]) -> NDArray[np.float32]:
        """Vectors (N, D) of codes or prefixes of codes (N, ≤ L)."""
        parts = self._fitted()
        chunks = torch.from_numpy(codes.astype(np.int64)).split(_CHUNK)
        decoded = torch.cat([parts.decode(parts.quantizer.decode(chunk)) for chunk in chunks])
        vectors: NDArray[np.float32] = (decoded * parts.scale + parts.mean).numpy()
        return vectors

    @torch.no_grad()
    def last_costs(self, vectors: NDArray[np.float32], codes: NDArray[np.uint16]) -> NDArray[np.float32]:
        """Squared distance, minus the code's price, of every last code in the last level's view, (N, K)."""
        parts = self._fitted()
        latents = parts.latents(torch.from_numpy(vectors))
        costs: NDArray[np.float32] = parts.quantizer.last_costs(
            latents, torch.from_numpy(codes.astype(np.int64))
        ).numpy()
        return costs

    def save(self, folder: Path) -> None:
        """Write into an existing folder."""
        parts = self._fitted()
        facts = {
            "method": self.method,
            "codebook_sizes": list(self.codebook_sizes),
            "num_decoders": len(parts.decoders),
            "options": asdict(self.options),
        }
        tensors = {"mean": parts.mean, "scale": parts.scale, **quantizer_tensors(parts.quantizer)}
        decoders = [(f"decoders.{number}", decoder) for number, decoder in enumerate(parts.decoders)]
        for name, network in [("encoder", parts.encoder), *decoders]:
            tensors.update({f"{name}.{key}": value for key, value in network.state_dict().items()})
        write_tokenizer(folder, facts=facts, tensors=tensors)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote. Raises RunError where it is missing or damaged."""
        facts, tensors = read_tokenizer(folder, method=cls.method)
        options = RQVAEOptions(**facts["options"])
        made = cls(codebook_sizes=facts["codebook_sizes"], options=options)
        made._parts = RQVAEParts(
            mean=tensors["mean"],
            scale=tensors["scale"],
            encoder=_restored(tensors, "encoder", options),
            decoders=[_restored(tensors, f"decoders.{number}", options) for number in range(facts["num_decoders"])],
            quantizer=quantizer_from(tensors),
        )
        return made

    @property
    def quantizer(self) -> ResidualQuantizer:
        """Codebooks, prices and view."""
        return self._fitted().quantizer

    def _fitted(self) -> RQVAEParts:
        if self._parts is None:
            raise RunError("This tokenizer has not been fitted.", "Call fit or load first.")
        return self._parts


def _weights(makeup: Makeup, balance: float) -> Tensor | None:
    """What balanced codes take equal shares of, (N,) with mean 1; None where every item counts the same."""
    if makeup.uses is None or balance == 0.0:
        return None
    weights = (torch.from_numpy(makeup.uses).float() + 1.0) ** balance
    return weights / weights.mean()


def _network(linear: Tensor, options: RQVAEOptions, seed: int) -> SkipMLP:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SkipMLP(linear, hidden_width=options.hidden_width)


def _restored(tensors: dict[str, Tensor], name: str, options: RQVAEOptions) -> SkipMLP:
    prefix = f"{name}."
    state = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    network = _network(state["linear"], options, seed=0)
    network.load_state_dict(state)
    return network
