"""Write betons for the benchmarks; without torch, as `benchmarks.data.growth` measures memory."""

from pathlib import Path
from typing import Literal

from minet.beton.config import BetonRunSettings
from minet.beton.writer import write_beton
from minet.core.files import digest, write_json

IMAGE_SIZE, RESIZE_PX, JPEG_QUALITY = 224, 256, 90

Storage = Literal["raw", "jpg"]


def index_rows(folder: Path, originals: int, count: int) -> list[dict[str, str]]:
    """Return the rows of an index of `count` images: the originals, repeated.

    An image's label is its number.
    """
    names = [f"{number:06}.jpg" for number in range(originals)]
    digests = [digest((folder / name).read_bytes()).hex() for name in names]
    return [
        {"path": names[n % originals], "label": str(n), "xxh3": digests[n % originals]}
        for n in range(count)
    ]


def write(
    path: Path, rows: list[dict[str, str]], root: Path, storage: Storage, threads: int
) -> None:
    """Write a beton and its sidecar, as stage `beton` does."""
    settings = BetonRunSettings(
        root=str(root),
        resize_px=RESIZE_PX,
        crop_px=IMAGE_SIZE,
        storage=storage,
        jpeg_quality=JPEG_QUALITY,
    )
    record = write_beton(path, rows, settings, workers=threads, progress=lambda records, _: records)
    write_json(path.with_suffix(".json"), record)
