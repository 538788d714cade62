"""How a process that runs a network on a CPU is set up."""

from __future__ import annotations

import ctypes
import gc
import os

from oodray.cluster.session import is_running

# Of malloc.h: never give the end of the heap back; take nothing from the system singly; make no heap for any thread any
# more, as those of threads are small.
_KEEPING = {"M_TRIM_THRESHOLD": (-1, -1), "M_MMAP_MAX": (-4, 0), "M_ARENA_MAX": (-8, 1)}


def set_up_process() -> None:
    """Have idle threads sleep and freed memory kept; to be called before torch is loaded."""
    # OpenMP threads that wait by spinning take the cores from decoding and writing.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    keep_freed_memory()


def keep_freed_memory() -> bool:
    """Have what is freed kept for the next image; False where the C library is not glibc.

    Else it takes every large tensor from the system and gives it back, and the system clears each page anew when it is
    first touched: an eighth of the time of a run on a CPU. What images needed at most stays with the process.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    accepted = [mallopt(option, value) for option, value in _KEEPING.values()]
    return accepted == [1] * len(_KEEPING)


def leave_out_of_collections() -> None:
    """In an actor of Ray's, freeze what is there by now, or the last garbage collection takes seconds.

    Other processes may have to free it one day, so nothing happens there.
    """
    if not is_running():
        return
    import ray

    if ray.get_runtime_context().get_actor_id() is not None:
        gc.collect()
        gc.freeze()
