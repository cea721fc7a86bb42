"""The C library's memory: what is freed is kept for the next tensor."""

from __future__ import annotations

import ctypes
import os
import platform

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # of glibc's malloc.h
VARIABLES = (
    "MALLOC_MMAP_MAX_",
    "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_TRIM_THRESHOLD_",
    "MALLOC_TOP_PAD_",
    "GLIBC_TUNABLES",
)


def keep_freed_memory() -> bool:
    """Have glibc keep what is freed rather than give it back to the kernel; whether that was done.

    Otherwise every large activation is mapped anew and its pages are filled with zeros by the kernel: a quarter of
    the time of pre-training Conv-4 on a CPU. The process keeps the memory of its fullest moment until it ends. Nothing
    is done where the C library is another one, or where the environment sets the allocator up (MALLOC_... or
    GLIBC_TUNABLES).
    """
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in VARIABLES):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return all(mallopt(name, value) for name, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1), (M_TOP_PAD, 2**26)))
