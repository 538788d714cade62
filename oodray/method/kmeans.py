"""K-Means of one image's features (paper, section 3.2): one function, three backends.

`torch` is ours and runs wherever torch does, `cuml` is that of RAPIDS on a GPU, `sklearn` is the reference
that the tests compare with. All get the same points, centred and scaled, and stop by the same criterion.
Clusters are numbered by first appearance, whatever the order in which a backend found them.
"""

from __future__ import annotations

import hashlib
import importlib
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from oodray.errors import ConfigError, ImageError
from oodray.method.lloyd import lloyd

MAX_CLUSTERS = 256  # ids are uint8


@torch.no_grad()
def kmeans(
    points: Tensor,
    k: int,
    *,
    seed: int,
    n_init: int = 4,
    max_iter: int = 100,
    tol: float = 1e-4,
    backend: str = "torch",
) -> Tensor:
    """Cluster points by K-Means: greedy k-means++ seeding, Lloyd's iterations, the best of `n_init` restarts.

    The same points, seed, backend, device kind and number of threads give the same labels.

    Args:
        points: `(N, D)`, any floating type, on any device; computed in float32.
        k: clusters wanted, 1..256. Fewer come back where there are fewer distinct points.
        seed: of every random draw, see `kmeans_seed`.
        n_init: restarts, of which the one with the least inertia is taken.
        max_iter: Lloyd iterations at most.
        tol: stop when the squared shift of the centres is at most `tol` times the features' mean variance.
        backend: "torch", "sklearn" or "cuml"; `resolve_backend` makes one of them of "auto".

    Returns:
        `(N,)` uint8 on the CPU: ids from 0 in order of first appearance, none left out.

    Raises:
        ValueError: an argument is out of range, or a point is not finite in float32.
        ConfigError: the backend is not installed.

    >>> kmeans(torch.tensor([[9.0], [1.0], [1.1], [9.2]]), 2, seed=0).tolist()
    [0, 1, 1, 0]
    """
    if points.ndim != 2:
        raise ValueError(f"points must be (N, D), not {tuple(points.shape)}")
    settings: dict[str, Any] = {"n_init": n_init, "max_iter": max_iter, "tol": tol, "backend": backend}
    [[labels]] = kmeans_of_each(points[None], [k], [[seed]], **settings)
    return labels


@torch.no_grad()
def kmeans_of_each(
    points: Tensor,
    ks: Sequence[int],
    seeds: Sequence[Sequence[int]],
    *,
    n_init: int = 4,
    max_iter: int = 100,
    tol: float = 1e-4,
    backend: str = "torch",
) -> list[list[Tensor]]:
    """`kmeans` of several images' points `(B, N, D)`, for several k each, by the torch backend at once.

    On a CPU it takes all k of one image at once, on a GPU all images too. `seeds` has one for each of `ks`, for each
    image. Clustering other k or other images in the same call can change a rounding, nothing else.

    >>> points = torch.tensor([[[9.0], [1.0], [1.5], [9.2], [5.0]]])
    >>> [[labels.tolist() for labels in of_image] for of_image in kmeans_of_each(points, [2, 3], [[0, 1]])]
    [[[0, 1, 1, 0, 1], [0, 1, 1, 0, 2]]]
    """
    _check_points(points)
    for of_image in seeds:
        for k, seed in zip(ks, of_image, strict=True):
            _check_settings(k, seed, n_init, max_iter, backend)
    cluster = partial(_BACKENDS[backend], n_init=n_init, max_iter=max_iter, tol=tol)
    with_many = [index for index, one in enumerate(points) if _few_distinct(one, max(ks)) is None]
    found: dict[int, list[NDArray[Any]]] = {}
    # A GPU does all images in the time of one. A CPU takes half as long for one after the other, whose numbers stay
    # in its caches.
    groups = [with_many] if points.is_cuda else [[index] for index in with_many]
    for group in filter(None, groups):
        # What is all of them, as a single image is, needs no copy.
        together = points if len(group) == len(points) else points[group]
        clustered = cluster(_standardised(together), ks, [seeds[index] for index in group])
        found.update(zip(group, clustered, strict=True))
    for index in set(range(len(points))) - found.keys():
        found[index] = _cluster_few_distinct(points[index], ks, seeds[index], cluster)
    return [[torch.from_numpy(_by_first_appearance(labels)) for labels in found[index]] for index in sorted(found)]


@torch.no_grad()
def cluster_features(
    features: Sequence[Tensor],
    ks: Sequence[int],
    *,
    seeds: Sequence[Sequence[int]],
    normalize: bool = False,
    n_init: int = 4,
    backend: str = "torch",
) -> list[list[NDArray[np.uint8]]]:
    """Cluster the positions of each image's feature map, once for each of `ks`.

    Args:
        features: for each image `(D, h, w)`, all of one shape.
        ks: clusters wanted.
        seeds: for each image, one for each of `ks`, see `kmeans_seed`.
        normalize: scale the vector of every position to length 1 first; zero vectors stay zero.
        n_init: restarts, as for `kmeans`.
        backend: as for `kmeans`.

    Returns:
        For each image and each of `ks`, `(h, w)` uint8 ids, numbered in raster order.

    Raises:
        ImageError: a feature is NaN or infinite.
    """
    shapes = {tuple(of_image.shape) for of_image in features}
    if len(shapes) != 1 or features[0].ndim != 3:
        raise ValueError(f"features must be (D, h, w), of one shape, not {sorted(shapes)}")
    for of_image in features:
        _require_finite(of_image)
    points = torch.stack(list(features)).flatten(2).transpose(1, 2)
    if normalize:
        # Rounded to float32 after, so that parallel vectors become equal ones.
        points = F.normalize(points.double(), dim=2).float()
    found = kmeans_of_each(points, ks, seeds, n_init=n_init, backend=backend)
    return [[labels.numpy().reshape(features[0].shape[1:]) for labels in of_image] for of_image in found]


def _require_finite(features: Tensor) -> None:
    if not _all_finite(features):
        broken = features.numel() - int(features.isfinite().sum())
        raise ImageError(
            f"{broken} of {features.numel()} features of the network are NaN or infinite: "
            "run the network in float32, and check the image and the checkpoint if that does not help"
        )


def kmeans_seed(seed: int, image_id: str, k: int) -> int:
    """Seed of one image's K-Means, 0..2**32-1: a hash, so that nothing else matters to it.

    >>> kmeans_seed(0, "road_0001", 5)
    3471563933
    """
    digest = hashlib.blake2b(f"{seed}/{k}/{image_id}".encode(), digest_size=4)
    return int.from_bytes(digest.digest(), "big")


def resolve_backend(name: str, device_type: str) -> str:
    """Make a backend of a name: "auto" is cuml on "cuda" where it can be imported, else torch.

    Raises:
        ConfigError: the name is unknown, or cuML is asked for and cannot be imported.

    >>> resolve_backend("auto", "cpu")
    'torch'
    """
    if name == "auto":
        return "cuml" if device_type == "cuda" and _has_cuml() else "torch"
    if name not in _BACKENDS:
        raise ConfigError(f"unknown K-Means backend {name!r}: choose one of auto, {', '.join(_BACKENDS)}")
    if name == "cuml":
        _import_cuml()
    return name


def _has_cuml() -> bool:
    try:
        _import_cuml()
    except ConfigError:
        return False
    return True


def _import_cuml() -> Any:
    try:
        return importlib.import_module("cuml")
    except Exception as error:  # beside ImportError, RAPIDS raises many kinds where it finds no GPU or driver
        raise ConfigError(
            f"K-Means backend 'cuml' cannot be imported ({type(error).__name__}: {error}): "
            "install oodray[cuml] on a machine with an NVIDIA GPU, or choose the backend torch"
        ) from error


def _check_points(points: Tensor) -> None:
    if points.ndim != 3 or not points.numel():
        raise ValueError(f"points must be (B, N, D) with at least one number, not {tuple(points.shape)}")
    if not _all_finite(points.float()):
        raise ValueError("points must be finite in float32; some are NaN, infinite or too large")


def _all_finite(values: Tensor) -> bool:
    """In one pass, which makes no mask: the extremes of values with a NaN are NaN."""
    return all(math.isfinite(extreme) for extreme in torch.stack(values.aminmax()).tolist())


def _check_settings(k: int, seed: int, n_init: int, max_iter: int, backend: str) -> None:
    if not 1 <= k <= MAX_CLUSTERS:
        raise ValueError(f"k must lie within 1..{MAX_CLUSTERS}, not {k}")
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed must lie within 0..2**32-1, not {seed}; see kmeans_seed")
    if n_init < 1 or max_iter < 1:
        raise ValueError(f"n_init and max_iter must be at least 1, not {n_init} and {max_iter}")
    if backend not in _BACKENDS:
        raise ValueError(f"unknown backend {backend!r}, known: {', '.join(_BACKENDS)}; see resolve_backend")


def _few_distinct(points: Tensor, k: int) -> NDArray[np.int64] | None:
    """Labels where there are at most k distinct points, each its own cluster; else None.

    That is the optimum, which rounding in the distances between equal points could miss.
    """
    if len(points) > 2 * k and _few_distinct(points[: 2 * k], k) is None:
        return None  # the first few points settle the usual case
    labels = torch.full((len(points),), -1, device=points.device)
    for cluster in range(k):
        first = int((labels < 0).int().argmax())
        labels[(points == points[first]).all(1)] = cluster
        if bool((labels >= 0).all()):
            return np.asarray(labels.cpu().numpy(), dtype=np.int64)
    return None


def _cluster_few_distinct(
    points: Tensor, ks: Sequence[int], seeds: Sequence[int], cluster: Callable[..., list[list[NDArray[Any]]]]
) -> list[NDArray[Any]]:
    """For each of `ks`, labels of one image's `(N, D)` points, of which there are few distinct for the largest k."""
    exact = [_few_distinct(points, k) for k in ks]
    left = [index for index, labels in enumerate(exact) if labels is None]
    found: Iterator[NDArray[Any]] = iter(())
    if left:
        [clustered] = cluster(_standardised(points[None]), [ks[i] for i in left], [[seeds[i] for i in left]])
        found = iter(clustered)
    return [next(found) if labels is None else labels for labels in exact]


def _standardised(points: Tensor) -> Tensor:
    """Points `(B, N, D)` in float32, those of each image with mean 0 and a mean variance of 1.

    Centring keeps ||x||² - 2xc + ||c||² accurate. The scale keeps squares inside float32, and makes `tol` the
    same to every backend, be it relative to the variance (scikit-learn) or absolute (cuML).
    """
    # A power of 2 first, which rounds nothing, and keeps the sums inside float32. In two halves, as the whole of it
    # can lie outside.
    peaks = torch.maximum(points.amax((1, 2)), -points.amin((1, 2)))
    _, exponents = torch.frexp(peaks.double())
    halves = exponents // 2
    scaled = points.double() if points.dtype == torch.float64 else points.float()
    for part in (halves, exponents - halves):
        scaled = scaled * torch.ldexp(torch.ones_like(peaks, dtype=scaled.dtype), -part)[:, None, None]
    centred = (scaled - scaled.mean(1, keepdim=True)).float().contiguous()
    spread = centred.square().mean((1, 2), keepdim=True).sqrt()
    return centred.div_(torch.where(spread > 0, spread, 1.0))


def _by_first_appearance(labels: NDArray[Any]) -> NDArray[np.uint8]:
    """Renumber clusters from 0 in the order in which the labels first name them."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    ids = np.empty(len(first), np.uint8)
    ids[np.argsort(first)] = np.arange(len(first))
    return np.asarray(ids[inverse], dtype=np.uint8)


def _cluster_sklearn(
    points: Tensor, ks: Sequence[int], seeds: Sequence[Sequence[int]], *, n_init: int, max_iter: int, tol: float
) -> list[list[NDArray[np.int32]]]:
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    def cluster(of_image: NDArray[np.float32], k: int, seed: int) -> NDArray[np.int32]:
        model = KMeans(k, n_init=n_init, max_iter=max_iter, tol=tol, random_state=seed)
        return np.asarray(model.fit_predict(of_image), dtype=np.int32)

    with warnings.catch_warnings():
        # Fewer clusters than k is a result of ours, not a mistake.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return [
            [cluster(of_image.cpu().numpy(), k, seed) for k, seed in zip(ks, own, strict=True)]
            for of_image, own in zip(points, seeds, strict=True)
        ]


def _cluster_cuml(
    points: Tensor, ks: Sequence[int], seeds: Sequence[Sequence[int]], *, n_init: int, max_iter: int, tol: float
) -> list[list[NDArray[np.int32]]]:
    cuml = _import_cuml()

    def cluster(of_image: Tensor, k: int, seed: int) -> NDArray[np.int32]:
        model = cuml.KMeans(
            n_clusters=k,
            init="k-means++",
            n_init=n_init,
            max_iter=max_iter,
            tol=tol,
            random_state=seed,
            output_type="numpy",
        )
        where = of_image if of_image.is_cuda else of_image.numpy()
        return np.asarray(model.fit_predict(where), dtype=np.int32)

    return [
        [cluster(of_image, k, seed) for k, seed in zip(ks, own, strict=True)]
        for of_image, own in zip(points, seeds, strict=True)
    ]


_BACKENDS: dict[str, Callable[..., list[list[NDArray[Any]]]]] = {
    "torch": lloyd,
    "sklearn": _cluster_sklearn,
    "cuml": _cluster_cuml,
}
