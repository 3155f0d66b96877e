"""Freed memory stays with the process while something trains.

glibc hands every large array back to the system when it is freed, and takes new pages, zeroed one by one, for the next
one. Where a page is dear, as in many virtual machines, that is a third of the time of a small model's training step
(docs/experiments.md). Here the pages are kept until the training is over.
"""

from __future__ import annotations

import ctypes
import os
import platform
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# malloc.h
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
# What glibc's own adaptation arrives at in a process that frees large arrays; setting anything ends the adaptation.
_USUAL = ((_TRIM_THRESHOLD, 64 << 20), (_MMAP_THRESHOLD, 32 << 20), (_MMAP_MAX, 65_536))
_KEEPING = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1))
_lock = threading.Lock()
_users = 0


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """While inside, freed memory is used again and not returned; what is free afterwards is returned at once.

    Does nothing without glibc, or where the environment already tunes its allocator (`MALLOC_…_`, `GLIBC_TUNABLES`).
    """
    set_option = _mallopt()
    if set_option is None:
        yield
        return
    _count(+1, set_option)
    try:
        yield
    finally:
        _count(-1, set_option)


def _count(change: int, set_option: Callable[[int, int], int]) -> None:
    """The first one inside changes the allocator, the last one out changes it back."""
    global _users
    with _lock:
        before, _users = _users, _users + change
        if before and _users:
            return
        for option, value in _KEEPING if _users else _USUAL:
            set_option(option, value)
        if not _users:
            ctypes.CDLL(None).malloc_trim(0)


def _mallopt() -> Callable[[int, int], int] | None:
    tuned = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if tuned or platform.libc_ver()[0] != "glibc":
        return None
    found: Callable[[int, int], int] = ctypes.CDLL(None).mallopt
    return found
