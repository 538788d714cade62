"""K-Means of one image's features: our batched torch backend against scikit-learn."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.timing import Comparison, compare
from oodray.method.kmeans import kmeans

POINTS, CHANNELS, K, BLOBS = 2048, 640, 5, 12


def run() -> Comparison:
    """2,048 points of 640 channels, K = 5, four restarts; the difference is that of the inertia, relative."""
    points = _blobs()

    def cluster(backend: str) -> float:
        return _inertia(points, kmeans(points, K, seed=0, backend=backend).long())

    return compare(
        f"K-Means of {POINTS} x {CHANNELS} points, K = {K}, n_init = 4",
        ours=("torch", lambda: cluster("torch")),
        theirs=("scikit-learn", lambda: cluster("sklearn")),
        difference=lambda a, b: (a - b) / b,
    )


def _blobs() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(BLOBS, CHANNELS, generator=generator)
    which = torch.randint(BLOBS, (POINTS,), generator=generator)
    return centres[which] + torch.randn(POINTS, CHANNELS, generator=generator)


def _inertia(points: Tensor, labels: Tensor) -> float:
    return sum(float((group - group.mean(0)).square().sum()) for k in range(K) if len(group := points[labels == k]))
