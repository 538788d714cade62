"""What the job must find, pixel by pixel with numpy, fractions and scikit-learn; and images to find it in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from oodray.datasets.manifest import ListedImage, write_manifest
from oodray.job.finisher import Finisher
from oodray.job.units import ClusterMap, ScoreMap, SegmentedImage
from oodray.method.settings import MethodSettings
from oodray.metrics.scales import scale_named
from oodray.records import extended, table_of
from oodray.results.folder import ResultsFolder
from oodray.results.rows import ERROR, ResultRow
from oodray.scores.registry import DEFAULT_SCORES, are_pixel_scores, pixel_scores

PIXEL_SCORES = are_pixel_scores(DEFAULT_SCORES)

METHOD = MethodSettings(
    k=4,
    ks=(4,),
    tau=1.5,
    ood_ratio=0.3,
    seed=0,
    normalize_features=False,
    kmeans_backend="torch",
    n_init=2,
    scores=PIXEL_SCORES,
    batch_size=1,
)


def listed_image(image_id: str, unit: int = 0) -> ListedImage:
    """An image as the manifest lists it; there are no such files."""
    return ListedImage(
        unit=unit,
        image_id=image_id,
        dataset="ade-ood",
        image_uri=f"/{image_id}.png",
        label_uri=f"/{image_id}_mask.png",
    )


def segmented_image(
    random: np.random.Generator, image_id: str = "a", method: MethodSettings = METHOD
) -> SegmentedImage:
    """An image as a worker hands it on, of random content: coarse values, so that there are ties."""
    height, width = random.integers(5, 20, 2).tolist()
    size = height, width

    def values() -> NDArray[np.float16]:
        return (random.integers(-4, 12, size) / 4).astype(np.float16)

    return extended(
        SegmentedImage,
        listed_image(image_id),
        height=height,
        width=width,
        label=random.choice([0, 0, 1, 255], size).astype(np.uint8),
        seconds_decode=0.25,
        confidence=values(),
        cluster_maps=[
            ClusterMap(k=k, height=3, width=4, ids=random.integers(0, k, (3, 4)).astype(np.uint8)) for k in method.ks
        ],
        score_maps=[
            ScoreMap(
                score=score.name,
                scale=score.scale.name,
                height=height,
                width=width,
                keys=score.scale.keys(score_values_of(score.name, values())).astype(np.uint16),
            )
            for score in pixel_scores(method.scores)
        ],
        seconds_segment=0.5,
        seconds_cluster=0.125,
    )


def score_values_of(name: str, values: NDArray[np.float16]) -> NDArray[np.float32]:
    """Values that a score can have, in the order of some numbers."""
    return (values if name in ("max-logit", "energy") else (values + 1) / 16).astype(np.float32)


def failed_image(image_id: str, error: str = "broken", unit: int = 0) -> SegmentedImage:
    """An image that could not be decoded."""
    return extended(SegmentedImage, listed_image(image_id, unit), error=error)


def failed_row(image_id: str, error: str = "broken", unit: int = 0) -> ResultRow:
    """The row of such an image in the results."""
    return extended(ResultRow, failed_image(image_id, error, unit), status=ERROR)


class Pixels:
    """The pixels of an image in one array for each thing known of them, all `(H, W)`."""

    def __init__(self, image: SegmentedImage, method: MethodSettings = METHOD) -> None:
        assert image.label is not None
        assert image.confidence is not None
        size = image.size
        self.label = image.label
        self.confidence = image.confidence
        self.scores = {found.score: scale_named(found.scale).scores(found.keys) for found in image.score_maps or ()}
        coarse = next(found.ids for found in image.cluster_maps or () if found.k == method.k)
        rows, columns = (
            [int(Fraction(2 * pixel + 1, 2 * pixels) * cells) for pixel in range(pixels)]
            for pixels, cells in zip(size, coarse.shape, strict=True)
        )
        self.cluster = coarse[rows][:, columns]
        self.unsure = self.confidence.astype(np.float64) < method.tau
        self.ratio = np.empty(size, dtype=object)
        for cluster in np.unique(self.cluster):
            inside = self.cluster == cluster
            self.ratio[inside] = Fraction(int(self.unsure[inside].sum()), int(inside.sum()))
        self.mask = self.ratio > Fraction(str(method.ood_ratio))


def score_values(images: list[Pixels], score: str) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Of all labelled pixels of all images: whether each is OoD, and a number that ranks it."""
    label = np.concatenate([image.label.ravel() for image in images])
    if score == "ratio":
        # Ranks of exact fractions: no quotient is ever rounded.
        ratios = [ratio for image in images for ratio in image.ratio.ravel()]
        ranks = {ratio: rank for rank, ratio in enumerate(sorted(set(ratios)))}
        values = np.array([ranks[ratio] for ratio in ratios], np.float64)
    elif score == "mask-then-logit":
        mask = np.concatenate([image.mask.ravel() for image in images]).astype(bool)
        confidence = np.concatenate([image.confidence.ravel() for image in images]).astype(np.float64)
        values = np.where(mask, 1e6, 0) - confidence
    else:
        values = np.concatenate([image.scores[score].ravel() for image in images]).astype(np.float64)
    labelled = label != 255
    return label[labelled] == 1, values[labelled]


def curve_metrics(images: list[Pixels], score: str) -> dict[str, float]:
    """AP, FPR95 and AUROC by scikit-learn."""
    ood, values = score_values(images, score)
    fpr, tpr, _ = roc_curve(ood, values, drop_intermediate=False)
    return {
        "ap": average_precision_score(ood, values),
        "fpr95": float(fpr[np.argmax(tpr >= 0.95)]),
        "auroc": roc_auc_score(ood, values),
    }


def write_results(
    path: Path, units: Sequence[Sequence[SegmentedImage]], method: MethodSettings = METHOD
) -> ResultsFolder:
    """A results folder with units of segmented images, as a run would leave it."""
    folder = ResultsFolder(path)
    config = {
        "k": method.k,
        "tau": method.tau,
        "ood_ratio": method.ood_ratio,
        "scores": list(DEFAULT_SCORES),
        "sweep_k": list(method.ks),
        "confidence_bits": method.confidence_bits,
    }
    folder.write_run({"config": config, "identity": {}})
    numbered = [[replace(image, unit=unit) for image in images] for unit, images in enumerate(units)]
    listed = [extended(ListedImage, image) for images in numbered for image in images]
    write_manifest(table_of(ListedImage, listed), folder.manifest)
    for images in numbered:
        Finisher(method, str(path))(images)
    return folder


def random_images(seed: int, count: int, method: MethodSettings = METHOD) -> list[SegmentedImage]:
    """Segmented images of random content."""
    random = np.random.default_rng(seed)
    return [segmented_image(random, f"{index:03}", method) for index in range(count)]
