"""Decoding and preparing image files: the same pixels as torchvision."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms import v2

from minet.core.errors import InputError
from minet.images.decode import PixelSums, decode, prepare
from tests.helpers.sums import pixel_sums

Array = NDArray[np.uint8]
HOW_DECODED = pytest.mark.parametrize("reduced", [False, True])


def noise(width: int, height: int, *channels: int, seed: int = 0) -> Array:
    """Return fine random texture, in which a box that is slightly off is obvious."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, *channels), np.uint8)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(data: bytes) -> Array:
    """Decode a file, of any mode, to RGB."""
    image = decode(data)
    assert image.mode == "RGB"
    return np.asarray(image)


def repeated(grey: Array) -> Array:
    return np.repeat(grey[..., None], 3, axis=2)


# --- formats ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("BMP", {}), ("WEBP", {"lossless": True})]
)
def test_lossless_formats_decode_to_the_exact_pixels(kind: str, options: dict[str, Any]) -> None:
    picture = noise(31, 17, 3)
    assert np.array_equal(pixels(encoded(Image.fromarray(picture), kind, **options)), picture)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_lossy_formats_decode_to_pillows_pixels(kind: str, mode: str) -> None:
    smooth = Image.fromarray(noise(4, 3, 3)).resize((40, 30), Image.Resampling.BICUBIC)
    picture = smooth.convert(mode)
    data = encoded(picture, kind)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert np.array_equal(pixels(data), expected)
    assert abs(expected.astype(int) - np.asarray(picture.convert("RGB"))).mean() < 12


@pytest.mark.parametrize("kind", ["PNG", "BMP"])
def test_greyscale_is_repeated_over_the_channels(kind: str) -> None:
    grey = noise(31, 17)
    assert np.array_equal(pixels(encoded(Image.fromarray(grey), kind)), repeated(grey))


def test_black_and_white_becomes_0_and_255() -> None:
    bits = noise(31, 17) > 127
    data = encoded(Image.fromarray(bits), "PNG")
    assert Image.open(io.BytesIO(data)).mode == "1"
    assert np.array_equal(pixels(data), repeated(bits * np.uint8(255)))


@pytest.mark.parametrize("transparency", [None, 5, bytes(range(16))])
def test_a_palette_decodes_to_its_colours_transparent_or_not(
    transparency: int | bytes | None,
) -> None:
    colours, numbers = noise(16, 1, 3)[0], noise(31, 17) % 16
    image = Image.fromarray(numbers).convert("L")
    image.putpalette(colours.tobytes())
    options = {} if transparency is None else {"transparency": transparency}
    data = encoded(image, "PNG", **options)
    assert Image.open(io.BytesIO(data)).mode == "P"
    assert ("transparency" in Image.open(io.BytesIO(data)).info) == (transparency is not None)
    assert np.array_equal(pixels(data), colours[numbers])


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_alpha_is_dropped_and_the_colour_kept(kind: str) -> None:
    picture = noise(31, 17, 4)
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    data = encoded(Image.fromarray(picture), kind, **options)
    assert Image.open(io.BytesIO(data)).mode == "RGBA"
    assert np.array_equal(pixels(data), picture[..., :3])


def test_alpha_of_greyscale_is_dropped() -> None:
    picture = noise(31, 17, 2)
    channels = [Image.fromarray(picture[..., channel]) for channel in (0, 1)]
    data = encoded(Image.merge("LA", channels), "PNG")
    assert Image.open(io.BytesIO(data)).mode == "LA"
    assert np.array_equal(pixels(data), repeated(picture[..., 0]))


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 200, 60), (255, 255, 255), (0, 0, 0)])
def test_cmyk_jpegs_keep_their_colours(colour: tuple[int, int, int]) -> None:
    """Adobe stores them inverted; without correction white would become black."""
    data = encoded(Image.new("RGB", (24, 16), colour).convert("CMYK"), "JPEG")
    assert Image.open(io.BytesIO(data)).mode == "CMYK"
    assert abs(pixels(data).astype(int) - colour).max() <= 8


def test_16_bit_grey_is_scaled_not_clipped() -> None:
    wide = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    data = encoded(Image.fromarray(wide), "PNG")
    assert Image.open(io.BytesIO(data)).mode.startswith("I")
    assert np.array_equal(pixels(data), repeated(np.rint(wide / 257).astype(np.uint8)))


# --- orientation -----------------------------------------------------------------------------

UPRIGHT = {  # orientation of the EXIF standard -> how the file becomes upright
    1: lambda file: file,
    2: lambda file: file[:, ::-1],
    3: lambda file: file[::-1, ::-1],
    4: lambda file: file[::-1],
    5: lambda file: file.swapaxes(0, 1),
    6: lambda file: np.rot90(file, -1),
    7: lambda file: file[::-1, ::-1].swapaxes(0, 1),
    8: lambda file: np.rot90(file, 1),
}


def tagged(picture: Array, orientation: int, kind: str, **options: Any) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(Image.fromarray(picture), kind, exif=exif, **options)


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True})])
def test_images_are_turned_upright(orientation: int, kind: str, options: dict[str, Any]) -> None:
    picture = noise(31, 17, 3)
    data = tagged(picture, orientation, kind, **options)
    assert np.array_equal(pixels(data), UPRIGHT[orientation](picture))


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_jpegs_are_turned_upright(orientation: int) -> None:
    """A bright corner distinguishes all eight."""
    picture = np.zeros((24, 40, 3), np.uint8)
    picture[:8, :16] = 255
    difference = pixels(tagged(picture, orientation, "JPEG")).astype(int) - UPRIGHT[orientation](
        picture
    )
    assert abs(difference).max() < 30


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_invalid_orientation_changes_nothing(orientation: int) -> None:
    picture = noise(31, 17, 3)
    assert np.array_equal(pixels(tagged(picture, orientation, "PNG")), picture)


def test_odd_tags_beside_the_orientation_are_harmless() -> None:
    """A resolution stored as text: Pillow's own exif_transpose fails to write it."""
    entries = struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0) + struct.pack(
        ">HHI4s", 0x011A, 2, 4, b"72x"
    )
    exif = b"Exif\0\0" + b"MM\0*" + struct.pack(">IH", 8, 2) + entries + bytes(4)
    picture = noise(31, 17, 3)
    data = encoded(Image.fromarray(picture), "PNG", exif=exif)
    assert np.array_equal(pixels(data), np.rot90(picture, -1))


# --- damage ----------------------------------------------------------------------------------


@HOW_DECODED
@pytest.mark.parametrize(
    "data",
    [b"", b"some text, named .jpg", b"<html><title>404</title></html>", b"\xff\xd8\xff", bytes(99)],
    ids=["empty", "text", "web page", "first bytes of a JPEG", "zeros"],
)
def test_a_file_that_is_no_image_is_rejected_with_the_known_formats(
    data: bytes, *, reduced: bool
) -> None:
    message = r"^not an image of a known format \(JPEG, PNG, WEBP, BMP\)$"
    with pytest.raises(InputError, match=message):
        decode(data, reduced=reduced)


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PPM", "ICO"])
def test_other_formats_are_rejected(kind: str) -> None:
    """Unused decoders would only be an attack surface."""
    with pytest.raises(InputError, match="not an image of a known format"):
        decode(encoded(Image.fromarray(noise(31, 17, 3)), kind))


@HOW_DECODED
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
@pytest.mark.parametrize("fraction", [0.5, 0.9])
def test_a_truncated_file_is_damaged(kind: str, fraction: float, *, reduced: bool) -> None:
    data = encoded(Image.fromarray(noise(160, 120, 3)), kind)
    with pytest.raises(InputError, match="^(damaged: |not an image of a known format)"):
        decode(data[: int(len(data) * fraction)], reduced=reduced)


def verdict(data: bytes, *, reduced: bool) -> str:
    try:
        decode(data, reduced=reduced)
    except InputError as error:
        return str(error).split(":")[0]
    return "fine"


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 30}])
def test_reduced_decoding_of_a_jpeg_finds_the_same_truncations(options: dict[str, Any]) -> None:
    """Otherwise an image could pass the index and fail in a beton."""
    data = encoded(Image.fromarray(noise(90, 70, 3)), "JPEG", **options)
    cuts = [*range(0, len(data), 97), *range(len(data) - 4, len(data) + 1)]
    verdicts = [verdict(data[:cut], reduced=False) for cut in cuts]
    assert verdicts == [verdict(data[:cut], reduced=True) for cut in cuts]
    assert {"fine", "damaged"} <= set(verdicts)


@pytest.mark.parametrize("size", [(1, 1), (7, 7), (3, 50), (50, 3), (8, 8), (9, 17)])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpegs_smaller_than_8_pixels_decode_reduced(size: tuple[int, int], mode: str) -> None:
    image = decode(encoded(Image.new(mode, size), "JPEG"), reduced=True)
    assert image.mode == "RGB"


def test_an_image_of_absurd_size_is_rejected_before_it_fills_the_memory() -> None:
    data = bytearray(encoded(Image.new("L", (8, 8)), "PNG"))
    data[16:24] = struct.pack(">II", 60_000, 60_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    with pytest.raises(InputError, match="^damaged: Image size .* exceeds limit"):
        decode(bytes(data))


# --- preparation -----------------------------------------------------------------------------

SIZES = [
    *((500, 375), (375, 500), (500, 333), (333, 500), (640, 480), (1000, 750)),
    *((256, 256), (256, 300), (300, 256), (256, 1024), (224, 224)),  # short side of the target size
    *((257, 255), (255, 257), (511, 513), (641, 427), (427, 641), (301, 299)),  # odd
    *((1, 1), (1, 4), (4, 1), (20, 30), (31, 17), (64, 64)),  # enlarged
    *((400, 100), (100, 400), (1601, 399), (399, 1601), (1200, 300)),  # 1:4
]


def by_torchvision(image: Image.Image, resize_px: int, crop_px: int) -> Array:
    resized = v2.functional.resize(image, [resize_px], antialias=True)
    return np.asarray(v2.functional.center_crop(resized, [crop_px]))


def difference(width: int, height: int, resize_px: int, crop_px: int) -> int:
    """Return the largest difference from torchvision's pixels, in grey levels."""
    image = Image.fromarray(noise(width, height, 3, seed=width * 10_000 + height))
    ours = prepare(image, resize_px, crop_px)
    assert ours.shape == (crop_px, crop_px, 3)
    assert ours.dtype == np.uint8
    return int(abs(ours.astype(int) - by_torchvision(image, resize_px, crop_px)).max())


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_pixels_equal_torchvisions_within_one_grey_level(width: int, height: int) -> None:
    """The reference is Resize(256, antialias) and CenterCrop(224) of the PIL image."""
    assert difference(width, height, 256, 224) <= 1


def test_pixels_equal_torchvisions_at_many_random_sizes() -> None:
    sizes = np.random.default_rng(0).integers(3, 700, (100, 2)).tolist()
    assert max(difference(width, height, 256, 224) for width, height in sizes) <= 1


@pytest.mark.parametrize(
    ("resize_px", "crop_px"),
    [(224, 224), (255, 224), (256, 223), (64, 64), (72, 64), (33, 8), (512, 448)],
)
def test_other_targets_equal_torchvisions_within_two_grey_levels(
    resize_px: int, crop_px: int
) -> None:
    assert max(difference(*size, resize_px, crop_px) for size in SIZES[::2]) <= 2


def test_an_image_of_the_target_size_is_only_cropped() -> None:
    picture = noise(300, 256, 3)
    assert np.array_equal(prepare(Image.fromarray(picture), 256, 224), picture[16:240, 38:262])


# --- sums ------------------------------------------------------------------------------------


def test_mean_and_std_equal_numpys() -> None:
    pictures = noise(13, 20, 5, 3).transpose(2, 0, 1, 3)
    sums = PixelSums()
    for picture in pictures:
        sums += pixel_sums(picture)
    values = pictures.reshape(-1, 3) / 255
    assert sums.count == len(values)
    np.testing.assert_allclose(sums.mean(), values.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(sums.std(), values.std(axis=0), rtol=1e-12)


def test_sums_do_not_depend_on_the_order() -> None:
    sums = [pixel_sums(noise(9, 9, 3, seed=seed)) for seed in range(7)]
    forward, backward = sum(sums, PixelSums()), sum(sums[::-1], PixelSums())
    assert forward == backward
    assert (forward.mean(), forward.std()) == (backward.mean(), backward.std())


@pytest.mark.parametrize("value", [0, 1, 77, 255])
def test_one_colour_has_a_std_of_0(value: int) -> None:
    """Sums of floats would leave a remainder, or the root of a negative number."""
    sums = pixel_sums(np.full((50, 40, 3), value, np.uint8))
    assert sums.mean() == [value / 255] * 3
    assert sums.std() == [0.0] * 3
