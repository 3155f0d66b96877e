"""What encoders share about the models that they load: where they lie, which weights they are, how they compute."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn


def folder_checksum(folder: Path) -> str:
    """Of the configuration and weights of a model folder: names and bytes, wherever the folder lies."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.suffix in {".json", ".safetensors", ".bin", ".txt", ".model"}:
            digest.update(file.relative_to(folder).as_posix().encode())
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def fingerprint_of(settings: Mapping[str, object]) -> str:
    """Sixteen hexadecimal digits that name an encoder's settings (JSON values)."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def commit_hash(encoder: SentenceTransformer) -> str:
    """Which weights a sentence-transformers model from a hub has: their commit, of a static model their checksum."""
    inner = getattr(encoder[0], "auto_model", None)
    if inner is not None:
        return str(inner.config._commit_hash)
    digest = hashlib.sha256()
    for name, weights in sorted(encoder.state_dict().items()):
        digest.update(name.encode() + weights.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def inner_model(encoder: SentenceTransformer) -> nn.Module:
    """The transformers model inside a sentence-transformers model."""
    return getattr(encoder[0], "model")  # noqa: B009 (untyped in the library)


def replace_inner_model(encoder: SentenceTransformer, module: nn.Module) -> None:
    """Put another module into the place of the transformers model."""
    setattr(encoder[0], "model", module)  # noqa: B010


def preprocess(encoder: SentenceTransformer, values: list[Any], *, prompt: str | None) -> dict[str, Any]:
    """N inputs as its tensors, on its device, as its `encode` makes them: None is its default prompt."""
    if prompt is None and encoder.default_prompt_name is not None:
        prompt = encoder.prompts[encoder.default_prompt_name]
    features = encoder.preprocess(values, prompt=prompt)
    return {name: value.to(encoder.device) if isinstance(value, Tensor) else value for name, value in features.items()}


def first_line(error: Exception) -> str:
    """What a library says when a model cannot be loaded, without the pages that follow."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
