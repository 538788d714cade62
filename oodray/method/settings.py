"""The settings of the method, resolved: what is done with every image."""

from __future__ import annotations

from dataclasses import dataclass

from oodray.config import RunConfig
from oodray.metrics.tally import MAX_BITS, snap_threshold
from oodray.scores.registry import FitChoice, are_pixel_scores


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
        scores: the pixel scores to compute, see `oodray.scores.registry`.
        batch_size: images of one size that the network sees at once.
        confidence_bits: of the keys that the clusters' tallies count by.
        regions: what pixels are judged by, see `oodray.method.regions`: "kmeans", "slic" or "grid".
        exact_counts: count every key of images without a label, too, where 256 bins of a score would do.
        keep_maps: scores whose maps are kept in the results, with those of the classes.
        blur: whether maps of pixel scores are blurred, see `oodray.scores.blur`.
        refine: how maps of pixel scores are refined, see `oodray.scores.refine`; None for not at all.
        id_quality: whether the network is measured on its own classes, see `oodray.metrics.id_quality`.
        search_path: the folder to import scores of yours from.
        fit: that scores are made of.
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
    regions: str = "kmeans"
    exact_counts: bool = True
    keep_maps: tuple[str, ...] = ()
    blur: bool = False
    refine: str | None = None
    id_quality: bool = False
    search_path: str | None = None
    fit: FitChoice | None = None

    @classmethod
    def of(cls, config: RunConfig, search_path: str | None = None) -> MethodSettings:
        """Those of a run whose tau and K-Means backend have been chosen."""
        assert config.tau is not None, "tau is chosen before"
        return cls(
            k=config.k,
            ks=tuple(sorted({config.k, *config.sweep_k})),
            tau=snap_threshold(config.tau, config.confidence_bits),
            ood_ratio=config.ood_ratio,
            seed=config.seed,
            normalize_features=config.normalize_features,
            kmeans_backend=config.kmeans_backend,
            n_init=config.n_init,
            scores=are_pixel_scores(config.scores),
            batch_size=config.batch_size,
            confidence_bits=config.confidence_bits,
            regions=config.regions,
            keep_maps=config.keep_maps,
            exact_counts=config.exact_counts or bool(config.sweep_k),
            blur=config.blur,
            refine=config.refine,
            id_quality=config.id_quality,
            search_path=search_path,
            fit=None if config.fit is None else FitChoice(config.fit, config.knn_metric, config.reference_gap or 0),
        )
