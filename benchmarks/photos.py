"""Test photographs: reproducible crops of scikit-learn's two sample images.

The decoding time of a JPEG depends on its bytes per pixel. ILSVRC2012's training images have about
0.6 (138 GB, 1.28 million images of 469 x 387 px on average); with noise like a sensor's, so do the
crops. Without noise, at a lower quality, they have half as many.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from minet.core.threads import ordered_map

WIDTH_PX, HEIGHT_PX = 500, 375  # the most frequent size in ILSVRC2012
_MIN_CROP = 0.8  # smallest fraction of each side that a crop keeps


@dataclass(frozen=True)
class Kind:
    """Noise and JPEG quality of a set."""

    noise: float  # std in grey levels, shared by the channels; half as much independent in each
    quality: int


DENSE = Kind(noise=6.0, quality=95)  # 0.6 bytes per pixel, as ImageNet
LIGHT = Kind(noise=0.0, quality=90)  # 0.28


def write_photos(folder: Path, count: int, kind: Kind, threads: int) -> list[Path]:
    """Write `count` JPEGs of 500 x 375 px, 000000.jpg and so on."""
    folder.mkdir(parents=True)
    photos = _originals()
    paths = [folder / f"{number:06}.jpg" for number in range(count)]
    for path, data in zip(
        paths, ordered_map(lambda n: _photo(photos, n, kind), range(count), threads), strict=True
    ):
        path.write_bytes(data)
    return paths


def _originals() -> list[Image.Image]:
    from sklearn.datasets import load_sample_images

    return [Image.fromarray(pixels) for pixels in load_sample_images().images]


def _photo(photos: Sequence[Image.Image], number: int, kind: Kind) -> bytes:
    """Crop, flip and encode one photograph; its number is the seed."""
    rng = np.random.default_rng(number)
    photo = photos[number % len(photos)]
    width, height = (side * rng.uniform(_MIN_CROP, 1.0) for side in photo.size)
    left, top = rng.uniform(0, photo.width - width), rng.uniform(0, photo.height - height)
    image = photo.resize(
        (WIDTH_PX, HEIGHT_PX), Image.Resampling.LANCZOS, (left, top, left + width, top + height)
    )
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if kind.noise:
        shape = (HEIGHT_PX, WIDTH_PX)
        grey = rng.standard_normal((*shape, 1), np.float32)
        noise = kind.noise * (grey + rng.standard_normal((*shape, 3), np.float32) / 2)
        noisy = (np.asarray(image) + noise).round().clip(0, 255).astype(np.uint8)
        image = Image.fromarray(noisy)
    data = io.BytesIO()
    image.save(data, "JPEG", quality=kind.quality)
    return data.getvalue()
