"""A parallel map over threads: results in order, memory bounded."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def ordered_map(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Generator[Result]:
    """Yield function(item) in the order of `items`, computed by `workers` threads.

    At most four items per worker are in flight, however slow the consumer. The first exception (by
    order of items) is raised in its item's turn; items that have not started by then never start.
    """
    remaining = iter(items)
    with ThreadPoolExecutor(workers) as pool:
        pending: deque[Future[Result]] = deque()
        try:
            pending.extend(pool.submit(function, item) for item in islice(remaining, 4 * workers))
            while pending:
                yield pending.popleft().result()
                pending.extend(pool.submit(function, item) for item in islice(remaining, 1))
        finally:
            for future in pending:
                future.cancel()
