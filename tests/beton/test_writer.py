"""Writing betons: the same bytes with any number of workers, correct pixels, no leftover files."""

import hashlib
import io
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ffcv.fields import IntField, RGBImageField
from ffcv.reader import Reader
from ffcv.writer import DatasetWriter
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from minet.beton import writer as beton
from minet.beton.config import BetonRunSettings
from minet.beton.format import read_format
from minet.beton.writer import Record, write_beton
from minet.core.errors import InputError
from minet.core.files import digest, read_json, write_csv, write_json
from minet.images.decode import decode, prepare

COUNT = 12
Rows = list[dict[str, str]]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of images of mixed sizes, smooth and textured."""
    root = tmp_path_factory.mktemp("source")
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        width, height = rng.integers(40, 90, 2)
        grain = (height, width) if number % 2 else (3, 4)
        pixels = rng.integers(0, 256, (*grain, 3), np.uint8)
        Image.fromarray(pixels).resize((width, height)).save(root / f"{number}.png")
    return root


@pytest.fixture
def rows(source: Path) -> Rows:
    """Return the index of the folder; the labels 0, 3, 6, ... identify the images."""
    return [
        {
            "path": f"{number}.png",
            "label": str(3 * number),
            "xxh3": digest((source / f"{number}.png").read_bytes()).hex(),
        }
        for number in range(COUNT)
    ]


def settings(source: Path, **changes: Any) -> BetonRunSettings:
    values = {"root": str(source), "resize_px": 36, "crop_px": 32, "storage": "raw"}
    return BetonRunSettings(**(values | {"jpeg_quality": 90} | changes))


def plain(items: Iterable[Record], total: int) -> Iterable[Record]:
    return items


def write(path: Path, rows: Rows, choice: BetonRunSettings, workers: int = 2) -> dict[str, Any]:
    return write_beton(path, rows, choice, workers=workers, progress=plain)


def expected(rows: Rows, choice: BetonRunSettings) -> NDArray[np.uint8]:
    """Prepare the images of an index one by one."""
    root = Path(choice.root)
    images = (decode((root / row["path"]).read_bytes()) for row in rows)
    return np.stack([prepare(image, choice.resize_px, choice.crop_px) for image in images])


def read_back(path: Path) -> tuple[NDArray[np.uint8], list[int]]:
    """Read all pixels and labels with FFCV's reader."""
    reader = Reader(str(path))
    image, label = (reader.metadata[name] for name in reader.metadata.dtype.names)
    sizes = dict(zip(reader.alloc_table["ptr"], reader.alloc_table["size"], strict=True))
    data = path.read_bytes()
    pixels = []
    for mode, width, height, offset in image:
        stored = data[offset : offset + sizes[offset]]
        if mode == 0:  # jpg
            stored = Image.open(io.BytesIO(stored)).tobytes()
        pixels.append(np.frombuffer(stored, np.uint8).reshape(height, width, 3))
    return np.stack(pixels), label.reshape(-1).astype(int).tolist()


@pytest.mark.parametrize("storage", ["raw", "jpg"])
def test_bytes_do_not_depend_on_the_number_of_workers(
    storage: str, source: Path, rows: Rows, tmp_path: Path
) -> None:
    choice = settings(source, storage=storage)
    records = []
    for workers in (1, 1, 2, 3):
        path = tmp_path / "one.beton"
        record = write(path, rows, choice, workers)
        records.append((record, hashlib.sha256(path.read_bytes()).hexdigest()))
    assert records[1:] == records[:1] * 3


@pytest.mark.parametrize("image_size", [32, 700, 1700])
def test_raw_bytes_equal_those_of_ffcvs_own_writer(
    image_size: int, source: Path, rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FFCV with one worker, since more give other bytes; up to one page per image."""
    monkeypatch.setattr("ffcv.writer.Process", InThread)
    monkeypatch.setattr("ffcv.writer.tqdm", lambda total: tqdm(total=total, disable=True))
    choice = settings(source, resize_px=image_size, crop_px=image_size)
    some = rows if image_size < 1700 else rows[:3]
    write(tmp_path / "ours.beton", some, choice)
    fields = {"image": RGBImageField(write_mode="raw"), "label": IntField()}
    page_bytes = read_format(tmp_path / "ours.beton").page_bytes
    theirs = DatasetWriter(str(tmp_path / "theirs.beton"), fields, page_bytes, num_workers=1)
    labels = [int(row["label"]) for row in some]
    theirs.from_indexed_dataset(list(zip(expected(some, choice), labels, strict=True)))
    ours = (tmp_path / "ours.beton").read_bytes()
    assert ours == (tmp_path / "theirs.beton").read_bytes()


class InThread(threading.Thread):
    """FFCV's worker as a thread: Python warns of a fork in a process with threads."""

    def __init__(self, target: Callable[..., None], args: tuple[Any, ...]) -> None:
        super().__init__(target=target, args=args, daemon=True)


def test_raw_pixels_read_back_equal_the_prepared_ones(
    source: Path, rows: Rows, tmp_path: Path
) -> None:
    choice = settings(source)
    write(tmp_path / "one.beton", rows, choice)
    pixels, labels = read_back(tmp_path / "one.beton")
    assert np.array_equal(pixels, expected(rows, choice))
    assert labels == [3 * number for number in range(COUNT)]


def test_jpg_pixels_read_back_are_close_to_the_prepared_ones(
    source: Path, rows: Rows, tmp_path: Path
) -> None:
    """Smooth images only: JPEG discards fine texture."""
    smooth = rows[::2]
    choice = settings(source, storage="jpg", jpeg_quality=95)
    write(tmp_path / "one.beton", smooth, choice)
    pixels, labels = read_back(tmp_path / "one.beton")
    difference = abs(pixels.astype(int) - expected(smooth, choice))
    assert 0 < difference.mean() < 3
    assert difference.max() < 30
    assert labels == [6 * number for number in range(COUNT // 2)]


def test_jpeg_quality_comes_from_the_settings(source: Path, rows: Rows, tmp_path: Path) -> None:
    path = tmp_path / "one.beton"
    sizes = []
    for quality in (30, 90):
        write(path, rows, settings(source, storage="jpg", jpeg_quality=quality))
        sizes.append(int(Reader(str(path)).alloc_table["size"].sum()))
    assert sizes[0] < 0.7 * sizes[1]


@pytest.mark.parametrize("crop_px", [700, 1700])
def test_images_are_correct_across_several_pages(
    crop_px: int, source: Path, rows: Rows, tmp_path: Path
) -> None:
    """A page of 8 MiB holds 5 images of 700 px and none of 1,700 px."""
    some = rows[:7] if crop_px == 700 else rows[:2]
    choice = settings(source, resize_px=crop_px, crop_px=crop_px)
    write(tmp_path / "one.beton", some, choice)
    pixels, labels = read_back(tmp_path / "one.beton")
    assert np.array_equal(pixels, expected(some, choice))
    assert labels == [3 * number for number in range(len(some))]


@pytest.mark.parametrize("storage", ["raw", "jpg"])
def test_the_sidecar_describes_the_file_and_the_pixels_before_compression(
    storage: str, source: Path, rows: Rows, tmp_path: Path
) -> None:
    choice = settings(source, storage=storage)
    path = tmp_path / "one.beton"
    record = write(path, rows, choice)
    pixels = expected(rows, choice).reshape(-1, 3) / 255
    np.testing.assert_allclose(record.pop("mean"), pixels.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(record.pop("std"), pixels.std(axis=0), rtol=1e-12)
    assert all(re.fullmatch("[0-9a-f]{32}", record.pop(f"{n}_xxh3")) for n in ("content", "probe"))
    assert record == {
        "bytes": path.stat().st_size,
        "count": COUNT,
        "image_size": 32,
        "storage": storage,
    }


# --- errors ----------------------------------------------------------------------------------


def error_within(seconds: float, action: Callable[[], object]) -> BaseException | None:
    """Return what an action raises; an action that hangs fails and is abandoned."""
    errors: list[BaseException] = []

    def act() -> None:
        try:
            action()
        except BaseException as error:  # noqa: BLE001 - returned to the caller
            errors.append(error)

    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), f"still running after {seconds} s"
    return errors[0] if errors else None


def assert_no_leftovers(folder: Path) -> None:
    assert list(folder.iterdir()) == []
    assert not [file for file in open_files() if file.startswith(str(folder))]


def open_files() -> list[str]:
    """Names of the files that this process has open."""
    descriptors = Path("/proc/self/fd").iterdir()
    return [str(path.readlink()) for path in descriptors if path.is_symlink()]


@pytest.mark.parametrize("index", [0, 7, COUNT - 1])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"path": "gone.png"}, "gone.png: cannot be read: No such file or directory"),
        ({"xxh3": "0" * 32}, "{path}: changed since it was indexed; run `dvc repro` again"),
    ],
)
def test_an_image_that_changed_since_indexing_is_named_without_leftovers(
    *,
    index: int,
    change: dict[str, str],
    message: str,
    source: Path,
    rows: Rows,
    tmp_path: Path,
) -> None:
    changed = [*rows[:index], rows[index] | change, *rows[index + 1 :]]
    error = error_within(
        20, lambda: write(tmp_path / "one.beton", changed, settings(source), workers=2)
    )
    assert isinstance(error, InputError)
    assert str(error) == f"{source}/{message.format(path=rows[index]['path'])}"
    assert_no_leftovers(tmp_path)


def test_a_disk_that_fills_up_is_reported_without_leftovers(
    source: Path, rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    pwrite = os.pwrite

    def full(file: int, data: bytes, at: int) -> int:
        if len(written) == 5:
            raise OSError(28, "No space left on device")
        written.append(at)
        return pwrite(file, data, at)

    monkeypatch.setattr(beton.os, "pwrite", full)
    error = error_within(20, lambda: write(tmp_path / "one.beton", rows, settings(source)))
    assert str(error) == "[Errno 28] No space left on device"
    assert_no_leftovers(tmp_path)


@pytest.mark.parametrize("storage", ["raw", "jpg"])
def test_partial_writes_are_completed(
    storage: str, source: Path, rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choice = settings(source, storage=storage)
    whole = write(tmp_path / "whole.beton", rows, choice)
    pwrite = os.pwrite
    monkeypatch.setattr(beton.os, "pwrite", lambda f, data, at: pwrite(f, data[:1000], at))
    assert write(tmp_path / "parts.beton", rows, choice) == whole
    assert (tmp_path / "parts.beton").read_bytes() == (tmp_path / "whole.beton").read_bytes()


def test_an_interruption_leaves_nothing(source: Path, rows: Rows, tmp_path: Path) -> None:
    def interrupted(items: Iterable[Record], total: int) -> Iterator[Record]:
        for number, record in enumerate(items):
            if number == 5:
                raise KeyboardInterrupt
            yield record

    def action() -> None:
        write_beton(tmp_path / "one.beton", rows, settings(source), workers=2, progress=interrupted)

    threads = set(threading.enumerate())
    assert isinstance(error_within(20, action), KeyboardInterrupt)
    assert set(threading.enumerate()) == threads, "a thread may still write to a closed file"
    assert_no_leftovers(tmp_path)


def test_an_error_keeps_the_old_beton(source: Path, rows: Rows, tmp_path: Path) -> None:
    path = tmp_path / "one.beton"
    write(path, rows, settings(source))
    before = path.read_bytes()
    with pytest.raises(InputError, match="gone.png"):
        write(path, [*rows, rows[0] | {"path": "gone.png"}], settings(source))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


# --- the command -----------------------------------------------------------------------------


def run_stage(root: Path, rows: Rows, choice: BetonRunSettings, folder: Path) -> tuple[int, str]:
    write_json(folder / "settings.json", choice.model_dump())
    write_csv(folder / "index.csv", tuple(rows[0]), [tuple(row.values()) for row in rows])
    files = ("settings", "settings.json"), ("index", "index.csv"), ("out", "out/one.beton")
    done = subprocess.run(
        [sys.executable, "-m", "stages.beton", *(f"--{k}={folder / file}" for k, file in files)],
        cwd=root,
        env=os.environ | {"MINET_WORKERS": "2"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stderr


def test_the_command_writes_the_beton_and_its_sidecar(
    root: Path, source: Path, rows: Rows, tmp_path: Path
) -> None:
    assert run_stage(root, rows, settings(source), tmp_path) == (0, "")
    record = write(tmp_path / "here.beton", rows, settings(source))
    assert read_json(tmp_path / "out/one.json") == record
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["one.beton", "one.json"]


def test_the_command_leaves_nothing_but_a_message_if_an_image_changed(
    root: Path, source: Path, rows: Rows, tmp_path: Path
) -> None:
    rows[3]["xxh3"] = "0" * 32
    code, stderr = run_stage(root, rows, settings(source), tmp_path)
    assert code == 1
    message = f"error: {source}/3.png: changed since it was indexed; run `dvc repro` again\n"
    assert stderr == message  # no traceback, no warning of leaked shared memory
    assert list((tmp_path / "out").iterdir()) == []
