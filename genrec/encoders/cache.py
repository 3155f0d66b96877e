"""Vectors by content: what was encoded once is never encoded again.

    RUN/embeddings/cache/<modality>-<fingerprint>.records    one record per input, one after the other:
        32 bytes SHA-256 of fingerprint and content · float32 (D,) · 4 bytes CRC-32 of what stands before

Records are only ever appended, one batch at a time, each batch on disk before the next one is encoded: a killed
run loses the batch that it was encoding and nothing else. What a kill left half-written at the end is cut off. Two
processes may write to one file: each reads what the other has added before it adds its own.
The order of the catalogue plays no part. N inputs, I items, D width.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from genrec.encoders.base import ItemEncoder
from genrec.errors import ModelError, RunError, UnreadableInputError
from genrec.progress import SILENT, Progress
from genrec.run import Run

InputT = TypeVar("InputT")
DecodedT = TypeVar("DecodedT")
_KEY_BYTES = 32
_CHECK_BYTES = 4


class VectorCache:
    """The records of one encoder in one run, opened once."""

    def __init__(self, run: Run, *, modality: str, fingerprint: str, width: int) -> None:
        """Read what is there. Raises RunError where a record before the last whole one is damaged."""
        self._file = run.path / "embeddings" / "cache" / f"{modality}-{fingerprint}.records"
        self._fingerprint = fingerprint.encode()
        self._width = width
        self._record_bytes = _KEY_BYTES + 4 * width + _CHECK_BYTES
        self._parts: list[NDArray[np.float32]] = []
        self._places: dict[bytes, tuple[int, int]] = {}  # key → part, row
        self._whole_bytes = self._read()

    def __contains__(self, key: bytes) -> bool:
        return key in self._places

    def __len__(self) -> int:
        return len(self._places)

    def key(self, content: bytes) -> bytes:
        """The key of an input's bytes."""
        return hashlib.sha256(self._fingerprint + b"\0" + content).digest()

    def vector(self, key: bytes) -> NDArray[np.float32]:
        """The vector (D,) of a key that the cache holds."""
        part, row = self._places[key]
        return self._parts[part][row]

    def append(self, keys: Sequence[bytes], vectors: NDArray[np.float32]) -> None:
        """Add N vectors (N, D), safe on disk when this returns. Raises RunError on a full disk."""
        assert vectors.shape == (len(keys), self._width), (vectors.shape, len(keys), self._width)
        vectors = np.ascontiguousarray(vectors, dtype="<f4")
        records = bytearray()
        for key, vector in zip(keys, vectors, strict=True):
            record = key + vector.tobytes()
            records += record + zlib.crc32(record).to_bytes(_CHECK_BYTES, "little")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("a+b") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX)  # nobody else is writing: what is not whole, a killed run left
                if stream.seek(0, os.SEEK_END) < self._whole_bytes:  # somebody deleted the cache meanwhile
                    self._whole_bytes = 0
                stream.seek(self._whole_bytes)
                self._whole_bytes += self._enter_records(stream.read())
                stream.truncate(self._whole_bytes)
                stream.write(records)
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise RunError(
                f"{self._file} could not be written: {error.strerror or error}.",
                "What was encoded before is safe. Free some disk space, then run `genrec embed RUN` again.",
            ) from error
        self._whole_bytes += len(records)
        self._enter(keys, vectors)

    def _read(self) -> int:
        """Enter the whole records of the file; their size in bytes."""
        return self._enter_records(self._file.read_bytes()) if self._file.is_file() else 0

    def _enter_records(self, content: bytes) -> int:
        """Enter the whole records at the beginning of `content`; their size in bytes."""
        size = self._record_bytes
        starts = range(0, len(content) - size + 1, size)
        whole = [self._is_whole(content[start : start + size]) for start in starts]
        # A kill or a power cut damages the end only; anything else is not ours to mend.
        count = next((row for row, fine in enumerate(whole) if not fine), len(whole))
        if any(whole[count:]) or (whole and count == 0 and not self._places):
            raise RunError(
                f"{self._file} is damaged: record {count} of {len(whole)} does not fit its checksum.",
                "Delete this file; its items are encoded again.",
            )
        rows = np.frombuffer(content, dtype=np.uint8, count=count * size).reshape(count, size)
        vectors = rows[:, _KEY_BYTES:-_CHECK_BYTES].copy().view("<f4").astype(np.float32, copy=False)
        self._enter([row[:_KEY_BYTES].tobytes() for row in rows], vectors)
        return count * size

    @staticmethod
    def _is_whole(record: bytes) -> bool:
        return zlib.crc32(record[:-_CHECK_BYTES]) == int.from_bytes(record[-_CHECK_BYTES:], "little")

    def _enter(self, keys: Sequence[bytes], vectors: NDArray[np.float32]) -> None:
        part = len(self._parts)
        self._parts.append(vectors)
        self._places.update({key: (part, row) for row, key in enumerate(keys)})


@dataclass(frozen=True, eq=False)
class EncodedItems:
    """What came of the inputs of one modality."""

    vectors: NDArray[np.float32]  # (I, D), zero where missing
    mask: NDArray[np.bool_]  # (I,), True = present
    num_encoded: int  # inputs that had to be encoded now; the cache had the others
    unreadable: dict[int, str]  # item_index → why its input cannot be read


def encode_items(
    encoder: ItemEncoder[InputT, DecodedT],
    inputs: Sequence[InputT | None],
    *,
    run: Run,
    batch_size: int,
    progress: Progress = SILENT,
) -> EncodedItems:
    """Encode what the cache does not have, `batch_size` inputs at a time, longest first.

    None is a missing input: a zero vector, masked. So is an input that the encoder cannot read; its reason is
    kept, it costs no other input anything, and the next run tries it again. Inputs with equal content are
    encoded once. Raises ModelError where the encoder gives vectors that are not finite.
    """
    cache = VectorCache(run, modality=encoder.modality, fingerprint=encoder.fingerprint, width=encoder.width)
    keys: list[bytes | None] = [None] * len(inputs)
    new: dict[bytes, tuple[int, InputT]] = {}
    unreadable: dict[int, str] = {}
    for row, value in enumerate(inputs):
        if value is None:
            continue
        try:
            content = encoder.content(value)
        except UnreadableInputError as error:
            unreadable[row] = error.reason
            continue
        key = keys[row] = cache.key(content)
        if key not in cache:
            new[key] = (len(content), value)
    # Longest first: a batch holds inputs of one length, and what does not fit into memory fails at once.
    order = sorted(new, key=lambda key: (-new[key][0], key))
    reasons: dict[bytes, str] = {}
    with progress.track(f"encoding {encoder.modality}", total=len(order), unit="items") as task:
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            reasons |= _encode_batch(encoder, {key: new[key][1] for key in batch}, cache)
            task.advance(len(batch))
    unreadable |= {row: reasons[key] for row, key in enumerate(keys) if key is not None and key in reasons}
    vectors, mask = _gather(cache, keys, encoder.width)
    return EncodedItems(vectors, mask, len(order) - len(reasons), dict(sorted(unreadable.items())))


def _encode_batch(
    encoder: ItemEncoder[InputT, DecodedT], batch: dict[bytes, InputT], cache: VectorCache
) -> dict[bytes, str]:
    """Encode what can be read into the cache; why the others cannot."""
    decoded: dict[bytes, DecodedT] = {}
    reasons: dict[bytes, str] = {}
    for key, value in batch.items():
        try:
            decoded[key] = encoder.read(value)
        except UnreadableInputError as error:
            reasons[key] = error.reason
    if decoded:
        vectors = encoder.encode(list(decoded.values()))
        if not np.isfinite(vectors).all():
            raise ModelError(f"{encoder.model} gives vectors that are not finite.", "Use another model.")
        cache.append(list(decoded), vectors)
    return reasons


def _gather(
    cache: VectorCache, keys: Sequence[bytes | None], width: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    vectors = np.zeros((len(keys), width), dtype=np.float32)
    mask = np.zeros(len(keys), dtype=bool)
    for row, key in enumerate(keys):
        if key is not None and key in cache:
            vectors[row], mask[row] = cache.vector(key), True
    return vectors, mask
