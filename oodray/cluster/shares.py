"""What a machine has to share out, in exact arithmetic."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

_GPU_DEVICES = ("nvidia*", "nvhost*", "nvgpu*", "nvmap", "dxg", "kfd")
"""NVIDIA's driver, that of its small boards, Windows' Linux, and AMD's driver, in this order."""


def usable_cores() -> int:
    """The cores of this machine that this process may use: all, those it is bound to, or what its container has."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([bound, *(max(1, math.ceil(cores)) for cores in _limits())])


def _limits(system: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> Iterator[float]:
    """The cores that each control group of this process may use, of both versions of Linux's control groups.

    `docker run --cpus 2` and Kubernetes limit time, not cores: a process sees all of the machine, and gets two.
    """
    try:
        groups = [line.strip().split(":", 2) for line in own.read_text().splitlines()]
    except OSError:  # no Linux
        return
    for _, controllers, path in (group for group in groups if len(group) == 3):
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = system / "cpu" if controllers else system
        group = top / path.lstrip("/")
        # A container sees its own group as the top, and may be told its path outside.
        for folder in (top, *(found for found in (group, *group.parents) if found.is_relative_to(top))):
            quota = _quota(folder)
            if quota is not None:
                yield quota


def _quota(group: Path) -> float | None:
    """Cores of a control group; None where it has no limit."""
    try:
        if (group / "cpu.max").is_file():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return float(quota) / float(period) if float(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):  # "max" is no number
        return None


def gpus_here() -> int:
    """NVIDIA GPUs of this machine by its driver, for which torch need not be imported; 0 where it has none or no word.

    Those that `CUDA_VISIBLE_DEVICES` hides do not count.
    """
    there = sum(1 for _ in Path("/proc/driver/nvidia/gpus").glob("*"))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return there if visible is None else min(there, len([name for name in visible.split(",") if name.strip()]))


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
