"""minet: writing betons, and reading them from the file and from memory."""

import torch

from benchmarks.peers.betons import Storage, index_rows, write
from benchmarks.peers.competitor import Batches, Competitor, Job, Runner, reader
from minet.core.arrays import all_indices
from minet.loader.config import Cache
from minet.loader.loader import open_loaders
from minet.loader.stream import StreamLoader
from minet.train.allocator import keep_freed_memory


def _writing(storage: Storage) -> Competitor:
    def open_runner(job: Job) -> Runner:
        root, path = job.path(job.photos), job.path(f"written-{storage}.beton")
        rows = index_rows(root, job.originals, job.originals)

        def epoch() -> int:
            write(path, rows, root, storage, job.threads)
            return len(rows)

        def batches() -> Batches:
            loader = StreamLoader(path, batch_size=job.batch_size, workers=job.threads)
            for batch in loader.batches(all_indices(loader.count)):
                yield batch.images, torch.from_numpy(batch.indices)

        return Runner(epoch, batches)

    how = f"write_beton, {storage}: digests of sources and records, statistics, fsync"
    return Competitor(
        open_runner,
        {"how": how, "threads": "cores"},
        needs=("minet.beton.writer",),
        reference="reference.npy" if storage == "raw" else None,  # JPEG is lossy
    )


def _loading(storage: Storage, cache: Cache) -> Competitor:
    def open_runner(job: Job) -> Runner:
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

        return reader(batches)

    reference = "decoded.npy" if storage == "jpg" else "prepared.npy"
    settings = {
        "how": f"open_loaders, cache {cache}, shuffled order, freed memory kept",
        "threads": "cores",
    }
    return Competitor(open_runner, settings, needs=("minet.loader.loader",), reference=reference)


PREPARE = {"minet raw": _writing("raw"), "minet jpg": _writing("jpg")}
READ_JPG = {"minet stream": _loading("jpg", "stream")}
READ_RAW = {
    "minet stream": _loading("raw", "stream"),
    "minet resident": _loading("raw", "resident"),
}
