"""The layout of a beton, FFCV's file format, version 2: where header, samples and pages lie.

A file holds a header, a description of its two fields (an image and a label), a row a sample, pages
of records, and a table of what was allocated. FFCV's `types.py`, `fields/` and
`memory_allocator.py` define it; tests hold what is written here against FFCV's own writer, byte by
byte, and its own reader. No FFCV is imported: that takes longer than reading a small split.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minet.core.errors import InputError
from minet.core.files import digest

JPG, RAW = 0, 1  # FFCV's modes of an image
MODES = {"jpg": JPG, "raw": RAW}

_VERSION = 2
_IMAGE_FIELD, _INT_FIELD = 2, 1  # FFCV's numbers of its field types
_LEAST_PAGE_BYTES = 8 << 20  # FFCV's own choice
_PROBES, _PROBE_BYTES = 64, 4096

_HEADER = np.dtype(
    [
        ("version", "<u2"),
        ("num_fields", "<u2"),
        ("page_size", "<u4"),
        ("num_samples", "<u8"),
        ("alloc_table_ptr", "<u8"),
    ],
    align=True,
)
_FIELD = np.dtype(
    [("type_id", "<u1"), ("name", "<u1", (16,)), ("arguments", "<u1", (1024,))], align=True
)
_IMAGE = np.dtype([("mode", "<u1"), ("width", "<u2"), ("height", "<u2"), ("data_ptr", "<u8")])
_SAMPLE = np.dtype([("image", _IMAGE), ("label", "<i8")], align=True)
_ALLOCATION = np.dtype([("sample_id", "<u8"), ("ptr", "<u8"), ("size", "<u8")])
_SAMPLES_AT = _HEADER.itemsize + 2 * _FIELD.itemsize

Places = NDArray[np.int64]


@dataclass(frozen=True)
class BetonFormat:
    """What is where in a beton of N images, in the order of the index."""

    page_bytes: int
    image_size: int
    mode: int  # JPG or RAW
    labels: Places  # (N,)
    pointers: Places  # (N,) first byte of each record
    sizes: Places  # (N,) bytes of each record

    def head(self) -> bytes:
        """Give all that stands before the first page: header, fields, samples, zeros."""
        header = np.zeros((), _HEADER)
        header["version"], header["num_fields"] = _VERSION, 2
        header["page_size"], header["num_samples"] = self.page_bytes, len(self.labels)
        header["alloc_table_ptr"] = self.table_at
        fields = np.zeros(2, _FIELD)
        for field, name, number in zip(
            fields, (b"image", b"label"), (_IMAGE_FIELD, _INT_FIELD), strict=True
        ):
            field["type_id"] = number
            field["name"][: len(name)] = list(name)
        samples = np.zeros(len(self.labels), _SAMPLE)
        samples["image"]["mode"] = self.mode
        samples["image"]["width"] = samples["image"]["height"] = self.image_size
        samples["image"]["data_ptr"] = self.pointers
        samples["label"] = self.labels
        written = header.tobytes() + fields.tobytes() + samples.tobytes()
        return written.ljust(data_offset(len(self.labels), self.page_bytes), b"\0")

    @cached_property
    def table_at(self) -> int:
        """Give the place behind the last page, where the table of allocations stands."""
        page = self.page_bytes
        return int(self.pointers[-1] // page + 1) * page

    def table(self) -> bytes:
        """Give the table of allocations, with which the file ends."""
        rows = np.zeros(len(self.labels), _ALLOCATION)
        rows["sample_id"] = np.arange(len(rows))
        rows["ptr"], rows["size"] = self.pointers, self.sizes
        return rows.tobytes()


def data_offset(count: int, page_bytes: int) -> int:
    """Give the place of the first page: the first multiple of its size behind the samples."""
    return -(-(_SAMPLES_AT + count * _SAMPLE.itemsize) // page_bytes) * page_bytes


def page_bytes_for(record_bytes: int) -> int:
    """Give the size of a page, a power of 2 into which such a record fits."""
    return max(_LEAST_PAGE_BYTES, 1 << (record_bytes - 1).bit_length())


def next_offset(at: int, size_bytes: int, page_bytes: int) -> int:
    """Give the place of a record that comes behind byte `at`: there, or on the next page."""
    left = page_bytes - at % page_bytes
    return at if size_bytes <= left else at + left


def place(sizes: Sequence[int], first: int, page_bytes: int) -> Places:
    """Lay records one behind the other, none over the edge of a page; the first byte of each."""
    pointers = np.empty(len(sizes), np.int64)
    at = first
    for number, size_bytes in enumerate(sizes):
        pointers[number] = next_offset(at, size_bytes, page_bytes)
        at = int(pointers[number]) + size_bytes
    return pointers


class ContentDigest:
    """Digest of a beton's content: of those of its records in order, of head and of table.

    One of parts, so that many threads can compute it; zeros between the parts do not count.
    """

    def __init__(self) -> None:
        """Begin before the first record."""
        self._records = bytearray()

    def add(self, record_digest: bytes) -> None:
        """Take the digest of the next record."""
        self._records += record_digest

    def result(self, head: bytes, table: bytes) -> str:
        """Give the digest in hex."""
        return digest(digest(self._records) + digest(head) + digest(table)).hex()


def read_format(path: Path) -> BetonFormat:
    """Read where everything is; InputError if the file is no beton of square images and labels.

    Whatever the file holds, records of the layout returned lie within the file.
    """
    try:
        return _read(path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; `dvc repro` makes it") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a beton of minet's: {error}") from error


def read_ends(path: Path, layout: BetonFormat) -> tuple[bytes, bytes]:
    """Read what stands before the first record and behind the last page: head and table."""
    with path.open("rb") as file:
        head = file.read(int(layout.pointers[0]))
        file.seek(layout.table_at)
        return head, file.read()


def probe_digest(path: Path, layout: BetonFormat) -> str:
    """Digest, in hex, of what is quick to read: the head, the table, a part of 64 places between.

    It tells a beton from any other in a few milliseconds, and finds damage by chance only; the
    digest of the whole file finds all.
    """
    first, last = int(layout.pointers[0]), layout.table_at
    parts = [(at, _PROBE_BYTES) for at in np.linspace(first, last, _PROBES, endpoint=False)]
    read = bytearray()
    with path.open("rb") as file:
        for at, size_bytes in [
            (0, _SAMPLES_AT + len(layout.labels) * _SAMPLE.itemsize),
            *parts,
            (last, -1),  # to the end
        ]:
            file.seek(int(at))
            read += file.read(size_bytes)
    return digest(read).hex()


def _read(path: Path) -> BetonFormat:
    size_bytes = path.stat().st_size
    header = _rows(path, _HEADER, 1, 0)[0]
    _expect("version", header["version"], _VERSION)
    _expect("number of fields", header["num_fields"], 2)
    if not header["page_size"]:
        raise ValueError("its pages have no bytes")
    fields = _rows(path, _FIELD, 2, _HEADER.itemsize)
    _expect("fields", fields["type_id"].tolist(), [_IMAGE_FIELD, _INT_FIELD])
    count = int(header["num_samples"])
    samples = _rows(path, _SAMPLE, count, _SAMPLES_AT)
    table = _rows(path, _ALLOCATION, count, int(header["alloc_table_ptr"]))
    image = samples["image"]
    pointers, sizes = image["data_ptr"].astype(np.int64), table["size"].astype(np.int64)
    image_size, mode = (_only(name, image[name]) for name in ("width", "mode"))
    _expect("height", _only("height", image["height"]), image_size)
    if mode not in MODES.values() or not image_size:
        raise ValueError(f"its images have mode {mode} and a side of {image_size} pixels")
    if table["ptr"].tolist() != image["data_ptr"].tolist():
        raise ValueError("its table of allocations is not in the order of its images")
    outside = (pointers < _SAMPLES_AT) | (sizes < 0) | (pointers > size_bytes - sizes)
    if outside.any():
        raise ValueError(f"it has {size_bytes} bytes, but records beyond them")
    if mode == RAW:
        _expect("size of a record", _only("size of a record", sizes), 3 * image_size**2)
    labels = samples["label"].astype(np.int64)
    layout = BetonFormat(int(header["page_size"]), image_size, mode, labels, pointers, sizes)
    _expect("size in bytes", size_bytes, layout.table_at + table.nbytes)
    return layout


def _rows(path: Path, kind: np.dtype[Any], count: int, offset: int) -> NDArray[Any]:
    """Read rows of a table; ValueError if the file ends before or holds none."""
    if count < 1 or offset + count * kind.itemsize > path.stat().st_size:
        raise ValueError(f"no {count} rows of {kind.itemsize} bytes at byte {offset}")
    return np.fromfile(path, kind, count=count, offset=offset)


def _expect(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise ValueError(f"its {what} is {found}, not {expected}")


def _only(what: str, values: NDArray[Any]) -> int:
    if (values != values[0]).any():
        raise ValueError(f"its images differ in {what}")
    return int(values[0])
