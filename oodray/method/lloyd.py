"""K-Means in torch: greedy k-means++ seeding and Lloyd's iterations, all restarts at once.

In the shapes, N points have D features, and R restarts draw each of k centres from L candidates.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def lloyd(points: Tensor, k: int, *, seed: int, n_init: int, max_iter: int, tol: float) -> NDArray[np.int64]:
    """Labels of the best of `n_init` restarts, which run at once: `(R, k, D)` centres, one matmul for all distances.

    Args:
        points: `(N, D)` float32, on any device, about centred and scaled: more than k distinct ones.
        k: clusters.
        seed: of the draws of the seeding.
        n_init: restarts R, of which the one with the least inertia is taken.
        max_iter: iterations at most.
        tol: stop when the squared shift of the centres is at most this, in every restart.

    Returns:
        `(N,)` int64 on the CPU, 0..k-1 in no particular order.

    >>> left, _, right = lloyd(torch.tensor([[-1.0], [-1.1], [1.2]]), 2, seed=0, n_init=2, max_iter=10, tol=1e-4)
    >>> bool(left != right)
    True
    """
    norms = points.square().sum(1)
    centres = _seed_centres(points, norms, k, n_init, seed)
    for _ in range(max_iter):
        distances, labels = _distances(points, norms, centres).min(1)
        moved = _means(points, _fill_empty(labels, distances, k), centres)
        shift = (moved - centres).square().sum((1, 2))
        centres = moved
        if bool((shift <= tol).all()):
            break
    distances, labels = _distances(points, norms, centres).min(1)
    best = distances.double().sum(1).argmin()
    return np.asarray(labels[best].cpu().numpy(), dtype=np.int64)


def _seed_centres(points: Tensor, norms: Tensor, k: int, n_init: int, seed: int) -> Tensor:
    """Greedy k-means++: `(R, k, D)` centres that are points.

    Each next centre is the best of 2 + log(k) candidates (as in scikit-learn), drawn with probability
    proportional to their squared distance to the centres so far.
    """
    # Drawn on the CPU, so that a GPU starts from the same numbers.
    generator = torch.Generator().manual_seed(seed)
    trials = 2 + int(math.log(k))
    draws = torch.rand((k, n_init, trials), generator=generator, dtype=torch.float64).to(points.device)
    chosen = (draws[0, :, :1] * len(points)).long()
    closest = _distances(points, norms, points[chosen])[:, 0]
    for step in range(1, k):
        candidates = _draw_proportionally(closest, draws[step])
        reach = torch.minimum(closest[:, None], _distances(points, norms, points[candidates]))
        best = reach.sum(2).argmin(1, keepdim=True)
        closest = reach.take_along_dim(best[:, :, None], 1)[:, 0]
        chosen = torch.cat([chosen, candidates.take_along_dim(best, 1)], 1)
    return points[chosen]


def _draw_proportionally(weights: Tensor, draws: Tensor) -> Tensor:
    """Indices `(R, L)` with probability proportional to `weights` `(R, N)`, by uniform `draws` `(R, L)`."""
    # Integers add up exactly, hence the same in every run of a GPU, and no weight of 0 is ever drawn.
    peaks = weights.amax(1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)
    ends = (weights / peaks * 2**32).long().cumsum(1)
    drawn = torch.searchsorted(ends, (draws * ends[:, -1:]).long(), right=True)
    return drawn.clamp(max=weights.shape[1] - 1)


def _distances(points: Tensor, norms: Tensor, centres: Tensor) -> Tensor:
    """Squared distances `(R, k, N)` of points `(N, D)` to centres `(R, k, D)`."""
    flat = centres.flatten(0, 1)
    products = torch.addmm(flat.square().sum(1, keepdim=True), flat, points.T, alpha=-2)
    return (products + norms).clamp_(min=0).view(*centres.shape[:2], -1)


def _fill_empty(labels: Tensor, distances: Tensor, k: int) -> Tensor:
    """Give each cluster without a point the one farthest from its own centre. Writes into `labels`."""
    for restart, cluster in (_membership(labels, k).sum(2) == 0).nonzero().tolist():
        farthest = distances[restart].argmax()
        labels[restart, farthest] = cluster
        distances[restart, farthest] = 0
    return labels


def _means(points: Tensor, labels: Tensor, centres: Tensor) -> Tensor:
    """Mean of each cluster's points, `(R, k, D)`; a cluster without a point keeps its centre."""
    members = _membership(labels, centres.shape[1])
    sizes = members.sum(2)[:, :, None]
    # A product instead of a scatter, whose order of addition varies on a GPU.
    sums = (members.flatten(0, 1) @ points).view_as(centres)
    return torch.where(sizes > 0, sums / sizes.clamp(min=1), centres)


def _membership(labels: Tensor, k: int) -> Tensor:
    """1.0 where a point is in a cluster, `(R, k, N)`."""
    return (labels[:, None] == torch.arange(k, device=labels.device)[:, None]).float()
