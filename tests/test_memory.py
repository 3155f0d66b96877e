"""Freed memory stays with the process inside of the context, and goes back to the system behind it."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys

import pytest

from genrec.memory import freed_memory_kept

_LARGE = 256 << 20

# A process of its own: the allocator belongs to all of a process, and pytest's has others that use it.
_PROGRAM = f"""
import ctypes
from genrec.memory import freed_memory_kept

class Info(ctypes.Structure):  # struct mallinfo2 of malloc.h
    _fields_ = [(name, ctypes.c_size_t) for name in
        "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()]

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
libc.mallinfo2.restype = Info

def from_the_system():
    before = libc.mallinfo2().hblkhd
    large = libc.malloc({_LARGE})
    found = libc.mallinfo2().hblkhd - before >= {_LARGE}
    libc.free(large)
    return found

def kept():
    return libc.mallinfo2().fordblks >= {_LARGE}

states = [from_the_system()]
with freed_memory_kept():
    states += [from_the_system(), kept()]
    with freed_memory_kept():
        states.append(from_the_system())
    states += [from_the_system(), kept()]  # the outer one goes on
states += [from_the_system(), kept()]
print(states)
"""

has_glibc = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="no glibc from 2.33 on"
)


def run(**environment: str) -> str:
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, env=environment, check=True)
    return done.stdout.strip()


@has_glibc
def test_large_memory_is_kept_inside_and_given_back_behind() -> None:
    assert run() == "[True, False, True, False, False, True, True, False]"


@has_glibc
def test_who_tunes_the_allocator_is_left_alone() -> None:
    assert run(MALLOC_TOP_PAD_="65536") == "[True, True, False, True, True, False, True, False]"


def test_without_glibc_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.libc_ver", lambda: ("", ""))
    monkeypatch.setattr(ctypes, "CDLL", None)
    with freed_memory_kept():
        pass
