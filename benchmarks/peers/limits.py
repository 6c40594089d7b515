"""What nobody can be faster than: the decoder alone, the memory alone, with as many threads."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.peers.betons import IMAGE_SIZE
from benchmarks.peers.contest import Batches, Competitor, Job, Opened, reading

_AT_ONCE = 16  # images that a thread takes at a time
_AHEAD = 3  # batches in flight

Pixels = NDArray[np.uint8]
Fill = Callable[[Sequence[int], Pixels], None]


def _decode_originals(job: Job) -> Opened:
    """Decode files that lie in memory, each thread into a buffer of its own."""
    import simplejpeg

    files = [Path(path).read_bytes() for path in job.photo_paths()]
    mine = threading.local()

    def decode(numbers: range) -> None:
        if not hasattr(mine, "buffer"):
            mine.buffer = np.empty(16 << 20, np.uint8)
        for number in numbers:
            simplejpeg.decode_jpeg(files[number], "RGB", buffer=mine.buffer)

    def epoch() -> int:
        numbers = range(len(files))
        with ThreadPoolExecutor(job.threads) as pool:
            list(pool.map(decode, (numbers[n : n + _AT_ONCE] for n in numbers[::_AT_ONCE])))
        return len(files)

    return Opened(epoch, None)


def _decode_records(job: Job) -> Opened:
    """Decode JPEGs of 224 px that lie in memory into batches used again."""
    import simplejpeg

    files = [Path(path).read_bytes() for path in job.jpeg_paths()]

    def fill(numbers: Sequence[int], images: Pixels) -> None:
        for number, image in zip(numbers, images, strict=True):
            simplejpeg.decode_jpeg(files[number], "RGB", buffer=image)

    return _filling(job, fill)


def _copy_records(job: Job) -> Opened:
    """Copy records of an array in memory into batches used again."""
    prepared = np.load(job.path("prepared.npy"))
    source = np.concatenate([prepared] * (job.count // len(prepared) + 1))[: job.count]
    del prepared

    def fill(numbers: Sequence[int], images: Pixels) -> None:
        # mode: "raise" would go by way of a buffer; one call, or threads wait for each other
        np.take(source, numbers, axis=0, out=images, mode="clip")

    return _filling(job, fill)


def _filling(job: Job, fill: Fill) -> Opened:
    """Deliver batches that threads fill, a few ahead."""
    buffers = [
        np.empty((job.batch_size, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8) for _ in range(_AHEAD)
    ]
    pool, epochs = ThreadPoolExecutor(job.threads), iter(range(1_000_000))

    def batches() -> Batches:
        order = job.order(next(epochs)).tolist()
        parts = [order[n : n + job.batch_size] for n in range(0, len(order), job.batch_size)]
        begun = [_begin(pool, fill, part, buffers[i]) for i, part in enumerate(parts[:_AHEAD])]
        for i, part in enumerate(parts):
            for future in begun[i]:
                future.result()
            images = buffers[i % _AHEAD][: len(part)]
            yield torch.from_numpy(images).permute(0, 3, 1, 2), torch.tensor(part)
            if i + _AHEAD < len(parts):
                begun.append(_begin(pool, fill, parts[i + _AHEAD], buffers[i % _AHEAD]))

    return reading(batches)


def _begin(
    pool: ThreadPoolExecutor, fill: Fill, part: list[int], buffer: Pixels
) -> list[Future[None]]:
    return [
        pool.submit(fill, part[n : n + _AT_ONCE], buffer[n : min(n + _AT_ONCE, len(part))])
        for n in range(0, len(part), _AT_ONCE)
    ]


_DECODE = "simplejpeg.decode_jpeg (libjpeg-turbo, accurate DCT) of files in memory"

PREPARE = {
    "limit: decoding alone": Competitor(
        _decode_originals,
        {"how": f"{_DECODE} into one buffer a thread", "threads": "cores"},
        reference=None,
    )
}
READ_JPG = {
    "limit: decoding alone": Competitor(
        _decode_records,
        {"how": f"{_DECODE} into batches used again", "threads": "cores"},
        reference="decoded.npy",
    )
}
READ_RAW = {
    "limit: copying alone": Competitor(
        _copy_records,
        {"how": "numpy.take from one array into batches used again", "threads": "cores"},
        reference="prepared.npy",
    )
}
