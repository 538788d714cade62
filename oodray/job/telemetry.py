"""Numbers of a run for Ray's dashboard and Prometheus, where a process of Ray's works; elsewhere nothing happens.

Every number has the labels `run`, the results folder, and `dataset`. Prometheus sees

* `ray_oodray_images_total`, a counter, by `status`: ok or error;
* `ray_oodray_stage_seconds`, a histogram of the seconds of an image, by `stage`: decode, segment, cluster, finish;
* `ray_oodray_worker_busy_share`, a gauge of each worker.

`jobs/grafana.json` is a dashboard of them.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from oodray.cluster.session import is_running
from oodray.results.rows import STAGES, ResultRow

if TYPE_CHECKING:
    from ray.util.metrics import Counter, Gauge, Histogram

Labels = Mapping[str, str]
"""`run` and `dataset`."""

LABELS = ("run", "dataset")

SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Ends of the bins of a stage's seconds."""


def count_images(rows: Iterable[ResultRow], run: str) -> None:
    """Count finished rows of a run, and the seconds that each stage took for them."""
    if not is_running():
        return
    images, seconds = _counters()
    for row in rows:
        labels = {"run": _ascii(run), "dataset": _ascii(row.dataset)}
        images.inc(1, {**labels, "status": row.status})
        for stage in STAGES:
            if took := getattr(row, f"seconds_{stage}"):
                seconds.observe(took, {**labels, "stage": stage})


class BusyShare:
    """The share of the time since its first work that a worker was at work: near 1 where it is the bottleneck.

    Args:
        labels: of the run; without them they are empty.
    """

    def __init__(self, labels: Labels | None = None) -> None:
        given = {name: _ascii(value) for name, value in (labels or {}).items()}
        self._labels = dict.fromkeys(LABELS, "") | given
        self._first: float | None = None
        self._busy = 0.0

    def add(self, start: float, end: float) -> float:
        """Note work from one `time.monotonic()` to another; gives the share until then."""
        self._first = start if self._first is None else self._first
        self._busy += end - start
        share = self._busy / (end - self._first) if end > self._first else 1.0
        if is_running():
            _gauge().set(share, self._labels)
        return share

    def __enter__(self) -> None:
        self._start = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self.add(self._start, time.monotonic())


def _ascii(text: str) -> str:
    r"""A label as Ray takes it, which raises an error of others: signs that are not of ASCII are escaped.

    >>> print(_ascii("/runs/für"))
    /runs/f\xfcr
    """
    return text.encode("ascii", "backslashreplace").decode("ascii")


@functools.cache
def _counters() -> tuple[Counter, Histogram]:
    from ray.util.metrics import Counter, Histogram

    return (
        Counter("oodray_images", "Images that are finished.", ("status", *LABELS)),
        Histogram("oodray_stage_seconds", "Seconds of an image in a stage.", list(SECONDS), ("stage", *LABELS)),
    )


@functools.cache
def _gauge() -> Gauge:
    from ray.util.metrics import Gauge

    return Gauge("oodray_worker_busy_share", "Share of its time in which a worker was at work.", LABELS)
