"""BetonReader on disk: JSON and CSV that appear whole or not at all, and digests of files."""

import csv
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import xxhash

from minet.core.errors import InputError


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; it takes the place of `path` on success.

    An error removes it. A killed process leaves `<name>.partial`, which the next run overwrites;
    `path` itself is never half-written, and a hard link to it (DVC's cache) is never written into.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    try:
        yield partial
        _sync(partial)
        partial.replace(path)
        _sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def atomic_dir(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path` that takes its place on success, an error removes it.

    Its files are not put on the disk one by one as `atomic_write` does: after a power cut DVC finds
    other sizes than it noted and makes the folder anew.
    """
    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        shutil.rmtree(path, ignore_errors=True)
        partial.replace(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record as indented JSON in the order of its keys; not-a-number is an error."""
    text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_write(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read a record that `write_json` wrote; InputError names a file that is no such record."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; `dvc repro` makes it") from error
    except ValueError as error:
        raise InputError(f"{path}: not a JSON record: {error}") from error
    if not isinstance(record, dict):
        raise InputError(f"{path}: not a JSON record but a {type(record).__name__}")
    return record


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV with a header; floats keep all their digits."""
    with atomic_write(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read the rows of a CSV that `write_csv` wrote, each as column -> text."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; `dvc repro` makes it") from error


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(data: bytes | bytearray | memoryview) -> bytes:
    """XXH3 of 128 bits: it finds damage, mix-ups and duplicates, not forgery.

    It runs at the speed of memory. SHA-256 took a tenth of the preparation of an image, and would
    take a third on the many processors without instructions for it.
    """
    return xxhash.xxh3_128_digest(data)


def _sync(path: Path) -> None:
    """Put a file or folder entry on the disk itself, so that a rename survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
