"""Sound files to samples and windows: real files of every format, whole and broken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from genrec.encoders.sounds import SoundLimits, read_sound, window_starts, windows
from genrec.errors import UnreadableInputError

LIMITS = SoundLimits()


def sine(frequency: float, *, rate: int, seconds: float = 1.0) -> NDArray[np.float32]:
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(round(rate * seconds)) / rate)).astype(np.float32)


def peak_frequency(samples: NDArray[np.float32], rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.fft.rfftfreq(len(samples), 1 / rate)[spectrum.argmax()])


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg", "mp3", "aiff"])
@pytest.mark.parametrize(("from_rate", "rate"), [(44_100, 16_000), (16_000, 48_000), (22_050, 22_050)])
def test_a_sine_keeps_its_frequency_and_length_in_every_format(
    tmp_path: Path, ending: str, from_rate: int, rate: int
) -> None:
    file = tmp_path / f"tone.{ending}"
    soundfile.write(file, sine(440, rate=from_rate), from_rate)
    samples = read_sound(file, rate=rate, limits=LIMITS)
    assert samples.dtype == np.float32
    assert len(samples) == pytest.approx(rate, rel=0.06)  # MP3 encoders pad
    assert peak_frequency(samples, rate) == pytest.approx(440, abs=2)
    assert np.abs(samples).max() == pytest.approx(0.5, abs=0.05)


def test_blocks_are_resampled_without_a_seam(tmp_path: Path) -> None:
    soxr = pytest.importorskip("soxr")
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 200_000).astype(np.float32)  # several blocks
    soundfile.write(tmp_path / "noise.wav", noise, 44_100, subtype="FLOAT")
    found = read_sound(tmp_path / "noise.wav", rate=16_000, limits=LIMITS)
    np.testing.assert_allclose(found, soxr.resample(noise, 44_100, 16_000), atol=1e-4)


def test_channels_are_averaged_and_samples_clipped_as_a_player_clips_them(tmp_path: Path) -> None:
    left, right = sine(440, rate=8000), sine(880, rate=8000)
    soundfile.write(tmp_path / "two.wav", np.stack([left, right], axis=1), 8000, subtype="FLOAT")
    found = read_sound(tmp_path / "two.wav", rate=8000, limits=LIMITS)
    np.testing.assert_allclose(found, (left + right) / 2, atol=1e-6)
    soundfile.write(tmp_path / "loud.wav", 1e30 * left, 8000, subtype="FLOAT")
    assert np.abs(read_sound(tmp_path / "loud.wav", rate=4000, limits=LIMITS)).max() == 1.0


BREAKERS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "text.wav": (lambda _: b"This is a text that somebody named .wav.\n" * 20, "not a sound that can be decoded"),
    "half.wav": (lambda content: content[: len(content) // 2], "is cut off: .* bytes of sound"),
    "start.wav": (lambda content: content[:20], "not a sound that can be decoded"),
    "half.flac": (lambda content: content[: len(content) // 2], "not a sound that can be decoded"),
    "noisy.flac": (lambda content: content[:3000] + bytes(900) + content[3900:], "not a sound that can be decoded"),
    "half.ogg": (lambda content: content[: len(content) // 2], "not a sound that can be decoded|holds no samples"),
    "half.mp3": (lambda content: content[: len(content) // 2], "is cut off: .* samples could be decoded"),
    "tone.raw": (lambda content: content, "not a sound that can be decoded"),
}


@pytest.mark.parametrize("name", sorted(BREAKERS))
def test_a_broken_file_says_what_is_wrong(tmp_path: Path, name: str) -> None:
    damage, reason = BREAKERS[name]
    ending = name.rpartition(".")[2]
    source = tmp_path / f"whole.{'wav' if ending == 'raw' else ending}"
    soundfile.write(source, np.random.default_rng(0).uniform(-0.5, 0.5, 16_000), 16_000)
    (tmp_path / name).write_bytes(damage(source.read_bytes()))
    with pytest.raises(UnreadableInputError, match=reason):
        read_sound(tmp_path / name, rate=16_000, limits=LIMITS)


def test_no_samples_and_samples_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 16_000)
    with pytest.raises(UnreadableInputError, match="holds no samples"):
        read_sound(tmp_path / "empty.wav", rate=16_000, limits=LIMITS)
    samples = np.zeros(100_000, dtype=np.float32)
    samples[90_000] = np.nan
    soundfile.write(tmp_path / "nan.wav", samples, 16_000, subtype="FLOAT")
    with pytest.raises(UnreadableInputError, match="not numbers"):
        read_sound(tmp_path / "nan.wav", rate=16_000, limits=LIMITS)


def test_a_stream_whose_header_promises_the_most_a_header_can_is_whole(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "piped.wav", sine(440, rate=16_000), 16_000)
    content = bytearray((tmp_path / "piped.wav").read_bytes())
    start = content.find(b"data") + 4
    content[start : start + 4] = b"\xff" * 4
    (tmp_path / "piped.wav").write_bytes(content)
    assert len(read_sound(tmp_path / "piped.wav", rate=16_000, limits=LIMITS)) == 16_000


def test_limits_are_met_before_the_sound_is_in_memory(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.wav", np.zeros(8000 * 5), 8000)
    with pytest.raises(UnreadableInputError, match="is 5 s long, longer than the limit of 4 s"):
        read_sound(tmp_path / "long.wav", rate=8000, limits=SoundLimits(max_seconds=4))
    soundfile.write(tmp_path / "wide.wav", np.zeros((10, 9)), 8000)
    with pytest.raises(UnreadableInputError, match="has 9 channels, more than 8"):
        read_sound(tmp_path / "wide.wav", rate=8000, limits=SoundLimits(max_channels=8))


@pytest.mark.parametrize("num_samples", [1, 29, 30, 31, 60, 61, 90, 1000])
def test_windows_cover_the_sound_from_its_start_to_its_end(num_samples: int) -> None:
    samples = np.arange(num_samples, dtype=np.float32)
    cut = windows(samples, length=30, most=100)
    assert np.array_equal(np.unique(np.concatenate(cut)), samples)
    assert all(len(window) == min(30, num_samples) for window in cut)
    assert len(cut) == -(-num_samples // 30)  # as few as possible


def test_windows_beyond_the_cap_are_spread_evenly() -> None:
    assert window_starts(1000, length=30, most=3) == [0, 485, 970]
    assert window_starts(90, length=30, most=3) == [0, 30, 60]
    assert window_starts(10, length=30, most=3) == [0]
