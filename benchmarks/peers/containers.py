"""WebDataset, LitData and MosaicML Streaming: samples in large files, DataLoader workers.

All three store the JPEGs unchanged and decode them with torchvision.io: LitData by default, the
others because it is the fastest decoder in their documentation.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.peers.competitor import Batches, Competitor, Job, Runner, reader
from benchmarks.peers.torch_loaders import worker_settings
from minet.core.arrays import ceil_div

_SHARDS_PER_WORKER = 8  # enough for an even distribution and for shuffling
_BUFFER = 1000  # shuffle buffer of WebDataset in samples; the value of its documentation
_CHUNK = "64MB"  # the value of LitData's documentation


def decode(data: bytes) -> Tensor:
    """Decode a JPEG to (3, H, W)."""
    from torchvision.io import ImageReadMode, decode_jpeg

    array = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    pixels: Tensor = decode_jpeg(array, ImageReadMode.RGB)
    return pixels


def _convert_to_tars(job: Job) -> None:
    import webdataset

    folder = job.path("tars")
    folder.mkdir()
    samples = ceil_div(job.count, _SHARDS_PER_WORKER * job.threads)
    with webdataset.ShardWriter(str(folder / "%04d.tar"), maxcount=samples, verbose=0) as sink:
        for number, path in enumerate(job.jpeg_paths()):
            sample = {"__key__": f"{number:06}", "jpg": Path(path).read_bytes(), "cls": number}
            sink.write(sample)


def _open_tars(job: Job) -> Runner:
    import webdataset

    dataset = (
        webdataset.WebDataset(
            sorted(map(str, job.path("tars").glob("*.tar"))),
            shardshuffle=_SHARDS_PER_WORKER * job.threads,
            seed=0,
        )
        .shuffle(_BUFFER)
        .to_tuple("jpg", "cls")
        .map_tuple(decode, int)
        .batched(job.batch_size)
    )
    loader = webdataset.WebLoader(dataset, batch_size=None, **worker_settings(job))

    def batches() -> Batches:
        for images, numbers in loader:
            yield torch.as_tensor(images), torch.as_tensor(numbers)

    return reader(batches)


def lit_sample(numbered: tuple[int, str]) -> dict[str, Any]:
    """Return a sample for LitData: it copies the file of an opened JPEG."""
    from PIL import Image

    return {"image": Image.open(numbered[1]), "number": numbered[0]}


def _convert_to_chunks(job: Job) -> None:
    import litdata

    litdata.optimize(
        fn=lit_sample,
        inputs=list(enumerate(job.jpeg_paths())),
        output_dir=str(job.path("chunks")),
        chunk_bytes=_CHUNK,
        num_workers=job.threads,
    )


def _open_chunks(job: Job) -> Runner:
    import litdata

    dataset = litdata.StreamingDataset(str(job.path("chunks")), shuffle=True, drop_last=False)
    loader = litdata.StreamingDataLoader(dataset, batch_size=job.batch_size, **worker_settings(job))

    def batches() -> Batches:
        for batch in loader:
            yield batch["image"], batch["number"]

    return reader(batches)


def _convert_to_shards(job: Job) -> None:
    import streaming

    columns = {"image": "bytes", "number": "int"}
    with streaming.MDSWriter(out=str(job.path("shards")), columns=columns) as out:
        for number, path in enumerate(job.jpeg_paths()):
            out.write({"image": Path(path).read_bytes(), "number": number})


def collate(samples: list[Mapping[str, Any]]) -> tuple[Tensor, Tensor]:
    """Decode a batch, in the worker."""
    images = torch.stack([decode(sample["image"]) for sample in samples])
    return images, torch.tensor([sample["number"] for sample in samples])


def _open_shards(job: Job) -> Runner:
    import streaming

    streaming.base.util.clean_stale_shared_memory()
    dataset = streaming.StreamingDataset(
        local=str(job.path("shards")),
        shuffle=True,
        batch_size=job.batch_size,
        num_canonical_nodes=1,
    )
    loader: Any = DataLoader(
        dataset, batch_size=job.batch_size, collate_fn=collate, **worker_settings(job)
    )

    def batches() -> Batches:
        yield from loader

    return reader(batches)


_DECODED = "torchvision.io.decode_jpeg in persistent workers"

READ_JPG = {
    "WebDataset": Competitor(
        _open_tars,
        {
            "how": f"{_SHARDS_PER_WORKER} tar files per worker, shuffled, a buffer of {_BUFFER} "
            f"samples; {_DECODED}, batched there",
            "workers": "cores",
        },
        needs=("webdataset", "torchvision"),
        convert=_convert_to_tars,
        reference="decoded.npy",
    ),
    "LitData": Competitor(
        _open_chunks,
        {
            "how": f"optimize, chunks of {_CHUNK}, StreamingDataLoader, shuffle; {_DECODED} "
            "(its JPEG serializer)",
            "workers": "cores",
        },
        needs=("litdata", "torchvision"),
        convert=_convert_to_chunks,
        reference="decoded.npy",
    ),
    "MosaicML Streaming": Competitor(
        _open_shards,
        {
            "how": f"MDS, local, uncompressed, column of bytes, shuffle, batch_size set; "
            f"{_DECODED}",
            "workers": "cores",
        },
        needs=("streaming", "torchvision"),
        convert=_convert_to_shards,
        reference="decoded.npy",
    ),
}
