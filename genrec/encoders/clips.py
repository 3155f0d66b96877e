"""A video file to a few frames, evenly spread over its time, upright, as RGB pixels.

Everything that FFmpeg decodes is read, through PyAV. N frames of H × W pixels; times are seconds from the start
of the video stream.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from genrec.errors import UnreadableInputError

# Playlists (HLS, DASH, concat) can hide behind any name and make FFmpeg open files and addresses that they list.
# The clip is handed over as a stream, and no protocol is left to open anything else with.
_OPTIONS = {"protocol_whitelist": "none"}
# A seek decodes from the key frame before, ten seconds of video at worst: above this, that is less than all of it.
_SEEK_ABOVE_SECONDS = 60.0
_SLACK_SECONDS = 1e-6  # times are fractions with rounded float values
_UNTIMED_RATE = 25  # frames per second where a stream has neither timestamps nor a rate


@dataclass(frozen=True)
class ClipLimits:
    """What is refused, before a frame of it is decoded."""

    max_seconds: float = 4 * 3600.0
    max_pixels: int = 4096 * 2304  # of a frame


@dataclass(frozen=True)
class _Length:
    """How long the video stream is: what some header says."""

    seconds: float
    certain: bool  # of this very stream, not of the file, whose sound may be longer


def read_frames(file: Path, *, count: int, limits: ClipLimits) -> list[NDArray[np.uint8]]:
    """The `count` frames (H, W, 3) that a player shows in the middle of `count` equal parts of the clip.

    A clip with fewer frames repeats some. Raises UnreadableInputError where the file is no video, holds no
    frame, is damaged or cut off at one of those times, or is beyond `limits`.
    """
    try:
        length = _declared_length(file, limits)
        if length is not None:
            frames, end = _frames_at(file, _times(length.seconds, count), seek=length.seconds > _SEEK_ABOVE_SECONDS)
            if len(frames) == count:
                return frames
            if length.certain:
                raise UnreadableInputError(f"is cut off: its frames end at {end:.1f} s of {length.seconds:.1f} s")
        # No header tells the truth about the stream: look where its frames end, then read them.
        frames, _ = _frames_at(file, _times(_end_of_frames(file, limits), count), seek=False)
        return frames
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UnreadableInputError(f"is not a video that can be decoded ({reason})") from error


def _times(seconds: float, count: int) -> list[float]:
    return [(part + 0.5) * seconds / count for part in range(count)]


@dataclass(frozen=True)
class _Shown:
    """A decoded frame and from when to when a player shows it."""

    start: float
    end: float
    frame: VideoFrame


@contextmanager
def _opened(file: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    with (
        file.open("rb") as source,
        av.open(source, mode="r", options=_OPTIONS, metadata_errors="ignore") as container,
    ):
        # The picture of a record sleeve in a sound file is a video stream of one frame, too.
        streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
        if not streams:
            raise UnreadableInputError("holds no video stream")
        yield container, streams[0]


def _declared_length(file: Path, limits: ClipLimits) -> _Length | None:
    """What the headers say, checked against the limits; None where they say nothing."""
    with _opened(file) as (container, stream):
        width, height = stream.codec_context.width, stream.codec_context.height
        if width * height > limits.max_pixels:
            raise UnreadableInputError(f"has frames of {width} × {height}, more than {limits.max_pixels:,} pixels")
        length = _length(container, stream)
    if length is not None and length.seconds > limits.max_seconds:
        raise UnreadableInputError(
            f"is {length.seconds:,.0f} s long, longer than the limit of {limits.max_seconds:g} s"
        )
    return length


def _length(container: InputContainer, stream: VideoStream) -> _Length | None:
    if stream.duration and stream.time_base:
        return _Length(float(stream.duration * stream.time_base), certain=True)
    if container.duration:
        return _Length(container.duration / av.time_base, certain=len(container.streams) == 1)
    return None


def _frames_at(file: Path, times: list[float], *, seek: bool) -> tuple[list[NDArray[np.uint8]], float]:
    """The frames shown at `times` (rising), fewer where the stream ends before, and where it ends."""
    with _opened(file) as (container, stream):
        if not seek:
            return _pick(_timed(container, stream), times)
        frames: list[NDArray[np.uint8]] = []
        end = 0.0
        for time in times:
            assert stream.time_base is not None  # a stream with a length has one
            container.seek(int(time / stream.time_base) + (stream.start_time or 0), stream=stream)
            found, end = _pick(_timed(container, stream), [time])
            if not found:
                break
            frames += found
        return frames, end


def _timed(container: InputContainer, stream: VideoStream) -> Iterator[_Shown]:
    """Decoded frames from here on with their times; counted where the stream has no timestamps."""
    start = float(stream.start_time * stream.time_base) if stream.start_time and stream.time_base else 0.0
    rate = float(stream.guessed_rate or _UNTIMED_RATE)
    for index, frame in enumerate(container.decode(stream)):
        if frame.time is None:
            yield _Shown(index / rate, (index + 1) / rate, frame)
            continue
        seconds = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 1 / rate
        yield _Shown(frame.time - start, frame.time - start + seconds, frame)


def _pick(frames: Iterable[_Shown], times: list[float]) -> tuple[list[NDArray[np.uint8]], float]:
    picked: list[NDArray[np.uint8]] = []
    shown: _Shown | None = None
    for following in frames:
        # A frame is shown until the next one starts; before the first one, that one.
        while len(picked) < len(times) and shown is not None and following.start > times[len(picked)] + _SLACK_SECONDS:
            picked.append(_pixels(shown.frame))
        if len(picked) == len(times):
            break
        shown = following
    if shown is None:
        return [], 0.0
    while len(picked) < len(times) and times[len(picked)] <= shown.end + _SLACK_SECONDS:
        picked.append(_pixels(shown.frame))
    return picked, shown.end


def _end_of_frames(file: Path, limits: ClipLimits) -> float:
    end = 0.0
    with _opened(file) as (container, stream):
        for shown in _timed(container, stream):
            end = shown.end
            if end > limits.max_seconds:
                raise UnreadableInputError(f"is longer than the limit of {limits.max_seconds:g} s")
    if end == 0.0:
        raise UnreadableInputError("holds no frames")
    return end


def _pixels(frame: VideoFrame) -> NDArray[np.uint8]:
    """RGB (H, W, 3), turned the way that the file asks players to turn it."""
    if frame.is_corrupt:
        raise UnreadableInputError(f"is damaged: the frame at {frame.time or 0.0:.1f} s cannot be decoded whole")
    pixels = frame.to_ndarray(format="rgb24")
    # The file says how far to turn it anticlockwise, which is how rot90 turns.
    return np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))
