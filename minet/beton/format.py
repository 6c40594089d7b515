"""The beton file format (FFCV, version 2): offsets of header, samples and records.

A file holds a header, the descriptors of its two fields (an image and a label), one row per sample,
pages of records, and the allocation table. FFCV's `types.py`, `fields/` and `memory_allocator.py`
define it; tests compare what is written here with FFCV's own writer, byte by byte, and with its
reader. FFCV is not imported: that takes longer than reading a small split.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minet.core.arrays import IndexArray, ceil_div
from minet.core.errors import InputError
from minet.core.files import digest

JPG, RAW = 0, 1  # FFCV's modes of an image
MODES = {"jpg": JPG, "raw": RAW}

_VERSION = 2
_IMAGE_FIELD, _INT_FIELD = 2, 1  # FFCV's numbers of its field types
_MIN_PAGE_BYTES = 8 << 20  # FFCV's own choice
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
_SAMPLES_OFFSET = _HEADER.itemsize + 2 * _FIELD.itemsize


@dataclass(frozen=True)
class BetonFormat:
    """Where everything is in a beton of N images, in the order of the index."""

    page_bytes: int
    image_size: int
    mode: int  # JPG or RAW
    labels: IndexArray  # (N,)
    offsets: IndexArray  # (N,) first byte of each record
    sizes: IndexArray  # (N,) bytes of each record

    def header(self) -> bytes:
        """Return all bytes before the first page: header, fields, samples, zero padding."""
        header = np.zeros((), _HEADER)
        header["version"], header["num_fields"] = _VERSION, 2
        header["page_size"], header["num_samples"] = self.page_bytes, len(self.labels)
        header["alloc_table_ptr"] = self.table_offset
        fields = np.zeros(2, _FIELD)
        for field, name, type_id in zip(
            fields, (b"image", b"label"), (_IMAGE_FIELD, _INT_FIELD), strict=True
        ):
            field["type_id"] = type_id
            field["name"][: len(name)] = list(name)
        samples = np.zeros(len(self.labels), _SAMPLE)
        samples["image"]["mode"] = self.mode
        samples["image"]["width"] = samples["image"]["height"] = self.image_size
        samples["image"]["data_ptr"] = self.offsets
        samples["label"] = self.labels
        written = header.tobytes() + fields.tobytes() + samples.tobytes()
        return written.ljust(data_offset(len(self.labels), self.page_bytes), b"\0")

    @cached_property
    def table_offset(self) -> int:
        """Offset of the allocation table, right after the last page."""
        page = self.page_bytes
        return int(self.offsets[-1] // page + 1) * page

    def allocation_table(self) -> bytes:
        """Return the allocation table, the end of the file."""
        rows = np.zeros(len(self.labels), _ALLOCATION)
        rows["sample_id"] = np.arange(len(rows))
        rows["ptr"], rows["size"] = self.offsets, self.sizes
        return rows.tobytes()


def data_offset(count: int, page_bytes: int) -> int:
    """Return the offset of the first page: the first multiple of its size after the samples."""
    return ceil_div(_SAMPLES_OFFSET + count * _SAMPLE.itemsize, page_bytes) * page_bytes


def page_bytes_for(record_bytes: int) -> int:
    """Return the page size, a power of 2 that holds a record of `record_bytes`."""
    return max(_MIN_PAGE_BYTES, 1 << (record_bytes - 1).bit_length())


def next_offset(offset: int, size_bytes: int, page_bytes: int) -> int:
    """Return the offset of the next record: `offset`, or the next page if it does not fit."""
    left = page_bytes - offset % page_bytes
    return offset if size_bytes <= left else offset + left


def record_offsets(sizes: Sequence[int], first: int, page_bytes: int) -> IndexArray:
    """Return the offsets of consecutive records from `first`; no record crosses a page."""
    offsets = np.empty(len(sizes), np.int64)
    end = first
    for number, size_bytes in enumerate(sizes):
        offsets[number] = next_offset(end, size_bytes, page_bytes)
        end = int(offsets[number]) + size_bytes
    return offsets


class ContentDigest:
    """Digest of a beton's content: the records in order, the header and the allocation table.

    It is a digest of digests, so that threads can compute the parts. Padding does not count.
    """

    def __init__(self) -> None:
        self._records = bytearray()

    def add(self, record_digest: bytes) -> None:
        """Append the digest of the next record."""
        self._records += record_digest

    def result(self, header: bytes, table: bytes) -> str:
        """Return the digest in hex."""
        return digest(digest(self._records) + digest(header) + digest(table)).hex()


def read_format(path: Path) -> BetonFormat:
    """Read the format of a beton; InputError if it is no beton of square images and labels.

    Whatever the file holds, the records of the returned format lie within the file.
    """
    try:
        return _read(path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; `dvc repro` makes it") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a beton written by minet: {error}") from error


def read_header_and_table(path: Path, beton: BetonFormat) -> tuple[bytes, bytes]:
    """Read what precedes the first record and what follows the last page: header and table."""
    with path.open("rb") as file:
        header = file.read(int(beton.offsets[0]))
        file.seek(beton.table_offset)
        return header, file.read()


def probe_digest(path: Path, beton: BetonFormat) -> str:
    """Return a quick digest in hex: of the header, the table and 64 short parts between them.

    It distinguishes betons in a few milliseconds but finds damage only by chance; the digest of
    the whole content finds all.
    """
    first, last = int(beton.offsets[0]), beton.table_offset
    parts = [(at, _PROBE_BYTES) for at in np.linspace(first, last, _PROBES, endpoint=False)]
    read = bytearray()
    with path.open("rb") as file:
        for offset, size_bytes in [
            (0, _SAMPLES_OFFSET + len(beton.labels) * _SAMPLE.itemsize),
            *parts,
            (last, -1),  # to the end
        ]:
            file.seek(int(offset))
            read += file.read(size_bytes)
    return digest(read).hex()


def _read(path: Path) -> BetonFormat:
    size_bytes = path.stat().st_size
    header = _read_rows(path, _HEADER, 1, 0)[0]
    _expect("version", header["version"], _VERSION)
    _expect("number of fields", header["num_fields"], 2)
    if not header["page_size"]:
        raise ValueError("its pages have no bytes")
    fields = _read_rows(path, _FIELD, 2, _HEADER.itemsize)
    _expect("fields", fields["type_id"].tolist(), [_IMAGE_FIELD, _INT_FIELD])
    count = int(header["num_samples"])
    samples = _read_rows(path, _SAMPLE, count, _SAMPLES_OFFSET)
    table = _read_rows(path, _ALLOCATION, count, int(header["alloc_table_ptr"]))
    image = samples["image"]
    offsets, sizes = image["data_ptr"].astype(np.int64), table["size"].astype(np.int64)
    image_size, mode = (_single_value(name, image[name]) for name in ("width", "mode"))
    _expect("height", _single_value("height", image["height"]), image_size)
    if mode not in MODES.values() or not image_size:
        raise ValueError(f"its images have mode {mode} and a side of {image_size} pixels")
    if table["ptr"].tolist() != image["data_ptr"].tolist():
        raise ValueError("its allocation table is not in the order of its images")
    outside = (offsets < _SAMPLES_OFFSET) | (sizes < 0) | (offsets > size_bytes - sizes)
    if outside.any():
        raise ValueError(f"it has {size_bytes} bytes, but records beyond them")
    if mode == RAW:
        _expect("record size", _single_value("record size", sizes), 3 * image_size**2)
    beton = BetonFormat(
        page_bytes=int(header["page_size"]),
        image_size=image_size,
        mode=mode,
        labels=samples["label"].astype(np.int64),
        offsets=offsets,
        sizes=sizes,
    )
    _expect("size in bytes", size_bytes, beton.table_offset + table.nbytes)
    return beton


def _read_rows(path: Path, dtype: np.dtype[Any], count: int, offset: int) -> NDArray[Any]:
    """Read rows of a table; ValueError if there are none or the file ends before the last."""
    if count < 1 or offset + count * dtype.itemsize > path.stat().st_size:
        raise ValueError(f"no {count} rows of {dtype.itemsize} bytes at byte {offset}")
    return np.fromfile(path, dtype, count=count, offset=offset)


def _expect(name: str, actual: object, expected: object) -> None:
    if actual != expected:
        raise ValueError(f"its {name} is {actual}, not {expected}")


def _single_value(name: str, values: NDArray[Any]) -> int:
    if (values != values[0]).any():
        raise ValueError(f"its images differ in {name}")
    return int(values[0])
