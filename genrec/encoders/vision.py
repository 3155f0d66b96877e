"""Images to vectors with a vision model: CLIP, SigLIP, DINOv2 and whatever else transformers reads as one.

Also sentence-transformers models that take images. Any hub name or folder; weights from safetensors only, and
no code from a model's repository is run. N images, D width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import is_sentence_transformer_model
from torch import nn
from transformers import AutoImageProcessor

from genrec.encoders.checkpoints import (
    commit_hash,
    fingerprint_of,
    folder_checksum,
    inner_model,
    preprocess,
    replace_inner_model,
)
from genrec.encoders.media import MediaFile
from genrec.encoders.pictures import PICTURE_VERSION, read_picture
from genrec.encoders.pretrained import LOADING_ERRORS, load_model, loading_error
from genrec.errors import ModelError
from genrec.model_hub import reaching_hub
from genrec.precision import multiplies_bfloat16

_LONGEST_SIDE = 2048
_PROBE = Image.new("RGB", (64, 64))  # encoded once to learn the width, and that the model takes images at all


class VisionEncoder:
    """A frozen vision model of transformers.

    The vector is what the model calls its image features (CLIP, SigLIP), else its pooled output (DINOv2), else,
    where the checkpoint brings no pooling of its own, the mean of its last hidden states; scaled to length 1. On a
    CPU that multiplies bfloat16 in hardware it runs in bfloat16, elsewhere in float32; the choice is part of the
    fingerprint.
    """

    modality = "image"

    def __init__(self, name: str, *, max_megapixels: float) -> None:
        """Load `name`, a hub name or a folder. Raises ModelError where it is no model that gives image vectors."""
        try:
            # By its own choice transformers takes torchvision's processors where torchvision is, and their pixels
            # differ a little: the vectors of a cache would depend on what else is installed.
            with reaching_hub(name):
                self._processor = AutoImageProcessor.from_pretrained(name, backend="pil", trust_remote_code=False)
        except LOADING_ERRORS as error:
            raise loading_error(name, error, what="image encoder") from error
        loaded = load_model(name, what="image encoder")
        self._model: Any = loaded.model
        self._pooled, self._device, self._reduced = loaded.pooled, loaded.device, loaded.reduced
        self._max_megapixels = max_megapixels
        self.model, self.revision = loaded.name, loaded.revision
        self.fingerprint = _fingerprint(name, self.revision, reduced=self._reduced)
        self.width = self.encode([self.prepare(_PROBE)]).shape[1]

    def content(self, value: MediaFile) -> bytes:
        """SHA-256 of the file."""
        return value.content()

    def read(self, value: MediaFile) -> dict[str, torch.Tensor]:
        """The picture as the model's processor prepares it, a batch of one."""
        return self.prepare(read_picture(value, max_megapixels=self._max_megapixels))

    def prepare(self, picture: Image.Image) -> dict[str, torch.Tensor]:
        """An RGB picture as the model takes it, a batch of one."""
        return dict(self._processor(images=[picture], return_tensors="pt"))

    def encode(self, values: list[dict[str, torch.Tensor]]) -> NDArray[np.float32]:
        """Vectors (N, D) of N prepared pictures, of length 1."""
        with torch.inference_mode():
            vectors: NDArray[np.float32] = self.pooled(self.batch(values)).cpu().numpy()
        return vectors

    @property
    def module(self) -> nn.Module:
        """The transformer inside that sees, for adaptation."""
        module: nn.Module = getattr(self._model, "vision_model", self._model)
        return module

    @module.setter
    def module(self, module: nn.Module) -> None:
        """Use `module` from now on."""
        if hasattr(self._model, "vision_model"):
            self._model.vision_model = module
        else:
            self._model = module

    def batch(self, values: list[dict[str, torch.Tensor]]) -> dict[str, Any]:
        """N prepared pictures as one batch."""
        return {name: torch.cat([value[name] for value in values]).to(self._device) for name in values[0]}

    def pooled(self, batch: dict[str, Any]) -> torch.Tensor:
        """Vectors (N, D) of a batch, of length 1, with gradients where they are wanted."""
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self._reduced):
            features = self._features(batch)
        if features is None or features.ndim != 2 or len(features) != len(next(iter(batch.values()))):
            raise ModelError(
                f"{self.model} ({type(self._model).__name__}) does not give one vector per image.",
                "Use a vision model such as CLIP, SigLIP or DINOv2.",
            )
        return F.normalize(features.float(), dim=-1)

    def _features(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor | None:
        if hasattr(self._model, "get_image_features"):
            return _pooled_output(self._model.get_image_features(**inputs))
        output = self._model(**inputs)
        pooled = _pooled_output(output) if self._pooled else None
        return pooled if pooled is not None else _mean_state(getattr(output, "last_hidden_state", None))


class SentenceImageEncoder:
    """A sentence-transformers model that takes images, frozen; its vectors as it gives them."""

    modality = "image"

    def __init__(self, name: str, *, max_megapixels: float) -> None:
        """Load `name`, a hub name or a folder. Raises ModelError where it cannot be loaded or takes no images."""
        folder = Path(name)
        pixels = {"backend": "pil"}
        try:
            with reaching_hub(name):
                self._encoder = SentenceTransformer(
                    name, model_kwargs={"use_safetensors": True}, processor_kwargs=pixels, trust_remote_code=False
                )
        except LOADING_ERRORS as error:
            raise loading_error(name, error, what="image encoder") from error
        if not self._encoder.supports("image"):
            raise ModelError(
                f"{name!r} is a sentence-transformers model of {', '.join(map(str, self._encoder.modalities))}.",
                "Give one that takes images, or a vision model such as CLIP, SigLIP or DINOv2.",
            )
        self._encoder.eval()
        self._reduced = self._encoder.device.type == "cpu" and multiplies_bfloat16()
        self._max_megapixels = max_megapixels
        self.model = folder.name if folder.is_dir() else name
        self.revision = folder_checksum(folder) if folder.is_dir() else commit_hash(self._encoder)
        self.fingerprint = _fingerprint(name, self.revision, reduced=self._reduced)
        self.width = self.encode([_PROBE]).shape[1]

    def content(self, value: MediaFile) -> bytes:
        """SHA-256 of the file."""
        return value.content()

    def read(self, value: MediaFile) -> Image.Image:
        """The picture, no side longer than 2,048 pixels: a batch of photographs has to fit into memory."""
        return self.prepare(read_picture(value, max_megapixels=self._max_megapixels))

    def prepare(self, picture: Image.Image) -> Image.Image:
        """The same RGB picture, scaled down where a side is longer than that."""
        picture.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
        return picture

    def encode(self, values: list[Image.Image]) -> NDArray[np.float32]:
        """Vectors (N, D) of N pictures, as the model gives them (most models scale them to length 1)."""
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self._reduced):
            encoded = self._encoder.encode(
                values, batch_size=len(values), show_progress_bar=False, convert_to_tensor=True
            )
        vectors: NDArray[np.float32] = encoded.float().cpu().numpy()
        return vectors

    @property
    def module(self) -> nn.Module:
        """The transformer inside, for adaptation."""
        return inner_model(self._encoder)

    @module.setter
    def module(self, module: nn.Module) -> None:
        """Use `module` from now on."""
        replace_inner_model(self._encoder, module)

    def batch(self, values: list[Image.Image]) -> dict[str, Any]:
        """N pictures as the model takes them."""
        return preprocess(self._encoder, values, prompt=None)

    def pooled(self, batch: dict[str, Any]) -> torch.Tensor:
        """Vectors (N, D) of a batch, with gradients: the same that `encode` gives."""
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self._reduced):
            vectors: torch.Tensor = self._encoder(batch)["sentence_embedding"]
        return vectors.float()


def load_vision_encoder(name: str, *, max_megapixels: float) -> VisionEncoder | SentenceImageEncoder:
    """The encoder of a hub name or folder: through sentence-transformers where it is such a model.

    Raises ModelError where it cannot be loaded or gives no vector per image.
    """
    try:
        sentence = is_sentence_transformer_model(name)
    except LOADING_ERRORS as error:
        raise loading_error(name, error, what="image encoder") from error
    kind = SentenceImageEncoder if sentence else VisionEncoder
    return kind(name, max_megapixels=max_megapixels)


def _fingerprint(name: str, revision: str, *, reduced: bool) -> str:
    # A folder is known by its contents: moved or renamed, it is still the same encoder.
    model = "" if Path(name).is_dir() else name
    dtype = "bfloat16" if reduced else "float32"
    return fingerprint_of({"model": model, "revision": revision, "dtype": dtype, "pictures": PICTURE_VERSION})


def _pooled_output(output: Any) -> torch.Tensor | None:
    """One vector per image (N, D) of what a model answers with, None where it has none."""
    found = output if isinstance(output, torch.Tensor) else getattr(output, "pooler_output", None)
    # Convolutional networks (ResNet, RegNet) pool to (N, D, 1, 1).
    return found.flatten(1) if isinstance(found, torch.Tensor) else None


def _mean_state(states: torch.Tensor | None) -> torch.Tensor | None:
    """The mean over patches (N, T, D) or over height and width (N, D, H, W)."""
    if states is None:
        return None
    return states.mean(dim=1) if states.ndim == 3 else states.flatten(2).mean(dim=2)
