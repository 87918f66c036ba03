"""Memory of a process on a CPU: kept for the next step instead of given back after every tensor.

glibc gives large blocks back to the system as soon as they are freed, and the system clears every page when the next
step asks for them: 5 to 10 % of a step of `roberta-base` in bf16.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache

TRIM_THRESHOLD, MMAP_MAX = -1, -4
"""glibc's names for what is set, M_TRIM_THRESHOLD and M_MMAP_MAX of malloc.h."""
KEPT = 2**31 - 1
"""Free bytes at the end of the heap above which they are given back: the largest that glibc takes."""


@cache
def keep_heap() -> bool:
    """Let this process keep freed memory; returns whether it does: only where the C library is glibc."""
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    return bool(library.mallopt(MMAP_MAX, 0) and library.mallopt(TRIM_THRESHOLD, KEPT))
