"""minet itself: writing betons, and reading them from the file and from memory."""

import torch

from benchmarks.peers.betons import Storage, rows_of, write
from benchmarks.peers.contest import Batches, Competitor, Job, Opened, reading
from minet.core.arrays import all_indices
from minet.loader.config import Cache
from minet.loader.loader import open_loaders
from minet.loader.stream import StreamLoader
from minet.train.allocator import keep_freed_memory


def _writing(storage: Storage) -> Competitor:
    def begin(job: Job) -> Opened:
        root, path = job.path(job.photos), job.path(f"written-{storage}.beton")
        rows = rows_of(root, job.originals, job.originals)

        def epoch() -> int:
            write(path, rows, root, storage, job.threads)
            return len(rows)

        def look() -> Batches:
            loader = StreamLoader(path, batch_size=job.batch_size, workers=job.threads)
            for batch in loader.batches(all_indices(loader.count)):
                yield batch.images, torch.from_numpy(batch.indices)

        return Opened(epoch, look)

    what = f"write_beton, {storage}: digests of sources and records, statistics, fsync"
    return Competitor(
        begin,
        {"how": what, "threads": "cores"},
        needs=("minet.beton.writer",),
        reference="reference.npy" if storage == "raw" else None,  # a JPEG loses some
    )


def _loading(storage: Storage, cache: Cache) -> Competitor:
    def begin(job: Job) -> Opened:
        keep_freed_memory()  # as `stages.train` does
        (loader,) = open_loaders(
            [(job.path(f"{storage}.beton"), job.batch_size)],
            workers=job.threads,
            cache=cache,
            device=torch.device("cpu"),
        )
        epochs = iter(range(1_000_000))

        def batches() -> Batches:
            for batch in loader.batches(job.order(next(epochs))):
                yield batch.images, torch.from_numpy(batch.indices)

        return reading(batches)

    reference = "decoded.npy" if storage == "jpg" else "prepared.npy"
    settings = {
        "how": f"open_loaders, cache {cache}, a shuffled order, freed memory kept",
        "threads": "cores",
    }
    return Competitor(begin, settings, needs=("minet.loader.loader",), reference=reference)


PREPARE = {"minet raw": _writing("raw"), "minet jpg": _writing("jpg")}
READ_JPG = {"minet stream": _loading("jpg", "stream")}
READ_RAW = {
    "minet stream": _loading("raw", "stream"),
    "minet resident": _loading("raw", "resident"),
}
