"""Settings of the C allocator; on a CPU they decide a training step's speed."""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep_freed_memory() -> bool:
    """Keep freed memory for the next tensor; return whether the C library can do so.

    By default glibc maps every large block anew and the kernel zeroes it page by page: on a CPU
    that was 6 % of ResNet-18's training step and 37 % of dynamic ResNet-18's
    (docs/performance.md). The process never shrinks; its first steps, in which it grows, gain
    nothing.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
