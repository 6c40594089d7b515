"""Betons of photographs at 224 px: a few thousand images, repeated where a run needs more."""

import shutil
import time
from pathlib import Path

import numpy as np
import safetensors

from benchmarks.gpu.work import Work
from benchmarks.peers.betons import IMAGE_SIZE, Storage, index_rows, write
from benchmarks.photos import DENSE, write_photos
from benchmarks.train.job import CLASSES
from minet.beton.format import BetonFormat, data_offset, probe_digest, read_format
from minet.beton.reader import BetonReader
from minet.core.arrays import all_indices
from minet.core.cli import workers
from minet.core.files import atomic_write, read_json, write_csv, write_json

STORAGES: tuple[Storage, ...] = ("raw", "jpg")
FEW, EPOCH = "few", "epoch"  # folders with the inputs of a run of `stages.train`


def measure(work: Work) -> None:
    """Write the betons of the other parts below the work's folder."""
    photos, size, folder = work.photos, work.size, work.folder
    if photos is None:
        photos = folder / "photos"
        write_photos(photos, size.photos, DENSE, workers())
    for storage in STORAGES:
        started = time.time()
        _write(folder / f"{storage}.beton", photos, size.photos, size.images, storage)
        seconds = time.time() - started
        value = {"images": size.images, "seconds": seconds, "images_per_s": size.images / seconds}
        work.report("written", storage, value=value)
    _write(folder / "val.beton", photos, size.photos, size.val_images, "raw")
    for storage in STORAGES:
        repeat(folder / f"{storage}.beton", loader_beton(folder, storage), size.loader_images)
    for name in (FEW, EPOCH):
        (folder / name).mkdir()
        _link(folder / "val", folder / name / "val")
        _write_other_inputs(folder / name)
    _link(folder / "raw", folder / FEW / "train")
    repeat(folder / "raw.beton", folder / EPOCH / "train.beton", size.epoch_images)
    work.claim("images of an epoch", _count(folder / EPOCH / "train.beton"), size.epoch_images)
    work.claim("images are those repeated", _repeats(folder), expected=True)


def loader_beton(folder: Path, storage: Storage) -> Path:
    """Return the path of the beton that the loaders are measured on."""
    return folder / f"loader-{storage}.beton"


def repeat(source: Path, target: Path, count: int) -> None:
    """Write a beton of `count` images whose table repeats the records of another, cyclically.

    Image i is image i + d of the source for some d, modulo its number of images: the last one is
    the last, after which the table lies.
    """
    old = read_format(source)
    order = (all_indices(count) - count) % len(old.labels)
    new = BetonFormat(
        page_bytes=old.page_bytes,
        image_size=old.image_size,
        mode=old.mode,
        labels=old.labels[order],
        offsets=old.offsets[order],
        sizes=old.sizes[order],
    )
    if data_offset(count, new.page_bytes) != data_offset(len(old.labels), old.page_bytes):
        raise ValueError(f"{source}: its first page leaves no room for a table of {count} images")
    with atomic_write(target) as partial:
        shutil.copyfile(source, partial)
        with partial.open("r+b") as file:
            file.write(new.header())
            file.seek(new.table_offset)
            file.truncate()
            file.write(new.allocation_table())
        changes = {
            "count": count,
            "bytes": partial.stat().st_size,
            "probe_xxh3": probe_digest(partial, new),
        }
    sidecar = read_json(source.with_suffix(".json")) | changes
    del sidecar["content_xxh3"]  # of the source
    write_json(target.with_suffix(".json"), sidecar)


def _write(path: Path, photos: Path, originals: int, count: int, storage: Storage) -> None:
    rows = index_rows(photos, originals, count)
    for row in rows:
        row["label"] = str(int(row["label"]) % CLASSES)
    write(path, rows, photos, storage, workers())


def _link(beton: Path, link: Path) -> None:
    for suffix in (".beton", ".json"):
        link.with_suffix(suffix).symlink_to(beton.with_suffix(suffix))


def _write_other_inputs(inputs: Path) -> None:
    names = [(label, f"class {label}") for label in range(CLASSES)]
    write_csv(inputs / "classes.csv", ("label", "name"), names)
    (inputs / "initial.safetensors").write_bytes(safetensors.serialize({}))


def _count(path: Path) -> int:
    return len(BetonReader(path).format.labels)


def _repeats(folder: Path) -> bool:
    """Whether the repeated beton's first and last images are those of the beton that it repeats."""
    once, often = (BetonReader(folder / name) for name in ("raw.beton", f"{EPOCH}/train.beton"))
    count, repeated = len(once.format.labels), len(often.format.labels)
    ends = np.array([0, repeated - 1])
    pixels = np.empty((2, 2, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    once.read((ends - repeated) % count, pixels[0])
    often.read(ends, pixels[1])
    return bool((pixels[0] == pixels[1]).all())
