"""How the frames of a clip differ, as a few plain numbers: classical descriptors, no learned weights.

The frames are seconds apart, so this is how much and where the picture changes over the clip, cuts included, and
not the speed of what moves. F frames.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_SIDE = 32
_CELLS = 4
MOTION_WIDTH = 4 + _CELLS * _CELLS
# Typical values, so that the block has about length 1, as each block of the image descriptors has.
_TYPICAL_CHANGE = 0.2
_MOVED = 0.1  # of the range from black to white


def motion(frames: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """Change between each two neighbours of F frames (H, W, 3), in grey at 32 × 32, (20,).

    Mean, standard deviation and maximum over the pairs of the mean absolute difference; the mean share of pixels
    that change by more than a tenth of the range; then the mean absolute difference in 4 × 4 cells. All zero where
    nothing changes.
    """
    grey = np.stack([_grey(frame) for frame in frames])  # (F, 32, 32), 0 … 1
    differences = np.abs(np.diff(grey, axis=0))  # (F - 1, 32, 32)
    pairs = differences.mean(axis=(1, 2))
    cell = _SIDE // _CELLS
    cells = differences.mean(axis=0).reshape(_CELLS, cell, _CELLS, cell).mean(axis=(1, 3))
    moved = (differences > _MOVED).mean()
    numbers = np.concatenate([[pairs.mean(), pairs.std(), pairs.max(), moved], cells.ravel()])
    return (numbers / (_TYPICAL_CHANGE * np.sqrt(MOTION_WIDTH))).astype(np.float32)


def _grey(frame: NDArray[np.uint8]) -> NDArray[np.float64]:
    small = Image.fromarray(frame).convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float64) / 255.0
