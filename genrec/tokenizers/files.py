"""A tokenizer on disk: `tokenizer.json` says what it is, `tokenizer.safetensors` holds its numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from genrec.errors import RunError
from genrec.run import file_checksum, read_json, text_checksum, write_json
from genrec.tokenizers.quantizer import ResidualQuantizer

_AGAIN = "Run `genrec tokenize RUN` again."


def write_tokenizer(folder: Path, *, facts: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write both files into an existing folder."""
    write_json(folder / "tokenizer.json", facts)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "tokenizer.safetensors")


def read_tokenizer(folder: Path, *, method: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read both files. Raises RunError where they are missing, damaged or of another method."""
    facts = read_json(folder / "tokenizer.json")
    if facts.get("method") != method:
        raise RunError(f"{folder} holds a {facts.get('method')} tokenizer, expected {method}.", _AGAIN)
    file = folder / "tokenizer.safetensors"
    try:
        return facts, load_file(file)
    except (OSError, SafetensorError) as error:
        raise RunError(f"{file} cannot be read: {error}.", _AGAIN) from error


def tokenizer_checksum(folder: Path) -> str:
    """One checksum of all files of a tokenizer: equal where two runs give equal vectors equal codes."""
    return text_checksum([line for file in sorted(folder.iterdir()) for line in (file.name, file_checksum(file))])


def quantizer_tensors(quantizer: ResidualQuantizer) -> dict[str, Tensor]:
    """A quantizer as named tensors."""
    tensors = {"quantizer.view": quantizer.view, "quantizer.keys": quantizer.keys}
    for level, (codebook, potentials) in enumerate(zip(quantizer.codebooks, quantizer.potentials, strict=True)):
        tensors |= {f"quantizer.codebooks.{level}": codebook, f"quantizer.potentials.{level}": potentials}
    return tensors


def quantizer_from(tensors: dict[str, Tensor]) -> ResidualQuantizer:
    """A quantizer of named tensors. Raises RunError where one is missing."""
    levels = sum(name.startswith("quantizer.codebooks.") for name in tensors)
    names = [f"{part}.{level}" for part in ("codebooks", "potentials") for level in range(max(1, levels))]
    missing = [name for name in (*names, "view", "keys") if f"quantizer.{name}" not in tensors]
    if missing:
        raise RunError(f"The tokenizer's file lacks {', '.join(missing)}.", _AGAIN)
    codebooks, potentials = (
        [tensors[f"quantizer.{part}.{level}"] for level in range(levels)] for part in ("codebooks", "potentials")
    )
    return ResidualQuantizer(codebooks, potentials, tensors["quantizer.view"], tensors["quantizer.keys"])
