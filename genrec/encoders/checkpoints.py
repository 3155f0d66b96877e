"""What encoders share about the models that they load: where they lie, which weights they are, how they compute."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer


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


def multiplies_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware; elsewhere bfloat16 is slower than float32."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def commit_hash(encoder: SentenceTransformer) -> str:
    """The commit of the weights of a sentence-transformers model that came from a hub."""
    config = getattr(encoder[0], "auto_model").config  # noqa: B009 (untyped in the library)
    return str(config._commit_hash)


def first_line(error: Exception) -> str:
    """What a library says when a model cannot be loaded, without the pages that follow."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
