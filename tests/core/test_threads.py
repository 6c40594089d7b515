"""`ordered_map`: results in order, bounded read-ahead, errors passed on."""

import itertools
import threading
import time
from collections.abc import Iterator

import pytest

from minet.core.threads import ordered_map

WORKERS = pytest.mark.parametrize("workers", [1, 2, 3])


@WORKERS
def test_results_are_in_the_order_of_the_items(workers: int) -> None:
    def slower_first(item: int) -> int:
        time.sleep(0.002 * (5 - item % 6))
        return item * item

    assert list(ordered_map(slower_first, range(30), workers)) == [i * i for i in range(30)]


@WORKERS
def test_no_items_give_no_results(workers: int) -> None:
    assert list(ordered_map(str, [], workers)) == []


@WORKERS
def test_as_many_items_run_at_a_time_as_there_are_workers(workers: int) -> None:
    """A barrier opens only when all workers wait for it; the peak shows that no more run."""
    barrier = threading.Barrier(workers)
    lock, running, peak = threading.Lock(), 0, 0

    def meet(item: int) -> int:
        nonlocal running, peak
        with lock:
            running += 1
            peak = max(peak, running)
        barrier.wait(timeout=20)
        with lock:
            running -= 1
        return item

    assert list(ordered_map(meet, range(4 * workers), workers)) == list(range(4 * workers))
    assert peak == workers


@WORKERS
def test_no_more_than_four_items_per_worker_are_read_ahead(workers: int) -> None:
    """From an endless source, with a slow consumer."""
    read: list[int] = []

    def source() -> Iterator[int]:
        for item in itertools.count():
            read.append(item)
            yield item

    results = ordered_map(lambda item: item, source(), workers)
    for taken in range(1, 6):
        next(results)
        time.sleep(0.02)
        assert len(read) == 4 * workers + taken - 1
    results.close()


@WORKERS
def test_the_first_error_is_raised_in_its_turn(workers: int) -> None:
    """An earlier item that takes longer still comes first; none starts afterwards."""
    started: list[int] = []

    def work(item: int) -> int:
        started.append(item)
        if item == 2:
            time.sleep(0.05)
        if item >= 3:
            raise ValueError(f"item {item}")
        return item

    results = ordered_map(work, range(1000), workers)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="^item 3$"):
        next(results)
    assert len(started) <= 4 * workers + 3
    count = len(started)
    time.sleep(0.05)
    assert len(started) == count


@WORKERS
def test_after_an_error_pending_items_never_start(workers: int) -> None:
    started: list[int] = []

    def work(item: int) -> None:
        started.append(item)
        time.sleep(0.1)
        if item == 0:
            raise ValueError("item 0")

    with pytest.raises(ValueError, match="^item 0$"):
        next(ordered_map(work, range(1000), workers))
    assert len(started) <= 3 * workers


@WORKERS
def test_an_error_of_the_source_is_raised(workers: int) -> None:
    def source() -> Iterator[int]:
        yield from range(20)
        raise OSError("source")

    with pytest.raises(OSError, match="^source$"):
        list(ordered_map(lambda item: item, source(), workers))


def test_closing_the_iterator_early_ends_the_threads() -> None:
    before = set(threading.enumerate())
    started: list[int] = []

    def work(item: int) -> int:
        started.append(item)
        time.sleep(0.05)
        return item

    results = ordered_map(work, range(1000), 2)
    assert next(results) == 0
    results.close()
    assert set(threading.enumerate()) == before
    assert len(started) <= 6
