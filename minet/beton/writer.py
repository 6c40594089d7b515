"""Write betons: threads decode and resize images, one writer stores the records in order.

FFCV's own writer hangs forever on one bad image and writes other bytes on every run
(libffcv/ffcv#142). Here the bytes do not depend on the number of workers, nor the memory on the
number of images.
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
    probe_digest,
    record_offsets,
)
from minet.beton.jpeg import encode_record
from minet.core.arrays import IndexArray
from minet.core.errors import InputError
from minet.core.files import atomic_write, digest
from minet.core.threads import ordered_map
from minet.images.decode import PixelSums
from minet.images.fast_decode import DecodeBuffers, prepare_file

_CHUNK_SIZE = 8  # images that a thread prepares as one task: every task has a cost
_FLUSH_EVERY = 200  # images between calls that start writing to the disk

Row = Mapping[str, str]
Progress = Callable[[Iterable["Record"], int], Iterable["Record"]]


@dataclass(frozen=True)
class Record:
    """One image of a beton."""

    digest: bytes  # of the stored bytes
    sums: PixelSums  # of the pixels before compression
    jpeg: bytes | None  # to be written; None if raw: pixels are written as soon as prepared


def write_beton(
    path: Path,
    rows: Sequence[Row],
    settings: BetonRunSettings,
    *,
    workers: int,
    progress: Progress,
) -> dict[str, Any]:
    """Write the images of an index (columns path, label, xxh3); return the sidecar.

    The beton appears whole or not at all. InputError names an image that changed since it was
    indexed. `progress` wraps the stream of records for a display.
    """
    with atomic_write(path) as partial:
        file = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            writer = _Writer(file, rows, settings)
            # closed before the file: an early end of the writing also ends its threads
            with closing(writer.records(workers)) as chunks:
                records = progress(chain.from_iterable(chunks), len(rows))
                beton, content, sums = writer.finish(records)
        finally:
            os.close(file)
        probe, size_bytes = probe_digest(partial, beton), partial.stat().st_size
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
    """A beton being written: threads write raw pixels at known offsets, JPEGs in their order."""

    def __init__(self, file: int, rows: Sequence[Row], settings: BetonRunSettings) -> None:
        self._file, self._rows, self._settings = file, rows, settings
        self._mode, self._raw_bytes = MODES[settings.storage], 3 * settings.crop_px**2
        # a JPEG of noise at quality 100 is larger than its pixels
        max_bytes = self._raw_bytes if self._mode == RAW else 2 * self._raw_bytes
        self._page_bytes = page_bytes_for(max_bytes)
        self._data_offset = data_offset(len(rows), self._page_bytes)
        self._raw_offsets = self._offsets([self._raw_bytes] * len(rows))
        self._buffers = DecodeBuffers()

    def records(self, workers: int) -> Generator[list[Record]]:
        """Prepare all images in order, in chunks."""
        numbers = range(len(self._rows))
        chunks = [numbers[first : first + _CHUNK_SIZE] for first in numbers[::_CHUNK_SIZE]]
        return ordered_map(lambda chunk: [self._record(n) for n in chunk], chunks, workers)

    def finish(self, records: Iterable[Record]) -> tuple[BetonFormat, str, PixelSums]:
        """Write JPEGs, header and table; return the format, the content's digest and the sums."""
        content, sums, sizes, end = ContentDigest(), PixelSums(), [], self._data_offset
        for record in records:
            size_bytes = self._raw_bytes
            if record.jpeg is not None:
                size_bytes = len(record.jpeg)
                offset = next_offset(end, size_bytes, self._page_bytes)
                _write_at(self._file, record.jpeg, offset)
                end = offset + size_bytes
            sizes.append(size_bytes)
            content.add(record.digest)
            sums += record.sums
            if self._mode == RAW and len(sizes) % _FLUSH_EVERY == 0:
                self._start_flush(len(sizes) - _FLUSH_EVERY, len(sizes))
        beton = BetonFormat(
            page_bytes=self._page_bytes,
            image_size=self._settings.crop_px,
            mode=self._mode,
            labels=np.array([int(row["label"]) for row in self._rows], np.int64),
            offsets=self._offsets(sizes),
            sizes=np.array(sizes, np.int64),
        )
        header, table = beton.header(), beton.allocation_table()
        _write_at(self._file, header, 0)
        _write_at(self._file, table, beton.table_offset)  # gaps between records read as zeros
        return beton, content.result(header, table), sums

    def _offsets(self, sizes: Sequence[int]) -> IndexArray:
        return record_offsets(sizes, self._data_offset, self._page_bytes)

    def _start_flush(self, first: int, end: int) -> None:
        """Let the disk write some images while others are decoded, not all at the end.

        With POSIX_FADV_DONTNEED Linux starts to write dirty pages and drops only clean ones.
        """
        start, stop = int(self._raw_offsets[first]), int(self._raw_offsets[end - 1])
        os.posix_fadvise(self._file, start, stop - start, os.POSIX_FADV_DONTNEED)

    def _record(self, number: int) -> Record:
        """Read, check, decode and resize one image; write it if raw."""
        row, settings = self._rows[number], self._settings
        path = f"{settings.root}/{row['path']}"
        pixels = self._buffers.cropped(settings.crop_px)
        data = _read_checked(path, row["xxh3"])
        try:
            sums = prepare_file(data, settings.resize_px, pixels, self._buffers)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        if self._mode == RAW:
            _write_at(self._file, pixels.data, int(self._raw_offsets[number]))
            return Record(digest(pixels.data), sums, jpeg=None)
        jpeg = encode_record(pixels, settings.quality)
        return Record(digest(jpeg), sums, jpeg)


def _read_checked(path: str, xxh3: str) -> bytes:
    """Read an image file, which must have the digest in the index."""
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - a Path doubles the cost
            data = file.read()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if digest(data).hex() != xxh3:
        raise InputError(f"{path}: changed since it was indexed; run `dvc repro` again")
    return data


def _write_at(file: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of `data` at an offset, in as many calls as it takes."""
    left = memoryview(data).cast("B")
    while left:
        count = os.pwrite(file, left, offset)
        left, offset = left[count:], offset + count
