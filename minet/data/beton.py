"""Writing betons: FFCV's own fields and page layout, fed in order by threads of ours.

FFCV's writer processes would hang for ever on one bad image and give other bytes on every run
(libffcv/ffcv#142). Here threads decode and resize, and one writer in this process allocates pages
in the order of the index, so that the bytes do not depend on the number of workers.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ffcv.fields import IntField, RGBImageField
from ffcv.memory_allocator import MemoryAllocator
from ffcv.writer import DatasetWriter, handle_sample
from PIL import Image

from minet.data.images import Pixels, PixelSums, decode, prepare
from minet.data.parallel import ordered_map
from minet.errors import InputError
from minet.results import file_digest, whole_file
from minet.settings_data import BetonRunSettings

Progress = Callable[[Iterable["Record"], int], Iterable["Record"]]


@dataclass(frozen=True)
class Record:
    """One image, ready to be written."""

    pixels: Pixels  # (crop_px, crop_px, 3)
    label: int
    sums: PixelSums


def write_beton(
    path: Path,
    rows: Sequence[Mapping[str, str]],
    settings: BetonRunSettings,
    *,
    workers: int,
    progress: Progress,
) -> dict[str, Any]:
    """Write the images of an index (columns path, label, sha256); return the sidecar's record.

    The beton appears whole or not at all. InputError names an image that is no longer what the
    index saw. `progress` wraps the stream of records for a display.
    """

    def record(row: Mapping[str, str]) -> Record:
        image = _read(settings, row)
        pixels = prepare(image, settings.resize_px, settings.crop_px)
        return Record(pixels, int(row["label"]), PixelSums.of(pixels))

    sums = PixelSums()
    with whole_file(path) as partial:
        writer = _OrderedWriter(str(partial), settings, len(rows))
        try:
            for one in progress(ordered_map(record, rows, workers), len(rows)):
                writer.write(one)
                sums += one.sums
            writer.finish()
        finally:
            writer.close()
        digest, size_bytes = file_digest(partial), partial.stat().st_size
    return {
        "sha256": digest,
        "bytes": size_bytes,
        "count": len(rows),
        "side_px": settings.crop_px,
        "storage": settings.storage,
        "mean": sums.mean(),
        "std": sums.std(),
    }


class _OrderedWriter:
    """FFCV's writer without its processes: one sample after the other, errors raised here."""

    def __init__(self, path: str, settings: BetonRunSettings, count: int) -> None:
        fields = {
            "image": RGBImageField(write_mode=settings.storage, jpeg_quality=settings.jpeg_quality),
            "label": IntField(),
        }
        self._fields = fields
        # an image must fit into a page, a power of 2; 8 MiB is FFCV's own choice
        page_bytes = max(8 << 20, 1 << (3 * settings.crop_px**2 - 1).bit_length())
        self._writer = DatasetWriter(path, fields, page_size=page_bytes, num_workers=1)
        self._writer.num_samples = count
        self._writer.prepare()
        # no view into the shared memory, which an error's traceback would keep from being closed
        self._metadata = np.zeros(count, self._writer.metadata_type)
        self._allocator = MemoryAllocator(
            path, self._writer.data_region_start, self._writer.page_size
        )
        self._allocator.__enter__()
        self._done = 0

    def write(self, record: Record) -> None:
        handle_sample(
            (record.pixels, record.label),
            self._done,
            self._metadata.dtype.names,
            self._metadata,
            self._allocator,
            self._fields,
        )
        self._done += 1

    def finish(self) -> None:
        self._allocator.flush_page()
        self._writer.metadata_sm.buf[:] = self._metadata.tobytes()
        self._writer.finalize([self._allocator.allocations])

    def close(self) -> None:
        """Give the file and the shared memory back, finished or not."""
        self._allocator.fp.close()
        self._writer.metadata_sm.close()
        self._writer.metadata_sm.unlink()


def _read(settings: BetonRunSettings, row: Mapping[str, str]) -> Image.Image:
    path = Path(settings.root) / row["path"]
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if hashlib.sha256(data).hexdigest() != row["sha256"]:
        raise InputError(f"{path}: changed since it was indexed; run `dvc repro` again")
    try:
        return decode(data)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
