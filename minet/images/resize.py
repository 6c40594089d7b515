"""Pillow's resize, bilinear with antialiasing, to the byte, at twice its speed; and pixels' sums.

The arithmetic is that of Pillow's `Resample.c`: a triangle filter as wide as the scale, weights of
22 bits, one axis after the other, rounded to 8 bits after each. Columns come first, since whole
lines are multiplied at once and fewer are left for the rows. Pillow itself, an axis at a time, is
the test. Whole numbers alone: the same bytes on every machine. Compiled code is kept in
`__pycache__` from the first run on; the functions release the interpreter's lock.
"""

import math
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Box = tuple[float, float, float, float]  # left, top, right, bottom
Sums = tuple[int, int, int, int, int, int]  # of the planes, and of their squares

_BITS = 32 - 8 - 2  # of a weight: a sum of 255 times as much still fits into 32
_UNROLLED = (3, 4, 6, 8, 12, 16)  # taps for which loops are unrolled; 3 serve a scale of 1.5


@dataclass(frozen=True)
class Filter:
    """One axis of a resize: out[i] = sum of weights[k, i] * in[first[i] + k] over taps k."""

    first: NDArray[np.int64]  # (out,)
    weights: NDArray[np.int32]  # (taps, out)


@lru_cache(maxsize=512)
def axis_filter(in_px: int, start: float, end: float, out_px: int) -> Filter:
    """Weights that bring [start, end) of `in_px` pixels to `out_px` ones.

    Pillow's `precompute_coeffs` with the filter BILINEAR; it takes a box as 32-bit floats.
    """
    low, high = np.float32(start), np.float32(end)
    scale = float(high - low) / out_px
    reach = max(scale, 1.0)
    centres = float(low) + (np.arange(out_px) + 0.5) * scale
    first = np.maximum((centres - reach + 0.5).astype(np.int64), 0)
    counts = np.minimum((centres + reach + 0.5).astype(np.int64), in_px) - first
    taps = np.arange(math.ceil(reach) * 2 + 1)[:, None]
    offsets = (taps + first - centres + 0.5) * (1.0 / reach)
    shares = np.where(taps < counts, np.maximum(1.0 - np.abs(offsets), 0.0), 0.0)
    total = np.zeros(out_px)
    for row in shares:  # one after the other, as Pillow adds them: another order rounds otherwise
        total = total + row
    weights = (0.5 + shares / total * (1 << _BITS)).astype(np.int32)
    return _padded(first, counts, weights, in_px)


def _padded(
    first: NDArray[np.int64], counts: NDArray[np.int64], weights: NDArray[np.int32], in_px: int
) -> Filter:
    """Give all outputs as many taps, zeros where there are none, and none beyond the input."""
    needed = int(counts.max())
    taps = min(next((n for n in _UNROLLED if n >= needed), needed), in_px)
    starts = np.minimum(first, in_px - taps)
    padded = np.zeros((taps, len(first)), np.int32)
    for tap in range(needed):
        rows = tap + first - starts
        used = tap < counts
        padded[rows[used], np.flatnonzero(used)] = weights[tap, used]
    return Filter(starts, padded)


class Scratch:
    """Memory between the two passes, used again from image to image; belongs to one thread."""

    def __init__(self) -> None:
        """Begin with none."""
        self._lines: Pixels = np.empty(0, np.uint8)

    def lines(self, rows: int, row_bytes: int) -> Pixels:
        """Give (rows, row_bytes) of it."""
        if self._lines.size < rows * row_bytes:
            self._lines = np.empty(rows * row_bytes, np.uint8)
        return self._lines[: rows * row_bytes].reshape(rows, row_bytes)


def resize_box(image: Pixels, box: Box, out: Pixels, scratch: Scratch) -> Sums:
    """Resize a box of an image, contiguous (H, W, 3), into `out` (side, side, 3); sum `out`.

    The bytes are those of Pillow's `resize`, BILINEAR, of the columns and then of the rows.
    """
    height, width, _ = image.shape
    out_px = len(out)
    left, top, right, bottom = box
    across = axis_filter(width, left, right, out_px)
    down = axis_filter(height, top, bottom, out_px)
    begin = 3 * int(across.first[0])
    end = 3 * (int(across.first[-1]) + len(across.weights))
    source = image.reshape(height, 3 * width)[:, begin:end]
    lines = scratch.lines(out_px, end - begin)
    _along_columns(_unrolled(down))(source, down.first, down.weights, lines)
    rows = _along_rows(_unrolled(across))
    sums: Sums = rows(lines, across.first, begin, across.weights, out.reshape(out_px, 3 * out_px))
    return sums


def _unrolled(filter_: Filter) -> int:
    """Give the taps for which a pass is to be compiled, 0 for one that takes any number."""
    taps = len(filter_.weights)
    return taps if taps in _UNROLLED else 0


@cache
def _along_columns(fixed: int) -> Any:
    """Compile the pass along columns: source (H, bytes) to lines (out, bytes)."""

    @numba.njit(nogil=True, cache=True)
    def along_columns(source, first, weights, lines):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
        half = np.int32(1 << (_BITS - 1))
        for y in range(first.shape[0]):
            at, line = first[y], lines[y]
            for x in range(line.shape[0]):
                value = half
                for tap in range(fixed or weights.shape[0]):
                    value += np.int32(source[at + tap, x]) * weights[tap, y]
                line[x] = value >> _BITS

    return along_columns


@cache
def _along_rows(fixed: int) -> Any:
    """Compile the pass along rows: lines (out, bytes) to out (out, 3 out).

    It returns the sums of the three planes and those of their squares.
    """

    @numba.njit(nogil=True, cache=True)
    def along_rows(lines, first, begin, weights, out):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
        half = np.int32(1 << (_BITS - 1))
        total = np.zeros(out.shape[1], np.int32)  # of a column: 4,096 times 255^2 fit
        squares = np.zeros(out.shape[1], np.int32)
        for y in range(out.shape[0]):
            line, row = lines[y], out[y]
            for x in range(first.shape[0]):
                at = np.uint64(3 * first[x] - begin)  # a signed place costs a test for one below 0
                red = green = blue = half
                for tap in range(fixed or weights.shape[0]):
                    weight = weights[tap, x]
                    red += np.int32(line[at]) * weight
                    green += np.int32(line[at + np.uint64(1)]) * weight
                    blue += np.int32(line[at + np.uint64(2)]) * weight
                    at += np.uint64(3)
                row[3 * x] = red >> _BITS
                row[3 * x + 1] = green >> _BITS
                row[3 * x + 2] = blue >> _BITS
            for x in range(row.shape[0]):
                value = np.int32(row[x])
                total[x] += value
                squares[x] += value * value
        return (
            *(total[0::3].sum(), total[1::3].sum(), total[2::3].sum()),
            *(squares[0::3].sum(), squares[1::3].sum(), squares[2::3].sum()),
        )

    return along_rows
