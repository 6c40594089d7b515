"""Images from memory and from files: loaders alone, and the training loop that waits for them."""

from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.gpu.parts.images import STORAGES, loader_beton
from benchmarks.gpu.work import Work
from benchmarks.train import stall
from benchmarks.train.job import now
from minet.core.arrays import all_indices
from minet.core.cli import workers
from minet.loader.batch import Source
from minet.loader.prefetch import prefetch_to_device
from minet.loader.resident import ResidentLoader
from minet.loader.stream import StreamLoader

# by loader, with a GPU
_MEMORY = {
    "resident": "the GPU's",
    "streamed, page-locked": "page-locked",
    "streamed": "pageable",
}


def measure(work: Work) -> None:
    """Report images per second that arrive on the device, then those of the training loop."""
    for storage in STORAGES:
        path = loader_beton(work.folder, storage)
        for name, loader in _loaders(path, work):
            if work.gpu:
                work.claim(f"{storage}, {name}: memory", _memory(loader), _MEMORY[name])
            work.attempt("alone", f"{storage}, {name}", measure=partial(_rates, loader, work))
    job = work.job(work.size.model, work.size.batch_size)
    for storage in STORAGES:
        request = {"job": job.record(), "beton": str(loader_beton(work.folder, storage))}
        work.attempt("loop", storage, measure=partial(stall.measure, request))


def _loaders(path: Path, work: Work) -> list[tuple[str, Source]]:
    """Return the ways to read a beton; only a GPU copies from page-locked memory."""

    def stream(*, pin_memory: bool) -> StreamLoader:
        batch_size = work.size.batch_size
        return StreamLoader(path, batch_size=batch_size, workers=workers(), pin_memory=pin_memory)

    loaders: list[tuple[str, Source]] = [
        ("resident", ResidentLoader(stream(pin_memory=work.gpu), work.device)),
        ("streamed", stream(pin_memory=False)),
    ]
    if work.gpu:
        loaders.insert(1, ("streamed, page-locked", stream(pin_memory=True)))
    return loaders


def _memory(loader: Source) -> str:
    """Return which memory a loader's batches are in."""
    images = next(iter(loader.batches(all_indices(1)))).images
    if images.is_cuda:
        return "the GPU's"
    return "page-locked" if images.is_pinned() else "pageable"


def _rates(loader: Source, work: Work) -> dict[str, list[float]]:
    epochs = range(work.size.repeats)
    return {"images_per_s": [_rate(loader, work.device, epoch) for epoch in epochs]}


def _rate(loader: Source, device: torch.device, epoch: int) -> float:
    """Return images per second of a shuffled epoch."""
    order = np.random.default_rng(epoch).permutation(loader.count)
    start = now(device)
    for _ in prefetch_to_device(loader.batches(order), device):
        pass
    return loader.count / (now(device) - start)
