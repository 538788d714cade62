"""The settings of the method, resolved: what is done with every image."""

from __future__ import annotations

from dataclasses import dataclass

from oodray.metrics.tally import MAX_BITS


@dataclass(frozen=True)
class MethodSettings:
    """What is done with every image; see `oodray.config.RunConfig` for the meaning of each setting.

    Attributes:
        k: the number of clusters that gives the mask.
        ks: all numbers of clusters, ascending; `k` is one of them.
        tau: a value that the tallies serve exactly.
        ood_ratio: T.
        seed: of the K-Means.
        normalize_features: L2-normalise features before clustering.
        kmeans_backend: never `"auto"`.
        n_init: restarts of the K-Means.
        scores: the pixel scores to compute.
        batch_size: images of one size that the network sees at once.
        confidence_bits: of the keys that the clusters' tallies count by.
    """

    k: int
    ks: tuple[int, ...]
    tau: float
    ood_ratio: float
    seed: int
    normalize_features: bool
    kmeans_backend: str
    n_init: int
    scores: tuple[str, ...]
    batch_size: int
    confidence_bits: int = MAX_BITS
