"""What `--video` may name, and the encoder that it gets: a video model, or what `--image` may name, frame by frame."""

from __future__ import annotations

from typing import Any

from genrec.config import EmbedConfig
from genrec.encoders.base import ItemEncoder
from genrec.encoders.image import image_encoder
from genrec.encoders.media import DESCRIPTORS, MediaFile, require_extra
from genrec.progress import Progress


def video_encoder(config: EmbedConfig, *, progress: Progress) -> ItemEncoder[MediaFile, Any]:
    """The encoder of `config.video_model`.

    Raises MissingDependencyError where the extra `video` (or, for `descriptors`, `image`) is not installed,
    ModelError where a model cannot be loaded or gives no vector per clip.
    """
    assert config.video_model is not None
    for package in ("av", "PIL"):
        require_extra(package, extra="video", what="--video")
    from genrec.encoders.clips import ClipLimits
    from genrec.encoders.video_models import FrameEncoder, VideoEncoder, num_video_frames

    limits = ClipLimits(max_seconds=config.max_video_seconds)
    is_classical = config.video_model == DESCRIPTORS
    num_frames = None if is_classical else num_video_frames(config.video_model)
    if num_frames is not None:
        progress.say(f"Loading the video encoder {config.video_model} ({num_frames} frames per clip).")
        return VideoEncoder(config.video_model, num_frames=num_frames, limits=limits)
    pictures = image_encoder(config.model_copy(update={"image_model": config.video_model}), progress=progress)
    return FrameEncoder(pictures, with_motion=is_classical, limits=limits)
