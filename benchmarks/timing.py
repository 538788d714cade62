"""Timing two ways of doing the same, in turn, so that a drifting machine is fair to both."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

REPEATS = 5

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
