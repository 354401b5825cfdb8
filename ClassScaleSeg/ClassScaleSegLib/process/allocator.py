"""Make the C library return freed memory to the system at once, so that freed arrays do not add to the peak.

glibc returns an array at once only from a certain size, which it raises up to 32 MiB while a program runs. Smaller
feature maps stay in its heap, which fragments, and the peaks of identical runs vary by a fifth
(`Testing/Benchmarks/memory_growth.py`).
"""

from __future__ import annotations

import ctypes
import sys

# For processes in which another thread than the first computes, as in Dask's workers: glibc would give it heaps of
# 64 MiB, which are returned and taken again with every other array.
ONE_HEAP = {"MALLOC_ARENA_MAX": "1"}
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # <malloc.h>
_RETURNED_FROM, _KEPT_AT_MOST = 8 << 20, 64 << 20


def return_memory_at_once() -> None:
    """Return freed memory at once from now on, if the allocator is glibc; call this in a process of our own only."""
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return
    mallopt(_M_MMAP_THRESHOLD, _RETURNED_FROM)
    mallopt(_M_TRIM_THRESHOLD, _KEPT_AT_MOST)
