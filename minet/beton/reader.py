"""The records of a beton, held against its sidecar, read one by one where they lie."""

import os
import weakref
from pathlib import Path

import numpy as np

from minet.beton.format import MODES, RAW, ContentDigest, probe_digest, read_ends, read_format
from minet.beton.jpeg import decode_record
from minet.core.arrays import IndexArray, Pixels
from minet.core.errors import InputError
from minet.core.files import digest, read_json
from minet.core.threads import ordered_map

_AGAIN = "remove both and run `dvc repro`"
_AT_ONCE = 64  # records whose digests a thread takes at a time


class BetonReader:
    """An open beton; any number of threads may read from it.

    Opening is quick whatever its size: the sidecar, the head and a few parts between are checked.
    `check_all` reads the rest.
    """

    def __init__(self, path: Path) -> None:
        """InputError if it is not what its sidecar (`<split>.json` beside it) tells of."""
        self.path = path
        self.sidecar = read_json(path.with_suffix(".json"))
        if not path.is_file():
            raise InputError(f"{path}: no such file; `dvc repro` makes it")
        self._expect("bytes", path.stat().st_size)
        self.layout = read_format(path)
        self._expect("count", len(self.layout.labels))
        self._expect("image_size", self.layout.image_size)
        self._expect("storage", next(k for k, mode in MODES.items() if mode == self.layout.mode))
        self._expect("probe_xxh3", probe_digest(path, self.layout))
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)
        if self.layout.mode == RAW:
            self._records_at = _windows(path, 3 * self.layout.image_size**2)

    def read(self, places: IndexArray, out: Pixels) -> None:
        """Read the images at `places` into `out` (N, side, side, 3).

        InputError names an image that is damaged or cut off.
        """
        for place, image in zip(places.tolist(), out, strict=True):
            if self.layout.mode == RAW:
                self._read_into(place, memoryview(image).cast("B"))
            else:
                self._decode(place, self._stored(place), image)

    def gather(self, places: IndexArray) -> Pixels:
        """Give raw images at `places` as (N, side, side, 3), copied out of the file in one go.

        The file is mapped: were it shortened in place while it is read, the process would end. Who
        writes beside and renames, as all of minet and DVC do, does not touch the file that is open.
        """
        image_size = self.layout.image_size
        pixels = self._records_at[self.layout.pointers[places]]
        return pixels.reshape(len(places), image_size, image_size, 3)

    def check_all(self, workers: int) -> None:
        """Read every byte that counts, decode every JPEG; InputError names all that is wrong."""
        content = ContentDigest()
        problems: list[str] = []
        places = np.arange(len(self.layout.labels))
        parts = [places[first : first + _AT_ONCE] for first in places[::_AT_ONCE]]
        for digests, found in ordered_map(self._examine, parts, workers):
            for one in digests:
                content.add(one)
            problems += found
        if problems:
            raise InputError(*problems)
        self._expect("content_xxh3", content.result(*read_ends(self.path, self.layout)))

    def _examine(self, places: IndexArray) -> tuple[list[bytes], list[str]]:
        """Give the digests of some records, and what is wrong with them."""
        digests: list[bytes] = []
        problems: list[str] = []
        image = np.empty((self.layout.image_size, self.layout.image_size, 3), np.uint8)
        for place in places.tolist():
            stored = self._stored(place)
            digests.append(digest(stored))
            try:
                if self.layout.mode != RAW:
                    self._decode(place, stored, image)
            except InputError as error:
                problems += error.problems
        return digests, problems

    def _stored(self, place: int) -> bytearray:
        stored = bytearray(int(self.layout.sizes[place]))
        self._read_into(place, memoryview(stored))
        return stored

    def _read_into(self, place: int, memory: memoryview) -> None:
        at, left = int(self.layout.pointers[place]), memory
        while left:
            try:
                read = os.preadv(self._file, [left], at)
            except OSError as error:
                what = f"image {place} cannot be read: {error.strerror}"
                raise InputError(f"{self.path}: {what}") from error
            if not read:
                raise InputError(f"{self.path}: ends within image {place}; {_AGAIN}")
            left, at = left[read:], at + read

    def _decode(self, place: int, stored: bytearray, image: Pixels) -> None:
        try:
            decode_record(stored, image)
        except InputError as error:
            raise InputError(f"{self.path}: image {place} is {error}; {_AGAIN}") from error

    def _expect(self, what: str, found: object) -> None:
        told = self.sidecar.get(what)
        if found != told:
            raise InputError(
                f"{self.path}: {what} {found}, but its sidecar says {told}: damaged or another "
                f"file; {_AGAIN}"
            )


def _windows(path: Path, record_bytes: int) -> Pixels:
    """View a file as all its parts of so many bytes, one for each place where a part may begin."""
    content = np.memmap(path, np.uint8, "r")
    shape = (len(content) - record_bytes + 1, record_bytes)
    return np.lib.stride_tricks.as_strided(content, shape, (1, 1), writeable=False)
