"""Projection heads: vectors of any modality to one common space; on disk as safetensors and JSON.

    RUN/alignment/alignment.json      modalities with their widths, shape of the heads, how they were trained
                  heads.safetensors   weights and the standardisation of each modality

I items, N rows, M modalities, D width of a modality, W width of the common space.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from genrec.encoders.alignment_losses import fuse
from genrec.errors import ConfigError, RunError
from genrec.files import atomic_file
from genrec.run import Run, read_json, write_json

_AGAIN = "Run `genrec embed RUN --align` again."
_CHUNK_ROWS = 8192


class Head(nn.Module):
    """A linear map and a small MLP beside it, after standardisation; rows of length 1 come out.

    The MLP starts at zero, so an untrained head is a random projection, which keeps angles.
    """

    mean: Tensor  # (D,)
    scale: Tensor  # ()

    def __init__(self, width_in: int, width: int, hidden_width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width_in))
        self.register_buffer("scale", torch.ones(()))
        self.linear = nn.Linear(width_in, width, bias=False)
        self.hidden = nn.Linear(width_in, hidden_width)
        self.out = nn.Linear(hidden_width, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def standardise_by(self, vectors: Tensor) -> None:
        """Take mean and overall scale from present vectors (N, D)."""
        self.mean.copy_(vectors.mean(dim=0))
        self.scale.copy_((vectors - self.mean).square().mean().sqrt().clamp(min=1e-6))

    def standardised(self, vectors: Tensor) -> Tensor:
        """Vectors (N, D) around zero, on a common scale."""
        return (vectors - self.mean) / self.scale

    def forward(self, vectors: Tensor) -> Tensor:
        """Projections (N, W) of length 1 of vectors (N, D)."""
        points = self.standardised(vectors)
        return F.normalize(self.linear(points) + self.out(F.gelu(self.hidden(points))), dim=1)


class Heads(nn.Module):
    """One head per modality, in a fixed order."""

    def __init__(self, widths: Mapping[str, int], *, width: int, hidden_width: int) -> None:
        super().__init__()
        self.widths, self.width, self.hidden_width = dict(widths), width, hidden_width
        self.heads = nn.ModuleList([Head(width_in, width, hidden_width) for width_in in widths.values()])

    def __getitem__(self, modality: str) -> Head:
        head = self.heads[list(self.widths).index(modality)]
        assert isinstance(head, Head)
        return head


@dataclass(frozen=True)
class Alignment:
    """Trained heads of a run: what projects new items without touching the others."""

    heads: Heads

    @property
    def modalities(self) -> dict[str, int]:
        """Width D of every modality that it reads."""
        return dict(self.heads.widths)

    @torch.no_grad()
    def project_modality(self, modality: str, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Projections (N, W) of length 1 of one modality's vectors (N, D). Raises ConfigError for others."""
        self._check(modality, vectors)
        head = self.heads[modality]
        chunks = [vectors[start : start + _CHUNK_ROWS] for start in range(0, len(vectors), _CHUNK_ROWS)]
        projected = [head(torch.from_numpy(np.ascontiguousarray(chunk, dtype=np.float32))).numpy() for chunk in chunks]
        return np.concatenate([np.zeros((0, self.heads.width), np.float32), *projected])

    def project(
        self, vectors: Mapping[str, NDArray[np.float32]], masks: Mapping[str, NDArray[np.bool_]]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Fused vectors (N, W) of length 1, zero where nothing is present, and their mask (N,).

        `vectors` (N, D) and `masks` (N,), True = present, by modality; a modality that is left out is missing
        throughout. Raises ConfigError for an unknown modality or another width.
        """
        if not vectors:
            raise ConfigError("There is no vector to project.", f"Give one of {', '.join(self.modalities)}.")
        present = np.stack([masks[modality] for modality in vectors], axis=1)
        stacked = np.zeros((*present.shape, self.heads.width), dtype=np.float32)
        for column, (modality, rows) in enumerate(vectors.items()):
            stacked[present[:, column], column] = self.project_modality(modality, rows[present[:, column]])
        return fuse(torch.from_numpy(stacked), torch.from_numpy(present)).numpy(), np.asarray(present.any(axis=1))

    def _check(self, modality: str, vectors: NDArray[np.float32]) -> None:
        expected = self.modalities.get(modality)
        if expected is None:
            raise ConfigError(
                f"This alignment does not know modality {modality!r}.", f"It reads {', '.join(self.modalities)}."
            )
        if vectors.ndim != 2 or vectors.shape[1] != expected:
            raise ConfigError(
                f"Vectors of {modality} have shape {vectors.shape}, expected (N, {expected}).",
                "Encode new items with the encoder that the run was embedded with.",
            )


def save_heads(run: Run, heads: Heads, *, facts: Mapping[str, Any]) -> list[Path]:
    """Write the heads and what is worth knowing of them; the paths written."""
    description, weights = _files(run)
    with atomic_file(weights) as temporary:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in heads.state_dict().items()}, temporary)
    shape = {"modalities": heads.widths, "width": heads.width, "hidden_width": heads.hidden_width}
    write_json(description, {**shape, **facts})
    return [description, weights]


def load_alignment(run: Run) -> Alignment:
    """The heads of a run. Raises RunError where they are missing, damaged or out of date."""
    run.require("align")
    description, weights = _files(run)
    facts = read_json(description)
    heads = Heads(facts["modalities"], width=facts["width"], hidden_width=facts["hidden_width"])
    try:
        heads.load_state_dict(load_file(weights))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise RunError(f"{weights} cannot be read: {error}.", _AGAIN) from error
    return Alignment(heads.eval())


def _files(run: Run) -> tuple[Path, Path]:
    folder = run.path / "alignment"
    return folder / "alignment.json", folder / "heads.safetensors"
