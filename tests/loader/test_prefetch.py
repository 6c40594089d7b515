"""Prefetching to a device: in order, unchanged, at most one batch ahead."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from minet.loader.batch import Batch
from minet.loader.prefetch import prefetch_to_device

CPU = torch.device("cpu")


class Source:
    """Yields numbered batches; counts them, and records whether it was closed."""

    def __init__(self, batches: int, *, pinned: bool = False, fails_at: int | None = None) -> None:
        self.batches, self.pinned, self.fails_at = batches, pinned, fails_at
        self.yielded, self.closed = 0, False

    def read(self) -> Iterator[Batch]:
        try:
            for number in range(self.batches):
                if number == self.fails_at:
                    raise ZeroDivisionError
                self.yielded += 1
                yield self.batch(number)
        finally:
            self.closed = True

    def batch(self, number: int, images: int = 3) -> Batch:
        """Return the images 0, 1, 2 ... of a batch number, channels-last like a loader's."""
        pixels = torch.full((images, 8, 8, 3), number % 256, dtype=torch.uint8)
        pixels[:, 0, 0, 0] = torch.arange(images)
        labels = torch.arange(images) + 10 * number
        if self.pinned:
            pixels, labels = pixels.pin_memory(), labels.pin_memory()
        return Batch(pixels.permute(0, 3, 1, 2), labels, np.arange(images) + 100 * number)


@pytest.mark.parametrize("batches", [0, 1, 2, 7])
def test_on_a_cpu_batches_are_unchanged_and_in_order(batches: int) -> None:
    expected = [Source(0).batch(number) for number in range(batches)]
    prefetched = list(prefetch_to_device(iter(expected), CPU))
    assert len(prefetched) == batches
    assert all(one is other for one, other in zip(prefetched, expected, strict=True))


def test_on_a_cpu_a_batch_is_read_on_request() -> None:
    """A callback that waits before a step waits before reading its batch too."""
    source = Source(5)
    prefetched = prefetch_to_device(source.read(), CPU)
    assert source.yielded == 0
    for taken, _ in enumerate(prefetched, start=1):
        assert source.yielded == taken
    assert source.yielded == 5


def test_on_a_cpu_an_error_is_raised_after_the_batches_before_it() -> None:
    source, seen = Source(5, fails_at=2), []
    with pytest.raises(ZeroDivisionError):
        seen.extend(iter(prefetch_to_device(source.read(), CPU)))
    assert source.yielded == 2


def test_stopping_early_closes_the_source() -> None:
    source = Source(5)
    prefetched = prefetch_to_device(source.read(), CPU)
    next(prefetched)
    prefetched.close()  # type: ignore[attr-defined]
    assert source.closed
    assert source.yielded == 1


@pytest.mark.gpu
@pytest.mark.parametrize("pinned", [False, True])
@pytest.mark.parametrize("batches", [0, 1, 2, 7])
def test_a_gpu_receives_the_same_batches_in_order(*, batches: int, pinned: bool) -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    source = Source(batches, pinned=pinned)
    prefetched = list(prefetch_to_device(source.read(), device))
    assert len(prefetched) == batches
    for number, batch in enumerate(prefetched):
        expected = source.batch(number)
        assert (batch.images.device, batch.labels.device) == (device, device)
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(batch.images.cpu(), expected.images)
        assert torch.equal(batch.labels.cpu(), expected.labels)
        assert batch.indices.tolist() == expected.indices.tolist()


@pytest.mark.gpu
def test_for_a_gpu_at_most_one_batch_is_read_ahead() -> None:
    source = Source(5, pinned=True)
    for taken, _ in enumerate(prefetch_to_device(source.read(), torch.device("cuda")), start=1):
        assert source.yielded == min(5, taken + 1)


@pytest.mark.gpu
def test_batches_already_on_the_gpu_are_unchanged() -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    expected = []
    for number in range(4):
        batch = Source(0).batch(number)
        expected.append(Batch(batch.images.to(device), batch.labels.to(device), batch.indices))
    prefetched = list(prefetch_to_device(iter(expected), device))
    assert all(one is other for one, other in zip(prefetched, expected, strict=True))


@pytest.mark.gpu
def test_batches_copied_while_the_gpu_is_busy_are_complete_when_used() -> None:
    """All copies are requested long before a busy GPU uses the first batch.

    Freed pinned memory and GPU memory are reused meanwhile.
    """
    device = torch.device("cuda", torch.cuda.current_device())
    sums, labels = [], []
    torch.cuda._sleep(200_000_000)  # about a tenth of a second
    for batch in prefetch_to_device(Source(200, pinned=True).read(), device):
        sums.append(batch.images.long().sum())
        labels.append(batch.labels.clone())
        del batch
    for number in range(200):
        expected = Source(0).batch(number)
        assert int(sums[number]) == int(expected.images.long().sum()), number
        assert torch.equal(labels[number].cpu(), expected.labels), number


@pytest.mark.gpu
def test_copies_block_neither_host_nor_device() -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    list(prefetch_to_device(Source(2, pinned=True).read(), device))  # load libraries
    expected = [Source(0, pinned=True).batch(number) for number in range(5)]
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        prefetched = list(prefetch_to_device(iter(expected), device))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(prefetched) == 5
