"""The scores of a run at one threshold, image by image, from wherever their maps are.

The mask and `ratio` are in the results, as PNGs of masks and of cluster ids; other scores of a run are where
`--keep-maps` kept them; imported scores are read again from their files. Scores whose maps are kept nowhere are left
out, and named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from oodray.ahead import map_ahead
from oodray.analysis.files import FILES_PER_TASK, CountedFiles
from oodray.analysis.totals import image_totals
from oodray.cluster.shares import usable_cores
from oodray.datasets.images import LabelCodes, decode_label, decode_mask, read_label
from oodray.datasets.layouts import layout_of
from oodray.errors import DatasetError, ResultsError
from oodray.method.rule import Rule
from oodray.metrics.by_image import ByImage
from oodray.metrics.evaluators import LIKE
from oodray.metrics.frames import as_float16
from oodray.metrics.scales import scale_named
from oodray.metrics.tally import KEY_COUNT
from oodray.results.cells import Clusters, clusters_of
from oodray.results.folder import ResultsFolder
from oodray.results.kept_maps import decode_map
from oodray.results.maps import kept_scores
from oodray.results.rows import OK

MASK, RATIO = "mask", "ratio"

ROWS_AHEAD = 2
"""Rows in memory for each thread that looks at images: a row has all maps that were kept."""

ReadMap = Callable[[str, tuple[int, int]], NDArray[Any]]
"""The score map of an image, by its id and its height and width."""

_COLUMNS = ["image_id", "status", "label_uri", "mask_png", "clusters_png", "clusters", "width", "maps"]

_Found = TypeVar("_Found")
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

    @classmethod
    def of(
        cls,
        folder: ResultsFolder,
        threshold: float | None = None,
        read_map: ReadMap | None = None,
    ) -> ScoreMaps:
        """The maps of a run.

        Args:
            folder: of the run.
            threshold: of every score; by default of each that of the best F1 of its curve, as SegmentMeIfYouCan has it.
            read_map: how imported scores are read again.

        Raises:
            ResultsError: the folder holds no results.
        """
        known, kept = folder.score_names(), kept_scores(folder)
        scores = [name for name in known if read_map is not None or name == RATIO or name in kept]
        if threshold is None:
            best = _best_thresholds(folder, scores)
            thresholds = {name: best[name] for name in scores if name in best}
        else:
            thresholds = dict.fromkeys(scores, threshold)
        left_out = tuple(name for name in known if name not in scores and name != "mask-then-logit")
        codes = layout_of(folder.read_run()["config"]).label_codes
        without = tuple(name for name in scores if name not in thresholds)
        return cls(folder.rule(), thresholds, left_out, without, codes, read_map)

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


def each_image(
    folder: ResultsFolder, maps: ScoreMaps, look: Callable[[ImageMaps], _Found], *, on_ray: bool = True
) -> list[_Found]:
    """What is found in each labelled image that was processed, in the order of the files; at least one.

    Args:
        folder: of the run.
        maps: its maps.
        look: what is done with an image.
        on_ray: whether more than `FILES_PER_TASK` files are read by Ray tasks.

    Raises:
        DatasetError: no image has a label.
        ImageError: a label or a score map cannot be read any more.
        ResultsError: the folder holds no results.
    """
    files = CountedFiles.of(folder)
    by_tasks = on_ray and len(files.parts) > FILES_PER_TASK
    found = _by_tasks(files, maps, look) if by_tasks else _here(files, maps, look)
    if not found:
        raise DatasetError(f"no image of {folder.path} has a label: there are no objects to find")
    return found


def _by_tasks(files: CountedFiles, maps: ScoreMaps, look: Callable[[ImageMaps], _Found]) -> list[_Found]:
    import ray

    from oodray.cluster.session import tasks

    task: Any = ray.remote(_here)
    with tasks():
        parts: list[list[_Found]] = ray.get([task.remote(c, maps, look) for c in files.chunks(FILES_PER_TASK)])
    return [found for part in parts for found in part]


def _best_thresholds(folder: ResultsFolder, scores: Sequence[str]) -> dict[str, float]:
    """Of each score that is measurable, the threshold of the best F1 of the curve that SegmentMeIfYouCan takes."""
    curves: dict[str, ByImage] = {}
    for image in image_totals(CountedFiles.of(folder), folder.rule()):
        for score in scores:
            curves.setdefault(score, ByImage(score, LIKE["smiyc"], image)).add(image)
    best = {score: curve.metrics().best_f1_threshold for score, curve in curves.items()}
    return {score: threshold for score, threshold in best.items() if threshold is not None}


def _here(files: CountedFiles, maps: ScoreMaps, look: Callable[[ImageMaps], _Found]) -> list[_Found]:
    def looked(stored: tuple[dict[str, Any], NDArray[np.float64]]) -> list[_Found]:
        row, ratios = stored
        label = read_label(row["label_uri"])
        if label is None:
            return []
        image = ImageMaps(row["image_id"], row["label_uri"], decode_label(label, maps.codes), row, ratios)
        return [look(image)]

    workers = usable_cores()
    with ThreadPoolExecutor(workers) as threads:
        by_image = map_ahead(threads, looked, _rows(files, maps.rule), ROWS_AHEAD * workers)
        return [found for of_image in by_image for found in of_image]


def _rows(files: CountedFiles, rule: Rule | None) -> Iterator[tuple[dict[str, Any], NDArray[np.float64]]]:
    """The row of each labelled image that was processed, and the ratios of its clusters by id."""
    for table in files.tables(_COLUMNS):
        ratios = partial(_ratios, clusters_of(table["clusters"]), rule) if rule else None
        rows = table.drop_columns(["clusters"]).to_pylist()
        for place, row in enumerate(rows):
            if row["status"] == OK and row["label_uri"] is not None:
                yield row, ratios(place) if ratios else np.empty(0)


def _ratios(clusters: Clusters, rule: Rule, row: int) -> NDArray[np.float64]:
    """The ratio of each cluster of an image at a rule, by its id."""
    chosen = (clusters.row == row) & (clusters.k == rule.k)
    ratios = np.zeros(256)
    ratios[clusters.cluster[chosen]] = clusters.unsure(rule.tau)[chosen] / clusters.pixels[chosen]
    return ratios


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
