"""Decode JPEG files with libjpeg-turbo directly, faster than through Pillow.

The pixels equal those of `minet.images.decode`: Pillow's libjpeg-turbo does the same arithmetic.
Pillow decodes everything that is not a plain, undamaged JPEG.
"""

import threading

import numpy as np
import simplejpeg

from minet.core.arrays import Pixels
from minet.images.decode import PixelSums, crop_box, decode, orientation
from minet.images.resize import Scratch, resize_box

_APP1, _SCAN = b"\xe1", b"\xda"  # markers of a JPEG
_STANDALONE = [bytes([marker]) for marker in (0x01, *range(0xD0, 0xD8))]  # no length follows
_COLOUR_SPACES = ("Gray", "YCbCr", "RGB")  # those that libjpeg-turbo converts to RGB


class DecodeBuffers(threading.local):
    """Buffers of each thread, reused for every image; they grow to the largest image seen."""

    def __init__(self) -> None:
        self.decoded: Pixels = np.empty(0, np.uint8)
        self.scratch = Scratch()
        self._cropped: Pixels = np.empty((0, 0, 3), np.uint8)

    def cropped(self, image_size: int) -> Pixels:
        """Return a buffer (image_size, image_size, 3), the same one for the same size."""
        if self._cropped.shape[0] != image_size:
            self._cropped = np.empty((image_size, image_size, 3), np.uint8)
        return self._cropped


def prepare_file(data: bytes, resize_px: int, out: Pixels, buffers: DecodeBuffers) -> PixelSums:
    """Decode a file, resize its short side and crop the centre into `out` (crop_px, crop_px, 3).

    Return the sums of `out`. InputError if the file is no usable image.
    """
    image = decode_pixels(data, buffers)
    height, width, _ = image.shape
    box = crop_box(width, height, resize_px, len(out))
    sums = resize_box(image, box, out, buffers.scratch)
    return PixelSums(len(out) ** 2, sums[:3], sums[3:])


def decode_pixels(data: bytes, buffers: DecodeBuffers) -> Pixels:
    """Decode a file to upright RGB (H, W, 3), which the next call may overwrite."""
    if data[:2] == b"\xff\xd8" and _is_upright(data):
        try:
            height, width, colour_space, _ = simplejpeg.decode_jpeg_header(data)
            if colour_space in _COLOUR_SPACES:
                if buffers.decoded.size < 3 * height * width:
                    buffers.decoded = np.empty(3 * height * width, np.uint8)
                image: Pixels = simplejpeg.decode_jpeg(data, "RGB", buffer=buffers.decoded)
                return image
        except ValueError:
            pass  # damaged, or odd but accepted by Pillow, which reports the damage
    return np.ascontiguousarray(decode(data))


def _is_upright(data: bytes) -> bool:
    """Return whether a JPEG is stored upright: only EXIF or XMP, in APP1, can rotate it."""
    offset = 2
    while data[offset : offset + 1] == b"\xff":
        marker = data[offset + 1 : offset + 2]
        if marker == _APP1:
            return orientation(data) == 1
        if marker == b"\xff":  # fill bytes, any number of which may precede a marker
            offset += 1
        elif marker in _STANDALONE:
            offset += 2
        elif marker == _SCAN:
            return True
        else:
            offset += 2 + int.from_bytes(data[offset + 2 : offset + 4], "big")
    return orientation(data) == 1  # malformed header; the decoder reports it
