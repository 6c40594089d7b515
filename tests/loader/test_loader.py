"""Loaders: every image of any order, the same bytes from file or memory, and no hang."""

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
from minet.loader.stream import StreamLoader
from tests.helpers.sources import open_one

COUNT, IMAGE_SIZE = 11, 32
ORDERS = {
    "in order": np.arange(COUNT),
    "reversed": np.arange(COUNT)[::-1],
    "shuffled": np.random.default_rng(0).permutation(COUNT),
    "a few": np.array([7, 0]),
    "repeated": np.array([3, 3, 10, 3, 0, 10]),
    "whole batches": np.arange(8),
    "one": np.array([10]),
    "several epochs": np.arange(40) * 7 % COUNT,
}


def pictures() -> list[Image.Image]:
    """Return images that differ nearly everywhere, smooth enough for JPEG."""
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
        xxh3 = digest(file.read_bytes()).hex()
        rows.append({"path": file.name, "label": str(100 + number), "xxh3": xxh3})
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
    """Return a loader of batches of 4: of one thread, of two, and resident."""
    workers, cache = request.param
    loader = open_one(path, batch_size=4, workers=workers, cache=cache)
    assert loader.resident == (cache == "resident")
    return loader


@pytest.fixture(scope="module")
def two_threads(path: Path) -> StreamLoader:
    return StreamLoader(path, batch_size=4, workers=2)


def copies(batches: Iterator[Batch]) -> list[Batch]:
    """Copy batches, since the next one may reuse the memory of the images."""
    return [Batch(batch.images.clone(), batch.labels, batch.indices) for batch in batches]


def within(seconds: float, action: Callable[[], Any]) -> Any:
    """Return or raise what an action does; an action that hangs fails and is abandoned."""
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


# --- batches ---------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_any_order_is_read_completely(loader: BetonLoader, order: IndexArray) -> None:
    """Images, labels and indices of each batch, including the smaller last one."""
    batches = copies(loader.batches(order))
    full, remainder = divmod(len(order), 4)
    assert [len(batch.indices) for batch in batches] == [4] * full + [remainder] * (remainder > 0)
    assert np.concatenate([batch.indices for batch in batches]).tolist() == order.tolist()
    assert torch.cat([batch.labels for batch in batches]).tolist() == (100 + order).tolist()
    images = torch.cat([batch.images for batch in batches]).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(images, prepared()[order])


def test_batches_have_the_documented_shapes_and_types(loader: BetonLoader) -> None:
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
    """They are collected over an epoch; only the memory of images may be reused."""
    order = ORDERS["several epochs"]
    labels = [batch.labels for batch in loader.batches(order)]
    assert torch.cat(labels).tolist() == (100 + order).tolist()


def test_every_epoch_reads_the_same_bytes(loader: BetonLoader) -> None:
    first, second = (copies(loader.batches(ORDERS["shuffled"])) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one.images, other.images)


def test_all_splits_together_may_use_half_of_the_free_memory(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One by one they would use three quarters and leave a quarter for the model."""
    for ratio, resident in ((3.9, False), (4.1, True)):
        free = int(ratio * COUNT * 3 * IMAGE_SIZE**2)
        monkeypatch.setattr(loader_module, "free_bytes", lambda _, free=free: free)
        options = {"cache": "auto", "device": torch.device("cpu")}
        loaders = open_loaders([(path, 4), (path, 4)], workers=1, **options)
        assert [loader.resident for loader in loaders] == [resident, resident]


def test_each_split_has_its_own_batch_size(path: Path, tmp_path: Path) -> None:
    """In the order of the arguments, resident or not."""
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
    """With auto each uses at most half of its part, with resident at most all of it."""
    needed = 2 * COUNT * 3 * IMAGE_SIZE**2
    options = {"workers": 1, "device": torch.device("cpu"), "local_world_size": local_world_size}
    for cache, ratio, fits in (
        ("auto", 1.9, False),
        ("auto", 2.1, True),
        ("resident", 0.9, False),
        ("resident", 1.1, True),
    ):
        free = int(ratio * local_world_size * needed)
        monkeypatch.setattr(loader_module, "free_bytes", lambda _, free=free: free)
        if cache == "resident" and not fits:
            with pytest.raises(InputError, match="^data.cache is resident, but the images need"):
                open_loaders([(path, 4), (path, 4)], cache=cache, **options)
            continue
        loaders = open_loaders([(path, 4), (path, 4)], cache=cache, **options)
        assert [loader.resident for loader in loaders] == [fits, fits], (cache, ratio)


def test_processes_with_one_gpu_each_do_not_share_its_memory(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[torch.device] = []
    monkeypatch.setattr(loader_module, "free_bytes", lambda _: int(2.1 * COUNT * 3 * IMAGE_SIZE**2))
    monkeypatch.setattr(loader_module, "ResidentLoader", lambda _, device: loaded.append(device))
    device = torch.device("cuda", 1)
    open_loaders([(path, 4)], workers=1, cache="auto", device=device, local_world_size=8)
    assert loaded == [device]


@pytest.mark.parametrize(("batch_size", "workers"), [(4, 2), (8, 16), (32, 16), (64, 3), (512, 1)])
def test_all_threads_have_jpegs_to_decode(
    tmp_path: Path, batch_size: int, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even with few images per batch; timing on two cores would not show it."""
    loader = open_one(
        write(tmp_path, "jpg", storage="jpg"),
        batch_size=batch_size,
        workers=workers,
        cache="stream",
    )
    read = BetonReader.read
    busy, max_busy, lock = [0], [0], threading.Lock()

    def counted(self: BetonReader, indices: IndexArray, out: NDArray[np.uint8]) -> None:
        with lock:
            busy[0] += 1
            max_busy[0] = max(max_busy[0], busy[0])
        time.sleep(0.02)
        read(self, indices, out)
        with lock:
            busy[0] -= 1

    monkeypatch.setattr(BetonReader, "read", counted)
    for batch in loader.batches(np.zeros(4 * batch_size, np.int64)):
        assert len(batch.indices) == batch_size
    assert max_busy[0] == workers


def test_a_batch_larger_than_the_split_holds_the_whole_split(path: Path) -> None:
    loader = StreamLoader(path, batch_size=512, workers=10_000)
    (batch,) = loader.batches(ORDERS["shuffled"])
    assert batch.indices.tolist() == ORDERS["shuffled"].tolist()
    assert batch.labels.tolist() == (100 + ORDERS["shuffled"]).tolist()


@pytest.mark.parametrize("storage", ["raw", "jpg"])
@pytest.mark.parametrize("cache", ["stream", "resident"])
def test_batches_do_not_share_memory(storage: str, cache: Any, tmp_path: Path) -> None:
    """More than documented: no batch reuses the memory of another or that of the split."""
    path = write(tmp_path, storage, storage=storage)
    loader = open_one(path, batch_size=2, workers=2, cache=cache)
    order = ORDERS["several epochs"]
    first, again = (list(loader.batches(order)) for _ in range(2))
    for batch in first:
        batch.images.fill_(0)
    expected = np.concatenate([batch.images.permute(0, 2, 3, 1).numpy() for batch in again])
    assert np.array_equal(expected[0], expected[COUNT])  # the same image, an epoch later
    difference = abs(expected.astype(int) - prepared()[order])
    assert difference.max() < (1 if storage == "raw" else 30)


def test_an_empty_order_yields_no_batches(loader: BetonLoader) -> None:
    assert not list(loader.batches(np.zeros(0, np.int64)))


def test_jpg_pixels_are_close_to_the_prepared_ones(tmp_path: Path) -> None:
    loader = StreamLoader(write(tmp_path, "jpg", storage="jpg"), batch_size=4, workers=2)
    order = ORDERS["shuffled"]
    batches = copies(loader.batches(order))
    images = torch.cat([batch.images for batch in batches]).permute(0, 2, 3, 1).numpy()
    difference = abs(images.astype(int) - prepared()[order])
    assert 0 < difference.mean() < 3
    assert difference.max() < 30


# --- streamed or resident --------------------------------------------------------------------


@pytest.mark.parametrize("storage", ["raw", "jpg"])
def test_a_resident_split_yields_the_bytes_of_a_streamed_one(storage: str, tmp_path: Path) -> None:
    path = write(tmp_path, storage, storage=storage)
    batches = []
    for cache in ("stream", "resident"):
        loader = open_one(path, batch_size=3, workers=2, cache=cache)
        batches.append(copies(loader.batches(ORDERS["repeated"])))
    for one, other in zip(*batches, strict=True):
        assert torch.equal(one.images, other.images)
        assert one.images.stride() == other.images.stride()
        assert torch.equal(one.labels, other.labels)
        assert one.indices.tolist() == other.indices.tolist()


@pytest.mark.parametrize(("ratio", "resident"), [(1.9, False), (2.1, True)])
def test_auto_is_resident_if_half_of_the_free_memory_suffices(
    *, path: Path, ratio: float, resident: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed_bytes = COUNT * 3 * IMAGE_SIZE**2
    monkeypatch.setattr(loader_module, "free_bytes", lambda _: int(ratio * needed_bytes))
    assert open_one(path, batch_size=4, workers=1, cache="auto").resident == resident


def test_resident_is_an_input_error_if_the_split_does_not_fit(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader_module, "free_bytes", lambda _: COUNT * 3 * IMAGE_SIZE**2 - 1)
    message = (
        "^data.cache is resident, but the images need 0.0 GB and cpu has 0.0 GB free; "
        "allowed: auto, stream$"
    )
    with pytest.raises(InputError, match=message):
        open_one(path, batch_size=4, workers=1, cache="resident")


@pytest.mark.gpu
@pytest.mark.parametrize("cache", ["stream", "resident"])
def test_a_gpu_receives_the_same_bytes(path: Path, cache: Any) -> None:
    device = torch.device("cuda")
    loader = open_one(path, batch_size=4, workers=2, cache=cache, device=device)
    for batch in loader.batches(ORDERS["shuffled"]):
        assert batch.images.device.type == ("cuda" if cache == "resident" else "cpu")
        images = batch.images.permute(0, 2, 3, 1).cpu().numpy()
        assert np.array_equal(images, prepared()[batch.indices])
        assert batch.labels.tolist() == (100 + batch.indices).tolist()


@pytest.mark.gpu
@pytest.mark.parametrize("storage", ["raw", "jpg"])
def test_batches_streamed_for_a_gpu_are_pinned(storage: str, tmp_path: Path) -> None:
    path, device = write(tmp_path, storage, storage=storage), torch.device("cuda")
    loader = open_one(path, batch_size=4, workers=2, cache="stream", device=device)
    for batch in loader.batches(ORDERS["several epochs"]):
        assert batch.images.is_pinned()
        assert batch.images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.gpu
@pytest.mark.parametrize("storage", ["raw", "jpg"])
def test_pinned_memory_of_a_batch_is_not_reused_while_it_is_referenced(
    storage: str, tmp_path: Path
) -> None:
    path = write(tmp_path, storage, storage=storage)
    order = ORDERS["several epochs"]
    pinned, unpinned = (
        list(
            open_one(
                path, batch_size=2, workers=2, cache="stream", device=torch.device(name)
            ).batches(order)
        )
        for name in ("cuda", "cpu")
    )
    for one, other in zip(pinned, unpinned, strict=True):
        assert torch.equal(one.images, other.images)


def test_loading_imports_no_ffcv_and_compiles_nothing(path: Path, root: Path) -> None:
    """Importing FFCV and compiling its pipeline took 10 seconds of every run."""
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
def test_loading_keeps_the_number_of_torch_threads(path: Path, cache: Any) -> None:
    """Another number would change the last bit of sums."""
    before = torch.get_num_threads()
    for _ in open_one(path, batch_size=4, workers=3, cache=cache).batches(np.arange(COUNT)):
        assert torch.get_num_threads() == before
    assert torch.get_num_threads() == before


# --- errors ----------------------------------------------------------------------------------


@pytest.mark.parametrize("good", [0, 1, 5, 9])
def test_an_error_while_reading_is_raised_and_does_not_hang(
    two_threads: StreamLoader, good: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the batches before it; the last of ten batches may fail too."""
    order = ORDERS["several epochs"]
    gather = two_threads._reader.gather

    def failing(indices: IndexArray) -> NDArray[np.uint8]:
        if indices.tolist() == order[4 * good : 4 * good + 4].tolist():
            raise MemoryError("out of pages")
        return gather(indices)

    monkeypatch.setattr(two_threads._reader, "gather", failing)
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
    assert len(list(two_threads.batches(np.arange(COUNT)))) == 3  # the loader still works


@pytest.mark.parametrize("how", ["closed", "dropped", "an error in the loop"])
def test_stopping_early_ends_the_reading_threads(
    two_threads: StreamLoader, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, without reading the rest of the epoch: here 1,000 batches of 20 ms."""
    gather = two_threads._reader.gather
    batches_read: list[int] = []

    def slow(indices: IndexArray) -> NDArray[np.uint8]:
        time.sleep(0.02)
        batches_read.append(len(indices))
        return gather(indices)

    monkeypatch.setattr(two_threads._reader, "gather", slow)
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


def test_two_loaders_can_be_read_alternately(
    path: Path, two_threads: StreamLoader, tmp_path: Path
) -> None:
    """As training does with its two splits."""
    other = StreamLoader(write(tmp_path, "val", count=5), batch_size=2, workers=2)
    train = two_threads.batches(np.arange(COUNT))
    seen = [next(train).labels]
    val = torch.cat([batch.labels for batch in other.batches(np.arange(5))])
    seen += [batch.labels for batch in train]
    assert val.tolist() == [100, 101, 102, 103, 104]
    assert torch.cat(seen).tolist() == [100 + number for number in range(COUNT)]
