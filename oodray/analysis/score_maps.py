"""The scores of a run at one threshold, image by image, from wherever their maps are.

The mask and `ratio` are in the results, as PNGs of masks and of cluster ids; other scores of a run are where
`--keep-maps` kept them; imported scores are read again from their files. Scores whose maps are kept nowhere are left
out, and named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from oodray.datasets.images import LabelCodes, decode_mask
from oodray.errors import ResultsError
from oodray.method.rule import Rule
from oodray.metrics.frames import as_float16
from oodray.metrics.scales import scale_named
from oodray.metrics.tally import KEY_COUNT
from oodray.results.kept_maps import decode_map

MASK, RATIO, MASK_THEN_LOGIT = "mask", "ratio", "mask-then-logit"

ReadMap = Callable[[str, tuple[int, int]], NDArray[Any]]
"""The score map of an image, by its id and its height and width."""

_Metrics = TypeVar("_Metrics")


@dataclass(frozen=True, eq=False)
class ImageMaps:
    """A labelled image of a run.

    Attributes:
        image_id: its name.
        label_uri: where its label lies.
        labels: `(H, W)`, 0 in-distribution, 1 OoD, 255 ignore.
        row: its row of the results.
        ratios: those of its clusters, by id.
    """

    image_id: str
    label_uri: str
    labels: NDArray[np.uint8]
    row: Mapping[str, Any]
    ratios: NDArray[np.float64]


@dataclass(frozen=True)
class Judged(Generic[_Metrics]):
    """A score, or the mask, by what is found at one threshold.

    Attributes:
        score: its name; `mask` for the mask.
        threshold: pixels with a higher score are called OoD; None for the mask.
        metrics: of what was found.
    """

    score: str
    threshold: float | None
    metrics: _Metrics


@dataclass(frozen=True)
class ScoreMaps:
    """The maps of a run, and where each is cut in two. It travels to Ray's tasks.

    Attributes:
        rule: of its mask; None where it has none.
        thresholds: by score: pixels with a higher one are called OoD.
        left_out: scores whose maps are kept nowhere.
        without_threshold: scores of which labels give no threshold.
        codes: of its labels.
        read_map: how imported scores are read again.
    """

    rule: Rule | None
    thresholds: Mapping[str, float]
    left_out: tuple[str, ...]
    without_threshold: tuple[str, ...]
    codes: LabelCodes
    read_map: ReadMap | None

    def names(self) -> list[str]:
        """The mask, where there is one, and the scores."""
        return [*([MASK] if self.rule else []), *self.thresholds]

    def judged(self, metrics: Callable[[str], _Metrics]) -> list[Judged[_Metrics]]:
        """Each of `names` with its threshold and its metrics, which are found by name."""
        return [Judged(name, self.thresholds.get(name), metrics(name)) for name in self.names()]

    def cut(self, image: ImageMaps, name: str) -> tuple[NDArray[np.bool_], NDArray[Any]]:
        """Where an image is called OoD by the mask or a score, and its scores, both `(H, W)`; the mask's are r_k.

        A threshold cuts scores of float16, as that is how the curve's was found.
        """
        row = image.row
        if name == MASK and self.rule is not None:  # imported scores may be called that, too
            return decode_mask(row["mask_png"]) > 0, image.ratios[decode_mask(row["clusters_png"])]
        threshold = self.thresholds[name]
        if self.read_map is not None:
            scores = self.read_map(image.image_id, (image.labels.shape[0], image.labels.shape[1]))
            with np.errstate(over="ignore"):
                # Widened before it is compared: a float16 beside a number would round that, too.
                return np.asarray(scores.astype(np.float16).astype(np.float64) > threshold), scores
        values, places = (image.ratios, decode_mask(row["clusters_png"])) if name == RATIO else _kept(row, name)
        return (as_float16(values) > threshold)[places], values[places]


def _kept(row: Mapping[str, Any], name: str) -> tuple[NDArray[np.float64], NDArray[np.uint16]]:
    """The scores of keys, and the map of keys of a score that the results keep."""
    kept = next((kept for kept in row["maps"] or () if kept["name"] == name), None)
    if kept is None:
        raise ResultsError(f"the results lack the map of {name} of {row['image_id']}: run again with --overwrite")
    keys = decode_map(kept["data"], row["width"])
    present = np.flatnonzero(np.bincount(keys.ravel(), minlength=KEY_COUNT))
    scores = np.zeros(KEY_COUNT)
    scores[present] = scale_named(kept["scale"]).scores(present.astype(np.uint16))
    return scores, keys
