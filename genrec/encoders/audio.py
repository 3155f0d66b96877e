"""What `--audio` may name, and the encoder that it gets: an audio model, or descriptors that need no weights."""

from __future__ import annotations

from typing import Any

from genrec.config import EmbedConfig
from genrec.encoders.base import ItemEncoder
from genrec.encoders.media import DESCRIPTORS, MediaFile, require_extra
from genrec.progress import Progress


def audio_encoder(config: EmbedConfig, *, progress: Progress) -> ItemEncoder[MediaFile, Any]:
    """The encoder of `config.audio_model`.

    Raises MissingDependencyError where the extra `audio` is not installed, ModelError where a model cannot be
    loaded or gives no vector per sound.
    """
    assert config.audio_model is not None
    for package in ("soundfile", "soxr"):
        require_extra(package, extra="audio", what="--audio")
    from genrec.encoders.sounds import SoundLimits

    limits = SoundLimits(max_seconds=config.max_audio_seconds)
    if config.audio_model == DESCRIPTORS:
        require_extra("librosa", extra="audio", what=f"--audio {DESCRIPTORS}")
        from genrec.encoders.audio_descriptors import AudioDescriptors

        return AudioDescriptors(limits=limits)
    from genrec.encoders.audio_models import AudioEncoder

    progress.say(f"Loading the audio encoder {config.audio_model}.")
    return AudioEncoder(config.audio_model, limits=limits)
