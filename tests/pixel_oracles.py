"""What the job must find, pixel by pixel with numpy, fractions and scikit-learn; and rows to find it in."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from oodray.job.stages import Finisher, Method
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from oodray.datasets.manifest import MANIFEST_SCHEMA, write_manifest
from oodray.job.units import SEGMENTED, pack
from oodray.method.settings import PIXEL_SCORES, SCORES
from oodray.results.folder import ResultsFolder

Row = dict[str, Any]

METHOD = Method(
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


def segmented_row(random: np.random.Generator, image_id: str = "a", method: Method = METHOD) -> Row:
    """A row as the network's actor hands it on, of random content: coarse values, so that there are ties."""
    height, width = random.integers(5, 20, 2).tolist()
    size = height, width

    def values() -> bytes:
        return (random.integers(-4, 12, size) / 4).astype(np.float16).tobytes()

    return {
        "unit": 0,
        "image_id": image_id,
        "dataset": "ade-ood",
        "image_uri": f"/{image_id}.png",
        "label_uri": f"/{image_id}_mask.png",
        "error": None,
        "height": height,
        "width": width,
        "label": random.choice([0, 0, 1, 255], size).astype(np.uint8).tobytes(),
        "seconds_decode": 0.25,
        "confidence": values(),
        "cluster_maps": [
            {"k": k, "height": 3, "width": 4, "ids": random.integers(0, k, 12).astype(np.uint8).tobytes()}
            for k in method.ks
        ],
        "score_maps": [{"score": name, "values": values()} for name in method.scores],
        "seconds_segment": 0.5,
        "seconds_cluster": 0.125,
    }


def failed_row(image_id: str, error: str = "broken") -> Row:
    """A row of an image that could not be decoded."""
    row = dict.fromkeys(segmented_row(np.random.default_rng(0)))
    return row | {
        "unit": 0,
        "image_id": image_id,
        "dataset": "ade-ood",
        "image_uri": "/x.png",
        "error": error,
    }


class Pixels:
    """The pixels of an image in one array for each thing known of them, all `(H, W)`."""

    def __init__(self, row: Row, method: Method = METHOD) -> None:
        size = row["height"], row["width"]
        self.label = np.frombuffer(row["label"], np.uint8).reshape(size)
        self.confidence = np.frombuffer(row["confidence"], np.float16).reshape(size)
        self.scores = {
            found["score"]: np.frombuffer(found["values"], np.float16).reshape(size) for found in row["score_maps"]
        }
        found = next(found for found in row["cluster_maps"] if found["k"] == method.k)
        coarse = np.frombuffer(found["ids"], np.uint8).reshape(found["height"], found["width"])
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


def write_results(path: Path, units: list[list[Row]], method: Method = METHOD) -> ResultsFolder:
    """A results folder with the given units of segmented rows, as a run would leave it."""
    folder = ResultsFolder(path)
    config = {
        "k": method.k,
        "tau": method.tau,
        "ood_ratio": method.ood_ratio,
        "scores": list(SCORES),
        "sweep_k": list(method.ks),
        "confidence_bits": method.confidence_bits,
    }
    folder.write_run({"config": config, "identity": {}})
    listed = [{name: row[name] for name in MANIFEST_SCHEMA.names} for rows in units for row in rows]
    write_manifest(pa.Table.from_pylist(listed, schema=MANIFEST_SCHEMA), folder.manifest)
    for unit, rows in enumerate(units):
        Finisher(method, str(path))(pack(unit, rows, SEGMENTED))
    return folder


def random_images(seed: int, count: int, method: Method = METHOD) -> list[Row]:
    """Segmented rows of some images."""
    random = np.random.default_rng(seed)
    return [segmented_row(random, f"{index:03}", method) for index in range(count)]
