"""Files for the competitors: originals, JPEGs of 224 px, betons, and the expected pixels."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from benchmarks.peers.betons import IMAGE_SIZE, JPEG_QUALITY, RESIZE_PX, index_rows, write
from benchmarks.peers.competitor import Job
from benchmarks.peers.torch_loaders import reference_transform
from benchmarks.photos import DENSE, LIGHT, write_photos
from minet.beton.jpeg import encode_record
from minet.core.threads import ordered_map
from minet.images.fast_decode import DecodeBuffers, prepare_file

Pixels = NDArray[np.uint8]


def make_files(job: Job) -> dict[str, Any]:
    """Write all files below the job's folder; return the counts and sizes of the photographs.

    `reference.npy` holds torchvision's pixels of each dense original, `prepared.npy` minet's,
    `decoded.npy` those of the JPEGs encoded from minet's.
    """
    photos: dict[str, Any] = {}
    for name, kind in (("dense", DENSE), ("light", LIGHT)):
        paths = write_photos(job.path(name), job.originals, kind, job.threads)
        photos[name] = _description(paths) | {"quality": kind.quality, "noise": kind.noise}
    _save_pixels(job)
    photos["jpeg"] = _description(list(map(Path, job.jpeg_paths()))) | {"quality": JPEG_QUALITY}
    root = job.path("dense")
    rows = index_rows(root, job.originals, job.count)
    write(job.path("raw.beton"), rows, root, "raw", job.threads)
    write(job.path("jpg.beton"), rows, root, "jpg", job.threads)
    return photos


def _description(paths: list[Path]) -> dict[str, Any]:
    return {"count": len(paths), "mean_bytes": sum(p.stat().st_size for p in paths) / len(paths)}


def _save_pixels(job: Job) -> None:
    """Write the three arrays of pixels and the JPEGs of 224 px."""
    photos, transform, buffers = job.photo_paths(), reference_transform(), DecodeBuffers()

    def reference(number: int) -> Pixels:
        with Image.open(photos[number]) as image:
            return np.asarray(transform(image.convert("RGB")))

    def prepared(number: int) -> Pixels:
        out = np.empty((IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
        prepare_file(Path(photos[number]).read_bytes(), RESIZE_PX, out, buffers)
        return out

    _save(job, "reference.npy", reference)
    jpegs = [encode_record(pixels, JPEG_QUALITY) for pixels in _save(job, "prepared.npy", prepared)]
    _save(job, "decoded.npy", lambda number: simplejpeg.decode_jpeg(jpegs[number], "RGB"))
    job.path("jpeg").mkdir()
    for number, path in enumerate(job.jpeg_paths()):
        Path(path).write_bytes(jpegs[number % len(jpegs)])


def _save(job: Job, name: str, image: Callable[[int], Pixels]) -> Pixels:
    """Save images (originals, side, side, 3) as a memory-mapped array; return it."""
    shape = (job.originals, IMAGE_SIZE, IMAGE_SIZE, 3)
    array = np.lib.format.open_memmap(job.path(name), "w+", np.uint8, shape)
    for number, pixels in enumerate(ordered_map(image, range(job.originals), job.threads)):
        array[number] = pixels
    array.flush()
    return array
