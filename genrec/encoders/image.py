"""What `--image` may name, and the encoder that it gets: a vision model, or descriptors that need no weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from genrec.config import EmbedConfig
from genrec.encoders.base import ItemEncoder
from genrec.encoders.media import DESCRIPTORS, MediaFile, require_extra
from genrec.progress import Progress

if TYPE_CHECKING:
    from PIL import Image


class PictureEncoder(ItemEncoder[MediaFile, Any], Protocol):
    """An encoder of images that also takes pictures which are no files, such as the frames of a clip."""

    def prepare(self, picture: Image.Image) -> Any:
        """An RGB picture, which may be changed, as `encode` takes it."""
        ...


def image_encoder(config: EmbedConfig, *, progress: Progress) -> PictureEncoder:
    """The encoder of `config.image_model`.

    Raises MissingDependencyError where the extra `image` is not installed, ModelError where a model cannot be
    loaded or gives no vector per image.
    """
    assert config.image_model is not None
    require_extra("PIL", extra="image", what="--image")
    if config.image_model == DESCRIPTORS:
        require_extra("skimage", extra="image", what=f"--image {DESCRIPTORS}")
        from genrec.encoders.image_descriptors import ImageDescriptors

        return ImageDescriptors(max_megapixels=config.max_megapixels)
    from genrec.encoders.vision import load_vision_encoder

    progress.say(f"Loading the image encoder {config.image_model}.")
    return load_vision_encoder(config.image_model, max_megapixels=config.max_megapixels)
