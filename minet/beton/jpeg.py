"""Encode and decode the JPEG of one record of a beton."""

import simplejpeg

from minet.core.arrays import Pixels
from minet.core.errors import InputError


def decode_record(data: bytes | bytearray, out: Pixels) -> None:
    """Decode a record's JPEG into `out` (side, side, 3).

    InputError if it is damaged in any way or of another size: libjpeg-turbo continues after damage
    and leaves the old pixels in `out`.
    """
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        fits = (height, width) == out.shape[:2]
        if fits:
            simplejpeg.decode_jpeg(data, "RGB", buffer=out)
    except ValueError as error:
        raise InputError(f"a damaged JPEG: {error}") from error
    if not fits:
        raise InputError(f"a JPEG of {width} x {height} pixels, not {out.shape[1]}")


def encode_record(pixels: Pixels, quality: int) -> bytes:
    """Encode an image (side, side, 3) as a JPEG with 4:2:0 chroma subsampling."""
    data: bytes = simplejpeg.encode_jpeg(pixels, quality, "RGB", "420")
    return data
