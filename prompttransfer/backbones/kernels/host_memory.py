"""Memory of a process on a CPU: kept for the next step instead of given back, unless it buys nothing.

glibc gives large blocks back to the system as soon as they are freed, and the system clears every page when the next
step asks for them: 5 to 10 % of a step of `roberta-base` in bf16.
"""

from __future__ import annotations

import ctypes
import os
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


LARGE = 3_000_000
"""Multiply-adds of a token and a layer from which products take so long that compiling them does not count."""
CACHES = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": 32, "LRU_CACHE_CAPACITY": 16}
"""How many compiled products oneDNN and torch's interface to it keep for a large model, instead of `USUAL` each.

In bf16 a product is compiled anew for every number of rows, a millisecond each, and takes up to 2.5 MB: 25 batches of
different lengths took .7 GB for `roberta-base`. A step asks for 14 of them, each once a layer.
"""
USUAL = 1024


def compiled_kept(layer_products: int) -> int:
    """How many compiled products a process with such a model keeps; see `drop_compiled`."""
    return sum(CACHES.values()) if layer_products >= LARGE else USUAL * len(CACHES)


def drop_compiled(layer_products: int) -> None:
    """Let this process forget compiled products early if the model is large; to be called before its first product."""
    if layer_products >= LARGE:
        for name, most in CACHES.items():
            os.environ.setdefault(name, str(most))
