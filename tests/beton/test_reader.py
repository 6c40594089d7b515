"""Reading betons: a truncated, foreign or damaged file is rejected by name."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
from ffcv.fields import IntField, RGBImageField
from ffcv.loader import Loader, OrderOption
from ffcv.reader import Reader
from ffcv.types import ALLOC_TABLE_TYPE, CURRENT_VERSION, FieldDescType, HeaderType
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from minet.beton import format as format_module
from minet.beton.config import BetonRunSettings
from minet.beton.format import (
    RAW,
    BetonFormat,
    data_offset,
    next_offset,
    read_format,
    record_offsets,
)
from minet.beton.reader import BetonReader
from minet.beton.verify import verify
from minet.beton.writer import write_beton
from minet.core.errors import InputError
from minet.core.files import digest, write_json
from minet.loader.stream import StreamLoader
from tests.helpers.sources import open_one
from tests.helpers.stage import call_main

COUNT, IMAGE_SIZE = 12, 64


def write(folder: Path, name: str, storage: str, seed: int = 0) -> Path:
    """Write a beton of smooth images with its sidecar; labels are 10, 11, ..."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(COUNT):
        picture = Image.fromarray(rng.integers(0, 256, (4, 5, 3), np.uint8)).resize((90, 70))
        file = folder / f"{seed}-{number}.png"
        picture.save(file)
        xxh3 = digest(file.read_bytes()).hex()
        rows.append({"path": file.name, "label": str(10 + number), "xxh3": xxh3})
    choice = {"resize_px": 66, "crop_px": IMAGE_SIZE, "storage": storage, "jpeg_quality": 90}
    settings_ = BetonRunSettings(root=str(folder), **choice)
    path = folder / f"{name}.beton"
    record = write_beton(path, rows, settings_, workers=2, progress=lambda items, _: items)
    write_json(path.with_suffix(".json"), record)
    return path


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a raw beton and one of JPEGs."""
    folder = tmp_path_factory.mktemp("written")
    return {storage: write(folder, storage, storage) for storage in ("raw", "jpg")}


@pytest.fixture(params=["raw", "jpg"])
def path(request: pytest.FixtureRequest, written: dict[str, Path], tmp_path: Path) -> Path:
    """Return a copy of a beton that the test may damage."""
    for suffix in (".beton", ".json"):
        shutil.copy(written[request.param].with_suffix(suffix), tmp_path)
    return tmp_path / f"{request.param}.beton"


def flip(path: Path, offset: int) -> None:
    """Invert one byte."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 0xFF
    path.write_bytes(data)


def break_jpeg(data: bytearray, beton: BetonFormat, number: int) -> None:
    """End an image's JPEG in its middle: damage that libjpeg-turbo itself detects."""
    middle = int(beton.offsets[number] + beton.sizes[number] // 2)
    data[middle : middle + 2] = b"\xff\xd9"


# --- the format ------------------------------------------------------------------------------


def test_the_format_equals_ffcvs() -> None:
    """Types, numbers and version."""
    image, label = RGBImageField().metadata_type, IntField().metadata_type
    sample = np.dtype([("", image), ("", label)], align=True)
    assert HeaderType == format_module._HEADER
    assert FieldDescType == format_module._FIELD
    assert format_module._ALLOCATION == ALLOC_TABLE_TYPE
    assert format_module._VERSION == CURRENT_VERSION
    ours = format_module._SAMPLE
    assert (ours.itemsize, ours.fields["label"][1]) == (sample.itemsize, sample.fields["f1"][1])
    assert ours["image"] == image


@pytest.mark.parametrize("storage", ["raw", "jpg"])
def test_ffcvs_own_loader_reads_the_same_images(storage: str, written: dict[str, Path]) -> None:
    """Its JPEG decoder uses a faster DCT, which differs by a few levels."""
    loader = Loader(
        str(written[storage]), batch_size=5, num_workers=1, order=OrderOption.SEQUENTIAL,
        drop_last=False,
    )  # fmt: skip
    batches = [tuple(part.clone().numpy() for part in batch) for batch in loader]
    images, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    ours = np.empty((COUNT, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    reader = BetonReader(written[storage])
    reader.read(np.arange(COUNT), ours)
    assert labels.reshape(-1).tolist() == reader.format.labels.tolist() == list(range(10, 22))
    assert abs(images.astype(int) - ours).max() <= (8 if storage == "jpg" else 0)


@given(st.lists(st.integers(1, 64), min_size=1, max_size=40), st.integers(0, 3))
def test_records_neither_cross_a_page_nor_overlap(sizes: list[int], pages: int) -> None:
    offsets = record_offsets(sizes, 64 * pages, 64)
    ends = offsets + sizes
    assert (offsets // 64 == (ends - 1) // 64).all()
    assert (offsets[1:] >= ends[:-1]).all()
    assert next_offset(int(ends[-1]), 64, 64) % 64 == 0 or ends[-1] % 64 == 0


# --- problems found on opening ---------------------------------------------------------------


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def foreign(path: Path) -> None:
    path.write_bytes(b"PK\3\4" * (path.stat().st_size // 4))


def half_written(path: Path) -> None:
    """A header of zeros, as while pages are written."""
    data = path.read_bytes()
    path.write_bytes(bytes(4096) + data[4096:])


def other_version(path: Path) -> None:
    path.write_bytes(b"\3" + path.read_bytes()[1:])


def other_label(path: Path) -> None:
    flip(path, format_module._SAMPLES_OFFSET + format_module._SAMPLE.itemsize + 16)


def other_offset(path: Path) -> None:
    """Move the second image's record beyond the end of the file."""
    flip(path, format_module._SAMPLES_OFFSET + format_module._SAMPLE.itemsize + 5 + 4)


def first_pixel(path: Path) -> None:
    flip(path, int(read_format(path).offsets[0]))


def other_storage(path: Path) -> None:
    flip(path, format_module._SAMPLES_OFFSET)


DAMAGE = {
    cut: "bytes [0-9]+, but its sidecar says [0-9]+: damaged or another file; remove both and run",
    empty: "bytes 0, but its sidecar says",
    longer: "bytes [0-9]+, but its sidecar says",
    foreign: "not a beton written by minet: its version is 19280, not 2",
    half_written: "not a beton written by minet: its version is 0, not 2",
    other_version: "not a beton written by minet: its version is 3, not 2",
    other_label: "probe_xxh3 [0-9a-f]{32}, but its sidecar says",
    other_offset: "not a beton written by minet: its allocation table is not in the order",
    first_pixel: "probe_xxh3 [0-9a-f]{32}, but its sidecar says",
    other_storage: "not a beton written by minet: its images differ in mode",
}


@pytest.mark.parametrize(("damage", "message"), DAMAGE.items())
def test_a_damaged_or_foreign_beton_is_rejected_by_name(
    damage: Callable[[Path], None], message: str, path: Path
) -> None:
    damage(path)
    for open_ in (BetonReader, lambda p: StreamLoader(p, batch_size=4, workers=1)):
        with pytest.raises(InputError, match=f"{path.name}: {message}"):
            open_(path)


def craft(path: Path, **changes: Any) -> None:
    """Write a valid beton of three images with some changes, and its sidecar."""
    values = {"page_bytes": 8 << 20, "image_size": 8, "mode": RAW, "labels": np.arange(3)}
    values |= {"sizes": np.full(3, 192)} | changes
    offsets = record_offsets(values["sizes"], data_offset(3, 8 << 20), 8 << 20)
    beton = BetonFormat(**values, offsets=offsets)
    header = beton.header().ljust(beton.table_offset, b"\0")
    path.write_bytes(header + beton.allocation_table())
    write_sidecar(path, beton)


def write_sidecar(path: Path, beton: BetonFormat) -> None:
    """Write the sidecar that matches a file."""
    storage = "raw" if beton.mode == RAW else "jpg"
    record = {"bytes": path.stat().st_size, "count": 3, "image_size": beton.image_size}
    probe = format_module.probe_digest(path, beton)
    write_json(path.with_suffix(".json"), record | {"storage": storage, "probe_xxh3": probe})


def test_a_valid_crafted_beton_is_read(tmp_path: Path) -> None:
    craft(tmp_path / "a.beton")
    out = np.ones((3, 8, 8, 3), np.uint8)
    BetonReader(tmp_path / "a.beton").read(np.arange(3), out)
    assert not out.any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": 7}, "its images have mode 7 and a side of 8 pixels"),
        (
            {"image_size": 0, "sizes": np.zeros(3, int)},
            "its images have mode 1 and a side of 0 pixels",
        ),
        ({"sizes": np.full(3, 191)}, "its record size is 191, not 192"),
        ({"sizes": np.array([192, 192, 193])}, "its images differ in record size"),
        ({"image_size": 9}, "its record size is 192, not 243"),
    ],
)
def test_an_invalid_crafted_beton_is_rejected(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    craft(tmp_path / "a.beton", **changes)
    with pytest.raises(InputError, match=f"a.beton: not a beton written by minet: {message}$"):
        BetonReader(tmp_path / "a.beton")


@pytest.mark.parametrize(
    ("offset", "bytes_", "message"),
    [
        (4, bytes(4), "its pages have no bytes"),
        (2, b"\3\0", "its number of fields is 3, not 2"),
        (24, b"\5", r"its fields is \[5, 1\], not \[2, 1\]"),
    ],
)
def test_an_invalid_header_is_rejected(
    tmp_path: Path, offset: int, bytes_: bytes, message: str
) -> None:
    path = tmp_path / "a.beton"
    craft(path)
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(bytes_)
    with pytest.raises(InputError, match=f"a.beton: not a beton written by minet: {message}$"):
        BetonReader(path)


def test_images_that_are_not_square_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "a.beton"
    craft(path)
    with path.open("r+b") as file:
        for number in range(3):
            file.seek(format_module._SAMPLES_OFFSET + number * format_module._SAMPLE.itemsize + 3)
            file.write(b"\x09\0")
    with pytest.raises(InputError, match="its height is 9, not 8$"):
        BetonReader(path)


@pytest.mark.parametrize(("key", "value"), [("image_size", 16), ("storage", "jpg"), ("count", 4)])
def test_a_sidecar_of_other_images_is_rejected(tmp_path: Path, key: str, value: object) -> None:
    path = tmp_path / "a.beton"
    craft(path)
    sidecar = json.loads(path.with_suffix(".json").read_text())
    write_json(path.with_suffix(".json"), sidecar | {key: value})
    with pytest.raises(
        InputError, match=f"a.beton: {key} [0-9raw]+, but its sidecar says {value}: "
    ):
        BetonReader(path)


def test_partial_reads_are_completed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Network disks return them."""
    reader, preadv = BetonReader(path), os.preadv
    whole, parts = (np.empty((COUNT, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8) for _ in range(2))
    reader.read(np.arange(COUNT), whole)
    monkeypatch.setattr(os, "preadv", lambda file, data, at: preadv(file, [data[0][:700]], at))
    reader.read(np.arange(COUNT), parts)
    assert np.array_equal(whole, parts)


def test_a_disk_error_is_reported_with_the_image(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> int:
        raise OSError(5, "Input/output error")

    reader = BetonReader(path)
    monkeypatch.setattr(os, "preadv", failing)
    message = f"{path.name}: image 2 cannot be read: Input/output error$"
    with pytest.raises(InputError, match=message):
        reader.read(np.array([2]), np.empty((1, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8))


def test_another_beton_of_the_same_size_and_labels_is_rejected(path: Path, tmp_path: Path) -> None:
    """Raw betons of two data sets may have the same size to the byte."""
    other = write(tmp_path / "other", "other", path.stem, seed=1)
    if path.stem == "raw":
        assert other.stat().st_size == path.stat().st_size
    shutil.copy(other, path)
    with pytest.raises(
        InputError, match="raw.beton: probe_xxh3" if path.stem == "raw" else path.name
    ):
        BetonReader(path)


@pytest.mark.parametrize("gone", [".beton", ".json"])
def test_a_missing_file_is_named(path: Path, gone: str) -> None:
    path.with_suffix(gone).unlink()
    with pytest.raises(InputError, match=f"{path.stem}{gone}: no such file; `dvc repro` makes it"):
        BetonReader(path)


def patch_bytes(path: Path, patch: Mapping[int, int]) -> dict[int, int]:
    """Write bytes at offsets of a file; return those that were there."""
    replaced = {}
    with path.open("r+b") as file:
        for offset, value in patch.items():
            file.seek(offset)
            replaced[offset] = file.read(1)[0]
            file.seek(offset)
            file.write(bytes([value]))
    return replaced


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_no_damage_of_the_header_moves_records_out_of_the_file(
    written: dict[str, Path], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Any bytes in header, samples or table: rejected, or every record is within the file."""
    original = written[data.draw(st.sampled_from(["raw", "jpg"]))]
    path = tmp_path_factory.getbasetemp() / f"damaged-{original.name}"
    if not path.exists():
        shutil.copy(original, path)
    size = path.stat().st_size
    samples = format_module._SAMPLES_OFFSET
    end = samples + COUNT * format_module._SAMPLE.itemsize
    offsets = st.integers(0, end - 1) | st.integers(0, 23) | st.integers(samples, end - 1)
    offsets |= st.integers(size - COUNT * 24, size - 1)
    damage = data.draw(st.dictionaries(offsets, st.integers(0, 255), min_size=1, max_size=4))
    intact = patch_bytes(path, damage)
    try:
        beton = read_format(path)
    except InputError:
        return
    finally:
        patch_bytes(path, intact)
    assert (beton.offsets >= 0).all()
    assert (beton.offsets + beton.sizes <= size).all()
    assert beton.mode in (0, 1)
    assert beton.mode == 0 or (beton.sizes == 3 * beton.image_size**2).all()
    assert len(beton.labels) == COUNT


# --- problems found on reading ---------------------------------------------------------------


def test_a_corrupt_jpeg_never_yields_a_stale_image(
    written: dict[str, Path], tmp_path: Path
) -> None:
    """The batches before it arrive, the image is named, and nothing is yielded for it."""
    shutil.copy(written["jpg"].with_suffix(".json"), tmp_path)
    path, beton = tmp_path / "jpg.beton", read_format(written["jpg"])
    data = bytearray(written["jpg"].read_bytes())
    break_jpeg(data, beton, 7)
    path.write_bytes(data)
    sidecar = json.loads(path.with_suffix(".json").read_text())
    sidecar["probe_xxh3"] = format_module.probe_digest(path, beton)  # as if no probe found it
    path.with_suffix(".json").write_text(json.dumps(sidecar))
    for cache in ("stream", "resident"):
        taken: list[int] = []
        message = "jpg.beton: image 7 is a damaged JPEG: .*; remove both"
        with pytest.raises(InputError, match=message):
            take_labels(path, cache, taken)
        assert taken == ([10, 11, 12, 13] if cache == "stream" else [])


def take_labels(path: Path, cache: Any, taken: list[int]) -> None:
    loader = open_one(path, batch_size=4, workers=2, cache=cache)
    for batch in loader.batches(np.arange(COUNT)):
        taken += batch.labels.tolist()


def test_truncation_while_reading_is_reported(path: Path) -> None:
    reader = BetonReader(path)
    with path.open("r+b") as file:
        file.truncate(int(reader.format.offsets[-1]))
    out = np.empty((2, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    reader.read(np.array([0, 1]), out)
    with pytest.raises(InputError, match=f"{path.name}: ends within image 11; remove both"):
        reader.read(np.array([0, 11]), out)


# --- verify ----------------------------------------------------------------------------------


def test_verify_accepts_an_undamaged_beton(path: Path) -> None:
    for workers in (1, 3):
        assert verify(path, workers)["count"] == COUNT


def test_verify_finds_one_flipped_bit_in_any_record(
    written: dict[str, Path], tmp_path: Path
) -> None:
    """At an offset that no probe reads."""
    path = tmp_path / "raw.beton"
    shutil.copy(written["raw"].with_suffix(".json"), tmp_path)
    original = written["raw"].read_bytes()
    for offset in read_format(written["raw"]).offsets.tolist():
        data = bytearray(original)
        data[offset + 5000] ^= 1
        path.write_bytes(data)
        with pytest.raises(InputError, match="raw.beton: (content|probe)_xxh3 [0-9a-f]{32}, but"):
            verify(path, 2)


def test_verify_names_every_damaged_jpeg(written: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "jpg.beton"
    beton = read_format(written["jpg"])
    data = bytearray(written["jpg"].read_bytes())
    for number in (3, 9):
        break_jpeg(data, beton, number)
    path.write_bytes(data)
    sidecar = json.loads(written["jpg"].with_suffix(".json").read_text())
    sidecar["probe_xxh3"] = format_module.probe_digest(path, beton)
    write_json(path.with_suffix(".json"), sidecar)
    with pytest.raises(InputError) as caught:
        verify(path, 2)
    assert [problem.split(" is ")[0] for problem in caught.value.problems] == [
        f"{path}: image {number}" for number in (3, 9)
    ]


def test_verify_compares_with_ffcv(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_metadata = Reader.read_metadata

    def wrong(self: Any) -> None:
        read_metadata(self)
        self.metadata = self.metadata[::-1]

    monkeypatch.setattr(Reader, "read_metadata", wrong)
    with pytest.raises(InputError, match="FFCV reads other offsets or labels than minet does"):
        verify(path, 1)


def run_verify(*paths: Path) -> CompletedProcess[str]:
    return call_main("minet.__main__", "verify", *map(str, paths))


def test_the_command_reports_good_and_bad_betons(path: Path) -> None:
    good = path.with_name("good.beton")
    shutil.copy(path, good)
    shutil.copy(path.with_suffix(".json"), good.with_suffix(".json"))
    cut(path)
    done = run_verify(path, good, path.with_name("none.beton"))
    assert done.returncode == 1
    assert done.stdout.startswith(f"{good}: {COUNT} images, ")
    problems = done.stderr.splitlines()
    assert problems[0].startswith(f"error: {path}: bytes ")
    assert problems[1].endswith("none.json: no such file; `dvc repro` makes it")
    assert run_verify(good).returncode == 0
