"""Sums over the pixels of an image, computed with NumPy."""

import numpy as np
from numpy.typing import NDArray

from minet.images.decode import PixelSums


def pixel_sums(image: NDArray[np.uint8]) -> PixelSums:
    """Return the sums of one image (H, W, 3) per channel."""
    pixels = image.reshape(-1, 3).astype(np.int64)
    total, squares = pixels.sum(axis=0).tolist(), (pixels**2).sum(axis=0).tolist()
    return PixelSums(len(pixels), tuple(total), tuple(squares))
