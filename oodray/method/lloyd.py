"""K-Means in torch: greedy k-means++ seeding and Lloyd's iterations, all restarts of all K at once.

In the shapes, N points have D features. Each of R restarts of a K draws its centres from L candidates. M centres of all
restarts and K lie in one matrix, so that one product gives every distance, and one every mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def lloyd(
    points: Tensor, ks: Sequence[int], seeds: Sequence[int], *, n_init: int, max_iter: int, tol: float
) -> list[NDArray[np.int64]]:
    """Labels of the best of `n_init` restarts for each of `ks`.

    Only centres whose cluster has changed are moved, and only distances to centres that have moved are computed.

    Args:
        points: `(N, D)` float32, on any device, about centred and scaled: more distinct ones than any k.
        ks: clusters.
        seeds: of the draws of the seeding, for each of `ks`.
        n_init: restarts R, of which the one with the least inertia is taken.
        max_iter: iterations at most.
        tol: a restart stops when the squared shift of its centres is at most this.

    Returns:
        For each of `ks`, `(N,)` int64 on the CPU, 0..k-1 in no particular order.

    >>> points = torch.tensor([[-1.0], [-1.1], [1.2]])
    >>> [(left, _, right)] = lloyd(points, [2], [0], n_init=2, max_iter=10, tol=1e-4)
    >>> bool(left != right)
    True
    """
    norms = points.square().sum(1)
    centres = torch.cat([found.flatten(0, 1) for found in _seed_centres(points, norms, ks, seeds, n_init)])
    restarts = torch.arange(len(ks) * n_init, device=points.device)
    restart = restarts.repeat_interleave(torch.tensor(ks, device=points.device).repeat_interleave(n_init))
    running = torch.ones_like(restarts, dtype=torch.bool)
    distances = _distances(points, norms, centres)
    members = torch.zeros_like(distances, dtype=torch.bool)
    for _ in range(max_iter):
        before, members = members, _members(distances, ks, n_init)
        changed = ((members != before).any(1) & running[restart]).nonzero()[:, 0]
        if not len(changed):
            break
        moved = _means(points, members[changed], centres[changed])
        # Products instead of scattered sums, whose order of addition varies on a GPU; so in _means.
        of_restart = (restart[changed] == restarts[:, None]).float()
        running &= of_restart @ (moved - centres[changed]).square().sum(1) > tol
        centres[changed] = moved
        distances[changed] = _distances(points, norms, moved)
    return [_best(found) for found in _by_k(distances, ks, n_init)]


def _seed_centres(points: Tensor, norms: Tensor, ks: Sequence[int], seeds: Sequence[int], n_init: int) -> list[Tensor]:
    """Greedy k-means++: for each of `ks`, `(R, k, D)` centres that are points.

    Each next centre is the best of 2 + log(k) candidates (as in scikit-learn), drawn with probability
    proportional to their squared distance to the centres so far.
    """
    draws = [_draws(k, seed, n_init).to(points.device) for k, seed in zip(ks, seeds, strict=True)]
    closest = [points.new_full((n_init, len(points)), torch.inf) for _ in ks]
    chosen: list[list[Tensor]] = [[] for _ in ks]
    for step in range(max(ks)):
        unfinished = [index for index, k in enumerate(ks) if k > step]
        candidates = [
            _draw_proportionally(closest[index], draws[index][step])
            if step
            else (draws[index][0, :, :1] * len(points)).long()
            for index in unfinished
        ]
        rows = torch.cat([found.flatten() for found in candidates])
        distances = torch.split(_distances(points, norms, points[rows]), [found.numel() for found in candidates])
        for index, found, reached in zip(unfinished, candidates, distances, strict=True):
            reach = torch.minimum(closest[index][:, None], reached.view(*found.shape, -1))
            best = reach.sum(2).argmin(1, keepdim=True)
            closest[index] = reach.take_along_dim(best[:, :, None], 1)[:, 0]
            chosen[index].append(found.take_along_dim(best, 1))
    return [points[torch.cat(found, 1)] for found in chosen]


def _draws(k: int, seed: int, n_init: int) -> Tensor:
    """Uniform numbers `(k, R, L)`, drawn on the CPU, so that a GPU starts from the same ones."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand((k, n_init, 2 + int(math.log(k))), generator=generator, dtype=torch.float64)


def _draw_proportionally(weights: Tensor, draws: Tensor) -> Tensor:
    """Indices `(R, L)` with probability proportional to `weights` `(R, N)`, by uniform `draws` `(R, L)`."""
    # Integers add up exactly, hence the same in every run of a GPU, and no weight of 0 is ever drawn.
    peaks = weights.amax(1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)
    ends = (weights / peaks * 2**32).long().cumsum(1)
    drawn = torch.searchsorted(ends, (draws * ends[:, -1:]).long(), right=True)
    return drawn.clamp(max=weights.shape[1] - 1)


def _distances(points: Tensor, norms: Tensor, centres: Tensor) -> Tensor:
    """Squared distances `(M, N)` of points `(N, D)` to centres `(M, D)`."""
    products = torch.addmm(centres.square().sum(1, keepdim=True), centres, points.T, alpha=-2)
    return products.add_(norms).clamp_(min=0)


def _by_k(rows: Tensor, ks: Sequence[int], n_init: int) -> list[Tensor]:
    """Views `(R, k, N)` of `(M, N)`, for each of `ks`."""
    ends = list(accumulate(k * n_init for k in ks))
    return [rows[end - k * n_init : end].view(n_init, k, -1) for k, end in zip(ks, ends, strict=True)]


def _members(distances: Tensor, ks: Sequence[int], n_init: int) -> Tensor:
    """Whether a point belongs to a centre, `(M, N)`: to the nearest of its restart, and no cluster is empty."""
    nearest = [found.min(1) for found in _by_k(distances, ks, n_init)]
    members = torch.cat([_membership(labels, k) for (_, labels), k in zip(nearest, ks, strict=True)])
    if bool(members.any(1).all()):
        return members
    filled = [_fill_empty(labels, values, k) for (values, labels), k in zip(nearest, ks, strict=True)]
    return torch.cat([_membership(labels, k) for labels, k in zip(filled, ks, strict=True)])


def _fill_empty(labels: Tensor, distances: Tensor, k: int) -> Tensor:
    """Give each cluster without a point the one farthest from its own centre. Writes into `labels`."""
    empty = ~_membership(labels, k).any(1).view(len(labels), k)
    for restart, cluster in empty.nonzero().tolist():
        farthest = distances[restart].argmax()
        labels[restart, farthest] = cluster
        distances[restart, farthest] = 0
    return labels


def _membership(labels: Tensor, k: int) -> Tensor:
    """Whether a point is in a cluster, `(R * k, N)`, of labels `(R, N)`."""
    return (labels[:, None] == torch.arange(k, device=labels.device)[:, None]).flatten(0, 1)


def _means(points: Tensor, members: Tensor, centres: Tensor) -> Tensor:
    """Mean of each cluster's points, `(M, D)`; a cluster without a point keeps its centre."""
    weights = members.float()
    sizes = weights.sum(1, keepdim=True)
    return torch.where(sizes > 0, (weights @ points) / sizes.clamp(min=1), centres)


def _best(distances: Tensor) -> NDArray[np.int64]:
    """Labels of the restart with the least inertia."""
    nearest, labels = distances.min(1)
    best = nearest.double().sum(1).argmin()
    return np.asarray(labels[best].cpu().numpy(), dtype=np.int64)
