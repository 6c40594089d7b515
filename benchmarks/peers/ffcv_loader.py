"""FFCV without minet: its writer, and its loader on betons that minet wrote."""

from typing import Any, Literal

from PIL import Image

from benchmarks.peers.competitor import Batches, Competitor, Job, Runner, reader
from benchmarks.peers.torch_loaders import reference_transform

Storage = Literal["raw", "jpg"]


class Originals:
    """Data set for FFCV's writer: originals, transformed as the reference, and their numbers."""

    def __init__(self, paths: list[str]) -> None:
        self.paths, self.transform = paths, reference_transform()

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.paths)

    def __getitem__(self, number: int) -> tuple[Image.Image, int]:
        """Return an image and its number."""
        with Image.open(self.paths[number]) as image:
            return self.transform(image.convert("RGB")), number


def _loader(job: Job, name: str, order: str) -> Any:
    from ffcv.fields.decoders import IntDecoder, SimpleRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import ToTensor, ToTorchImage

    return Loader(
        str(job.path(name)),
        batch_size=job.batch_size,
        num_workers=job.threads,
        os_cache=True,
        order=OrderOption[order],
        seed=0,
        drop_last=False,
        pipelines={
            "image": [SimpleRGBImageDecoder(), ToTensor(), ToTorchImage()],
            "label": [IntDecoder(), ToTensor()],
        },
    )


def _write(job: Job) -> Runner:
    from ffcv.fields import IntField, RGBImageField
    from ffcv.writer import DatasetWriter

    originals, path = Originals(job.photo_paths()), job.path("written-ffcv.beton")

    def epoch() -> int:
        path.unlink(missing_ok=True)
        fields = {"image": RGBImageField(write_mode="raw"), "label": IntField()}
        writer = DatasetWriter(str(path), fields, num_workers=job.threads)
        writer.from_indexed_dataset(originals)
        return len(originals)

    def batches() -> Batches:
        yield from _loader(job, path.name, "SEQUENTIAL")

    return Runner(epoch, batches)


def _reading(storage: Storage) -> Competitor:
    def open_runner(job: Job) -> Runner:
        loader = _loader(job, f"{storage}.beton", "RANDOM")

        def batches() -> Batches:
            yield from loader

        return reader(batches)

    how = "Loader, os_cache, RANDOM, drop_last=False; SimpleRGBImageDecoder, ToTensor, ToTorchImage"
    return Competitor(
        open_runner,
        {"how": how, "workers": "cores (threads)"},
        needs=("ffcv.loader", "ffcv.transforms", "ffcv.fields.decoders"),
        reference="decoded.npy" if storage == "jpg" else "prepared.npy",
    )


PREPARE = {
    "FFCV DatasetWriter": Competitor(
        _write,
        {
            "how": "DatasetWriter, write_mode raw, over PIL, Resize(256), CenterCrop(224)",
            "workers": "cores (processes)",
        },
        needs=("ffcv.writer", "ffcv.fields", "torchvision"),
    )
}
READ_JPG = {"FFCV": _reading("jpg")}
READ_RAW = {"FFCV": _reading("raw")}
