"""K-Means of one image's features for a sweep of K: our torch backend, all K at once, against scikit-learn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from benchmarks.timing import Comparison, compare
from oodray.method.kmeans import kmeans_of_each

POINTS, CHANNELS, BLOBS = 2048, 640, 12
KS = tuple(range(3, 9))


def run() -> list[Comparison]:
    """2,048 points of 640 channels, K = 3..8, four restarts; the difference is that of the mean inertia, relative.

    scikit-learn on its own number of threads, and on one, which is often faster for a problem of this size.
    """
    return [_compare("scikit-learn", None), _compare("scikit-learn, 1 thread", 1)]


def _compare(theirs: str, threads: int | None) -> Comparison:
    points = _blobs()

    def cluster(backend: str) -> list[Tensor]:
        [found] = kmeans_of_each(points[None], KS, [[0] * len(KS)], backend=backend)
        return found

    def sklearn() -> list[Tensor]:
        with _threads(threads):
            return cluster("sklearn")

    def inertia(found: list[Tensor]) -> float:
        return sum(_inertia(points, labels) for labels in found)

    return compare(
        f"K-Means of {POINTS} x {CHANNELS} points, K = {KS[0]}..{KS[-1]}, n_init = 4",
        ours=("torch", lambda: cluster("torch")),
        theirs=(theirs, sklearn),
        difference=lambda a, b: (inertia(a) - inertia(b)) / inertia(b),
    )


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    if count is None:
        yield
        return
    with threadpool_limits(count):
        yield


def _blobs() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(BLOBS, CHANNELS, generator=generator)
    which = torch.randint(BLOBS, (POINTS,), generator=generator)
    return centres[which] + torch.randn(POINTS, CHANNELS, generator=generator)


def _inertia(points: Tensor, labels: Tensor) -> float:
    groups = (points[labels == cluster] for cluster in labels.unique())
    return sum(float((group - group.mean(0)).square().sum()) for group in groups)
