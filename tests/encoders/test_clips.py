"""Frames of clips: videos whose frame number is their brightness, in several containers, whole and broken."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from genrec.encoders.clips import ClipLimits, read_frames
from genrec.errors import UnreadableInputError

LIMITS = ClipLimits()
CODECS = {"mp4": "libx264", "mkv": "mpeg4", "avi": "mpeg4", "webm": "libvpx-vp9", "mov": "mjpeg"}


def write_clip(file: Path, *, num_frames: int = 20, rate: int = 10, rotation: int = 0, codec: str = "") -> Path:
    """A clip whose frame n has brightness 240 · n / num_frames, with a white square in the upper left corner."""
    with av.open(str(file), "w") as container:
        stream = container.add_stream(codec or CODECS[file.suffix[1:]], rate=rate)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        if codec == "mjpeg" or file.suffix == ".mov":
            stream.pix_fmt = "yuvj420p"
        if rotation:
            stream.set_display_rotation(rotation)
        for number in range(num_frames):
            pixels = np.full((64, 96, 3), round(240 * number / num_frames), dtype=np.uint8)
            pixels[:16, :16] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return file


def numbers(frames: list[NDArray[np.uint8]], *, num_frames: int = 20) -> list[float]:
    """Which frame each one is, from its brightness."""
    return [float(frame[40:56, 40:56].mean()) * num_frames / 240 for frame in frames]


@pytest.mark.parametrize("ending", sorted(CODECS))
def test_frames_are_those_at_the_middle_of_equal_parts(tmp_path: Path, ending: str) -> None:
    file = write_clip(tmp_path / f"clip.{ending}")
    frames = read_frames(file, count=4, limits=LIMITS)
    assert [frame.shape for frame in frames] == [(64, 96, 3)] * 4
    assert frames[0].dtype == np.uint8
    # Two seconds in four parts: 0.25, 0.75, 1.25 and 1.75 s at ten frames per second.
    assert numbers(frames) == pytest.approx([2, 7, 12, 17], abs=0.4)
    assert numbers(read_frames(file, count=20, limits=LIMITS)) == pytest.approx(range(20), abs=0.6)


def test_a_clip_with_too_few_frames_repeats_them(tmp_path: Path) -> None:
    file = write_clip(tmp_path / "short.mp4", num_frames=2)
    assert numbers(read_frames(file, count=6, limits=LIMITS), num_frames=2) == pytest.approx([0] * 3 + [1] * 3, abs=0.1)


def test_a_long_clip_gives_the_same_frames_by_seeking(tmp_path: Path) -> None:
    file = write_clip(tmp_path / "long.mp4", num_frames=120, rate=1)  # two minutes
    frames = read_frames(file, count=6, limits=LIMITS)
    assert numbers(frames, num_frames=120) == pytest.approx([10, 30, 50, 70, 90, 110], abs=1.2)


@pytest.mark.parametrize(("rotation", "corner"), [(90, (-1, 0)), (-90, (0, -1)), (180, (-1, -1))])
def test_a_clip_that_asks_to_be_turned_is_turned(tmp_path: Path, rotation: int, corner: tuple[int, int]) -> None:
    file = write_clip(tmp_path / "phone.mp4", rotation=rotation)
    frame = read_frames(file, count=1, limits=LIMITS)[0]
    assert frame.shape == ((64, 96, 3) if rotation == 180 else (96, 64, 3))
    bright = {place: frame[place].min() > 230 for place in ((0, 0), (0, -1), (-1, 0), (-1, -1))}
    assert [place for place, is_bright in bright.items() if is_bright] == [corner]


def test_without_a_duration_the_end_of_the_frames_counts(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mp4")
    with av.open(str(tmp_path / "clip.mp4")) as source, av.open(str(tmp_path / "bare.h264"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    frames = read_frames(tmp_path / "bare.h264", count=4, limits=LIMITS)
    assert numbers(frames) == pytest.approx([2, 7, 12, 17], abs=0.6)


def test_a_sound_that_goes_on_after_the_frames_does_not_count(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mkv")
    with av.open(str(tmp_path / "clip.mkv")) as source, av.open(str(tmp_path / "long.mkv"), "w") as target:
        frames = target.add_stream_from_template(source.streams.video[0])
        sound = target.add_stream("flac", rate=8000, layout="mono")
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = frames
                target.mux(packet)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 40_000), dtype=np.int16), format="s16", layout="mono")
        silence.sample_rate, silence.pts = 8000, 0
        target.mux(sound.encode(silence))
        target.mux(sound.encode())
    with av.open(str(tmp_path / "long.mkv")) as written:
        assert written.duration == pytest.approx(5_000_000, rel=0.1)
        assert written.streams.video[0].duration is None
    found = read_frames(tmp_path / "long.mkv", count=4, limits=LIMITS)
    assert numbers(found) == pytest.approx([2, 7, 12, 17], abs=0.4)


def test_broken_files_say_what_is_wrong(tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "whole.mkv").read_bytes()
    soundfile.write(tmp_path / "sound.ogg", np.zeros(8000), 8000)
    cases = {
        "half.mkv": (whole[: len(whole) // 2], r"is cut off: its frames end at \d\.\d s of 2\.0 s"),
        "start.mkv": (whole[:30], "not a video that can be decoded"),
        "text.mp4": (b"no video at all\n" * 40, "not a video that can be decoded"),
        "header.mp4": (write_clip(tmp_path / "a.mp4").read_bytes()[:900], "not a video that can be decoded"),
        "sound.mp4": ((tmp_path / "sound.ogg").read_bytes(), "holds no video stream"),
    }
    for name, (content, reason) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UnreadableInputError, match=reason):
            read_frames(tmp_path / name, count=4, limits=LIMITS)


def test_the_picture_of_a_record_sleeve_is_no_video(tmp_path: Path) -> None:
    pixels = np.full((32, 32, 3), 128, dtype=np.uint8)
    with av.open(str(tmp_path / "song.mp3"), "w") as container:
        sound = container.add_stream("mp3", rate=16_000, layout="mono")
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(cover.encode())
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1152), dtype=np.float32), format="fltp", layout="mono")
        silence.sample_rate = 16_000
        container.mux(sound.encode(silence))
        container.mux(sound.encode())
    with pytest.raises(UnreadableInputError, match="holds no video stream"):
        read_frames(tmp_path / "song.mp3", count=2, limits=LIMITS)


def test_a_playlist_in_disguise_opens_no_other_file(tmp_path: Path) -> None:
    write_clip(tmp_path / "secret.mp4")
    playlists = {
        "hls.mp4": f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{tmp_path}/secret.mp4\n#EXT-X-ENDLIST\n",
        "concat.mp4": f"ffconcat version 1.0\nfile {tmp_path}/secret.mp4\n",
    }
    for name, text in playlists.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(UnreadableInputError):
            read_frames(tmp_path / name, count=2, limits=LIMITS)


def test_limits_are_met_before_a_frame_is_decoded(tmp_path: Path) -> None:
    file = write_clip(tmp_path / "clip.mp4")
    with pytest.raises(UnreadableInputError, match="is 2 s long, longer than the limit of 1 s"):
        read_frames(file, count=2, limits=ClipLimits(max_seconds=1))
    with pytest.raises(UnreadableInputError, match="frames of 96 × 64, more than 6,000 pixels"):
        read_frames(file, count=2, limits=ClipLimits(max_pixels=6000))


@pytest.mark.benchmark_data
def test_real_clips_give_frames_that_differ(data_folder: Path) -> None:
    for name in ("archery.mp4", "mmaction2_demo.mp4", "mmaction2_test.avi"):
        file = data_folder / "video_clips" / name
        frames = np.stack(read_frames(file, count=4, limits=LIMITS)).astype(np.float32)
        assert frames.shape[0] == 4
        assert np.abs(np.diff(frames, axis=0)).mean() > 1
