"""Draw the synthetic data set: images with the sizes and formats of photographs.

A class combines a colour, a texture and a shape. Classes come in pairs that differ in one channel
only, so that a classifier without that channel cannot distinguish them. All drawing is integer
arithmetic: the same bytes on every machine with the same Pillow.
"""

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from minet.core.rng import RngStream, generator
from minet.data.config import SPLITS, SampleSettings

CLASSES = (
    ("red", "striped", "disc"),
    ("yellow", "striped", "disc"),  # differs from red in the green channel
    ("red", "dotted", "square"),
    ("magenta", "dotted", "square"),  # differs from red in the blue channel
    ("blue", "checked", "triangle"),
    ("magenta", "checked", "triangle"),  # differs from blue in the red channel
    ("green", "dotted", "disc"),
    ("cyan", "dotted", "disc"),  # differs from green in the blue channel
    ("blue", "striped", "square"),
    ("cyan", "striped", "square"),  # differs from blue in the green channel
)
_COLOURS = {
    "red": (205, 55, 55),
    "yellow": (205, 205, 55),
    "magenta": (205, 55, 205),
    "blue": (55, 55, 205),
    "green": (55, 205, 55),
    "cyan": (55, 205, 205),
}
_SIZES = ((500, 375), (500, 375), (375, 500), (500, 333), (333, 500), (400, 300), (640, 480))
_GREY_FRACTION = 0.02  # mini-ImageNet has a few greyscale files too

Grid = NDArray[np.int32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class SampleImage:
    """One image of the sample: its path below the root, its label, and what its draws depend on."""

    path: str
    label: int
    split: str
    number: int


def sample_images(settings: SampleSettings) -> Iterator[SampleImage]:
    """Yield the images of all splits, ordered by split and class like mini-ImageNet's lists."""
    for split in SPLITS:
        count: int = getattr(settings, split)
        for number in range(count):
            label = number * settings.classes // count
            folder = "-".join(CLASSES[label])
            path = f"images/{folder}/{split}_{number:05d}.JPEG"
            yield SampleImage(path, label, split, number)


def draw_jpeg(image: SampleImage, seed: int) -> bytes:
    """Draw an image and encode it; the bytes depend only on (seed, split, number, label)."""
    rng = generator(seed, RngStream.SAMPLE, SPLITS.index(image.split), image.number)
    drawing = Image.fromarray(draw(image.label, rng))
    if rng.random() < _GREY_FRACTION:
        drawing = drawing.convert("L")
    file = io.BytesIO()
    drawing.save(file, format="JPEG", quality=90)
    return file.getvalue()


def draw(label: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw one image (H, W, 3) of a class: a textured shape on a cluttered background."""
    colour, texture, shape = CLASSES[label]
    width, height = _SIZES[rng.integers(len(_SIZES))]
    canvas = _background(width, height, rng)
    radius = int(rng.integers(min(width, height) * 20 // 100, min(width, height) * 38 // 100))
    x = int(rng.integers(radius, width - radius + 1))
    y = int(rng.integers(radius, height - radius + 1))
    along, across = _rotated_axes(width, height, x, y, degrees=int(rng.integers(360)))
    inside = _SHAPES[shape](along, across, radius)
    light = _TEXTURES[texture](along, across, int(rng.integers(radius * 2 // 9, radius * 3 // 9)))
    tint = np.array(_COLOURS[colour], np.int32) + rng.integers(-25, 26, 3, dtype=np.int32)
    paint = np.where(light[..., None], tint, tint * 2 // 5)
    brightness = int(rng.integers(170, 290))  # 256 is 1.0
    canvas = np.where(inside[..., None], paint, canvas) * brightness // 256
    canvas += rng.integers(-14, 15, (height, width, 1), dtype=np.int32)
    return canvas.clip(0, 255).astype(np.uint8)


def _background(width: int, height: int, rng: np.random.Generator) -> Grid:
    """Draw a gradient between two muted colours below a few muted rectangles: (H, W, 3)."""
    start, end = _muted(rng), _muted(rng)
    ramp = np.arange(width, dtype=np.int32)[None, :, None]
    canvas = np.repeat((start * (width - ramp) + end * ramp) // width, height, axis=0)
    for _ in range(rng.integers(2, 7)):
        left, top = int(rng.integers(width)), int(rng.integers(height))
        right = left + int(rng.integers(width // 8, width // 2))
        bottom = top + int(rng.integers(height // 8, height // 2))
        canvas[top:bottom, left:right] = _muted(rng)
    return canvas


def _muted(rng: np.random.Generator) -> Grid:
    grey = int(rng.integers(50, 200))
    return grey + rng.integers(-30, 31, 3, dtype=np.int32)


def _rotated_axes(width: int, height: int, x: int, y: int, *, degrees: int) -> tuple[Grid, Grid]:
    """Return the coordinates of each pixel relative to (x, y) along rotated axes: two (H, W)."""
    cosine, sine = (round(1024 * f(math.radians(degrees))) for f in (math.cos, math.sin))
    dx = np.arange(width, dtype=np.int32)[None, :] - x
    dy = np.arange(height, dtype=np.int32)[:, None] - y
    return (cosine * dx + sine * dy) >> 10, (cosine * dy - sine * dx) >> 10


def _disc(along: Grid, across: Grid, radius: int) -> Mask:
    inside: Mask = along * along + across * across < radius**2
    return inside


def _square(along: Grid, across: Grid, radius: int) -> Mask:
    inside: Mask = np.maximum(abs(along), abs(across)) * 1000 < radius * 800
    return inside


def _triangle(along: Grid, across: Grid, radius: int) -> Mask:
    sides = across * 1000 > np.abs(along) * 1732 - radius * 1000
    inside: Mask = sides & (across * 2 < radius)
    return inside


def _striped(along: Grid, across: Grid, period: int) -> Mask:
    del across
    light: Mask = along // period % 2 == 0
    return light


def _checked(along: Grid, across: Grid, period: int) -> Mask:
    light: Mask = (along // period + across // period) % 2 == 0
    return light


def _dotted(along: Grid, across: Grid, period: int) -> Mask:
    middle = period // 2
    return (along % period - middle) ** 2 + (across % period - middle) ** 2 > (period * 3 // 8) ** 2


_SHAPES = {"disc": _disc, "square": _square, "triangle": _triangle}
_TEXTURES = {"striped": _striped, "checked": _checked, "dotted": _dotted}
