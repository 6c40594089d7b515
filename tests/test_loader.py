"""Reading betons: any order, whole, the same bytes for any number of threads, never a hang."""

import hashlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from minet.batch import Batch, IndexArray
from minet.data import loader as loader_module
from minet.data.beton import write_beton
from minet.data.images import prepare
from minet.data.loader import BetonLoader
from minet.errors import InputError
from minet.results import write_json
from minet.settings_data import BetonRunSettings

COUNT, SIDE_PX = 11, 32
ORDERS = {
    "as indexed": np.arange(COUNT),
    "backwards": np.arange(COUNT)[::-1],
    "shuffled": np.random.default_rng(0).permutation(COUNT),
    "a few": np.array([7, 0]),
    "some twice": np.array([3, 3, 10, 3, 0, 10]),
    "whole batches": np.arange(8),
    "one": np.array([10]),
    "many times round": np.arange(40) * 7 % COUNT,
}


def pictures() -> list[Image.Image]:
    """Draw images that differ from each other nearly everywhere, smooth enough for JPEG."""
    rng = np.random.default_rng(0)
    grains = (Image.fromarray(rng.integers(0, 256, (3, 4, 3), np.uint8)) for _ in range(COUNT))
    return [grain.resize((60, 45)) for grain in grains]


def prepared() -> NDArray[np.uint8]:
    return np.stack([prepare(picture, 36, SIDE_PX) for picture in pictures()])


def write(folder: Path, name: str, count: int = COUNT, storage: str = "raw") -> Path:
    """Write a beton of the first `count` pictures with its sidecar; labels are 100, 101, ..."""
    rows = []
    for number, picture in enumerate(pictures()[:count]):
        file = folder / f"{number}.png"
        picture.save(file)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        rows.append({"path": file.name, "label": str(100 + number), "sha256": digest})
    choice = {"root": str(folder), "resize_px": 36, "crop_px": SIDE_PX, "storage": storage}
    settings = BetonRunSettings(**choice, jpeg_quality=95)
    path = folder / f"{name}.beton"
    record = write_beton(path, rows, settings, workers=1, progress=lambda items, _: items)
    write_json(path.with_suffix(".json"), record)
    return path


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("betons"), "raw")


@pytest.fixture(scope="module", params=[1, 2])
def loader(path: Path, request: pytest.FixtureRequest) -> BetonLoader:
    """Give a loader of batches of 4 with one thread, then with two."""
    return BetonLoader(path, batch_size=4, workers=request.param)


@pytest.fixture(scope="module")
def two_threads(path: Path) -> BetonLoader:
    return BetonLoader(path, batch_size=4, workers=2)


def copies(batches: Iterator[Batch]) -> list[Batch]:
    """Keep batches beyond the next one, whose images may take their memory."""
    return [Batch(batch.images.clone(), batch.labels, batch.indices) for batch in batches]


def within(seconds: float, action: Callable[[], Any]) -> Any:
    """Give what an action returns or raise what it raises; one that hangs is left behind."""
    results: list[Any] = []
    errors: list[BaseException] = []

    def act() -> None:
        try:
            results.append(action())
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), f"still running after {seconds} s"
    if errors:
        raise errors[0]
    return results[0]


# --- what is read ----------------------------------------------------------------------------


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_any_order_is_followed_to_its_end(loader: BetonLoader, order: IndexArray) -> None:
    """Images, labels and indices of each batch, the smaller last one included."""
    batches = copies(loader.batches(order))
    full, rest = divmod(len(order), 4)
    assert [len(batch.indices) for batch in batches] == [4] * full + [rest] * (rest > 0)
    assert np.concatenate([batch.indices for batch in batches]).tolist() == order.tolist()
    assert torch.cat([batch.labels for batch in batches]).tolist() == (100 + order).tolist()
    images = torch.cat([batch.images for batch in batches]).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(images, prepared()[order])


def test_batches_are_as_the_legend_says(loader: BetonLoader) -> None:
    for batch in loader.batches(np.arange(COUNT)):
        size = len(batch.indices)
        assert batch.images.shape == (size, 3, SIDE_PX, SIDE_PX)
        assert batch.images.dtype == torch.uint8
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert batch.labels.shape == (size,)
        assert batch.labels.dtype == torch.int64
        assert batch.indices.dtype == np.int64
    assert (loader.count, loader.batch_size) == (COUNT, 4)


def test_labels_outlive_their_batch(loader: BetonLoader) -> None:
    """They are collected over an epoch; only images may be overwritten."""
    order = ORDERS["many times round"]
    labels = [batch.labels for batch in loader.batches(order)]
    assert torch.cat(labels).tolist() == (100 + order).tolist()


def test_every_epoch_reads_the_same_bytes(loader: BetonLoader) -> None:
    first, second = (copies(loader.batches(ORDERS["shuffled"])) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one.images, other.images)


def test_a_batch_larger_than_the_split_holds_all_of_it(path: Path) -> None:
    """As many threads asked for as no machine has are taken as all it has."""
    loader = BetonLoader(path, batch_size=512, workers=10_000)
    (batch,) = loader.batches(ORDERS["shuffled"])
    assert batch.indices.tolist() == ORDERS["shuffled"].tolist()
    assert batch.labels.tolist() == (100 + ORDERS["shuffled"]).tolist()


def test_jpg_is_decoded_to_nearly_the_prepared_pixels(tmp_path: Path) -> None:
    loader = BetonLoader(write(tmp_path, "jpg", storage="jpg"), batch_size=4, workers=2)
    order = ORDERS["shuffled"]
    batches = copies(loader.batches(order))
    images = torch.cat([batch.images for batch in batches]).permute(0, 2, 3, 1).numpy()
    difference = abs(images.astype(int) - prepared()[order])
    assert 0 < difference.mean() < 3
    assert difference.max() < 30


# --- what must not change --------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_torch_keeps_its_number_of_threads(path: Path, workers: int) -> None:
    """FFCV sets it to its own, and with another number sums are not the same to the last bit."""
    before = torch.get_num_threads()
    wanted = 3 - workers
    try:
        torch.set_num_threads(wanted)
        loader = BetonLoader(path, batch_size=4, workers=workers)
        assert torch.get_num_threads() == wanted
        for _ in loader.batches(np.arange(COUNT)):
            assert torch.get_num_threads() == wanted
        assert torch.get_num_threads() == wanted
        batches = loader.batches(np.arange(COUNT))
        next(batches)
        batches.close()
        assert torch.get_num_threads() == wanted
    finally:
        torch.set_num_threads(before)


# --- what goes wrong -------------------------------------------------------------------------


def test_a_beton_that_is_not_there_is_named(path: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone.beton"
    with pytest.raises(InputError, match=r"alone.json: no such file; `dvc repro` makes it"):
        BetonLoader(alone, batch_size=4, workers=1)
    alone.with_suffix(".json").write_bytes(path.with_suffix(".json").read_bytes())
    with pytest.raises(InputError, match=r"alone.beton: no such file; `dvc repro` makes it"):
        BetonLoader(alone, batch_size=4, workers=1)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def replaced(path: Path) -> None:
    sidecar = path.with_suffix(".json").read_bytes()
    write(path.parent, path.stem, count=COUNT - 1)
    path.with_suffix(".json").write_bytes(sidecar)


@pytest.mark.parametrize("change", [truncated, emptied, replaced])
def test_a_beton_that_is_not_the_one_written_is_told(
    change: Callable[[Path], None], tmp_path: Path
) -> None:
    path = write(tmp_path, "one")
    should = path.stat().st_size
    change(path)
    message = f"one.beton: {path.stat().st_size} bytes, but its sidecar says {should}: truncated"
    with pytest.raises(InputError, match=message):
        BetonLoader(path, batch_size=4, workers=1)


@pytest.mark.parametrize("good", [0, 1, 5, 9])
def test_an_error_while_reading_is_raised_and_does_not_hang(
    two_threads: BetonLoader, good: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At its turn: the batches before it arrive; the last of ten batches may fail too."""
    run_pipeline = loader_module.EpochIterator.run_pipeline

    def failing(self: object, number: int, *more: Any) -> Any:
        if number == good:
            raise MemoryError("out of pages")
        return run_pipeline(self, number, *more)

    monkeypatch.setattr(loader_module.EpochIterator, "run_pipeline", failing)
    threads = set(threading.enumerate())
    taken: list[int] = []

    def read() -> None:
        for batch in two_threads.batches(ORDERS["many times round"]):
            taken.extend(batch.indices)

    with pytest.raises(RuntimeError, match="^reading a beton failed: out of pages$") as caught:
        within(20, read)
    assert isinstance(caught.value.__cause__, MemoryError)
    assert taken == ORDERS["many times round"][: 4 * good].tolist()
    assert set(threading.enumerate()) == threads


def test_after_an_error_the_loader_reads_again(
    two_threads: BetonLoader, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*arguments: object) -> None:
        raise MemoryError("out of pages")

    with monkeypatch.context() as patch:
        patch.setattr(loader_module.EpochIterator, "run_pipeline", failing)
        with pytest.raises(RuntimeError):
            within(20, lambda: list(two_threads.batches(np.arange(COUNT))))
    assert len(list(two_threads.batches(np.arange(COUNT)))) == 3


@pytest.mark.parametrize("how", ["closed", "let go", "an error in the loop"])
def test_stopping_early_ends_the_reading_thread(
    two_threads: BetonLoader, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, without reading what is left of the epoch: here 1,000 batches of 20 ms."""
    run_pipeline = loader_module.EpochIterator.run_pipeline
    read: list[int] = []

    def slow(self: object, number: int, *more: Any) -> Any:
        time.sleep(0.02)
        read.append(number)
        return run_pipeline(self, number, *more)

    monkeypatch.setattr(loader_module.EpochIterator, "run_pipeline", slow)
    threads = set(threading.enumerate())

    def stop() -> None:
        batches = two_threads.batches(np.zeros(4000, np.int64))
        next(batches)
        assert len(threading.enumerate()) > len(threads)
        if how == "closed":
            batches.close()
        elif how == "an error in the loop":
            for _ in batches:
                raise ZeroDivisionError

    def act() -> None:
        if how == "an error in the loop":
            with pytest.raises(ZeroDivisionError):
                stop()
        else:
            stop()

    within(20, act)
    assert set(threading.enumerate()) == threads
    assert len(read) < 20


def test_two_splits_are_read_in_turns(path: Path, two_threads: BetonLoader, tmp_path: Path) -> None:
    """Training reads on after validation, each with a loader of its own."""
    other = BetonLoader(write(tmp_path, "val", count=5), batch_size=2, workers=2)
    train = two_threads.batches(np.arange(COUNT))
    seen = [next(train).labels]
    val = torch.cat([batch.labels for batch in other.batches(np.arange(5))])
    seen += [batch.labels for batch in train]
    assert val.tolist() == [100, 101, 102, 103, 104]
    assert torch.cat(seen).tolist() == [100 + number for number in range(COUNT)]


def test_importing_the_loader_leaves_torchs_threads_as_they_are(root: Path) -> None:
    """FFCV's import sets them to 1; training would take half as long again."""
    code = (
        "import torch; torch.set_num_threads(2); import minet.data.loader; "
        "print(torch.get_num_threads())"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "2", done.stdout
