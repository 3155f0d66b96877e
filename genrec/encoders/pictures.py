"""From an image file to pixels that every encoder reads alike: upright, 8 bits, RGB, on white.

Image files are untrusted. Only well-known raster formats are opened (Pillow would start Ghostscript for a
PostScript file), the number of pixels is checked before one of them is decoded, and whatever is wrong with a
file is a reason to leave out that file alone.
"""

from __future__ import annotations

import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from genrec.encoders.media import MediaFile
from genrec.errors import UnreadableInputError

# Part of every image encoder's fingerprint: to be raised when pictures come out different from before.
PICTURE_VERSION = 1
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "AVIF", "BMP", "TIFF", "JPEG2000", "PPM")
# A model scales the shorter side to some 200 pixels: of a strip this long it would still make 10 megapixels.
_MAX_ASPECT = 200
_PILLOWS_LIMIT = threading.Lock()


def read_picture(file: MediaFile, *, max_megapixels: float) -> Image.Image:
    """The picture of a file as an RGB image; of an animated file the first frame.

    Rotated as its EXIF says, transparency on white, 16-bit and floating-point greys scaled to 8 bits. Raises
    UnreadableInputError where there is no whole picture, it has more than `max_megapixels` million pixels, or one
    side is more than 200 times as long as the other.
    """
    path = file.locate()
    with _limit_of_pillow(max_megapixels), warnings.catch_warnings():
        # Pillow warns of odd metadata and, from half of our limit on, of size; only what stops it counts here.
        warnings.simplefilter("ignore")
        try:
            return _decode(path, max_megapixels)
        except UnreadableInputError:
            raise
        except UnidentifiedImageError as error:
            raise UnreadableInputError(f"is no image of a known kind ({', '.join(_FORMATS)})") from error
        except Image.DecompressionBombError as error:
            raise UnreadableInputError(f"is larger than {max_megapixels:g} megapixels") from error
        # Pillow's decoders raise what their damaged input makes happen: OSError, SyntaxError, ValueError,
        # struct.error, zlib.error, IndexError, OverflowError and more. No code of ours runs in there.
        except Exception as error:
            reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
            raise UnreadableInputError(f"cannot be decoded: {reason}") from error


@contextmanager
def _limit_of_pillow(max_megapixels: float) -> Iterator[None]:
    """Let Pillow, which stops at 179 megapixels by itself, go as far as we do. Its limit is one for all threads."""
    with _PILLOWS_LIMIT:
        before = Image.MAX_IMAGE_PIXELS
        if before is not None and max_megapixels * 1e6 > before:
            Image.MAX_IMAGE_PIXELS = int(min(max_megapixels * 1e6, 1e18))
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _decode(path: Path, max_megapixels: float) -> Image.Image:
    Image.init()  # names every plugin; `formats` may only hold those that this Pillow was built with
    with Image.open(path, formats=[name for name in _FORMATS if name in Image.OPEN]) as image:
        width, height = image.size
        if width * height > max_megapixels * 1e6:
            raise UnreadableInputError(f"has {width:,} × {height:,} pixels, more than {max_megapixels:g} megapixels")
        if max(width, height) > _MAX_ASPECT * min(width, height):
            raise UnreadableInputError(
                f"has {width:,} × {height:,} pixels: one side is over {_MAX_ASPECT} times the other"
            )
        image.load()
        return _rgb(_upright(image), says_white=image.format == "PPM")


def _upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF data asks; as it is where these are damaged, as viewers show it."""
    try:
        return ImageOps.exif_transpose(image)
    except (SyntaxError, ValueError, KeyError, TypeError, OSError, struct.error):
        return image


def _rgb(image: Image.Image, *, says_white: bool) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_eight_bits(image, says_white=says_white)).convert("RGB")
    if image.has_transparency_data:
        visible = image.convert("RGBA")
        white = Image.new("RGBA", visible.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, visible).convert("RGB")
    return image.convert("RGB")


def _eight_bits(image: Image.Image, *, says_white: bool) -> np.ndarray:
    """Deep greys as uint8 (H, W). Pillow's own conversion would cut everything above 255 off."""
    grey = np.asarray(image)
    if image.mode.startswith("I;16") or (says_white and image.mode == "I"):  # Pillow scales a PGM to 65,535
        return np.round(grey / 257.0).astype(np.uint8)
    # 32-bit integers and floats say nowhere what is white: their own darkest and lightest pixel do.
    if not np.isfinite(grey).all():
        raise UnreadableInputError("holds pixels that are not finite")
    low, high = float(grey.min()), float(grey.max())
    return np.round((grey - low) / max(high - low, 1e-12) * 255.0).astype(np.uint8)
