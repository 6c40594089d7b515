"""Upper limits of speed: decoding alone and copying alone, with as many threads."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.peers.betons import IMAGE_SIZE
from benchmarks.peers.competitor import Batches, Competitor, Job, Runner, reader

_CHUNK_SIZE = 16  # images per task of a thread
_PREFETCH = 3  # batches in flight

Pixels = NDArray[np.uint8]
Fill = Callable[[Sequence[int], Pixels], None]


def _decode_originals(job: Job) -> Runner:
    """Decode files in memory, each thread into its own buffer."""
    import simplejpeg

    files = [Path(path).read_bytes() for path in job.photo_paths()]
    local = threading.local()

    def decode(numbers: range) -> None:
        if not hasattr(local, "buffer"):
            local.buffer = np.empty(16 << 20, np.uint8)
        for number in numbers:
            simplejpeg.decode_jpeg(files[number], "RGB", buffer=local.buffer)

    def epoch() -> int:
        numbers = range(len(files))
        with ThreadPoolExecutor(job.threads) as pool:
            list(pool.map(decode, (numbers[n : n + _CHUNK_SIZE] for n in numbers[::_CHUNK_SIZE])))
        return len(files)

    return Runner(epoch, None)


def _decode_records(job: Job) -> Runner:
    """Decode JPEGs of 224 px in memory into reused batches."""
    import simplejpeg

    files = [Path(path).read_bytes() for path in job.jpeg_paths()]

    def fill(numbers: Sequence[int], images: Pixels) -> None:
        for number, image in zip(numbers, images, strict=True):
            simplejpeg.decode_jpeg(files[number], "RGB", buffer=image)

    return _threaded_runner(job, fill)


def _copy_records(job: Job) -> Runner:
    """Copy records of an array in memory into reused batches."""
    prepared = np.load(job.path("prepared.npy"))
    source = np.concatenate([prepared] * (job.count // len(prepared) + 1))[: job.count]
    del prepared

    def fill(numbers: Sequence[int], images: Pixels) -> None:
        # mode "raise" would copy through a buffer; one call, or threads contend for the GIL
        np.take(source, numbers, axis=0, out=images, mode="clip")

    return _threaded_runner(job, fill)


def _threaded_runner(job: Job, fill: Fill) -> Runner:
    """Return a Runner whose batches are filled by threads, a few in advance."""
    buffers = [
        np.empty((job.batch_size, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8) for _ in range(_PREFETCH)
    ]
    pool, epochs = ThreadPoolExecutor(job.threads), iter(range(1_000_000))

    def batches() -> Batches:
        order = job.order(next(epochs)).tolist()
        parts = [order[n : n + job.batch_size] for n in range(0, len(order), job.batch_size)]
        tasks = [_submit(pool, fill, part, buffers[i]) for i, part in enumerate(parts[:_PREFETCH])]
        for i, part in enumerate(parts):
            for future in tasks[i]:
                future.result()
            images = buffers[i % _PREFETCH][: len(part)]
            yield torch.from_numpy(images).permute(0, 3, 1, 2), torch.tensor(part)
            if i + _PREFETCH < len(parts):
                tasks.append(_submit(pool, fill, parts[i + _PREFETCH], buffers[i % _PREFETCH]))

    return reader(batches)


def _submit(
    pool: ThreadPoolExecutor, fill: Fill, part: list[int], buffer: Pixels
) -> list[Future[None]]:
    return [
        pool.submit(fill, part[n : n + _CHUNK_SIZE], buffer[n : min(n + _CHUNK_SIZE, len(part))])
        for n in range(0, len(part), _CHUNK_SIZE)
    ]


_DECODE = "simplejpeg.decode_jpeg (libjpeg-turbo, accurate DCT) of files in memory"

PREPARE = {
    "limit: decoding alone": Competitor(
        _decode_originals,
        {"how": f"{_DECODE} into one buffer per thread", "threads": "cores"},
        reference=None,
    )
}
READ_JPG = {
    "limit: decoding alone": Competitor(
        _decode_records,
        {"how": f"{_DECODE} into reused batches", "threads": "cores"},
        reference="decoded.npy",
    )
}
READ_RAW = {
    "limit: copying alone": Competitor(
        _copy_records,
        {"how": "numpy.take from one array into reused batches", "threads": "cores"},
        reference="prepared.npy",
    )
}
