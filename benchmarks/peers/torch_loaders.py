"""PyTorch's own DataLoader, as torchvision's training scripts use it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.peers.betons import IMAGE_SIZE, RESIZE_PX
from benchmarks.peers.contest import Batches, Competitor, Job, Opened, reading

ReadImage = Callable[[str], Tensor]  # (3, H, W) uint8


class Files(Dataset[tuple[Tensor, int]]):
    """Image files with their numbers."""

    def __init__(self, paths: list[str], read: ReadImage) -> None:
        """Read `paths` with `read`."""
        self.paths, self.read = paths, read

    def __len__(self) -> int:
        """Give how many files there are."""
        return len(self.paths)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        """Read one file."""
        return self.read(self.paths[number]), number


class Mapped(Dataset[tuple[Tensor, int]]):
    """Images of one array in a file, which each worker maps, with their numbers."""

    def __init__(self, job: Job) -> None:
        """Take as many images as the job has; the array holds them again and again."""
        self.path, self.count = str(job.path("prepared.npy")), job.count
        self.pixels: Any = None  # each worker maps the file itself

    def __len__(self) -> int:
        """Give how many images there are."""
        return self.count

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        """Copy one image out of the file."""
        if self.pixels is None:
            self.pixels = np.load(self.path, mmap_mode="r")
        pixels = self.pixels[number % len(self.pixels)].copy()
        return torch.from_numpy(pixels).permute(2, 0, 1), number


def read_pil(path: str) -> Tensor:
    """Decode with Pillow, as torchvision's ImageFolder does."""
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def read_torchvision(path: str) -> Tensor:
    """Decode with torchvision's own binding of libjpeg-turbo."""
    from torchvision.io import ImageReadMode, decode_jpeg, read_file

    decoded: Tensor = decode_jpeg(read_file(path), ImageReadMode.RGB)
    return decoded


def reference_transform() -> Callable[[Image.Image], Image.Image]:
    """Give torchvision's Resize and CenterCrop: the pixels that every other way is held to."""
    from torchvision import transforms

    transform: Callable[[Image.Image], Image.Image] = transforms.Compose(
        [transforms.Resize(RESIZE_PX), transforms.CenterCrop(IMAGE_SIZE)]
    )
    return transform


class PreparePil:
    """Decode and transform with Pillow."""

    def __init__(self) -> None:
        """Build the transform once."""
        self.transform = reference_transform()

    def __call__(self, path: str) -> Tensor:
        """Prepare one file."""
        with Image.open(path) as image:
            pixels = np.array(self.transform(image.convert("RGB")))
        return torch.from_numpy(pixels).permute(2, 0, 1)


def prepare_torchvision(path: str) -> Tensor:
    """Decode and transform tensors of uint8."""
    from torchvision.transforms.v2 import functional

    resized = functional.resize(read_torchvision(path), [RESIZE_PX], antialias=True)
    cropped: Tensor = functional.center_crop(resized, [IMAGE_SIZE, IMAGE_SIZE])
    return cropped


def worker_settings(job: Job) -> dict[str, Any]:
    """Give what every loader of this family is told of workers."""
    return {"num_workers": job.threads, "persistent_workers": True}


def _loading(job: Job, images: Dataset[tuple[Tensor, int]]) -> Opened:
    loader = DataLoader(images, batch_size=job.batch_size, shuffle=True, **worker_settings(job))

    def batches() -> Batches:
        yield from loader

    return reading(batches)


def _contestant(how: str, read: Callable[[], ReadImage], reference: str | None) -> Competitor:
    def begin(job: Job) -> Opened:
        originals = reference == "reference.npy"
        paths = job.photo_paths() if originals else job.jpeg_paths()
        return _loading(job, Files(paths, read()))

    settings = {"how": f"DataLoader, shuffle, persistent workers; {how}", "workers": "cores"}
    return Competitor(begin, settings, needs=("torchvision",), reference=reference)


def _mapped(job: Job) -> Opened:
    return _loading(job, Mapped(job))


_V2 = "torchvision.io.decode_jpeg, v2 resize (antialias, uint8), center_crop"

PREPARE = {
    "DataLoader, Pillow": _contestant(
        "PIL, Resize(256), CenterCrop(224)", PreparePil, "reference.npy"
    ),
    "DataLoader, torchvision.io": _contestant(_V2, lambda: prepare_torchvision, "reference.npy"),
}
READ_JPG = {
    "DataLoader, Pillow": _contestant("PIL", lambda: read_pil, "decoded.npy"),
    "DataLoader, torchvision.io": _contestant(
        "torchvision.io.decode_jpeg", lambda: read_torchvision, "decoded.npy"
    ),
}
READ_RAW = {
    "DataLoader, numpy.memmap": Competitor(
        _mapped,
        {
            "how": "DataLoader, shuffle, persistent workers; one array of pixels, mapped",
            "workers": "cores",
        },
        reference="prepared.npy",
    )
}
