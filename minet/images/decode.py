"""Decode an image file; resize and crop it to the pixels of a record."""

import io
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from minet.core.arrays import Pixels
from minet.core.errors import InputError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")

Box = tuple[float, float, float, float]  # left, top, right, bottom

_TRANSPOSE = {  # EXIF orientation -> the operation that makes the image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(data: bytes, *, reduced: bool = False) -> Image.Image:
    """Decode a file to RGB and turn it upright according to its EXIF orientation.

    Greyscale is repeated over the channels, 16 bits are scaled to 8, alpha is dropped (as in
    torchvision's loader). `reduced` decodes a JPEG at an eighth of its size, which finds the same
    damage in a third of the time. InputError if the file is no usable image.
    """
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
        if reduced:
            image.draft("RGB", (max(image.width // 8, 1), max(image.height // 8, 1)))
        image.load()
        # not ImageOps.exif_transpose: it rewrites the EXIF and fails on odd but harmless tags
        transpose = _TRANSPOSE.get(_orientation(image))
    except UnidentifiedImageError as error:
        raise InputError(f"not an image of a known format ({', '.join(FORMATS)})") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"damaged: {error}") from error
    return _to_rgb(image if transpose is None else image.transpose(transpose))


def orientation(data: bytes) -> int | None:
    """Return the orientation in a file's EXIF or XMP, 1 if absent; None if it is no image."""
    try:
        return _orientation(Image.open(io.BytesIO(data), formats=FORMATS))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def prepare(image: Image.Image, resize_px: int, crop_px: int) -> Pixels:
    """Resize the short side of an RGB image and crop the centre: (crop_px, crop_px, 3) uint8.

    The pixels equal those of torchvision's Resize(resize_px, antialias) and CenterCrop(crop_px) on
    a PIL image within one grey level at 256 and 224 (two at other values): only the cropped box is
    resized. Columns first, then rows: Pillow on its own takes either order, depending on version
    and shape, and the bytes differ. `minet.images.resize` is the fast equivalent.
    """
    left, top, right, bottom = crop_box(*image.size, resize_px, crop_px)
    bilinear, width = Image.Resampling.BILINEAR, image.width
    columns = image.resize((width, crop_px), bilinear, (0, top, width, bottom))
    return np.asarray(columns.resize((crop_px, crop_px), bilinear, (left, 0, right, crop_px)))


def crop_box(width: int, height: int, resize_px: int, crop_px: int) -> Box:
    """Return the box of the centre crop in pixels of the original image."""
    new_width, new_height = _resized_size(width, height, resize_px)
    # torchvision rounds the corner of the crop half to even, like Python
    left, top = round((new_width - crop_px) / 2), round((new_height - crop_px) / 2)
    scale_x, scale_y = width / new_width, height / new_height
    return (
        left * scale_x,
        top * scale_y,
        min((left + crop_px) * scale_x, width),
        min((top + crop_px) * scale_y, height),
    )


@dataclass(frozen=True)
class PixelSums:
    """Exact sums over the pixels of any number of images, per channel, for mean and std."""

    count: int = 0
    total: tuple[int, int, int] = (0, 0, 0)
    squares: tuple[int, int, int] = (0, 0, 0)

    def __add__(self, other: "PixelSums") -> "PixelSums":
        """Add the sums of other images."""
        return PixelSums(
            self.count + other.count,
            _add(self.total, other.total),
            _add(self.squares, other.squares),
        )

    def mean(self) -> list[float]:
        """Return the mean of each channel, pixels scaled to 0..1."""
        return [total / self.count / 255 for total in self.total]

    def std(self) -> list[float]:
        """Return the std of each channel over all pixels of all images, scaled to 0..1."""
        moments = zip(self.total, self.squares, strict=True)
        # integers up to the last step: no cancellation, the same bytes in any order
        return [
            (self.count * squares - total**2) ** 0.5 / self.count / 255
            for total, squares in moments
        ]


def _orientation(image: Image.Image) -> int:
    value: int = image.getexif().get(ExifTags.Base.Orientation, 1)
    return value


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey, which convert() would clip, not scale
        wide = np.asarray(image).astype(np.int64)
        image = Image.fromarray(((wide + 128) // 257).clip(0, 255).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _resized_size(width: int, height: int, short_px: int) -> tuple[int, int]:
    """Return the size after torchvision's Resize(short_px): the long side is rounded down."""
    if width <= height:
        return short_px, int(short_px * height / width)
    return int(short_px * width / height), short_px


def _add(a: tuple[int, int, int], b: tuple[int, int, int]) -> tuple[int, int, int]:
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]
