"""The nearest features of other images, for every position of every image of a set: what distances are made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

NEAREST = 10
QUERIES = 512


@dataclass(frozen=True, eq=False)
class Searched:
    """What was found.

    Attributes:
        distances: `(images, h, w, NEAREST)` float32, ascending.
        places: of the vectors found, in the bank.
        bank: `(n, D)`.
        images: of the bank's vectors.
        positions: of the bank's vectors, on the grid.
    """

    distances: NDArray[np.float32]
    places: NDArray[np.int64]
    bank: NDArray[np.float32]
    images: NDArray[np.int64]
    positions: NDArray[np.int64]

    def mean(self, k: int = 3) -> NDArray[np.float32]:
        """Mean distance to the k nearest, `(images, h, w)`."""
        return np.asarray(self.distances[..., :k].mean(-1))

    def local_scale(self) -> NDArray[np.float32]:
        """Of every vector of the bank its own mean distance to its nearest of other images."""
        flat = self.distances.reshape(len(self.distances), -1, NEAREST).mean(-1)
        return np.asarray(flat[self.images, self.positions])


def search(  # noqa: PLR0917
    features: NDArray[np.floating],
    size: int,
    gap: int = 0,
    classes: NDArray[np.integer] | None = None,
    seed: int = 0,
    among: NDArray[np.intp] | None = None,
    groups: NDArray[np.integer] | None = None,
    *,
    normalize: bool = False,
) -> Searched:
    """Search the features of a set, `(images, D, h, w)`, among a random sample of them.

    Args:
        features: of all images, in their order.
        size: of the sample.
        gap: how many images before and after one are left out with it.
        classes: `(images, h, w)`, to search among vectors of the same class alone; None for all.
        seed: of the sample.
        among: images that the sample is drawn from; None for all.
        groups: of the images, `(images,)`: those of an image's own group are left out, too.
        normalize: bring every vector to length 1 first, so that distances are of directions.
    """
    images, depth, height, width = features.shape
    rows = np.ascontiguousarray(features.astype(np.float32).transpose(0, 2, 3, 1)).reshape(images, -1, depth)
    if normalize:
        rows /= np.linalg.norm(rows, axis=-1, keepdims=True).clip(1e-12)
    drawn_from = np.arange(images) if among is None else among
    candidates = np.arange(len(drawn_from) * height * width)
    chosen = np.random.default_rng(seed).permutation(candidates)[:size]
    of_image, at = drawn_from[chosen // (height * width)], chosen % (height * width)
    bank = torch.from_numpy(rows[of_image, at])
    norms = bank.square().sum(1)
    of_bank = torch.from_numpy(of_image)
    known = None if classes is None else torch.from_numpy(classes.reshape(images, -1)[of_image, at].astype(np.int64))
    distances = np.empty((images, height * width, NEAREST), np.float32)
    places = np.empty((images, height * width, NEAREST), np.int64)
    for image in range(images):
        near = (of_bank - image).abs() <= gap
        if groups is not None:
            near |= torch.from_numpy(groups[of_image] == groups[image])
        for first in range(0, height * width, QUERIES):
            block = torch.from_numpy(rows[image, first : first + QUERIES])
            table = torch.addmm(norms, block, bank.T, alpha=-2).masked_fill_(near, torch.inf)
            if known is not None and classes is not None:
                own = torch.from_numpy(classes[image].reshape(-1)[first : first + QUERIES].astype(np.int64))
                same = own[:, None] == known
                table = table.where(same | ~same.any(1, keepdim=True), 1e12)
            values, found = table.topk(NEAREST, dim=1, largest=False)
            exact = (values + block.square().sum(1, keepdim=True)).clamp(min=0).sqrt()
            distances[image, first : first + QUERIES] = exact.clamp(max=1e5).numpy()
            places[image, first : first + QUERIES] = found.numpy()
    shape = (images, height, width, NEAREST)
    return Searched(distances.reshape(shape), places.reshape(shape), bank.numpy(), of_image, at)
