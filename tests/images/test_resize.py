"""Fast decoding and resizing: Pillow's bytes for every size and kind of file."""

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from minet.beton.jpeg import decode_record, encode_record
from minet.core.errors import InputError
from minet.images import fast_decode as fast_decode_module
from minet.images.decode import PixelSums, crop_box, decode, prepare
from minet.images.fast_decode import DecodeBuffers, decode_pixels, prepare_file
from minet.images.resize import Scratch, axis_filter, resize_box
from tests.helpers.sums import pixel_sums

BUFFERS = DecodeBuffers()


def noise(width: int, height: int, seed: int = 0) -> NDArray[np.uint8]:
    """Return fine texture, in which a box that is off by half a pixel is obvious."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def check(image: NDArray[np.uint8], resize_px: int, crop_px: int, scratch: Scratch) -> None:
    out = np.full((crop_px, crop_px, 3), 7, np.uint8)
    height, width, _ = image.shape
    box = crop_box(width, height, resize_px, crop_px)
    sums = resize_box(image, box, out, scratch)
    reference = prepare(Image.fromarray(image), resize_px, crop_px)
    assert np.array_equal(out, reference)
    assert PixelSums(crop_px**2, sums[:3], sums[3:]) == pixel_sums(reference)


@settings(deadline=None, max_examples=150)
@given(
    st.integers(1, 700), st.integers(1, 700), st.integers(8, 300), st.floats(0, 1), st.integers(0)
)
def test_every_size_gives_pillows_bytes_and_their_sums(
    width: int, height: int, resize_px: int, fraction: float, seed: int
) -> None:
    assume(max(width, height) < 40 * min(width, height))
    crop_px = 8 + int(fraction * (resize_px - 8))
    check(noise(width, height, seed), resize_px, crop_px, Scratch())


@pytest.mark.parametrize("scale", [0.4, 1.0, 1.3, 1.46, 1.9, 2.8, 3.9, 5.7, 7.6, 9.2, 16.5])
def test_every_number_of_taps_gives_pillows_bytes(scale: float) -> None:
    """Up to 16 taps use unrolled loops."""
    width, height = round(64 * scale * 1.5), round(64 * scale)
    check(noise(width, height), 64, 56, Scratch())
    check(noise(height, width), 64, 56, Scratch())


def test_a_reused_buffer_keeps_nothing_of_the_previous_image() -> None:
    scratch = Scratch()
    for size in ((500, 375), (90, 60), (375, 500), (640, 480), (33, 44)):
        check(noise(*size), 40, 32, scratch)


def test_the_brightest_image_does_not_overflow() -> None:
    check(np.full((700, 900, 3), 255, np.uint8), 600, 600, Scratch())


def test_weights_sum_to_1_and_stay_within_the_image() -> None:
    for size in (1, 5, 100, 375, 4000):
        filter_ = axis_filter(size, 0.3 * size, 0.8 * size, 32)
        assert filter_.first.min() >= 0
        assert filter_.first.max() + len(filter_.weights) <= size
        assert abs(filter_.weights.sum(axis=0) - (1 << 22)).max() <= len(filter_.weights)


# --- files -----------------------------------------------------------------------------------


def photograph(mode: str = "RGB") -> Image.Image:
    """Return a colour image with fine texture and odd sides."""
    grain = Image.fromarray(noise(31, 23)).resize((131, 97), Image.Resampling.BICUBIC)
    return Image.blend(grain, Image.fromarray(noise(131, 97, 1)), 0.2).convert(mode)


FILES = {
    "4:2:0": encoded(photograph(), quality=90),
    "4:2:2": encoded(photograph(), quality=90, subsampling=1),
    "4:4:4": encoded(photograph(), quality=95, subsampling=0),
    "progressive": encoded(photograph(), quality=80, progressive=True),
    "optimized with restarts": encoded(photograph(), optimize=True, restart_marker_rows=1),
    "RGB": encoded(photograph(), keep_rgb=True),
    "grey": encoded(photograph("L")),
    "CMYK": encoded(photograph("CMYK")),
    "one pixel": encoded(photograph().resize((1, 1))),
    "EXIF, upright": encoded(photograph(), exif=Image.Exif()),
    "PNG": encoded(photograph(), "PNG"),
    "palette": encoded(photograph().quantize(), "PNG"),
    "WebP": encoded(photograph(), "WEBP", quality=80),
    "BMP": encoded(photograph(), "BMP"),
}


@pytest.mark.parametrize("data", FILES.values(), ids=FILES)
def test_files_decode_to_pillows_bytes(data: bytes) -> None:
    assert np.array_equal(decode_pixels(data, BUFFERS), np.asarray(decode(data)))


BEFORE_EXIF = {  # what libjpeg skips before a segment
    "after another segment": b"\xff\xec\x00\x08\xff\xda\xff\xd9\x00\x00",  # APP12
    "after fill bytes": b"\xff" * 3,
    "after a restart": b"\xff\xd3",
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("how", ["EXIF", "XMP", *BEFORE_EXIF])
def test_images_are_turned_upright_wherever_the_orientation_is_stored(
    orientation: int, how: str
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    xmp = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><tiff:Orientation>{orientation}</tiff:Orientation>'
    options: dict[str, Any] = {"xmp": xmp.encode()} if how == "XMP" else {"exif": exif}
    data = encoded(photograph(), **options)
    data = data[:2] + BEFORE_EXIF.get(how, b"") + data[2:]
    upright = np.asarray(decode(data))
    assert (upright.shape[0] == 131) == (orientation >= 5)
    assert np.array_equal(decode_pixels(data, BUFFERS), upright)


@pytest.mark.parametrize("name", ["4:2:0", "grey"])
def test_plain_jpegs_bypass_pillow(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_decode_module, "decode", None)
    assert decode_pixels(FILES[name], DecodeBuffers()).shape == (97, 131, 3)


def test_files_that_pillow_accepts_decode_as_in_pillow() -> None:
    """libjpeg-turbo warns of extra bytes; that is no reason to reject an image."""
    data = FILES["4:2:0"]
    at = data.rindex(b"\xff\xd9")
    odd = data[:at] + b"\0\0\0\0" + data[at:]
    assert np.array_equal(decode_pixels(odd, BUFFERS), np.asarray(decode(odd)))


def test_damage_is_reported_with_pillows_message() -> None:
    with pytest.raises(InputError, match="^damaged: "):
        decode_pixels(FILES["4:2:0"][:1500], BUFFERS)
    with pytest.raises(InputError, match="^not an image of a known format"):
        decode_pixels(b"\xff\xd8 and nothing more", BUFFERS)


def test_a_prepared_file_equals_pillows() -> None:
    for data in FILES.values():
        out = np.empty((32, 32, 3), np.uint8)
        sums = prepare_file(data, 36, out, BUFFERS)
        reference = prepare(decode(data), 36, 32)
        assert np.array_equal(out, reference)
        assert sums == pixel_sums(reference)


# --- records of a beton ----------------------------------------------------------------------


def test_a_jpeg_record_decodes_to_pillows_bytes() -> None:
    pixels = np.asarray(photograph().resize((64, 64)))
    data = encode_record(pixels, 90)
    out = np.empty_like(pixels)
    decode_record(data, out)
    assert np.array_equal(out, np.asarray(Image.open(io.BytesIO(data))))
    assert abs(out.astype(int) - pixels).mean() < 15


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-200], "a damaged JPEG: "),
        (lambda data: data[:700] + bytes(60) + data[760:], "a damaged JPEG: "),
        (lambda data: bytes(len(data)), "a damaged JPEG: "),
        (lambda _: b"", "a damaged JPEG: "),
        (lambda _: encode_record(noise(32, 32), 90), "a JPEG of 32 x 32 pixels, not 64$"),
    ],
)
def test_a_damaged_jpeg_record_is_rejected(damage: Any, message: str) -> None:
    data = encode_record(np.asarray(photograph().resize((64, 64))), 90)
    with pytest.raises(InputError, match=f"^{message}"):
        decode_record(damage(data), np.empty((64, 64, 3), np.uint8))
