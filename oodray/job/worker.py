"""The second stage: network, K-Means and pixel scores, all that happens where the logits are.

What it sends on is `SegmentedImage` in `oodray.job.units`: confidence, cluster ids and pixel scores.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from oodray.errors import ImageError
from oodray.job.attempts import Guard, unguarded
from oodray.job.gathering import Gathering
from oodray.job.units import ClusterMap, Confidences, DecodedImage, ScoreMap, SegmentedImage
from oodray.method.settings import MethodSettings
from oodray.metrics.id_quality import ConfidenceTally
from oodray.metrics.tally import IGNORE
from oodray.models.segmenter import Segmentation, Segmenter, check_segmentations, segment_named
from oodray.records import extended
from oodray.scores.blur import blurred
from oodray.scores.registry import pixel_scores
from oodray.scores.score import Head, ImageFeatures, PixelScore

if TYPE_CHECKING:
    from oodray.scores.fitted.novelty import LeftOut
    from oodray.scores.maps import PixelMaps


@dataclass(frozen=True)
class Pending:
    """A segmented image, which may not have been clustered yet.

    Attributes:
        image_id: its name in the dataset.
        get: gives it, and waits for it.
    """

    image_id: str
    get: Callable[[], SegmentedImage]

    @classmethod
    def of(cls, image: SegmentedImage) -> Pending:
        """One that is done."""
        return cls(image.image_id, lambda: image)


class Worker:
    """Holds a network. Logits and features never leave it.

    One image that cannot be processed never takes another one with it: it carries an error and passes on.

    Args:
        segmenter: the network.
        settings: of the method.
        guard: of the work on images.
        gathering: what is gathered of the images for a fit; None for a run.
        beside: a thread that clusters a batch while the network sees the next one; None clusters it before, and so
            does a fit. A guard does not watch over that thread.
        left_out: of an image, by its id, the images whose vectors in the bank of a fit are left out.

    Raises:
        ConfigError: a score to fit needs what the network does not offer.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        settings: MethodSettings,
        guard: Guard | None = None,
        gathering: Gathering | None = None,
        *,
        beside: ThreadPoolExecutor | None = None,
        left_out: LeftOut | None = None,
    ) -> None:
        self.segmenter, self.settings = segmenter, settings
        self.gatherer = None if gathering is None else gathering.gatherer(segmenter)
        self.scores = pixel_scores(settings.scores, settings.search_path, settings.fit, left_out)
        self.guard = guard or unguarded()
        self._beside = beside if gathering is None else None
        self._clustering: Future[list[SegmentedImage]] | None = None

    def __call__(self, images: list[DecodedImage]) -> list[SegmentedImage]:
        """The images of a unit, segmented and clustered, in order; images of one size share a batch."""
        return [pending.get() for pending in self.begin(images)]

    def begin(self, images: list[DecodedImage]) -> list[Pending]:
        """As a call, but the images may still be clustered when this returns."""
        begun = {image.image_id: Pending.of(extended(SegmentedImage, image)) for image in images if image.error}
        healthy = [image for image in images if image.error is None]
        if healthy:
            for pending in self.guard.run("segment and cluster", healthy, self._segment, _given_up, self._batches):
                begun[pending.image_id] = pending
        found = [begun[image.image_id] for image in images]
        if self.gatherer is not None:
            self.gatherer.write([pending.get() for pending in found])
        return found

    def _batches(self, images: list[DecodedImage]) -> Iterator[list[DecodedImage]]:
        for _, same_size in groupby(sorted(images, key=_size), key=_size):
            group = list(same_size)
            for start in range(0, len(group), self.settings.batch_size):
                yield group[start : start + self.settings.batch_size]

    def _segment(self, images: list[DecodedImage]) -> list[Pending]:
        start = time.perf_counter()
        try:
            segmentations = segment_images(self.segmenter, images)
        except Exception as error:
            failure = failure_of("the network failed", error)
        else:
            seconds = (time.perf_counter() - start) / len(images)
            return self._cluster(images, segmentations, seconds)
        # Not in the handler above, which keeps the memory of the failed batch.
        if len(images) == 1:
            return [_given_up(images[0], failure)]
        return [pending for image in images for pending in self._segment([image])]

    def _cluster(
        self, images: list[DecodedImage], segmentations: list[Segmentation], seconds_segment: float
    ) -> list[Pending]:
        def cluster() -> list[SegmentedImage]:
            found = self.results(images, segmentations, seconds_segment)
            return [replace(image, seconds_segment=seconds_segment) for image in found]

        if self._beside is None:
            return [Pending.of(image) for image in cluster()]
        if self._clustering is not None:
            # The logits of one batch, and no more, wait in memory while the network makes others.
            wait([self._clustering])
        self._clustering = clustering = self._beside.submit(cluster)
        return [
            Pending(image.image_id, lambda index=index: clustering.result()[index])  # type: ignore[misc]
            for index, image in enumerate(images)
        ]

    def results(
        self,
        images: list[DecodedImage],
        segmentations: list[Segmentation],
        seconds_segment: float,  # noqa: ARG002
    ) -> list[SegmentedImage]:
        """What is made of a batch of which the network took so many seconds for each image."""
        found = cluster_images(images, segmentations, self.settings, self.scores, head_of(self.segmenter))
        if self.gatherer is not None:
            found = [self._gathered(*pair) for pair in zip(found, segmentations, strict=True)]
        return found

    def _gathered(self, image: SegmentedImage, segmentation: Segmentation) -> SegmentedImage:
        assert self.gatherer is not None, "asked for where there is one"
        if image.error is not None:
            return image
        try:
            self.gatherer.add(image, segmentation)
        except Exception as error:
            return replace(image, error=failure_of("gathering statistics failed", error))
        return image


def segment_images(segmenter: Segmenter, images: list[DecodedImage]) -> list[Segmentation]:
    """What a network says of images of one size.

    Raises:
        ImageError: it does not keep to the protocol of a segmenter.
    """
    # Copies: a network may write to its images, and PyTorch warns of arrays that cannot be written to.
    pixels, names = [image.rgb.copy() for image in images], [image.image_id for image in images]
    return check_segmentations(segment_named(segmenter, pixels, names), len(images))


def cluster_images(
    images: list[DecodedImage],
    segmentations: list[Segmentation],
    settings: MethodSettings,
    scores: Sequence[PixelScore],
    head: Head | None = None,
) -> list[SegmentedImage]:
    """Confidence, pixel scores and clusters of images, from what a network said of them; `head` is its classifier."""
    start = time.perf_counter()
    try:
        maps = [
            maps_of(*pair, scores, head, settings.refine, with_classes=bool(settings.keep_maps))
            for pair in zip(images, segmentations, strict=True)
        ]
        qualities = [_quality(*pair) for pair in zip(images, segmentations, strict=True)]
        clusters = cluster_maps_of(images, segmentations, settings)
    except Exception as error:
        failure = failure_of("clustering failed", error)
    else:
        seconds = (time.perf_counter() - start) / len(images)
        return [
            replace(
                _segmented(image, of_pixels, scores, of_clusters, settings),
                **quality,
                seconds_cluster=seconds,
            )
            for image, of_pixels, of_clusters, quality in zip(images, maps, clusters, qualities, strict=True)
        ]
    if len(images) == 1:
        return [_failed(images[0], failure)]
    alone = zip(images, segmentations, strict=True)
    return [done for image, seen in alone for done in cluster_images([image], [seen], settings, scores, head)]


def _segmented(
    image: DecodedImage,
    maps: PixelMaps,
    scores: Sequence[PixelScore],
    clusters: list[ClusterMap],
    settings: MethodSettings,
) -> SegmentedImage:
    return extended(
        SegmentedImage,
        image,
        confidence=maps.confidence,
        score_maps=score_maps(image, maps, scores, clusters, settings),
        cluster_maps=clusters,
        classes=maps.classes,
    )


def score_maps(
    image: DecodedImage,
    maps: PixelMaps,
    scores: Sequence[PixelScore],
    clusters: list[ClusterMap],
    settings: MethodSettings,
) -> list[ScoreMap]:
    """The keys of scores of an image, from their maps and its clusters."""
    # Only pooled scores look at regions, which the last stage brings to the size of the image for the rule.
    pooled = any(score.source is not score for score in scores)
    regions = regions_at_image_size(image, clusters, settings.k) if pooled else None
    height, width = image.size
    as_counted = blurred if settings.blur else np.asarray
    return [
        ScoreMap(
            score=score.name,
            scale=score.scale.name,
            height=height,
            width=width,
            keys=_keys(score, as_counted(maps.of(score, regions))),
        )
        for score in scores
    ]


def _quality(image: DecodedImage, segmentation: Segmentation) -> dict[str, Any]:
    """What is known of the classes of an image, as fields of a `SegmentedImage`; nothing where nobody asked."""
    if image.true_classes is None:
        return {}
    from oodray.scores.maps import class_maps

    maps = class_maps(segmentation.per_pixel, image.true_classes)
    known = image.true_classes != IGNORE
    right = maps.predicted[known] == image.true_classes[known]
    tally = ConfidenceTally.of(maps.confidence[known], right, maps.squares[known])
    return {"classes": maps.predicted, "confidences": [Confidences(count=maps.count, **vars(tally))]}


def regions_at_image_size(image: DecodedImage, clusters: list[ClusterMap], k: int) -> NDArray[np.uint8]:
    """The region of every pixel, `(height, width)`: of the number of clusters that gives the mask."""
    from oodray.method.rule import upsample_nearest

    return upsample_nearest(next(found.ids for found in clusters if found.k == k), *image.size)


def head_of(segmenter: Segmenter) -> Head | None:
    """The classifier of a network that offers it, see `oodray.Segmentation`."""
    return getattr(segmenter, "head", None)


def maps_of(
    image: DecodedImage,
    segmentation: Segmentation,
    scores: Sequence[PixelScore],
    head: Head | None,
    refine: str | None = None,
    *,
    with_classes: bool = False,
) -> PixelMaps:
    """Confidence and scores of every pixel of an image, and its classes where they are asked for.

    `refine` is as in `oodray.scores.refine`.

    Raises:
        ImageError: a value is NaN or infinite.
    """
    from oodray.scores.maps import pixel_maps

    segmentation.refuse_scores({score.name: score.source.needs for score in scores})
    features = ImageFeatures(segmentation.features, image.image_id, head, segmentation.head_input, image.rgb)
    given = segmentation.per_pixel
    maps = pixel_maps(given, *image.size, scores, features, known=segmentation.scores, with_classes=with_classes)
    return maps.refined(image.rgb, refine)


def _keys(score: PixelScore, values: NDArray[np.float32]) -> NDArray[np.uint16]:
    try:
        keys = score.scale.keys(values)
    except ValueError as error:
        raise ImageError(f"the score {score.name}: {error}") from None
    if keys.dtype != np.uint16:
        raise ImageError(f"the score {score.name} must have a scale of 16 bits, not {score.scale.name}")
    return keys.astype(np.uint16, copy=False)


def cluster_maps_of(
    images: list[DecodedImage], segmentations: list[Segmentation], settings: MethodSettings
) -> list[list[ClusterMap]]:
    """Of each image, the clusters of every K, on the grid of the features; or its regions, at the size of the image."""
    if settings.regions != "kmeans":
        return [[_regions(image, k, settings.regions) for k in settings.ks] for image in images]
    from oodray.method.kmeans import cluster_features, kmeans_seed

    found = cluster_features(
        [segmentation.features for segmentation in segmentations],
        settings.ks,
        seeds=[[kmeans_seed(settings.seed, image.image_id, k) for k in settings.ks] for image in images],
        normalize=settings.normalize_features,
        backend=settings.kmeans_backend,
        n_init=settings.n_init,
    )
    return [
        [
            ClusterMap(k=k, height=ids.shape[0], width=ids.shape[1], ids=ids)
            for k, ids in zip(settings.ks, of_image, strict=True)
        ]
        for of_image in found
    ]


def _regions(image: DecodedImage, k: int, kind: str) -> ClusterMap:
    from oodray.method.regions import regions_of

    return ClusterMap(k=k, height=image.size[0], width=image.size[1], ids=regions_of(kind, image.rgb, k))


def _size(image: DecodedImage) -> tuple[int, int]:
    return image.size


def _failed(image: DecodedImage, error: str) -> SegmentedImage:
    return extended(SegmentedImage, image, error=error)


def _given_up(image: DecodedImage, error: str) -> Pending:
    return Pending.of(_failed(image, error))


def failure_of(what: str, error: Exception) -> str:
    """What an image that fails says of it."""
    return str(error) if isinstance(error, ImageError) else f"{what}: {type(error).__name__}: {error}"
