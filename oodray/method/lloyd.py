"""K-Means in torch: greedy k-means++ seeding and Lloyd's iterations; all images, all K, all restarts at once.

In the shapes, B images of one size have N points of D features each. Each of R restarts of a K draws its centres from
L candidates. The M centres of all restarts and K lie in one matrix per image, so that one product gives every
distance, and one every mean.
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
    points: Tensor, ks: Sequence[int], seeds: Sequence[Sequence[int]], *, n_init: int, max_iter: int, tol: float
) -> list[list[NDArray[np.int64]]]:
    """Labels of the best of `n_init` restarts, for each image and each of `ks`.

    Only centres whose cluster has changed are moved, and only distances to centres that have moved are computed.

    Args:
        points: `(B, N, D)` float32, on any device, about centred and scaled: more distinct ones than any k.
        ks: clusters.
        seeds: of the draws of the seeding: for each image, one for each of `ks`.
        n_init: restarts R, of which the one with the least inertia is taken.
        max_iter: iterations at most.
        tol: a restart stops when the squared shift of its centres is at most this.

    Returns:
        For each image and each of `ks`, `(N,)` int64 on the CPU, 0..k-1 in no particular order.

    >>> points = torch.tensor([[[-1.0], [-1.1], [1.2]]])
    >>> [[(left, _, right)]] = lloyd(points, [2], [[0]], n_init=2, max_iter=10, tol=1e-4)
    >>> bool(left != right)
    True
    """
    norms = points.square().sum(2)
    centres, distances = _seed_centres(points, norms, ks, seeds, n_init)
    # Which restart a centre belongs to, (M, restarts of all K), as numbers for a product: on a GPU scattered sums
    # have no fixed order of addition. So in _means.
    restarts = torch.repeat_interleave(torch.tensor(ks).repeat_interleave(n_init)).to(points.device)
    of_restart = torch.nn.functional.one_hot(restarts).float()
    running = torch.ones((len(points), of_restart.shape[1]), dtype=torch.bool, device=points.device)
    members = torch.zeros_like(distances, dtype=torch.bool)
    for _ in range(max_iter):
        before, members = members, _members(distances, ks, n_init)
        changed = _any_of(members != before) & running[:, restarts]
        rows = changed.any(0).nonzero()[:, 0]
        if not len(rows):
            break
        old = centres[:, rows]
        moved = torch.where(changed[:, rows, None], _means(points, members[:, rows], old), old)
        running &= (moved - old).square().sum(2) @ of_restart[rows] > tol
        centres[:, rows] = moved
        distances[:, rows] = _distances(points, norms, moved)
    best = [_best(found) for found in _by_k(distances, ks, n_init)]
    return [[labels[image] for labels in best] for image in range(len(points))]


def _seed_centres(
    points: Tensor, norms: Tensor, ks: Sequence[int], seeds: Sequence[Sequence[int]], n_init: int
) -> tuple[Tensor, Tensor]:
    """Greedy k-means++: `(B, M, D)` centres that are points, and the distances `(B, M, N)` of all points to them.

    Each next centre is the best of 2 + log(k) candidates (as in scikit-learn), drawn with probability
    proportional to their squared distance to the centres so far.
    """
    images = torch.arange(len(points), device=points.device)[:, None]
    draws = [_draws(k, [of_image[index] for of_image in seeds], n_init).to(points.device) for index, k in enumerate(ks)]
    closest = [torch.empty(0) for _ in ks]
    chosen: list[list[Tensor]] = [[] for _ in ks]
    distances: list[list[Tensor]] = [[] for _ in ks]
    for step in range(max(ks)):
        unfinished = [index for index, k in enumerate(ks) if k > step]
        candidates = [
            _draw_proportionally(closest[index], draws[index][step])
            if step
            else (draws[index][0, :, :, :1] * points.shape[1]).long()
            for index in unfinished
        ]
        rows = torch.cat([found.flatten(1) for found in candidates], 1)
        reached = _distances(points, norms, points[images, rows])
        parts = torch.split(reached, [found[0].numel() for found in candidates], 1)
        for index, found, part in zip(unfinished, candidates, parts, strict=True):
            there = part.view(*found.shape, -1)
            nearer = torch.minimum(closest[index][:, :, None], there) if step else there
            best = nearer.sum(3).argmin(2)
            closest[index] = _pick(nearer, best)
            distances[index].append(_pick(there, best))
            chosen[index].append(_pick(found[..., None], best))
    rows = torch.cat([torch.cat(found, 2).flatten(1) for found in chosen], 1)
    return points[images, rows], torch.cat([torch.stack(found, 2).flatten(1, 2) for found in distances], 1)


def _pick(values: Tensor, which: Tensor) -> Tensor:
    """Of `(B, R, L, N)` one of L, as `(B, R)` indices say: `(B, R, N)`."""
    firsts = torch.arange(which.numel(), device=which.device).view_as(which) * values.shape[2]
    return values.flatten(0, 2)[firsts + which]


def _draws(k: int, seeds: Sequence[int], n_init: int) -> Tensor:
    """Uniform numbers `(k, B, R, L)`, drawn on the CPU, so that a GPU starts from the same ones."""
    shape = (k, n_init, 2 + int(math.log(k)))
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return torch.stack([torch.rand(shape, generator=one, dtype=torch.float64) for one in generators], 1)


def _draw_proportionally(weights: Tensor, draws: Tensor) -> Tensor:
    """Indices `(B, R, L)` with probability proportional to `weights` `(B, R, N)`, by uniform `draws` `(B, R, L)`."""
    # Integers add up exactly, hence the same in every run of a GPU, and no weight of 0 is ever drawn.
    peaks = weights.amax(2, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)
    ends = (weights / peaks * 2**32).long().cumsum(2)
    drawn = torch.searchsorted(ends, (draws * ends[:, :, -1:]).long(), right=True)
    return drawn.clamp(max=weights.shape[2] - 1)


def _distances(points: Tensor, norms: Tensor, centres: Tensor) -> Tensor:
    """Squared distances `(B, M, N)` of points `(B, N, D)` to centres `(B, M, D)`."""
    squares = centres.square().sum(2, keepdim=True)
    if len(points) == 1:  # a plain product is a third faster on a CPU than a batch of one
        products = torch.addmm(squares[0], centres[0], points[0].T, alpha=-2)[None]
    else:
        products = torch.baddbmm(squares, centres, points.transpose(1, 2), alpha=-2)
    return products.add_(norms[:, None]).clamp_(min=0)


def _by_k(rows: Tensor, ks: Sequence[int], n_init: int) -> list[Tensor]:
    """Views `(B, R, k, N)` of `(B, M, N)`, for each of `ks`."""
    ends = list(accumulate(k * n_init for k in ks))
    return [rows[:, end - k * n_init : end].view(len(rows), n_init, k, -1) for k, end in zip(ks, ends, strict=True)]


def _members(distances: Tensor, ks: Sequence[int], n_init: int) -> Tensor:
    """Whether a point belongs to a centre, `(B, M, N)`: to the nearest of its restart, and no cluster is empty."""
    by_k = _by_k(distances, ks, n_init)
    # Comparing with the least distance is many times faster than looking for its place.
    members = torch.cat([(found == found.amin(2, keepdim=True)).flatten(1, 2) for found in by_k], 1)
    sizes = members.view(torch.uint8).sum(2, dtype=torch.int32)
    once_each = distances.shape[0] * distances.shape[2] * len(ks) * n_init
    least, total = torch.stack([sizes.amin(), sizes.sum(dtype=torch.int32)]).tolist()
    if least and total == once_each:
        return members
    # Two centres at the same distance, or one with no point.
    nearest = [found.min(2) for found in by_k]
    filled = [_fill_empty(labels, values, k) for (values, labels), k in zip(nearest, ks, strict=True)]
    return torch.cat([_membership(labels, k).flatten(1, 2) for labels, k in zip(filled, ks, strict=True)], 1)


def _fill_empty(labels: Tensor, distances: Tensor, k: int) -> Tensor:
    """Give each cluster without a point the one farthest from its own centre. Writes into `labels`."""
    empty = ~_membership(labels, k).any(3)
    for image, restart, cluster in empty.nonzero().tolist():
        farthest = distances[image, restart].argmax()
        labels[image, restart, farthest] = cluster
        distances[image, restart, farthest] = 0
    return labels


def _membership(labels: Tensor, k: int) -> Tensor:
    """Whether a point is in a cluster, `(B, R, k, N)`, of labels `(B, R, N)`."""
    return labels[:, :, None] == torch.arange(k, device=labels.device)[:, None]


def _any_of(rows: Tensor) -> Tensor:
    """`rows.any(2)` of booleans, which torch takes twenty times as long for on a CPU."""
    return rows.view(torch.uint8).amax(2).bool()


def _means(points: Tensor, members: Tensor, centres: Tensor) -> Tensor:
    """Mean of each cluster's points, `(B, M, D)`; a cluster without a point keeps its centre."""
    weights = members.view(torch.uint8).float()
    sizes = weights.sum(2, keepdim=True)
    sums = (weights[0] @ points[0])[None] if len(points) == 1 else weights @ points
    return torch.where(sizes > 0, sums / sizes.clamp(min=1), centres)


def _best(distances: Tensor) -> NDArray[np.int64]:
    """Labels `(B, N)` of each image's restart with the least inertia, of `(B, R, k, N)`."""
    nearest, labels = distances.min(2)
    best = nearest.double().sum(2).argmin(1)
    images = torch.arange(len(labels), device=labels.device)
    return np.asarray(labels[images, best].cpu().numpy(), dtype=np.int64)
