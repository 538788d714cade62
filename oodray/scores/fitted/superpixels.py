"""suplid: how the features around a superpixel's lie, times how sure the network is of it.

    suplid   LID_s (-LSE_s) of the superpixel s of the pixel, smoothed by a Gaussian

LID is the local intrinsic dimension of the mean feature of s among those of a coreset: with r_1 .. r_k its distances to
the k nearest, -k / sum log(r_i / r_k). LSE_s is the mean LSE. Features are divided by their length. The coreset holds,
of each class, the features of least LID among those of the class, each multiplied by that LID.

Udayangani, Erfani and Leckie, SupLID, CIKM 2025 (arXiv 2511.18816). Their coreset is of superpixels of 20 images, ours
of the vectors of the bank; of the distances of a superpixel they drop the least, which is 0 within the coreset alone:
ours are all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oodray.errors import ConfigError
from oodray.scores.fitted.bank import Bank
from oodray.scores.fitted.grid import rows_of
from oodray.scores.strips import taps

PIXELS = 200
"""Of a superpixel, about."""

COMPACTNESS, SIGMA = 1.0, 3.0
"""Weight of position against colour, and the Gaussian before, as published."""

NEIGHBOURS = 400
"""The k of LID, and the vectors of a class in the coreset."""

MOST_VECTORS = 5_000
"""Of a class, the first of the bank, which are a random sample of them: each is compared with all others."""

ROUNDING = 1e-12
"""A squared distance that is a smaller share of the squared lengths is 0, as far as products can tell."""

_BLOCK = 1024


@dataclass(frozen=True, eq=False)
class SupLidParameters:
    """The coreset.

    Attributes:
        vectors: directions of features times their LID, `(n, D)` float32.
        classes: of each, `(n,)` int64, ascending.
    """

    vectors: NDArray[np.float32]
    classes: NDArray[np.int64]


def fit_suplid(bank: Bank) -> SupLidParameters:
    """The coreset of a bank. A class of fewer than three vectors has none in it.

    Raises:
        ValueError: there are too few vectors, or they are all the same.
    """
    vectors, classes = [], []
    for of_class in np.unique(bank.classes):
        rows = np.flatnonzero(bank.classes == of_class)[:MOST_VECTORS]
        directions = _directions(torch.from_numpy(bank.features[rows]))
        dimensions = _dimensions(directions, directions, itself=True) if len(rows) > 2 else torch.empty(0)
        order = dimensions.argsort(stable=True)[:NEIGHBOURS]
        order = order[dimensions[order].isfinite()]
        vectors.append((directions[order] * dimensions[order, None]).float().numpy())
        classes.append(np.full(len(order), of_class, np.int64))
    found = SupLidParameters(np.concatenate(vectors), np.concatenate(classes)) if vectors else None
    if found is None or len(found.vectors) < 2:
        raise ValueError("too few different feature vectors of a class: they have no local dimension")
    return found


def local_dimensions(rows: Tensor, parameters: SupLidParameters) -> Tensor:
    """LID of features `(S, D)` among the coreset, `(S,)` float64."""
    return _dimensions(_directions(rows), torch.from_numpy(parameters.vectors).to(rows.device).double())


def suplid(
    energy: Tensor, features: Tensor, superpixels: NDArray[np.int64], parameters: SupLidParameters
) -> NDArray[np.float32]:
    """The score before it is smoothed, `(H, W)`.

    Args:
        energy: -LSE of every pixel, `(H, W)`.
        features: of the image, `(D, h, w)`.
        superpixels: of every pixel, `(H, W)`, from 0 on and without a gap.
        parameters: the coreset.
    """
    pixels = np.bincount(superpixels.ravel())
    mean_energy = np.bincount(superpixels.ravel(), weights=energy.cpu().numpy().ravel()) / pixels
    dimensions = local_dimensions(mean_features(features, superpixels), parameters).cpu().numpy()
    values: NDArray[np.float32] = (dimensions * mean_energy).astype(np.float32)[superpixels]
    return values


def mean_features(features: Tensor, superpixels: NDArray[np.int64]) -> Tensor:
    """Mean of the features of each superpixel, `(S, D)` float32: features are bilinear between their positions.

    They are never brought to the size of the image: a mean of what is bilinear is a weighted sum on the grid.
    """
    from scipy import sparse

    height, width = features.shape[1:]
    down, across = (
        [map_.numpy() for map_ in taps(old, new)] for old, new in zip((height, width), superpixels.shape, strict=True)
    )
    found = superpixels.ravel()
    count = int(found.max()) + 1
    weights = sparse.csr_matrix((count, height * width))
    for row, of_row in ((down[0], 1 - down[2]), (down[1], down[2])):
        for column, of_column in ((across[0], 1 - across[2]), (across[1], across[2])):
            at = (row[:, None] * width + column).ravel()
            share = np.multiply.outer(of_row, of_column).ravel()
            weights = weights + sparse.coo_matrix((share, (found, at)), weights.shape).tocsr()
    sums = weights @ rows_of(features).cpu().numpy().astype(np.float64)
    means = sums / np.bincount(found)[:, None]
    return torch.from_numpy(means.astype(np.float32)).to(features.device)


def superpixels_of(image: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The superpixel of every pixel, from 0 on and without a gap, of `(H, W, 3)` RGB: SLIC, one for `PIXELS` pixels.

    Raises:
        ConfigError: scikit-image is not there.
    """
    require_superpixels()
    from skimage.segmentation import slic

    height, width = image.shape[:2]
    found = slic(
        image,
        n_segments=max(1, height * width // PIXELS),
        compactness=COMPACTNESS,
        sigma=SIGMA,
        enforce_connectivity=False,
        start_label=0,
    )
    ids: NDArray[np.int64] = np.unique(found, return_inverse=True)[1].reshape(found.shape).astype(np.int64)
    return ids


def require_superpixels() -> None:
    """Whether superpixels can be made.

    Raises:
        ConfigError: scikit-image is not there.
    """
    from importlib.util import find_spec

    if find_spec("skimage") is None:
        raise ConfigError("the score suplid needs scikit-image: pip install 'oodray[slic]'")


def _directions(rows: Tensor) -> Tensor:
    f = rows.double()
    sizes = f.norm(dim=1, keepdim=True)
    directions: Tensor = f / sizes.where(sizes > 0, 1.0)
    return directions


def _dimensions(rows: Tensor, vectors: Tensor, *, itself: bool = False) -> Tensor:
    """LID of each row among vectors; infinite where all distances are one.

    Args:
        rows: `(S, D)` float64.
        vectors: `(n, D)` float64.
        itself: whether the rows are the vectors, and are not to be found by themselves.
    """
    k = min(NEIGHBOURS, len(vectors) - int(itself))
    norms = vectors.square().sum(1)
    found = []
    for block in torch.split(rows, _BLOCK):
        sizes = norms + block.square().sum(1, keepdim=True)
        squared = sizes - 2 * block @ vectors.T
        squared = squared.where(squared > ROUNDING * sizes, 0.0)
        nearest = squared.topk(k + int(itself), dim=1, largest=False).values[:, int(itself) :]
        # log r_i / r_k, of squares.
        logs = (nearest.log() - nearest[:, -1:].log()) / 2
        sums = logs.where(nearest[:, -1:] > 0, 0.0).sum(1)
        found.append(torch.where(sums < 0, -k / sums, torch.inf))
    return torch.cat(found)
