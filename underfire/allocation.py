"""Let the C library keep the memory of freed tensors for the next ones."""

from __future__ import annotations

import ctypes
import sys

# Names and numbers are those of <malloc.h> of glibc.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Make this process keep the memory of freed tensors; return whether it could.

    By default glibc returns the memory of each large tensor to the system as soon as the tensor is freed. The next
    tensor then gets new pages, which the system clears one by one; this slows down the passes of an attack on
    photographs. Other C libraries are left as they are.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, _LARGEST))
