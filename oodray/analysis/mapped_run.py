"""A run whose score maps are looked at, image by image: its files are listed, and its thresholds found, once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from oodray.ahead import map_ahead
from oodray.analysis.files import FILES_PER_TASK, CountedFiles
from oodray.analysis.score_maps import MASK_THEN_LOGIT, RATIO, ImageMaps, ReadMap, ScoreMaps
from oodray.analysis.totals import image_totals
from oodray.cluster.shares import usable_cores
from oodray.datasets.images import decode_label, read_label
from oodray.datasets.layouts import layout_of
from oodray.errors import DatasetError
from oodray.method.rule import Rule
from oodray.metrics.by_image import ByImage
from oodray.metrics.evaluators import LIKE
from oodray.results.cells import Clusters, clusters_of
from oodray.results.folder import ResultsFolder
from oodray.results.maps import kept_scores
from oodray.results.rows import OK

ROWS_AHEAD = 2
"""Rows in memory for each thread that looks at images: a row has all maps that were kept."""

_COLUMNS = ["image_id", "status", "label_uri", "mask_png", "clusters_png", "clusters", "width", "maps"]

_Seen = TypeVar("_Seen")


@dataclass(frozen=True)
class MappedRun:
    """A run and the maps of its images.

    Attributes:
        folder: of the run.
        files: its finished files.
        maps: its maps, and where each is cut in two.
    """

    folder: ResultsFolder
    files: CountedFiles
    maps: ScoreMaps

    @classmethod
    def of(
        cls,
        folder: ResultsFolder,
        threshold: float | None = None,
        read_map: ReadMap | None = None,
        files: CountedFiles | None = None,
    ) -> MappedRun:
        """A run, whose labels are read for thresholds unless one is given.

        Args:
            folder: of the run.
            threshold: of every score; by default of each that of the best F1 of its curve, as SegmentMeIfYouCan has it.
            read_map: how imported scores are read again.
            files: its finished files, where they are known.

        Raises:
            ResultsError: the folder holds no results.
        """
        known, kept, rule = folder.score_names(), kept_scores(folder), folder.rule()
        files = files or CountedFiles.of(folder)
        scores = [name for name in known if read_map is not None or name == RATIO or name in kept]
        if threshold is None:
            best = _best_thresholds(files, rule, scores)
            thresholds = {name: best[name] for name in scores if name in best}
        else:
            thresholds = dict.fromkeys(scores, threshold)
        maps = ScoreMaps(
            rule=rule,
            thresholds=thresholds,
            left_out=tuple(name for name in known if name not in scores and name != MASK_THEN_LOGIT),
            without_threshold=tuple(name for name in scores if name not in thresholds),
            codes=layout_of(folder.read_run()["config"]).label_codes,
            read_map=read_map,
        )
        return cls(folder, files, maps)

    def each_image(self, look: Callable[[ImageMaps], _Seen], *, on_ray: bool = True) -> list[_Seen]:
        """What is seen in each labelled image that was processed, in the order of the files; at least one.

        Args:
            look: what is done with an image.
            on_ray: whether more than `FILES_PER_TASK` files are read by Ray tasks.

        Raises:
            DatasetError: no image has a label.
            ImageError: a label or a score map cannot be read any more.
            ResultsError: a file of results cannot be read.
        """
        by_tasks = on_ray and len(self.files.parts) > FILES_PER_TASK
        seen = (_by_tasks if by_tasks else _here)(self.files, self.maps, look)
        if not seen:
            raise DatasetError(f"no image of {self.folder.path} has a label: there are no objects to find")
        return seen


def _best_thresholds(files: CountedFiles, rule: Rule | None, scores: Sequence[str]) -> dict[str, float]:
    """Of each score that is measurable, the threshold of the best F1 of the curve that SegmentMeIfYouCan takes."""
    curves: dict[str, ByImage] = {}
    for image in image_totals(files, rule):
        for score in scores:
            curves.setdefault(score, ByImage(score, LIKE["smiyc"], image)).add(image)
    best = {score: curve.metrics().best_f1_threshold for score, curve in curves.items()}
    return {score: threshold for score, threshold in best.items() if threshold is not None}


def _by_tasks(files: CountedFiles, maps: ScoreMaps, look: Callable[[ImageMaps], _Seen]) -> list[_Seen]:
    import ray

    from oodray.cluster.session import tasks

    task: Any = ray.remote(_here)
    with tasks():
        parts: list[list[_Seen]] = ray.get([task.remote(c, maps, look) for c in files.chunks(FILES_PER_TASK)])
    return [seen for part in parts for seen in part]


def _here(files: CountedFiles, maps: ScoreMaps, look: Callable[[ImageMaps], _Seen]) -> list[_Seen]:
    def looked(stored: tuple[dict[str, Any], NDArray[np.float64]]) -> list[_Seen]:
        row, ratios = stored
        label = read_label(row["label_uri"])
        if label is None:
            return []
        image = ImageMaps(row["image_id"], row["label_uri"], decode_label(label, maps.codes), row, ratios)
        return [look(image)]

    workers = usable_cores()
    with ThreadPoolExecutor(workers) as threads:
        by_image = map_ahead(threads, looked, _rows(files, maps.rule), ROWS_AHEAD * workers)
        return [seen for of_image in by_image for seen in of_image]


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
