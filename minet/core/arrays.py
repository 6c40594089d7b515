"""Types and helpers of NumPy arrays that rooms share."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

IndexArray = NDArray[np.int64]
Pixels = NDArray[np.uint8]


def all_indices(count: int) -> IndexArray:
    """Order of a split as it is indexed."""
    return np.arange(count, dtype=np.int64)


def batched(order: IndexArray, batch_size: int) -> Iterator[IndexArray]:
    """Cut an order into batches; the last one may be smaller."""
    for first in range(0, len(order), batch_size):
        yield order[first : first + batch_size]


def ceil_div(dividend: int, divisor: int) -> int:
    """Return the quotient of two positive whole numbers, rounded up."""
    return -(-dividend // divisor)
