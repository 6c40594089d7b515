"""Writing betons: threads decode and resize, one writer lays the records out in their order.

FFCV's own writer would hang for ever on one bad image and give other bytes on every run
(libffcv/ffcv#142). Here the bytes do not depend on the number of workers, nor memory on the number
of images.
"""

import os
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from minet.beton.config import BetonRunSettings
from minet.beton.format import (
    MODES,
    RAW,
    BetonFormat,
    ContentDigest,
    data_offset,
    next_offset,
    page_bytes_for,
    place,
    probe_digest,
)
from minet.beton.jpeg import encode_record
from minet.core.errors import InputError
from minet.core.files import atomic_write, digest
from minet.core.threads import ordered_map
from minet.images.decode import PixelSums
from minet.images.fast_decode import DecodeBuffers, prepare_file

_AT_ONCE = 8  # images that a thread takes at a time: each handing over costs
_TO_DISK = 200  # images after which the disk is told to begin

Row = Mapping[str, str]
Progress = Callable[[Iterable["Record"], int], Iterable["Record"]]


@dataclass(frozen=True)
class Record:
    """One image of a beton."""

    digest: bytes  # of what is stored
    sums: PixelSums  # of the pixels, before compression
    jpeg: bytes | None  # yet to be written; None for raw pixels, whose place is known beforehand


def write_beton(
    path: Path,
    rows: Sequence[Row],
    settings: BetonRunSettings,
    *,
    workers: int,
    progress: Progress,
) -> dict[str, Any]:
    """Write the images of an index (columns path, label, xxh3); return the sidecar's record.

    The beton appears whole or not at all. InputError names an image that is no longer what the
    index saw. `progress` wraps the stream of records for a display.
    """
    with atomic_write(path) as partial:
        file = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            writer = _Writer(file, rows, settings)
            # closed before the file is: what ends the writing early ends its threads
            with closing(writer.records(workers)) as groups:
                records = progress(chain.from_iterable(groups), len(rows))
                layout, content, sums = writer.finish(records)
        finally:
            os.close(file)
        probe, size_bytes = probe_digest(partial, layout), partial.stat().st_size
    return {
        "content_xxh3": content,
        "probe_xxh3": probe,
        "bytes": size_bytes,
        "count": len(rows),
        "image_size": settings.crop_px,
        "storage": settings.storage,
        "mean": sums.mean(),
        "std": sums.std(),
    }


class _Writer:
    """A beton while it is written: threads put raw pixels in place, JPEGs wait for their turn."""

    def __init__(self, file: int, rows: Sequence[Row], settings: BetonRunSettings) -> None:
        self._file, self._rows, self._settings = file, rows, settings
        self._mode, raw_bytes = MODES[settings.storage], 3 * settings.crop_px**2
        # a JPEG of noise at quality 100 is larger than its pixels
        self._page_bytes = page_bytes_for(raw_bytes if self._mode == RAW else 2 * raw_bytes)
        self._first = data_offset(len(rows), self._page_bytes)
        self._raw_places = place([raw_bytes] * len(rows), self._first, self._page_bytes)
        self._buffers = DecodeBuffers()

    def records(self, workers: int) -> Generator[list[Record]]:
        """Prepare all images, in their order, some at a time."""
        numbers = range(len(self._rows))
        groups = [numbers[first : first + _AT_ONCE] for first in numbers[::_AT_ONCE]]
        return ordered_map(lambda group: [self._record(n) for n in group], groups, workers)

    def finish(self, records: Iterable[Record]) -> tuple[BetonFormat, str, PixelSums]:
        """Write what is not yet written; give layout, digest and sums."""
        content, sums, sizes, at = ContentDigest(), PixelSums(), [], self._first
        for record in records:
            size_bytes = 3 * self._settings.crop_px**2
            if record.jpeg is not None:
                size_bytes = len(record.jpeg)
                at = next_offset(at, size_bytes, self._page_bytes)
                _write_at(self._file, record.jpeg, at)
                at += size_bytes
            sizes.append(size_bytes)
            content.add(record.digest)
            sums += record.sums
            if self._mode == RAW and len(sizes) % _TO_DISK == 0:
                self._begin_to_disk(len(sizes) - _TO_DISK, len(sizes))
        layout = BetonFormat(
            self._page_bytes,
            self._settings.crop_px,
            self._mode,
            np.array([int(row["label"]) for row in self._rows], np.int64),
            place(sizes, self._first, self._page_bytes),
            np.array(sizes, np.int64),
        )
        head, table = layout.head(), layout.table()
        _write_at(self._file, head, 0)
        _write_at(self._file, table, layout.table_at)  # what no record fills reads as zeros
        return layout, content.result(head, table), sums

    def _begin_to_disk(self, first: int, end: int) -> None:
        """Have the disk take some images while others are decoded, rather than all at the end.

        Linux begins to write what it is advised not to keep, and keeps what is not yet on the disk.
        """
        start, stop = int(self._raw_places[first]), int(self._raw_places[end - 1])
        os.posix_fadvise(self._file, start, stop - start, os.POSIX_FADV_DONTNEED)

    def _record(self, number: int) -> Record:
        """Read, check, decode and resize one image; put its pixels in place."""
        row, settings = self._rows[number], self._settings
        path = f"{settings.root}/{row['path']}"
        pixels = self._buffers.cropped(settings.crop_px)
        data = _checked(path, row["xxh3"])
        try:
            sums = prepare_file(data, settings.resize_px, pixels, self._buffers)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        if self._mode == RAW:
            _write_at(self._file, pixels.data, int(self._raw_places[number]))
            return Record(digest(pixels.data), sums, None)
        jpeg = encode_record(pixels, settings.jpeg_quality)
        return Record(digest(jpeg), sums, jpeg)


def _checked(path: str, known: str) -> bytes:
    """Read an image's file, which must still be what the index saw."""
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - a Path costs as much again
            data = file.read()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if digest(data).hex() != known:
        raise InputError(f"{path}: changed since it was indexed; run `dvc repro` again")
    return data


def _write_at(file: int, data: bytes | memoryview, at: int) -> None:
    """Write all of it, whatever the number of calls it takes."""
    left = memoryview(data).cast("B")
    while left:
        written = os.pwrite(file, left, at)
        left, at = left[written:], at + written
