"""Sounds to vectors without any model: classical descriptors, no learned weights.

What music and sound retrieval used before there were models: how the energy lies over the mel bands and how much
it moves, MFCCs and their deltas, and a few spectral shapes. Computed by librosa on frames of 46 ms; a window's
vector holds means and standard deviations over its frames, a sound's vector is the mean over its windows, as in
`audio_models.py`. T samples, F frames, D width.
"""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from genrec.encoders.checkpoints import fingerprint_of
from genrec.encoders.media import MediaFile
from genrec.encoders.sounds import SoundLimits, read_sound, windows

if TYPE_CHECKING:
    from types import ModuleType

_RATE = 22_050
_FRAME = 1024
_HOP = 512
_MELS = 64
_MFCCS = 20
_WINDOW_SECONDS = 10
_MAX_WINDOWS = 16
_FLOOR_DB = -80.0
# Per block: name, width, and a typical deviation of its components between sounds: fixed, rounded from the clips
# of ESC-10 (from their vectors, not their classes), so that a sound's vector depends on no other sound. A block is
# divided by it and by the root of its width: blocks count alike in a distance, whatever their unit and width.
_BLOCKS: dict[str, tuple[int, float]] = {
    "mel shape": (_MELS, 6.0),  # dB of a band below or above the mean band
    "mel movement": (_MELS, 4.5),  # dB, standard deviation over time
    "mfcc": (_MFCCS - 1, 9.0),
    "mfcc movement": (_MFCCS - 1, 4.5),
    "mfcc deltas": (_MFCCS - 1, 0.65),
    "contrast": (7, 6.0),  # dB between peaks and valleys of a band
    "contrast movement": (7, 3.0),
    "shape": (10, 0.08),  # centroid, bandwidth, roll-off, flatness, zero crossings: mean and movement, all in 0…1
    "chroma": (12, 0.2),
    "level": (3, 5.5),  # dB: mean, movement, mean rise from frame to frame
}
_VERSION = 1  # raised when a vector of the same sound changes


class AudioDescriptors:
    """Classical descriptors of sounds, no learned weights: width 224, see `_BLOCKS`."""

    modality = "audio"
    model = "classical descriptors, no learned weights"
    width = sum(width for width, _ in _BLOCKS.values())

    def __init__(self, *, limits: SoundLimits) -> None:
        """Nothing to load; librosa is imported with the first sound."""
        self._limits = limits
        self.revision = f"{_VERSION}, librosa {importlib.metadata.version('librosa')}"
        self.fingerprint = fingerprint_of({"version": self.revision, "blocks": _BLOCKS, "windows": _MAX_WINDOWS})

    def content(self, value: MediaFile) -> bytes:
        """The checksum of the file."""
        return value.content()

    def read(self, value: MediaFile) -> NDArray[np.float32]:
        """The descriptors (D,) themselves: nothing larger needs to be kept of a sound."""
        samples = read_sound(value.locate(), rate=_RATE, limits=self._limits)
        cut = windows(samples, length=_WINDOW_SECONDS * _RATE, most=_MAX_WINDOWS)
        return np.mean([describe(window) for window in cut], axis=0, dtype=np.float32)

    def encode(self, values: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Vectors (N, D): the descriptors, stacked."""
        return np.stack(values)


def describe(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Descriptors (D,) of samples (T,) at 22,050 Hz, blocks scaled to count alike."""
    blocks = _blocks(samples)
    parts = []
    for name, (width, typical) in _BLOCKS.items():
        assert blocks[name].shape == (width,), (name, blocks[name].shape)
        parts.append(blocks[name] / (typical * np.sqrt(width)))
    return np.concatenate(parts).astype(np.float32)


def _blocks(samples: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    # Imported here: it brings numba, which takes seconds, and not every run has sounds.
    import librosa

    # One frame at least, and none that starts with a click where the sound is cut.
    padded = np.pad(samples, (0, max(0, 2 * _FRAME - len(samples))))
    magnitudes = np.abs(librosa.stft(padded, n_fft=_FRAME, hop_length=_HOP))  # (bins, F)
    power = magnitudes**2
    mel = librosa.feature.melspectrogram(S=power, sr=_RATE, n_mels=_MELS)
    decibels = np.maximum(librosa.power_to_db(mel, ref=float(_FRAME), top_db=None), _FLOOR_DB)  # (mels, F)
    mfcc = librosa.feature.mfcc(S=decibels, n_mfcc=_MFCCS)[1:]  # the first one is the level, which has its own block
    contrast = librosa.feature.spectral_contrast(S=magnitudes, sr=_RATE, fmin=200.0, n_bands=6)
    shape = _shape(librosa, padded, magnitudes)
    level = decibels.mean(axis=0)
    means = decibels.mean(axis=1)
    return {
        "mel shape": means - means.mean(),
        "mel movement": decibels.std(axis=1),
        "mfcc": mfcc.mean(axis=1),
        "mfcc movement": mfcc.std(axis=1),
        "mfcc deltas": librosa.feature.delta(mfcc, mode="nearest").std(axis=1),
        "contrast": contrast.mean(axis=1),
        "contrast movement": contrast.std(axis=1),
        "shape": np.concatenate([shape.mean(axis=1), shape.std(axis=1)]),
        # Without a tuning: its estimate is slow and says little of sounds that are no music.
        "chroma": librosa.feature.chroma_stft(S=power, sr=_RATE, tuning=0.0).mean(axis=1),
        "level": np.array([level.mean(), level.std(), np.maximum(np.diff(level), 0.0).mean()]),
    }


def _shape(librosa: ModuleType, samples: NDArray[np.float32], magnitudes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Five numbers per frame (5, F), from 0 to 1: frequencies are shares of half the rate."""
    half = _RATE / 2
    rows = [
        librosa.feature.spectral_centroid(S=magnitudes, sr=_RATE) / half,
        librosa.feature.spectral_bandwidth(S=magnitudes, sr=_RATE) / half,
        librosa.feature.spectral_rolloff(S=magnitudes, sr=_RATE) / half,
        librosa.feature.spectral_flatness(S=magnitudes),
        librosa.feature.zero_crossing_rate(samples, frame_length=_FRAME, hop_length=_HOP),
    ]
    return np.concatenate(rows)
