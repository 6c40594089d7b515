"""Every byte of a beton held against its sidecar, and FFCV's own reader as a second witness."""

from pathlib import Path
from typing import Any

from minet.beton.reader import BetonReader
from minet.core.errors import InputError


def verify(path: Path, workers: int) -> dict[str, Any]:
    """Read a beton whole; return its sidecar's record, or InputError with all that is wrong."""
    records = BetonReader(path)
    records.check_all(workers)
    _check_with_ffcv(records)
    return records.sidecar


def _check_with_ffcv(records: BetonReader) -> None:
    """Let FFCV say where the images are; its import takes seconds, so nothing else needs it."""
    from ffcv.reader import Reader

    reader, layout = Reader(str(records.path)), records.layout
    image, label = (reader.metadata[name] for name in reader.metadata.dtype.names)
    same = (
        reader.field_names == ["image", "label"]
        and image["data_ptr"].tolist() == layout.pointers.tolist()
        and label.reshape(-1).tolist() == layout.labels.tolist()
        and reader.alloc_table["size"].tolist() == layout.sizes.tolist()
    )
    if not same:
        raise InputError(f"{records.path}: FFCV reads other places or labels than minet does")
