"""How this process asks the system for memory; on a CPU it decides a training step's speed."""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep_freed_memory() -> bool:
    """Keep freed memory for the next tensor instead of giving it back; whether that was possible.

    glibc maps every large block anew and the kernel fills it with zeros page by page: on a CPU that
    is a tenth of ResNet-18's training step and half of a dynamic convolution's
    (`python -m benchmarks.dynamic`). The process then stays as large as it ever was.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
