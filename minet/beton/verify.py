"""Check every byte of a beton against its sidecar, and its format against FFCV's own reader."""

from pathlib import Path
from typing import Any

from minet.beton.reader import BetonReader
from minet.core.errors import InputError, needs_group


def verify(path: Path, workers: int) -> dict[str, Any]:
    """Read a whole beton; return its sidecar. InputError lists all problems."""
    beton = BetonReader(path)
    beton.check_all(workers)
    _check_with_ffcv(beton)
    return beton.sidecar


def _check_with_ffcv(beton: BetonReader) -> None:
    """Compare offsets and labels with FFCV's. Its import takes seconds; nothing else needs it."""
    with needs_group("verify"):
        from ffcv.reader import Reader

    reader = Reader(str(beton.path))
    image, label = (reader.metadata[name] for name in reader.metadata.dtype.names)
    same = (
        reader.field_names == ["image", "label"]
        and image["data_ptr"].tolist() == beton.format.offsets.tolist()
        and label.reshape(-1).tolist() == beton.format.labels.tolist()
        and reader.alloc_table["size"].tolist() == beton.format.sizes.tolist()
    )
    if not same:
        raise InputError(f"{beton.path}: FFCV reads other offsets or labels than minet does")
