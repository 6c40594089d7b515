"""Read the records of a beton that was checked against its sidecar."""

import os
import weakref
from pathlib import Path

import numpy as np

from minet.beton.format import (
    MODES,
    RAW,
    ContentDigest,
    probe_digest,
    read_format,
    read_header_and_table,
)
from minet.beton.jpeg import decode_record
from minet.core.arrays import IndexArray, Pixels, all_indices, batched
from minet.core.errors import InputError
from minet.core.files import digest, read_json
from minet.core.threads import ordered_map

_ADVICE = "remove both and run `dvc repro`"
_CHUNK_SIZE = 64  # records that a thread checks as one task


class BetonReader:
    """An open beton; any number of threads may read from it.

    Opening is quick whatever the size: it checks the sidecar (`<split>.json` beside the beton), the
    header and a few parts of the data. `check_all` reads the rest. InputError if the file does not
    match its sidecar.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sidecar = read_json(path.with_suffix(".json"))
        if not path.is_file():
            raise InputError(f"{path}: no such file; `dvc repro` makes it")
        if "side_px" in self.sidecar:
            raise InputError(f"{path}: written by an earlier version of minet; {_ADVICE}")
        self._expect("bytes", path.stat().st_size)
        self.format = read_format(path)
        self._expect("count", len(self.format.labels))
        self._expect("image_size", self.format.image_size)
        self._expect("storage", next(k for k, mode in MODES.items() if mode == self.format.mode))
        self._expect("probe_xxh3", probe_digest(path, self.format))
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)
        if self.format.mode == RAW:
            self._windows = _byte_windows(path, 3 * self.format.image_size**2)

    def read(self, indices: IndexArray, out: Pixels) -> None:
        """Read the images at `indices` into `out` (N, side, side, 3).

        InputError names an image that is damaged or truncated.
        """
        for index, image in zip(indices.tolist(), out, strict=True):
            if self.format.mode == RAW:
                self._read_into(index, memoryview(image).cast("B"))
            else:
                self._decode(index, self._read_record(index), image)

    def gather(self, indices: IndexArray) -> Pixels:
        """Return the raw images at `indices`, (N, side, side, 3), by one copy from the mapped file.

        A mapped file must not shrink: the process would die of SIGBUS. minet and DVC write a new
        file and rename it, which leaves the open one as it is.
        """
        image_size = self.format.image_size
        pixels = self._windows[self.format.offsets[indices]]
        return pixels.reshape(len(indices), image_size, image_size, 3)

    def check_all(self, workers: int) -> None:
        """Digest every record and decode every JPEG; InputError lists all problems."""
        content = ContentDigest()
        problems: list[str] = []
        chunks = batched(all_indices(len(self.format.labels)), _CHUNK_SIZE)
        for digests, chunk_problems in ordered_map(self._check, chunks, workers):
            for record_digest in digests:
                content.add(record_digest)
            problems += chunk_problems
        if problems:
            raise InputError(*problems)
        self._expect("content_xxh3", content.result(*read_header_and_table(self.path, self.format)))

    def _check(self, indices: IndexArray) -> tuple[list[bytes], list[str]]:
        """Return the digests of some records and the problems with them."""
        digests: list[bytes] = []
        problems: list[str] = []
        image = np.empty((self.format.image_size, self.format.image_size, 3), np.uint8)
        for index in indices.tolist():
            record = self._read_record(index)
            digests.append(digest(record))
            try:
                if self.format.mode != RAW:
                    self._decode(index, record, image)
            except InputError as error:
                problems += error.problems
        return digests, problems

    def _read_record(self, index: int) -> bytearray:
        record = bytearray(int(self.format.sizes[index]))
        self._read_into(index, memoryview(record))
        return record

    def _read_into(self, index: int, buffer: memoryview) -> None:
        offset, left = int(self.format.offsets[index]), buffer
        while left:
            try:
                count = os.preadv(self._file, [left], offset)
            except OSError as error:
                problem = f"image {index} cannot be read: {error.strerror}"
                raise InputError(f"{self.path}: {problem}") from error
            if not count:
                raise InputError(f"{self.path}: ends within image {index}; {_ADVICE}")
            left, offset = left[count:], offset + count

    def _decode(self, index: int, record: bytearray, image: Pixels) -> None:
        try:
            decode_record(record, image)
        except InputError as error:
            raise InputError(f"{self.path}: image {index} is {error}; {_ADVICE}") from error

    def _expect(self, key: str, actual: object) -> None:
        expected = self.sidecar.get(key)
        if actual != expected:
            raise InputError(
                f"{self.path}: {key} {actual}, but its sidecar says {expected}: damaged or another "
                f"file; {_ADVICE}"
            )


def _byte_windows(path: Path, record_bytes: int) -> Pixels:
    """View a file as (offsets, record_bytes): a record's worth of bytes from every offset."""
    content = np.memmap(path, np.uint8, "r")
    shape = (len(content) - record_bytes + 1, record_bytes)
    return np.lib.stride_tricks.as_strided(content, shape, (1, 1), writeable=False)
