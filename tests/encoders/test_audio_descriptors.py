"""Classical descriptors of sounds: what they do not depend on, what they tell apart, on made and on real sounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from genrec.encoders.audio_descriptors import AudioDescriptors, describe
from genrec.encoders.media import MediaFile
from genrec.encoders.sounds import SoundLimits

RATE = 22_050


@pytest.fixture
def encoder() -> AudioDescriptors:
    return AudioDescriptors(limits=SoundLimits())


def vector(encoder: AudioDescriptors, folder: Path, samples: NDArray[np.float64]) -> NDArray[np.float32]:
    soundfile.write(folder / "sound.wav", samples, RATE, subtype="FLOAT")
    return encoder.encode([encoder.read(MediaFile(folder, "sound.wav"))])[0]


def noise(seed: int, seconds: float = 1.0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).uniform(-0.3, 0.3, round(seconds * RATE))


def tone(frequency: float, seconds: float = 1.0) -> NDArray[np.float64]:
    return 0.3 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * RATE)) / RATE)


def test_every_sound_has_a_vector_of_one_width_however_short_or_silent(
    encoder: AudioDescriptors, tmp_path: Path
) -> None:
    for samples in (np.zeros(1), np.zeros(RATE), noise(0, 0.01), noise(0, 25.0), np.ones(5000)):
        found = vector(encoder, tmp_path, samples)
        assert found.shape == (encoder.width,) == (224,)
        assert np.isfinite(found).all()


def test_two_noises_are_nearer_to_each_other_than_to_a_tone(encoder: AudioDescriptors, tmp_path: Path) -> None:
    first, second, low, high = (
        vector(encoder, tmp_path, samples) for samples in (noise(1), noise(2), tone(300), tone(3000))
    )
    assert np.linalg.norm(first - second) * 5 < np.linalg.norm(first - low)
    assert np.linalg.norm(low - high) > np.linalg.norm(first - second)


def test_two_equal_channels_are_one_and_another_rate_changes_little(encoder: AudioDescriptors, tmp_path: Path) -> None:
    mono = vector(encoder, tmp_path, tone(440))
    np.testing.assert_array_equal(vector(encoder, tmp_path, np.stack([tone(440)] * 2, axis=1)), mono)
    soundfile.write(tmp_path / "fast.wav", 0.3 * np.sin(2 * np.pi * 440 * np.arange(44_100) / 44_100), 44_100)
    fast = encoder.read(MediaFile(tmp_path, "fast.wav"))
    assert np.linalg.norm(fast - mono) < 0.5 * np.linalg.norm(vector(encoder, tmp_path, tone(880)) - mono)


def test_a_sound_longer_than_a_window_is_the_mean_of_its_windows(encoder: AudioDescriptors, tmp_path: Path) -> None:
    samples = np.concatenate([noise(3, 10.0), tone(500, 10.0)])
    halves = [describe(half.astype(np.float32)) for half in np.split(samples, 2)]
    np.testing.assert_allclose(vector(encoder, tmp_path, samples), np.mean(halves, axis=0), atol=1e-5)


def test_only_the_level_block_knows_how_loud_a_sound_is() -> None:
    loud = noise(4).astype(np.float32)
    difference = np.abs(describe(loud) - describe(loud / 4))
    assert (np.flatnonzero(difference > 1e-3) == 221).all()
    assert difference[221] > 0.5


@pytest.mark.benchmark_data
def test_a_real_dog_is_nearer_to_another_dog_than_to_rain_or_the_sea(
    encoder: AudioDescriptors, data_folder: Path
) -> None:
    root = data_folder / "esc10"
    folders = sorted(folder for folder in root.iterdir() if folder.is_dir())[:3]
    files = [sorted(folder.glob("*.ogg"))[take] for folder in folders for take in (0, 4, 8, 12)]
    made = encoder.encode([encoder.read(MediaFile(root, str(file.relative_to(root)))) for file in files])
    distances = np.linalg.norm(made[:, None] - made[None], axis=2) + np.diag(np.full(12, np.inf))
    nearest = distances.argmin(axis=1) // 4
    assert (nearest[:4] == 0).sum() >= 3  # of the four dogs; chance is one
