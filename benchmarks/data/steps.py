"""Processor time of each step of writing a beton, on one thread."""

import os
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.peers.betons import IMAGE_SIZE, RESIZE_PX
from minet.core.files import digest
from minet.images.decode import crop_box
from minet.images.fast_decode import DecodeBuffers, decode_pixels
from minet.images.resize import resize_box

STEPS = ("read", "digest of the file", "decode", "resize and sums", "digest of the record", "write")


def steps(folder: Path, repeats: int) -> dict[str, list[float]]:
    """Return milliseconds per image of each step, over all images of a folder, per repeat."""
    paths = sorted(folder.glob("*.jpg"))
    times: dict[str, list[float]] = {name: [] for name in STEPS}
    with tempfile.NamedTemporaryFile(dir=folder.parent) as file:
        _once(paths[:8], file.fileno())  # warm-up: compilation, allocation
        for _ in range(repeats):
            for name, milliseconds in _once(paths, file.fileno()).items():
                times[name].append(milliseconds)
    return times


def _once(paths: list[Path], file: int) -> dict[str, float]:
    """Do to each image what `write_beton` does; read the clock after each step."""
    buffers, pixels = DecodeBuffers(), np.empty((IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    spent = dict.fromkeys(STEPS, 0)
    for number, path in enumerate(paths):
        at = [time.thread_time_ns()]
        with open(path, "rb", buffering=0) as source:  # noqa: PTH123 - as write_beton does
            data = source.read()
        at.append(time.thread_time_ns())
        digest(data).hex()
        at.append(time.thread_time_ns())
        image = decode_pixels(data, buffers)
        at.append(time.thread_time_ns())
        box = crop_box(image.shape[1], image.shape[0], RESIZE_PX, IMAGE_SIZE)
        resize_box(image, box, pixels, buffers.scratch)
        at.append(time.thread_time_ns())
        digest(pixels.data)
        at.append(time.thread_time_ns())
        os.pwrite(file, pixels.data, number * pixels.nbytes)
        at.append(time.thread_time_ns())
        for name, before, after in zip(STEPS, at, at[1:], strict=False):
            spent[name] += after - before
    return {name: total / 1e6 / len(paths) for name, total in spent.items()}
