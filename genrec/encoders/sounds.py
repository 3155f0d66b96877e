"""A sound file to samples: mono, float32, at the rate that an encoder wants; and samples to windows.

Everything that libsndfile decodes is read (WAV, FLAC, Ogg Vorbis and Opus, MP3, AIFF, …), in blocks, so that a
limit is met before the memory is full. T samples, W windows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from genrec.errors import UnreadableInputError

_BLOCK_FRAMES = 1 << 16
_UNKNOWN_FRAMES = 1 << 62  # libsndfile says so where a header does not tell the length
# "data : 96000 (should be 49956)": what the header promises, what the file has. Streamed files promise 2^32 - 1.
_PROMISED_BYTES = re.compile(r"^ *(?:data|SSND) : (\d+) \(should be (\d+)\)", re.MULTILINE)
_STREAMED_BYTES = (1 << 32) - (1 << 16)
# MP3 encoders pad and count a little differently; a file that stops earlier than this has been cut off.
_WHOLE = 0.95


@dataclass(frozen=True)
class SoundLimits:
    """What is refused: nothing of a refused file is held in memory."""

    max_seconds: float = 1800.0
    max_channels: int = 64


def read_sound(file: Path, *, rate: int, limits: SoundLimits) -> NDArray[np.float32]:
    """Samples (T,) of a file at `rate` hertz, the mean of its channels, within -1 and 1 as a player plays them.

    Silence is a sound like any other. Raises UnreadableInputError where the file is no sound, is damaged or cut
    off, has no samples or some that are not numbers, or is beyond `limits`.
    """
    try:
        with file.open("rb") as stream, soundfile.SoundFile(stream) as sound:
            _check_header(sound, limits)
            return _resampled(_mono_blocks(sound, limits), from_rate=sound.samplerate, rate=rate)
    # TypeError: a name that ends in .raw, whose layout nothing tells.
    except (soundfile.SoundFileError, OSError, TypeError, ValueError) as error:
        raise UnreadableInputError(f"is not a sound that can be decoded ({_reason(error)})") from error


def window_starts(num_samples: int, *, length: int, most: int) -> list[int]:
    """First samples (W,) of at most `most` windows of `length` samples, evenly spread over a sound.

    The first window starts with the sound and the last one ends with it. As many as cover the sound without a
    gap; where that is more than `most`, `most` with gaps. A sound that is shorter than a window has one window,
    the only case in which a window is not full.
    """
    spare = num_samples - length
    if spare <= 0:
        return [0]
    count = min(most, -(-num_samples // length))
    return [round(start) for start in np.linspace(0, spare, count).tolist()]


def windows(samples: NDArray[np.float32], *, length: int, most: int) -> list[NDArray[np.float32]]:
    """W views of (T,) samples: `window_starts` to the samples themselves."""
    return [samples[start : start + length] for start in window_starts(len(samples), length=length, most=most)]


def _check_header(sound: soundfile.SoundFile, limits: SoundLimits) -> None:
    if sound.channels > limits.max_channels:
        raise UnreadableInputError(f"has {sound.channels} channels, more than {limits.max_channels}")
    seconds = sound.frames / sound.samplerate
    if sound.frames < _UNKNOWN_FRAMES and seconds > limits.max_seconds:
        raise UnreadableInputError(f"is {seconds:,.0f} s long, longer than the limit of {limits.max_seconds:g} s")
    promise = _PROMISED_BYTES.search(sound.extra_info)
    if promise:
        promised, present = int(promise[1]), int(promise[2])
        if promised < _STREAMED_BYTES and present < _WHOLE * promised:
            raise UnreadableInputError(f"is cut off: {present:,} of {promised:,} bytes of sound are there")


def _mono_blocks(sound: soundfile.SoundFile, limits: SoundLimits) -> Iterator[NDArray[np.float32]]:
    """Blocks of the file at its own rate, checked while they are read."""
    num_frames = 0
    while len(block := sound.read(_BLOCK_FRAMES, dtype="float32", always_2d=True)):
        if not np.isfinite(block).all():
            raise UnreadableInputError("holds samples that are not numbers")
        num_frames += len(block)
        if num_frames > limits.max_seconds * sound.samplerate:
            raise UnreadableInputError(f"is longer than the limit of {limits.max_seconds:g} s")
        yield np.clip(block, -1.0, 1.0).mean(axis=1, dtype=np.float32)
    if num_frames == 0:
        raise UnreadableInputError("holds no samples")
    if sound.frames < _UNKNOWN_FRAMES and num_frames < _WHOLE * sound.frames:
        raise UnreadableInputError(f"is cut off: {num_frames:,} of {sound.frames:,} samples could be decoded")


def _resampled(blocks: Iterator[NDArray[np.float32]], *, from_rate: int, rate: int) -> NDArray[np.float32]:
    if from_rate == rate:
        return np.concatenate(list(blocks))
    # As a stream: the result is that of the whole sound, and the samples at the old rate are not kept.
    stream = soxr.ResampleStream(from_rate, rate, 1, dtype="float32")
    parts = [stream.resample_chunk(block) for block in blocks]
    parts.append(stream.resample_chunk(np.zeros(0, dtype=np.float32), last=True))
    samples = np.concatenate(parts)
    if not len(samples):
        raise UnreadableInputError(f"is shorter than one sample at {rate:,} Hz")
    return np.clip(samples, -1.0, 1.0)


def _reason(error: Exception) -> str:
    """The last words of libsndfile, without the file object that it names."""
    text = str(error).strip().rstrip(".") or type(error).__name__
    return text.rsplit(">: ", 1)[-1].removeprefix("Error : ")
