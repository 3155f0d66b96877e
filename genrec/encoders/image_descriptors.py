"""Classical image descriptors: colour, edges and texture as numbers, with no learned weights.

They know what a picture looks like and nothing of what it shows: a red poster is near other red posters. Every
picture is scaled to 128 × 128 pixels, whatever its proportions were, and described by four blocks:

    colour    80   square roots of histograms: hue in 16 bins per quadrant, weighted by saturation × value;
                   saturation and value in 8 bins each
    layout    96   mean and standard deviation of CIELAB's L, a, b in 4 × 4 cells, divided by fixed ranges
    edges    128   histograms of oriented gradients (Dalal and Triggs 2005): 8 directions in 4 × 4 cells
    texture  112   square roots of histograms of uniform local binary patterns (Ojala, Pietikäinen and Mäenpää
                   2002), radii 1 (10 bins) and 2 (18 bins), per quadrant

Histograms are scaled to length 1 per block; then fixed factors (WEIGHTS) let every block vary about equally much
from picture to picture, so that none outweighs the others. They were measured on film posters. Nothing is fitted
to a catalogue: an item's vector depends on its picture alone.
"""

from __future__ import annotations

from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage.color import rgb2hsv, rgb2lab
from skimage.feature import hog, local_binary_pattern

from genrec.encoders.media import MediaFile
from genrec.encoders.pictures import PICTURE_VERSION, read_picture

WIDTHS = {"colour": 80, "layout": 96, "edges": 128, "texture": 112}
WEIGHTS = {"colour": 1.0, "layout": 0.9, "edges": 2.4, "texture": 3.1}
_SIDE = 128
_VERSION = 1  # to be raised whenever a number comes out different from before
_LAB_CENTRE = np.array([50.0, 0.0, 0.0])
_LAB_RANGE = np.array([30.0, 20.0, 20.0])  # about the standard deviation within photographs
_FloatArray = NDArray[np.float64]


class ImageDescriptors:
    """Colour, layout, edges and texture of pictures (see the module): 416 numbers, no weights."""

    modality = "image"
    model = "classical descriptors, no learned weights"
    revision = str(_VERSION)
    fingerprint = f"descriptors{_VERSION}p{PICTURE_VERSION}s{version('scikit-image')}i{version('pillow')}"
    width = sum(WIDTHS.values())

    def __init__(self, *, max_megapixels: float) -> None:
        """Descriptors of images of at most `max_megapixels` million pixels."""
        self._max_megapixels = max_megapixels

    def content(self, value: MediaFile) -> bytes:
        """SHA-256 of the file."""
        return value.content()

    def read(self, value: MediaFile) -> NDArray[np.uint8]:
        """The picture as RGB, (128, 128, 3)."""
        return self.prepare(read_picture(value, max_megapixels=self._max_megapixels))

    def prepare(self, picture: Image.Image) -> NDArray[np.uint8]:
        """An RGB picture scaled to (128, 128, 3)."""
        return np.asarray(picture.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC))

    def encode(self, values: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Descriptors (N, 416) of N pictures (128, 128, 3)."""
        return np.stack([describe(picture) for picture in values])


def describe(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The blocks of one picture (128, 128, 3), one after the other in the order of WIDTHS, (416,)."""
    lab = rgb2lab(picture)
    grey = np.round(lab[:, :, 0] * 2.55).astype(np.uint8)
    blocks = {"colour": _colour(picture), "layout": _layout(lab), "edges": _edges(grey), "texture": _texture(grey)}
    assert {name: len(block) for name, block in blocks.items()} == WIDTHS
    return np.concatenate([WEIGHTS[name] * block for name, block in blocks.items()]).astype(np.float32)


def _colour(picture: NDArray[np.uint8]) -> _FloatArray:
    hsv = rgb2hsv(picture)
    hues = [
        _histogram(quadrant[..., 0], bins=16, weights=quadrant[..., 1] * quadrant[..., 2])
        for quadrant in _cells(hsv, 2)
    ]
    return _unit(np.concatenate([*hues, _histogram(hsv[..., 1], bins=8), _histogram(hsv[..., 2], bins=8)]))


def _layout(lab: _FloatArray) -> _FloatArray:
    cells = (_cells(lab, 4) - _LAB_CENTRE) / _LAB_RANGE  # (16, 32, 32, 3)
    moments = np.concatenate([cells.mean(axis=(1, 2)), cells.std(axis=(1, 2))])  # (32, 3)
    return moments.ravel() / np.sqrt(moments.size)


def _edges(grey: NDArray[np.uint8]) -> _FloatArray:
    cell = (_SIDE // 4, _SIDE // 4)
    return _unit(hog(grey, orientations=8, pixels_per_cell=cell, cells_per_block=(1, 1), block_norm="L2-Hys"))


def _texture(grey: NDArray[np.uint8]) -> _FloatArray:
    histograms = []
    for points, radius in ((8, 1), (16, 2)):
        patterns = local_binary_pattern(grey, points, radius, method="uniform")  # 0 … points + 1
        bins = points + 2
        histograms += [_histogram(quadrant / bins, bins=bins) for quadrant in _cells(patterns, 2)]
    return _unit(np.concatenate(histograms))


def _cells(array: _FloatArray, per_side: int) -> _FloatArray:
    """(side, side, …) → (per_side², cell, cell, …), row by row."""
    cell = _SIDE // per_side
    split = array.reshape(per_side, cell, per_side, cell, *array.shape[2:]).swapaxes(1, 2)
    return split.reshape(per_side**2, cell, cell, *array.shape[2:])


def _histogram(values: _FloatArray, *, bins: int, weights: _FloatArray | None = None) -> _FloatArray:
    """Square roots of the shares of `bins` equal parts of 0 … 1 (Hellinger: their products compare distributions)."""
    counts, _ = np.histogram(values, bins=bins, range=(0.0, 1.0), weights=weights)
    return np.sqrt(counts / values.size)


def _unit(block: _FloatArray) -> _FloatArray:
    """Length 1; a block that is zero, as the edges of an empty picture are, stays zero."""
    return block / max(float(np.linalg.norm(block)), 1e-12)
