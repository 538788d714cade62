"""Timing two ways of doing the same, in turn, so that a drifting machine is fair to both."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from statistics import median
from typing import Any

import torch

from oodray.models.dtype import multiplies_bfloat16

REPEATS = 5
PACKAGES = ("torch", "numba", "numpy", "scikit-learn", "ray")

Way = tuple[str, Callable[[], Any]]


@dataclass(frozen=True)
class Comparison:
    """Median seconds of two ways, the median of their ratios, and how far their results are apart."""

    what: str
    ours: str
    theirs: str
    our_seconds: float
    their_seconds: float
    ratio: float
    difference: float


def compare(
    what: str, *, ours: Way, theirs: Way, difference: Callable[[Any, Any], float], repeats: int = REPEATS
) -> Comparison:
    """Run both ways once to warm up, then `repeats` times in turn."""
    results = ours[1](), theirs[1]()
    pairs = [(seconds(ours[1]), seconds(theirs[1])) for _ in range(repeats)]
    return Comparison(
        what,
        ours[0],
        theirs[0],
        our_seconds=median(our for our, _ in pairs),
        their_seconds=median(their for _, their in pairs),
        ratio=median(their / our for our, their in pairs),
        difference=difference(*results),
    )


def seconds(way: Callable[[], Any]) -> float:
    """How long it takes, once."""
    start = time.perf_counter()
    way()
    return time.perf_counter() - start


def machine() -> str:
    """What this machine is, has installed, and has to do beside."""
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    bfloat16 = "with" if multiplies_bfloat16() else "without"
    return (
        f"at a load of {os.getloadavg()[0]:.1f}. {os.cpu_count()} cores ({platform.machine()}, "
        f"{torch.backends.cpu.get_cpu_capability()}, {bfloat16} fast bfloat16), "
        f"{torch.get_num_threads()} torch threads, Python {platform.python_version()}, {versions}"
    )
