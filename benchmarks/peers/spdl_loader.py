"""SPDL: a thread pipeline, with its own decoder (FFmpeg) and with libjpeg-turbo."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.peers.betons import IMAGE_SIZE
from benchmarks.peers.competitor import Batches, Competitor, Job, Runner, reader

Part = tuple[list[str], list[int]]  # files of a batch and their numbers
Load = Callable[[Part], tuple[Tensor, Tensor]]

# YUV to RGB only; the default filter would also resize
_FILTER = "format=pix_fmts=rgb24"


def _load_ffmpeg(part: Part) -> tuple[Tensor, Tensor]:
    import spdl.io

    paths, numbers = part
    buffer = spdl.io.load_image_batch(paths, width=None, height=None, filter_desc=_FILTER)
    return spdl.io.to_torch(buffer).permute(0, 3, 1, 2), torch.tensor(numbers)


def _load_turbo(part: Part) -> tuple[Tensor, Tensor]:
    import simplejpeg

    paths, numbers = part
    images = np.empty((len(paths), IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    for path, image in zip(paths, images, strict=True):
        simplejpeg.decode_jpeg(Path(path).read_bytes(), "RGB", buffer=image)
    return torch.from_numpy(images).permute(0, 3, 1, 2), torch.tensor(numbers)


def _loading(load: Load) -> Callable[[Job], Runner]:
    def open_runner(job: Job) -> Runner:
        from spdl.pipeline import PipelineBuilder

        paths, epochs = job.jpeg_paths(), iter(range(1_000_000))

        def batches() -> Batches:
            order = job.order(next(epochs)).tolist()
            parts = [order[n : n + job.batch_size] for n in range(0, len(order), job.batch_size)]
            pipeline = (
                PipelineBuilder()
                .add_source(([paths[n] for n in part], part) for part in parts)
                .pipe(load, concurrency=job.threads)
                .add_sink(2)
                .build(num_threads=job.threads)
            )
            with pipeline.auto_stop():
                yield from pipeline

        return reader(batches)

    return open_runner


_PIPELINE = "Pipeline, one batch per thread, in order of completion, shuffled"

READ_JPG = {
    "SPDL, FFmpeg": Competitor(
        _loading(_load_ffmpeg),
        {"how": f"{_PIPELINE}; spdl.io.load_image_batch", "threads": "cores"},
        needs=("spdl.io", "spdl.pipeline"),
        reference="decoded.npy",
    ),
    "SPDL, simplejpeg": Competitor(
        _loading(_load_turbo),
        {"how": f"{_PIPELINE}; simplejpeg.decode_jpeg", "threads": "cores"},
        needs=("spdl.pipeline", "simplejpeg"),
        reference="decoded.npy",
    ),
}
