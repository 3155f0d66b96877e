"""Vectors by content: what was encoded once is never encoded again.

    RUN/embeddings/cache/<modality>-<fingerprint>/000017.npy    float32 (N, D)
                                                  000017.json   N keys, SHA-256 of fingerprint and content

Shards are only ever added. The keys are written after the vectors, both atomically, so a shard counts once
its keys are there: a killed run loses the group of items it was encoding, and nothing else. The order of the
catalogue plays no part.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from genrec.encoders.base import InputT, ItemEncoder
from genrec.errors import ModelError, RunError
from genrec.progress import SILENT, Progress
from genrec.run import Run, array_stream, atomic_file, write_json


class VectorCache:
    """The shards of one encoder in one run, opened once."""

    def __init__(self, run: Run, *, modality: str, fingerprint: str, width: int) -> None:
        self._folder = run.path / "embeddings" / "cache" / f"{modality}-{fingerprint}"
        self._fingerprint = fingerprint.encode()
        self._width = width
        self._shards: list[NDArray[np.float32]] = []
        self._places: dict[str, tuple[int, int]] = {}  # key → shard, row
        for keys_file in sorted(self._folder.glob("*.json")):
            self._enter(_read_keys(keys_file), self._read_shard(keys_file.with_suffix(".npy")), keys_file)

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def __len__(self) -> int:
        return len(self._places)

    def key(self, content: bytes) -> str:
        """The key of an input's bytes."""
        return hashlib.sha256(self._fingerprint + b"\0" + content).hexdigest()

    def vector(self, key: str) -> NDArray[np.float32]:
        """The vector (D,) of a key that the cache holds."""
        shard, row = self._places[key]
        return self._shards[shard][row]

    def append(self, keys: list[str], vectors: NDArray[np.float32]) -> None:
        """Add a shard of N new vectors (N, D), safe on disk when this returns."""
        name = f"{len(self._shards):06d}"
        with atomic_file(self._folder / f"{name}.npy") as temporary, array_stream(temporary) as stream:
            np.save(stream, vectors, allow_pickle=False)
        keys_file = self._folder / f"{name}.json"
        write_json(keys_file, keys)
        self._enter(keys, vectors, keys_file)

    def _enter(self, keys: list[str], vectors: NDArray[np.float32], file: Path) -> None:
        if vectors.shape != (len(keys), self._width):
            raise _damaged(file, f"{len(keys)} keys for vectors of shape {vectors.shape}")
        shard = len(self._shards)
        self._shards.append(vectors)
        self._places.update({key: (shard, row) for row, key in enumerate(keys)})

    def _read_shard(self, file: Path) -> NDArray[np.float32]:
        try:
            vectors = np.load(file, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise _damaged(file, str(error)) from error
        return np.asarray(vectors, dtype=np.float32)


def encode_items(
    encoder: ItemEncoder[InputT],
    inputs: Sequence[InputT | None],
    *,
    run: Run,
    group_size: int,
    progress: Progress = SILENT,
) -> tuple[NDArray[np.float32], NDArray[np.bool_], int]:
    """Vectors (I, D), mask (I,) and the number of inputs that had to be encoded now.

    None is a missing input: a zero vector, masked. Inputs with equal content are encoded once. What is new is
    encoded longest first, `group_size` inputs at a time, each group safe on disk before the next one starts.
    Raises ModelError where the encoder gives vectors that are not finite.
    """
    cache = VectorCache(run, modality=encoder.modality, fingerprint=encoder.fingerprint, width=encoder.width)
    contents = [None if value is None else encoder.content(value) for value in inputs]
    keys = [None if content is None else cache.key(content) for content in contents]
    new: dict[str, tuple[int, InputT]] = {}
    for key, content, value in zip(keys, contents, inputs, strict=True):
        if key is not None and content is not None and value is not None and key not in cache:
            new[key] = (len(content), value)
    # Longest first: a batch holds inputs of one length, and what does not fit into memory fails at once.
    order = sorted(new, key=lambda key: (-new[key][0], key))
    with progress.track(f"encoding {encoder.modality}", total=len(order), unit="items") as task:
        for start in range(0, len(order), group_size):
            group = order[start : start + group_size]
            vectors = encoder.encode([new[key][1] for key in group])
            if not np.isfinite(vectors).all():
                raise ModelError(f"{encoder.model} gives vectors that are not finite.", "Use another model.")
            cache.append(group, vectors)
            task.advance(len(group))
    result = np.zeros((len(inputs), encoder.width), dtype=np.float32)
    for row, key in enumerate(keys):
        if key is not None:
            result[row] = cache.vector(key)
    return result, np.array([key is not None for key in keys], dtype=bool), len(order)


def _read_keys(file: Path) -> list[str]:
    try:
        keys = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(file, str(error)) from error
    return [str(key) for key in keys]


def _damaged(file: Path, reason: str) -> RunError:
    return RunError(
        f"{file} is damaged: {reason}.",
        f"Delete {file.with_suffix('.json').name} and {file.with_suffix('.npy').name} in {file.parent}; "
        "only their items are encoded again.",
    )
