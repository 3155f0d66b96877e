"""Clips to vectors: with a video model (VideoMAE, X-CLIP, …), or frame by frame with what `--image` may name.

N clips of F frames each, D width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from transformers import AutoConfig, AutoImageProcessor, XCLIPModel
from transformers.image_processing_utils import BaseImageProcessor

from genrec.encoders.checkpoints import fingerprint_of
from genrec.encoders.clips import ClipLimits, read_frames
from genrec.encoders.image import PictureEncoder
from genrec.encoders.media import MediaFile
from genrec.encoders.pretrained import LOADING_ERRORS, load_model, loading_error
from genrec.encoders.video_motion import MOTION_WIDTH, motion
from genrec.errors import ModelError
from genrec.model_hub import reaching_hub

_WHAT = "video encoder"
_SEES = "vision_model"  # what X-CLIP calls its part that sees, beside the one that reads
_FRAMES = 8  # per clip, for encoders of single images
_CLIPS_PER_BATCH = 4
_VERSION = 1  # raised when a vector of the same clip changes


class FrameEncoder:
    """Clips as the mean vector of eight frames, evenly spread, and perhaps how the frames differ."""

    modality = "video"

    def __init__(self, pictures: PictureEncoder, *, with_motion: bool, limits: ClipLimits) -> None:
        """Around an image encoder that is loaded already; `with_motion` appends `video_motion.motion`."""
        self._pictures = pictures
        self._limits = limits
        self._with_motion = with_motion
        self.model = pictures.model
        self.revision = pictures.revision
        self.fingerprint = fingerprint_of(
            {"image": pictures.fingerprint, "frames": _FRAMES, "motion": with_motion, "version": _VERSION}
        )
        self.width = pictures.width + self._with_motion * MOTION_WIDTH

    def content(self, value: MediaFile) -> bytes:
        """The checksum of the file."""
        return value.content()

    def read(self, value: MediaFile) -> tuple[list[Any], NDArray[np.float32]]:
        """The frames as the image encoder takes them, and the motion between them (empty where it is not asked for)."""
        frames = read_frames(value.locate(), count=_FRAMES, limits=self._limits)
        moved = motion(frames) if self._with_motion else np.zeros(0, dtype=np.float32)
        return [self._pictures.prepare(Image.fromarray(frame)) for frame in frames], moved

    def encode(self, values: list[tuple[list[Any], NDArray[np.float32]]]) -> NDArray[np.float32]:
        """Vectors (N, D): means over the frames, then the motion."""
        vectors = [np.concatenate([self._pictures.encode(prepared).mean(axis=0), moved]) for prepared, moved in values]
        return np.stack(vectors).astype(np.float32)

    @property
    def module(self) -> nn.Module:
        """The transformer inside that sees, for adaptation. Descriptors have none."""
        module: nn.Module = self._pictures.module  # type: ignore[attr-defined]
        return module

    @module.setter
    def module(self, module: nn.Module) -> None:
        """Use `module` from now on."""
        self._pictures.module = module  # type: ignore[attr-defined]

    def batch(self, values: list[tuple[list[Any], NDArray[np.float32]]]) -> dict[str, Any]:
        """All frames of N clips as the image encoder takes them; each clip has as many."""
        frames = [frame for prepared, _ in values for frame in prepared]
        batch: dict[str, Any] = self._pictures.batch(frames)  # type: ignore[attr-defined]
        return batch

    def pooled(self, batch: dict[str, Any]) -> torch.Tensor:
        """Vectors (N, D) of a batch, with gradients where they are wanted."""
        frames: torch.Tensor = self._pictures.pooled(batch)  # type: ignore[attr-defined]
        return frames.unflatten(0, (-1, _FRAMES)).mean(dim=1)


class VideoEncoder:
    """A transformers video model, frozen, with its own number of frames.

    X-CLIP gives the vectors of its joint space with text (`get_video_features`); of other models (VideoMAE,
    TimeSformer) the last layer is averaged. Runs in bfloat16 where the text encoder does.
    """

    modality = "video"

    def __init__(self, name: str, *, num_frames: int, limits: ClipLimits) -> None:
        """Load `name`, a hub name or a folder. Raises ModelError where it cannot be loaded."""
        self._pretrained = load_model(name, what=_WHAT)
        self._model: nn.Module = self._pretrained.model
        self._processor = _load_processor(name)
        self._num_frames = num_frames
        self._limits = limits
        self.model = self._pretrained.name
        self.revision = self._pretrained.revision
        self.fingerprint = self._pretrained.fingerprint({"frames": num_frames, "version": _VERSION})
        self.width = self._width(name)

    def content(self, value: MediaFile) -> bytes:
        """The checksum of the file."""
        return value.content()

    def read(self, value: MediaFile) -> torch.Tensor:
        """The pixels of one clip as the model takes them, (F, 3, height, width)."""
        return self._prepare(read_frames(value.locate(), count=self._num_frames, limits=self._limits))

    @torch.inference_mode()
    def encode(self, values: list[torch.Tensor]) -> NDArray[np.float32]:
        """Vectors (N, D) of N prepared clips."""
        batches = [values[start : start + _CLIPS_PER_BATCH] for start in range(0, len(values), _CLIPS_PER_BATCH)]
        parts = [self.pooled(self.batch(clips)).cpu().numpy() for clips in batches]
        return np.asarray(np.concatenate(parts), dtype=np.float32)

    @property
    def module(self) -> nn.Module:
        """The transformer inside that sees, for adaptation."""
        module: nn.Module = getattr(self._model, _SEES, self._model)
        return module

    @module.setter
    def module(self, module: nn.Module) -> None:
        """Use `module` from now on."""
        if hasattr(self._model, _SEES):
            setattr(self._model, _SEES, module)
        else:
            self._model = module

    def batch(self, values: list[torch.Tensor]) -> dict[str, Any]:
        """N prepared clips as one batch (N, F, 3, height, width)."""
        return {"pixel_values": torch.stack(values).to(self._pretrained.device)}

    def pooled(self, batch: dict[str, Any]) -> torch.Tensor:
        """Vectors (N, D) of a batch, with gradients where they are wanted."""
        model: Any = self._model
        with self._pretrained.autocast():
            if isinstance(model, XCLIPModel):
                vectors = model.get_video_features(**batch).pooler_output
            else:
                vectors = model(**batch).last_hidden_state.float().mean(dim=1)
        found: torch.Tensor = vectors.float()
        return found

    def _prepare(self, frames: list[NDArray[np.uint8]]) -> torch.Tensor:
        pixels = self._processor(images=list(frames), return_tensors="pt")["pixel_values"]
        # Processors of videos answer (1, F, …), those of images (F, …).
        prepared: torch.Tensor = pixels.reshape(len(frames), *pixels.shape[-3:])
        return prepared

    def _width(self, name: str) -> int:
        black = [np.zeros((64, 64, 3), dtype=np.uint8)] * self._num_frames
        try:
            return int(self.encode([self._prepare(black)]).shape[1])
        except (RuntimeError, TypeError, ValueError, AttributeError, KeyError) as error:
            raise ModelError(
                f"The {_WHAT} {name!r} does not turn {self._num_frames} black frames into a vector: {error}.",
                "Give a video model such as VideoMAE or X-CLIP, an image model, or `descriptors`.",
            ) from error


def num_video_frames(name: str) -> int | None:
    """How many frames the model `name` takes at once; None where it is no video model (but perhaps an image model)."""
    try:
        with reaching_hub(name):
            config = AutoConfig.from_pretrained(name, trust_remote_code=False).to_dict()
    except LOADING_ERRORS:  # whoever loads it as an image model says what is wrong with it
        return None
    frames = config.get("num_frames") or config.get("vision_config", {}).get("num_frames")
    return None if frames is None else int(frames)


def _load_processor(name: str) -> BaseImageProcessor:
    try:
        with reaching_hub(name):
            return AutoImageProcessor.from_pretrained(name, backend="pil", trust_remote_code=False)
    except LOADING_ERRORS as error:
        raise loading_error(name, error, what=f"image processor of the {_WHAT}") from error
