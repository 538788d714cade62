"""Numbers of a run for Ray's dashboard and Prometheus, where a process of Ray's works; elsewhere nothing happens.

`oodray_images` by status, `oodray_stage_seconds` by stage, both since the start, and `oodray_worker_busy_share`.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from oodray.cluster.session import is_running
from oodray.results.rows import STAGES, ResultRow

if TYPE_CHECKING:
    from ray.util.metrics import Counter, Gauge


def count_images(rows: Iterable[ResultRow]) -> None:
    """Count finished rows, and the seconds that each stage took for them."""
    if not is_running():
        return
    images, seconds = _counters()
    for row in rows:
        images.inc(1, {"status": row.status})
        for stage in STAGES:
            if took := getattr(row, f"seconds_{stage}"):
                seconds.inc(took, {"stage": stage})


class BusyShare:
    """The share of the time since its first work that a worker was at work: near 1 where it is the bottleneck."""

    def __init__(self) -> None:
        self._first: float | None = None
        self._busy = 0.0

    def add(self, start: float, end: float) -> float:
        """Note work from one `time.monotonic()` to another; gives the share until then."""
        self._first = start if self._first is None else self._first
        self._busy += end - start
        share = self._busy / (end - self._first) if end > self._first else 1.0
        if is_running():
            _gauge().set(share)
        return share

    def __enter__(self) -> None:
        self._start = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self.add(self._start, time.monotonic())


@functools.cache
def _counters() -> tuple[Counter, Counter]:
    from ray.util.metrics import Counter

    return (
        Counter("oodray_images", "Images that are finished.", ("status",)),
        Counter("oodray_stage_seconds", "Seconds of all images in a stage.", ("stage",)),
    )


@functools.cache
def _gauge() -> Gauge:
    from ray.util.metrics import Gauge

    return Gauge("oodray_worker_busy_share", "Share of its time in which a worker was at work.")
