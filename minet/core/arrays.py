"""NumPy array types, and helpers for indices and batches."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

IndexArray = NDArray[np.int64]
Pixels = NDArray[np.uint8]


def all_indices(count: int) -> IndexArray:
    """Return the indices 0 .. count - 1: the order of the index."""
    return np.arange(count, dtype=np.int64)


def batched(order: IndexArray, batch_size: int) -> Iterator[IndexArray]:
    """Yield consecutive batches of an order; the last one may be smaller."""
    for first in range(0, len(order), batch_size):
        yield order[first : first + batch_size]


def ceil_div(dividend: int, divisor: int) -> int:
    """Return the quotient of two positive integers, rounded up."""
    return -(-dividend // divisor)
