"""How a process that runs a network on a CPU is set up."""

from __future__ import annotations

import ctypes
import os

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MOST = 2**31 - 1  # the largest number that `mallopt` takes


def set_up_process() -> None:
    """Have idle threads sleep and freed memory kept; to be called before torch is loaded."""
    # OpenMP threads that wait by spinning take the cores from decoding and writing.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    keep_freed_memory()


def keep_freed_memory() -> bool:
    """Have what is freed kept for the next image; False where the C library is not glibc.

    Else it takes every large tensor from the system and gives it back, and the system clears each page anew when it is
    first touched: an eighth of the time of a run on a CPU. What an image needs at most stays with the process.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return all(mallopt(option, _MOST) == 1 for option in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD))
