"""Freed memory goes back to the system at once, so that the peak is what is in use and not what was.

glibc raises, up to 32 MiB, the size from which an array is returned when freed: feature maps of a window below it stay
in its heap, in pieces, and peaks of equal runs scatter by a fifth (`Testing/Benchmarks/memory_growth.py`).
"""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # <malloc.h>
_RETURNED_FROM, _KEPT_AT_MOST = 8 << 20, 32 << 20


def return_memory_at_once() -> None:
    """Set it for this process, which should be ours: where glibc is the allocator, and nowhere else."""
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return
    mallopt(_M_MMAP_THRESHOLD, _RETURNED_FROM)
    mallopt(_M_TRIM_THRESHOLD, _KEPT_AT_MOST)
