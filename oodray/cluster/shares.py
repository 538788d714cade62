"""What a machine has to share out, in exact arithmetic."""

from __future__ import annotations

import os
import sys
from fractions import Fraction
from pathlib import Path

_GPU_DEVICES = ("nvidia*", "nvhost*", "nvgpu*", "nvmap", "dxg", "kfd")
"""NVIDIA's driver, that of its small boards, Windows' Linux, and AMD's driver, in this order."""


def usable_cores() -> int:
    """The cores of this machine that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus_here() -> int:
    """NVIDIA GPUs of this machine by its driver, for which torch need not be imported; 0 where it has none or no word.

    A process may be allowed fewer.
    """
    return sum(1 for _ in Path("/proc/driver/nvidia/gpus").glob("*"))


def may_have_gpu() -> bool:
    """Whether torch has to be asked for a GPU: a Linux without a device of any kind that torch computes on has none."""
    return sys.platform != "linux" or any(found for kind in _GPU_DEVICES for found in Path("/dev").glob(kind))


def fitting(offered: float, wanted: float) -> int:
    """How often a share fits into what is there.

    >>> fitting(1, 0.1), fitting(3, 2.0)  # 1 // 0.1 is 9, as floats
    (10, 1)
    """
    return int(Fraction(str(offered)) // Fraction(str(wanted)))


def gpu_shares(offered: float, wanted: float) -> int:
    """How often a number of GPUs, or a share of one, can be taken from a machine: shares do not reach over two.

    >>> gpu_shares(3, 0.4), gpu_shares(3, 2.0), gpu_shares(0.5, 0.25)
    (6, 1, 2)
    """
    if wanted >= 1:
        return fitting(offered, wanted)
    return int(offered) * fitting(1, wanted) + fitting(offered % 1, wanted)
