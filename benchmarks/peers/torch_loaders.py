"""PyTorch's DataLoader, as torchvision's training scripts use it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.peers.betons import IMAGE_SIZE, RESIZE_PX
from benchmarks.peers.competitor import Batches, Competitor, Job, Runner, reader

ReadImage = Callable[[str], Tensor]  # (3, H, W) uint8


class Files(Dataset[tuple[Tensor, int]]):
    """Image files and their numbers."""

    def __init__(self, paths: list[str], read: ReadImage) -> None:
        self.paths, self.read = paths, read

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self.paths)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        """Return an image (3, H, W) and its number."""
        return self.read(self.paths[number]), number


class Mapped(Dataset[tuple[Tensor, int]]):
    """Images of a memory-mapped array, repeated up to the job's number, and their numbers."""

    def __init__(self, job: Job) -> None:
        self.path, self.count = str(job.path("prepared.npy")), job.count
        self.pixels: Any = None  # each worker maps the file itself

    def __len__(self) -> int:
        """Return the number of images."""
        return self.count

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        """Return a copy of an image (3, H, W), and its number."""
        if self.pixels is None:
            self.pixels = np.load(self.path, mmap_mode="r")
        pixels = self.pixels[number % len(self.pixels)].copy()
        return torch.from_numpy(pixels).permute(2, 0, 1), number


def read_pil(path: str) -> Tensor:
    """Decode with Pillow, as torchvision's ImageFolder does."""
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def read_torchvision(path: str) -> Tensor:
    """Decode with torchvision's binding of libjpeg-turbo."""
    from torchvision.io import ImageReadMode, decode_jpeg, read_file

    decoded: Tensor = decode_jpeg(read_file(path), ImageReadMode.RGB)
    return decoded


def reference_transform() -> Callable[[Image.Image], Image.Image]:
    """Return torchvision's Resize and CenterCrop, whose pixels are the reference for all."""
    from torchvision import transforms

    transform: Callable[[Image.Image], Image.Image] = transforms.Compose(
        [transforms.Resize(RESIZE_PX), transforms.CenterCrop(IMAGE_SIZE)]
    )
    return transform


class PreparePil:
    """Decode and transform with Pillow."""

    def __init__(self) -> None:
        self.transform = reference_transform()

    def __call__(self, path: str) -> Tensor:
        """Return an image (3, H, W)."""
        with Image.open(path) as image:
            pixels = np.array(self.transform(image.convert("RGB")))
        return torch.from_numpy(pixels).permute(2, 0, 1)


def prepare_torchvision(path: str) -> Tensor:
    """Decode and transform as uint8 tensors."""
    from torchvision.transforms.v2 import functional

    resized = functional.resize(read_torchvision(path), [RESIZE_PX], antialias=True)
    cropped: Tensor = functional.center_crop(resized, [IMAGE_SIZE, IMAGE_SIZE])
    return cropped


def worker_settings(job: Job) -> dict[str, Any]:
    """Return the worker arguments shared by DataLoader and its subclasses."""
    return {"num_workers": job.threads, "persistent_workers": True}


def _loading(job: Job, images: Dataset[tuple[Tensor, int]]) -> Runner:
    loader = DataLoader(images, batch_size=job.batch_size, shuffle=True, **worker_settings(job))

    def batches() -> Batches:
        yield from loader

    return reader(batches)


def _competitor(how: str, read: Callable[[], ReadImage], reference: str | None) -> Competitor:
    def open_runner(job: Job) -> Runner:
        originals = reference == "reference.npy"
        paths = job.photo_paths() if originals else job.jpeg_paths()
        return _loading(job, Files(paths, read()))

    settings = {"how": f"DataLoader, shuffle, persistent workers; {how}", "workers": "cores"}
    return Competitor(open_runner, settings, needs=("torchvision",), reference=reference)


def _mapped(job: Job) -> Runner:
    return _loading(job, Mapped(job))


_V2 = "torchvision.io.decode_jpeg, v2 resize (antialias, uint8), center_crop"

PREPARE = {
    "DataLoader, Pillow": _competitor(
        "PIL, Resize(256), CenterCrop(224)", PreparePil, "reference.npy"
    ),
    "DataLoader, torchvision.io": _competitor(_V2, lambda: prepare_torchvision, "reference.npy"),
}
READ_JPG = {
    "DataLoader, Pillow": _competitor("PIL", lambda: read_pil, "decoded.npy"),
    "DataLoader, torchvision.io": _competitor(
        "torchvision.io.decode_jpeg", lambda: read_torchvision, "decoded.npy"
    ),
}
READ_RAW = {
    "DataLoader, numpy.memmap": Competitor(
        _mapped,
        {
            "how": "DataLoader, shuffle, persistent workers; one memory-mapped array",
            "workers": "cores",
        },
        reference="prepared.npy",
    )
}
