"""From the bytes of a file to an image's pixels at the speed of libjpeg-turbo.

The same bytes as `minet.images.decode` gives by way of Pillow, whose libjpeg-turbo does the same
arithmetic, and which is left to decode whatever is not a plain, undamaged JPEG.
"""

import threading

import numpy as np
import simplejpeg

from minet.core.arrays import Pixels
from minet.images.decode import PixelSums, crop_box, decode, orientation
from minet.images.resize import Scratch, resize_box

_APP1, _SCAN = b"\xe1", b"\xda"  # markers of a JPEG
_ALONE = [bytes([marker]) for marker in (0x01, *range(0xD0, 0xD8))]  # without a length behind them
_PLAIN = ("Gray", "YCbCr", "RGB")  # colour spaces that libjpeg-turbo brings to RGB


class DecodeBuffers(threading.local):
    """What a thread decodes into and resizes with, used again from image to image."""

    def __init__(self) -> None:
        """Begin with none; it grows to the largest image seen."""
        self.decoded: Pixels = np.empty(0, np.uint8)
        self.scratch = Scratch()
        self._cropped: Pixels = np.empty((0, 0, 3), np.uint8)

    def cropped(self, image_size: int) -> Pixels:
        """Give (image_size, image_size, 3), the same at every call with the same side."""
        if self._cropped.shape[0] != image_size:
            self._cropped = np.empty((image_size, image_size, 3), np.uint8)
        return self._cropped


def prepare_file(data: bytes, resize_px: int, out: Pixels, buffers: DecodeBuffers) -> PixelSums:
    """Decode a file, resize its short side, crop the centre into `out` (crop_px, crop_px, 3).

    Returns the sums of `out`. InputError says why a file is no usable image.
    """
    image = decode_pixels(data, buffers)
    height, width, _ = image.shape
    box = crop_box(width, height, resize_px, len(out))
    sums = resize_box(image, box, out, buffers.scratch)
    return PixelSums(len(out) ** 2, sums[:3], sums[3:])


def decode_pixels(data: bytes, buffers: DecodeBuffers) -> Pixels:
    """Decode a file to RGB, upright, (H, W, 3); may lie in `buffers` until the next call."""
    if data[:2] == b"\xff\xd8" and _is_upright(data):
        try:
            height, width, space, _ = simplejpeg.decode_jpeg_header(data)
            if space in _PLAIN:
                if buffers.decoded.size < 3 * height * width:
                    buffers.decoded = np.empty(3 * height * width, np.uint8)
                image: Pixels = simplejpeg.decode_jpeg(data, "RGB", buffer=buffers.decoded)
                return image
        except ValueError:  # of damage, or of what Pillow lets pass: it shall say
            pass
    return np.ascontiguousarray(decode(data))


def _is_upright(data: bytes) -> bool:
    """Whether a JPEG is stored as it is to be seen; only EXIF and XMP, in APP1, say otherwise."""
    at = 2
    while data[at : at + 1] == b"\xff":
        marker = data[at + 1 : at + 2]
        if marker == _APP1:
            return orientation(data) == 1
        if marker == b"\xff":  # fill, of which any number may stand before a marker
            at += 1
        elif marker in _ALONE:
            at += 2
        elif marker == _SCAN:
            return True
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return orientation(data) == 1  # no header as it should be: who decodes it anyway shall say
