"""Batches on their way to a device: in order, as they are, never more than one ahead."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from minet.loader.batch import Batch
from minet.loader.prefetch import prefetch_to_device

CPU = torch.device("cpu")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


class Source:
    """Gives numbered batches, and knows how many it has given and whether it was closed."""

    def __init__(self, batches: int, *, pinned: bool = False, fails_at: int | None = None) -> None:
        self.batches, self.pinned, self.fails_at = batches, pinned, fails_at
        self.given, self.closed = 0, False

    def read(self) -> Iterator[Batch]:
        try:
            for number in range(self.batches):
                if number == self.fails_at:
                    raise ZeroDivisionError
                self.given += 1
                yield self.batch(number)
        finally:
            self.closed = True

    def batch(self, number: int, images: int = 3) -> Batch:
        """Give the images 0, 1, 2 ... of a number, channels-last as a loader gives them."""
        pixels = torch.full((images, 8, 8, 3), number % 256, dtype=torch.uint8)
        pixels[:, 0, 0, 0] = torch.arange(images)
        labels = torch.arange(images) + 10 * number
        if self.pinned:
            pixels, labels = pixels.pin_memory(), labels.pin_memory()
        return Batch(pixels.permute(0, 3, 1, 2), labels, np.arange(images) + 100 * number)


@pytest.mark.parametrize("batches", [0, 1, 2, 7])
def test_on_a_cpu_batches_come_as_they_are_and_in_their_order(batches: int) -> None:
    given = [Source(0).batch(number) for number in range(batches)]
    found = list(prefetch_to_device(iter(given), CPU))
    assert len(found) == batches
    assert all(one is other for one, other in zip(found, given, strict=True))


def test_on_a_cpu_a_batch_is_read_when_it_is_asked_for() -> None:
    """So that a watcher that waits before a step waits before its batch too."""
    source = Source(5)
    travelling = prefetch_to_device(source.read(), CPU)
    assert source.given == 0
    for taken, _ in enumerate(travelling, start=1):
        assert source.given == taken
    assert source.given == 5


def test_on_a_cpu_an_error_comes_in_its_turn() -> None:
    source, seen = Source(5, fails_at=2), []
    with pytest.raises(ZeroDivisionError):
        seen.extend(iter(prefetch_to_device(source.read(), CPU)))
    assert source.given == 2


def test_stopping_early_closes_what_is_read_from() -> None:
    source = Source(5)
    travelling = prefetch_to_device(source.read(), CPU)
    next(travelling)
    travelling.close()  # type: ignore[attr-defined]
    assert source.closed
    assert source.given == 1


@needs_gpu
@pytest.mark.parametrize("pinned", [False, True])
@pytest.mark.parametrize("batches", [0, 1, 2, 7])
def test_a_gpu_is_given_the_same_batches_in_their_order(*, batches: int, pinned: bool) -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    source = Source(batches, pinned=pinned)
    found = list(prefetch_to_device(source.read(), device))
    assert len(found) == batches
    for number, batch in enumerate(found):
        given = source.batch(number)
        assert (batch.images.device, batch.labels.device) == (device, device)
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(batch.images.cpu(), given.images)
        assert torch.equal(batch.labels.cpu(), given.labels)
        assert batch.indices.tolist() == given.indices.tolist()


@needs_gpu
def test_for_a_gpu_no_more_than_one_batch_is_read_ahead() -> None:
    source = Source(5, pinned=True)
    for taken, _ in enumerate(prefetch_to_device(source.read(), torch.device("cuda")), start=1):
        assert source.given == min(5, taken + 1)


@needs_gpu
def test_batches_that_are_on_the_gpu_already_come_as_they_are() -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    given = []
    for number in range(4):
        batch = Source(0).batch(number)
        given.append(Batch(batch.images.to(device), batch.labels.to(device), batch.indices))
    found = list(prefetch_to_device(iter(given), device))
    assert all(one is other for one, other in zip(found, given, strict=True))


@needs_gpu
def test_batches_that_travel_while_the_gpu_works_are_whole_when_they_are_used() -> None:
    """A GPU that is late: all copies are asked for long before it comes to the first batch.

    Page-locked memory that is given back, and memory of the GPU, is used again meanwhile.
    """
    device = torch.device("cuda", torch.cuda.current_device())
    sums, labels = [], []
    torch.cuda._sleep(200_000_000)  # about a tenth of a second
    for batch in prefetch_to_device(Source(200, pinned=True).read(), device):
        sums.append(batch.images.long().sum())
        labels.append(batch.labels.clone())
        del batch
    for number in range(200):
        given = Source(0).batch(number)
        assert int(sums[number]) == int(given.images.long().sum()), number
        assert torch.equal(labels[number].cpu(), given.labels), number


@needs_gpu
def test_neither_side_waits_for_a_batch_that_travels() -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    list(prefetch_to_device(Source(2, pinned=True).read(), device))  # libraries are loaded
    given = [Source(0, pinned=True).batch(number) for number in range(5)]
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = list(prefetch_to_device(iter(given), device))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(found) == 5
