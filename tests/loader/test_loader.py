"""Reading betons: any order, whole, the same bytes by any way and any threads, never a hang."""

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

from minet.beton.config import BetonRunSettings
from minet.beton.reader import BetonReader
from minet.beton.writer import write_beton
from minet.core.arrays import IndexArray
from minet.core.errors import InputError
from minet.core.files import digest, write_json
from minet.images.decode import prepare
from minet.loader import loader as loader_module
from minet.loader.batch import Batch
from minet.loader.loader import BetonLoader, open_loaders
from tests.helpers.sources import open_one

COUNT, IMAGE_SIZE = 11, 32
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
    return np.stack([prepare(picture, 36, IMAGE_SIZE) for picture in pictures()])


def write(folder: Path, name: str, count: int = COUNT, storage: str = "raw") -> Path:
    """Write a beton of the first `count` pictures with its sidecar; labels are 100, 101, ..."""
    rows = []
    for number, picture in enumerate(pictures()[:count]):
        file = folder / f"{number}.png"
        picture.save(file)
        known = digest(file.read_bytes()).hex()
        rows.append({"path": file.name, "label": str(100 + number), "xxh3": known})
    choice = {"root": str(folder), "resize_px": 36, "crop_px": IMAGE_SIZE, "storage": storage}
    settings = BetonRunSettings(**choice, jpeg_quality=95)
    path = folder / f"{name}.beton"
    record = write_beton(path, rows, settings, workers=1, progress=lambda items, _: items)
    write_json(path.with_suffix(".json"), record)
    return path


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("betons"), "raw")


@pytest.fixture(scope="module", params=[(1, "stream"), (2, "stream"), (1, "resident")])
def loader(path: Path, request: pytest.FixtureRequest) -> BetonLoader:
    """Give a loader of batches of 4 with one thread, with two, and from memory."""
    workers, cache = request.param
    loader = open_one(path, batch_size=4, workers=workers, cache=cache)
    assert loader.resident == (cache == "resident")
    return loader


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
        assert batch.images.shape == (size, 3, IMAGE_SIZE, IMAGE_SIZE)
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


def test_half_of_what_is_free_is_enough_for_all_splits_together(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One after the other they would take three quarters, and leave the model a quarter."""
    for share, resident in ((3.9, False), (4.1, True)):
        free = int(share * COUNT * 3 * IMAGE_SIZE**2)
        monkeypatch.setattr(loader_module, "free_bytes", lambda _, free=free: free)
        options = {"cache": "auto", "device": torch.device("cpu")}
        loaders = open_loaders([(path, 4), (path, 4)], workers=1, **options)
        assert [loader.resident for loader in loaders] == [resident, resident]


def test_each_split_is_opened_with_batches_of_its_own_size(path: Path, tmp_path: Path) -> None:
    """In the order in which they are named, resident or not."""
    other = write(tmp_path, "val", count=5)
    for cache in ("stream", "resident"):
        options = {"workers": 1, "cache": cache, "device": torch.device("cpu")}
        train, val = open_loaders([(path, 4), (other, 3)], **options)
        assert (train.count, train.batch_size, val.count, val.batch_size) == (COUNT, 4, 5, 3)
        assert [len(batch.indices) for batch in train.batches(np.arange(COUNT))] == [4, 4, 3]
        assert [len(batch.indices) for batch in val.batches(np.arange(5))] == [3, 2]


@pytest.mark.parametrize("local_world_size", [1, 2, 5])
def test_processes_on_a_machine_share_its_memory(
    path: Path, local_world_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes half of its share at most; to be resident all the same, no more than all of it."""
    needed = 2 * COUNT * 3 * IMAGE_SIZE**2
    options = {"workers": 1, "device": torch.device("cpu"), "local_world_size": local_world_size}
    for cache, share, fits in (
        *(("auto", 1.9, False), ("auto", 2.1, True)),
        *(("resident", 0.9, False), ("resident", 1.1, True)),
    ):
        free = int(share * local_world_size * needed)
        monkeypatch.setattr(loader_module, "free_bytes", lambda _, free=free: free)
        if cache == "resident" and not fits:
            with pytest.raises(InputError, match="^data.cache is resident, but the images need"):
                open_loaders([(path, 4), (path, 4)], cache=cache, **options)
            continue
        loaders = open_loaders([(path, 4), (path, 4)], cache=cache, **options)
        assert [loader.resident for loader in loaders] == [fits, fits], (cache, share)


def test_processes_with_a_gpu_each_do_not_share_its_memory(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[torch.device] = []
    monkeypatch.setattr(loader_module, "free_bytes", lambda _: int(2.1 * COUNT * 3 * IMAGE_SIZE**2))
    monkeypatch.setattr(BetonLoader, "load", lambda _, device: loaded.append(device))
    device = torch.device("cuda", 1)
    open_loaders([(path, 4)], workers=1, cache="auto", device=device, local_world_size=8)
    assert loaded == [device]


@pytest.mark.parametrize(("batch_size", "workers"), [(4, 2), (8, 16), (32, 16), (64, 3), (512, 1)])
def test_all_threads_have_jpegs_to_decode(
    tmp_path: Path, batch_size: int, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With few images a batch too; on two cores this would not show."""
    loader = open_one(
        write(tmp_path, "jpg", storage="jpg"),
        batch_size=batch_size,
        workers=workers,
        cache="stream",
    )
    read = BetonReader.read
    busy, most, lock = [0], [0], threading.Lock()

    def counted(self: BetonReader, places: IndexArray, out: NDArray[np.uint8]) -> None:
        with lock:
            busy[0] += 1
            most[0] = max(most[0], busy[0])
        time.sleep(0.02)
        read(self, places, out)
        with lock:
            busy[0] -= 1

    monkeypatch.setattr(BetonReader, "read", counted)
    for batch in loader.batches(np.zeros(4 * batch_size, np.int64)):
        assert len(batch.indices) == batch_size
    assert most[0] == workers


def test_a_batch_larger_than_the_split_holds_all_of_it(path: Path) -> None:
    loader = BetonLoader(path, batch_size=512, workers=10_000)
    (batch,) = loader.batches(ORDERS["shuffled"])
    assert batch.indices.tolist() == ORDERS["shuffled"].tolist()
    assert batch.labels.tolist() == (100 + ORDERS["shuffled"]).tolist()


@pytest.mark.parametrize("storage", ["raw", "jpg"])
@pytest.mark.parametrize("cache", ["stream", "resident"])
def test_batches_keep_their_images(storage: str, cache: Any, tmp_path: Path) -> None:
    """Longer than the legend promises: no batch takes the memory of another, or the split's own."""
    path = write(tmp_path, storage, storage=storage)
    loader = open_one(path, batch_size=2, workers=2, cache=cache)
    order = ORDERS["many times round"]
    first, again = (list(loader.batches(order)) for _ in range(2))
    for batch in first:
        batch.images.fill_(0)
    expected = np.concatenate([batch.images.permute(0, 2, 3, 1).numpy() for batch in again])
    assert np.array_equal(expected[0], expected[COUNT])  # the same image, a round later
    difference = abs(expected.astype(int) - prepared()[order])
    assert difference.max() < (1 if storage == "raw" else 30)


def test_an_order_without_images_has_no_batches(loader: BetonLoader) -> None:
    assert not list(loader.batches(np.zeros(0, np.int64)))


def test_jpg_is_decoded_to_nearly_the_prepared_pixels(tmp_path: Path) -> None:
    loader = BetonLoader(write(tmp_path, "jpg", storage="jpg"), batch_size=4, workers=2)
    order = ORDERS["shuffled"]
    batches = copies(loader.batches(order))
    images = torch.cat([batch.images for batch in batches]).permute(0, 2, 3, 1).numpy()
    difference = abs(images.astype(int) - prepared()[order])
    assert 0 < difference.mean() < 3
    assert difference.max() < 30


# --- where it is read from -------------------------------------------------------------------


@pytest.mark.parametrize("storage", ["raw", "jpg"])
def test_a_resident_split_has_the_bytes_of_a_streamed_one(storage: str, tmp_path: Path) -> None:
    path = write(tmp_path, storage, storage=storage)
    found = []
    for cache in ("stream", "resident"):
        loader = open_one(path, batch_size=3, workers=2, cache=cache)
        found.append(copies(loader.batches(ORDERS["some twice"])))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one.images, other.images)
        assert one.images.stride() == other.images.stride()
        assert torch.equal(one.labels, other.labels)
        assert one.indices.tolist() == other.indices.tolist()


@pytest.mark.parametrize(("share", "resident"), [(1.9, False), (2.1, True)])
def test_auto_is_resident_if_half_of_what_is_free_is_enough(
    *, path: Path, share: float, resident: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed_bytes = COUNT * 3 * IMAGE_SIZE**2
    monkeypatch.setattr(loader_module, "free_bytes", lambda _: int(share * needed_bytes))
    assert open_one(path, batch_size=4, workers=1, cache="auto").resident == resident


def test_a_split_that_is_to_be_resident_and_does_not_fit_is_told(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader_module, "free_bytes", lambda _: COUNT * 3 * IMAGE_SIZE**2 - 1)
    message = (
        "^data.cache is resident, but the images need 0.0 GB and cpu has 0.0 GB free; "
        "allowed: auto, stream$"
    )
    with pytest.raises(InputError, match=message):
        open_one(path, batch_size=4, workers=1, cache="resident")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("cache", ["stream", "resident"])
def test_a_gpu_is_given_the_same_bytes(path: Path, cache: Any) -> None:
    device = torch.device("cuda")
    loader = open_one(path, batch_size=4, workers=2, cache=cache, device=device)
    for batch in loader.batches(ORDERS["shuffled"]):
        assert batch.images.device.type == ("cuda" if cache == "resident" else "cpu")
        images = batch.images.permute(0, 2, 3, 1).cpu().numpy()
        assert np.array_equal(images, prepared()[batch.indices])
        assert batch.labels.tolist() == (100 + batch.indices).tolist()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("storage", ["raw", "jpg"])
def test_what_is_streamed_for_a_gpu_lies_where_it_takes_it_without_a_wait(
    storage: str, tmp_path: Path
) -> None:
    path, device = write(tmp_path, storage, storage=storage), torch.device("cuda")
    loader = open_one(path, batch_size=4, workers=2, cache="stream", device=device)
    for batch in loader.batches(ORDERS["many times round"]):
        assert batch.images.is_pinned()
        assert batch.images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("storage", ["raw", "jpg"])
def test_a_batch_for_a_gpu_is_not_overwritten_while_it_is_kept(
    storage: str, tmp_path: Path
) -> None:
    """Page-locked memory is used again, but not that of a batch which is held."""
    path = write(tmp_path, storage, storage=storage)
    order = ORDERS["many times round"]
    held, again = (
        list(
            open_one(
                path, batch_size=2, workers=2, cache="stream", device=torch.device(name)
            ).batches(order)
        )
        for name in ("cuda", "cpu")
    )
    for one, other in zip(held, again, strict=True):
        assert torch.equal(one.images, other.images)


def test_the_way_to_the_first_batch_imports_no_ffcv_and_compiles_nothing(
    path: Path, root: Path
) -> None:
    """The import of FFCV and the compilation of its pipeline took 10 seconds of every run."""
    code = f"""
import sys, pathlib, numpy, torch
from minet.loader.loader import open_loaders
from minet.core.files import digest
for cache in ("stream", "resident"):
    (loader,) = open_loaders(
        [(pathlib.Path({str(path)!r}), 4)], workers=2, cache=cache,
        device=torch.device("cpu"),
    )
    next(loader.batches(numpy.arange(11)))
from numba.core.registry import CPUDispatcher
import gc
compiled = [o for o in gc.get_objects() if isinstance(o, CPUDispatcher) and o.signatures]
print(sorted({{"ffcv", "cv2", "torchvision"}} & sys.modules.keys()), compiled)
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] []"


@pytest.mark.parametrize("cache", ["stream", "resident"])
def test_torch_keeps_its_number_of_threads(path: Path, cache: Any) -> None:
    """With another number sums are not the same to the last bit."""
    before = torch.get_num_threads()
    for _ in open_one(path, batch_size=4, workers=3, cache=cache).batches(np.arange(COUNT)):
        assert torch.get_num_threads() == before
    assert torch.get_num_threads() == before


# --- what goes wrong -------------------------------------------------------------------------


@pytest.mark.parametrize("good", [0, 1, 5, 9])
def test_an_error_while_reading_is_raised_and_does_not_hang(
    two_threads: BetonLoader, good: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At its turn: the batches before it arrive; the last of ten batches may fail too."""
    order = ORDERS["many times round"]
    gather = two_threads._gather

    def failing(places: IndexArray) -> NDArray[np.uint8]:
        if places.tolist() == order[4 * good : 4 * good + 4].tolist():
            raise MemoryError("out of pages")
        return gather(places)

    monkeypatch.setattr(two_threads, "_gather", failing)
    threads = set(threading.enumerate())
    taken: list[int] = []

    def take() -> None:
        for batch in two_threads.batches(order):
            taken.extend(batch.indices)

    with pytest.raises(MemoryError, match="^out of pages$"):
        within(20, take)
    assert taken == order[: 4 * good].tolist()
    assert set(threading.enumerate()) == threads
    monkeypatch.undo()
    assert len(list(two_threads.batches(np.arange(COUNT)))) == 3  # it reads again


@pytest.mark.parametrize("how", ["closed", "let go", "an error in the loop"])
def test_stopping_early_ends_the_reading_threads(
    two_threads: BetonLoader, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, without reading what is left of the epoch: here 1,000 batches of 20 ms."""
    gather = two_threads._gather
    batches_read: list[int] = []

    def slow(places: IndexArray) -> NDArray[np.uint8]:
        time.sleep(0.02)
        batches_read.append(len(places))
        return gather(places)

    monkeypatch.setattr(two_threads, "_gather", slow)
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
    assert len(batches_read) < 20


def test_two_splits_are_read_in_turns(path: Path, two_threads: BetonLoader, tmp_path: Path) -> None:
    """Training reads on after validation, each with a loader of its own."""
    other = BetonLoader(write(tmp_path, "val", count=5), batch_size=2, workers=2)
    train = two_threads.batches(np.arange(COUNT))
    seen = [next(train).labels]
    val = torch.cat([batch.labels for batch in other.batches(np.arange(5))])
    seen += [batch.labels for batch in train]
    assert val.tolist() == [100, 101, 102, 103, 104]
    assert torch.cat(seen).tolist() == [100 + number for number in range(COUNT)]
