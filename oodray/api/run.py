"""A run's results folder as an object: its tables, masks and metrics. Needs neither torch nor Ray."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from oodray.errors import ConfigError, ResultsError
from oodray.ranges import SWEPT_OOD_RATIOS, numbers
from oodray.results.folder import ResultsFolder
from oodray.results.reading import read_clusters, read_results
from oodray.storage.place import Place

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from oodray.analysis.evaluation import Evaluation
    from oodray.metrics.conventions import Convention


class Run:
    """The results of a run, as `oodray.run` and `oodray.open_run` return them. Reading changes nothing in the folder.

    The tables are read when they are first asked for, and kept: open the folder again to see what a run that goes on
    has added since.

    Attributes:
        out: the results folder.
        warnings: what the user should know of the run that `oodray.run` has just made; of single images the columns
            `error` and `warning` of `images` tell.
    """

    def __init__(
        self, folder: ResultsFolder, *, evaluation: Evaluation | None = None, warnings: Sequence[str] = ()
    ) -> None:
        self._folder = folder
        self._evaluation = evaluation
        self.warnings = tuple(warnings)

    @property
    def out(self) -> Place:
        """The results folder."""
        return self._folder.path

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the network's classes, by the numbers of `class_map`; none where they are not known.

        Raises:
            ResultsError: `run.json` cannot be read.
        """
        return self._folder.class_names()

    @cached_property
    def images(self) -> pd.DataFrame:
        """One row per image that is done, in the order of the dataset; `status` is `"ok"` or `"error"`.

        Raises:
            ResultsError: a file cannot be read.
        """
        return read_results(self.out)

    @cached_property
    def clusters(self) -> pd.DataFrame:
        """One row per image, K and cluster, see `oodray.read_clusters`.

        Raises:
            ResultsError: a file cannot be read, or these are imported scores, which have no clusters.
        """
        return read_clusters(self.out)

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """One row per score: `ap`, `fpr95`, `auroc` and others, as shares within 0..1, and the setting they are at.

        The metrics are those of the default convention; `evaluate` gives those of others.

        As the end of the run, or `oodray evaluate` after it, has written them to `metrics.parquet`; else computed.

        Raises:
            ResultsError: a file cannot be read, or no image is done yet.
        """
        from oodray.analysis.evaluation import metrics_table, read_metrics

        if self._folder.metrics.exists():
            table = read_metrics(self._folder)
        else:
            table = metrics_table(self._folder, self.evaluation)
        frame: pd.DataFrame = table.to_pandas()
        # The default convention comes first; the rows of others, which `oodray evaluate` was asked for, follow.
        return frame.drop_duplicates("score")

    @property
    def evaluation(self) -> Evaluation:
        """What the run is worth under the default convention, with precision, recall, F1 and IoU of its mask.

        Raises:
            ResultsError: a file cannot be read, or no image is done yet.
        """
        from oodray.analysis.evaluation import measure_run

        if self._evaluation is None:
            self._evaluation = measure_run(self._folder, on_ray=_has_ray())
        return self._evaluation

    def mask(self, image_id: str) -> NDArray[np.uint8]:
        """The pixels of an image that are OoD, uint8 `(H, W)`: 255 where they are, else 0.

        Args:
            image_id: as in `images`, such as `"frames/000"`.

        Raises:
            ResultsError: the image is unknown, failed or not done yet; or these are imported scores.
        """
        return self._picture(image_id, "mask_png")

    def cluster_map(self, image_id: str) -> NDArray[np.uint8]:
        """The cluster of each pixel of an image at the run's K, uint8 `(H, W)`; ids are those in `clusters`.

        Raises:
            ResultsError: as for `mask`.
        """
        return self._picture(image_id, "clusters_png")

    def score_map(self, image_id: str, score: str) -> NDArray[np.float64]:
        """The score of each pixel of an image, `(H, W)`; higher is more out of distribution.

        Args:
            image_id: as in `images`.
            score: `"ratio"`, whose map follows from the stored clusters, or one that `--keep-maps` has kept.

        Raises:
            ResultsError: the run does not store the map of this score, or as for `mask`.
        """
        from oodray.results.maps import score_map

        return score_map(self._folder, image_id, score)

    def class_map(self, image_id: str) -> NDArray[np.int16]:
        """The predicted class of each pixel of an image, int16 `(H, W)`.

        Raises:
            ResultsError: the run keeps no maps, or as for `mask`.
        """
        from oodray.results.maps import class_map

        return class_map(self._folder, image_id)

    def evaluate(
        self,
        like: str | Sequence[str] | None = None,
        *,
        bootstrap: int = 0,
        pooling: str | None = None,
        ap_rule: str | None = None,
        fpr_rule: str | None = None,
        tpr: float | None = None,
        lacking: str | None = None,
    ) -> pd.DataFrame:
        """The metrics under other conventions, from the run's tallies: no image is read, no network runs.

        One row per score and convention, with the columns of `metrics`: for each evaluator in `like`, then for the
        convention that the other arguments make, if any is given; without any of them, for the default convention.

        Args:
            like: evaluators to measure as, such as "smiyc"; `oodray evaluate --help` names them all.
            bootstrap: how often to draw the images anew, for 95 % intervals: the columns that end in `_low`, `_high`.
            pooling: "dataset" pools all pixels, "image" takes the mean over images.
            ap_rule: area of the AP, "step" or "trapezoid".
            fpr_rule: where the FPR is read: ">=", ">", "nearest", "nearest-last" or "linear".
            tpr: level of a second FPR, the column `fpr_at_tpr`.
            lacking: what becomes of images without OoD or without in-distribution pixels: "keep", "drop",
                "drop-without-ood" or "refuse".

        Raises:
            ConfigError: an argument has a value that it cannot have.
            DatasetError: an image lacks a class, which a convention refuses.
            ResultsError: a file cannot be read, or no image is done yet.
        """
        from oodray.analysis.evaluation import measure_run, metrics_table
        from oodray.metrics.conventions import DEFAULT

        if bootstrap < 0:
            raise ConfigError(f"bootstrap must be a whole number of at least 0, not {bootstrap}")
        rules = {"pooling": pooling, "ap_rule": ap_rule, "fpr_rule": fpr_rule, "tpr": tpr, "lacking": lacking}
        asked = conventions(like, rules) or [DEFAULT]
        found = measure_run(self._folder, asked, bootstrap, on_ray=_has_ray())
        asked_for = replace(found, scores=[metrics for convention in asked for metrics in found.of(convention)])
        frame: pd.DataFrame = metrics_table(self._folder, asked_for).to_pandas()
        return frame

    def sweep(
        self,
        tau: str | float | Iterable[float] | None = None,
        ood_ratio: str | float | Iterable[float] = SWEPT_OOD_RATIOS,
        *,
        with_mask_then_logit: bool = False,
    ) -> pd.DataFrame:
        """The metrics of every K, tau and T, from the run's tallies: no image is read, no network runs.

        Columns: `k, tau, ood_ratio, ratio_ap, ratio_fpr95, precision, recall, f1, iou`, shares within 0..1.

        Args:
            tau: values as a range `"a:b:step"`, both ends included, or numbers; by default those where the confidences
                of the run lie.
            ood_ratio: values of T, likewise.
            with_mask_then_logit: AP and FPR95 of that score, too, which takes longer.

        Raises:
            ConfigError: a range that is none, a T outside 0..1, or too many settings.
            ResultsError: a file cannot be read, no image is done yet, or these are imported scores.
        """
        from oodray.analysis.sweep import make_request, sweep_run, usual_taus
        from oodray.method.rule import as_decimals

        ood_ratios = numbers(ood_ratio) if isinstance(ood_ratio, str) else as_decimals(numbers(ood_ratio))
        taus = numbers(usual_taus(self._folder) if tau is None else tau)
        request = make_request(self._folder, taus, ood_ratios, with_mask_then_logit=with_mask_then_logit)
        frame: pd.DataFrame = sweep_run(self._folder, request, on_ray=_has_ray()).table.to_pandas()
        return frame

    def __repr__(self) -> str:
        what = "unreadable"
        with contextlib.suppress(ResultsError):
            content = self._folder.read_run()
            images = content.get("images")
            what = f"{content['config'].get('dataset')}, {content.get('model') or 'imported scores'}, "
            what += "not finished" if images is None else f"{images['ok']} images, {images['failed']} failed"
        return f"<oodray.Run {self.out}: {what}>"

    def _picture(self, image_id: str, column: str) -> NDArray[np.uint8]:
        from oodray.datasets.images import decode_mask
        from oodray.results.one_image import read_image

        self._folder.clustering_rule()  # refuses imported scores, which have no pictures
        return decode_mask(read_image(self._folder, image_id, [column])[column])


def _has_ray() -> bool:
    """Whether this process has a Ray that the caller started: a `Run` starts none, and joins none."""
    from oodray.cluster.session import is_running

    return is_running()


def open_run(out: str | Place) -> Run:
    """The run in a results folder, finished or not.

    Raises:
        ResultsError: `out` is no results folder.

    >>> open_run("/nowhere")
    Traceback (most recent call last):
    oodray.errors.ResultsError: /nowhere is not a results folder: it has no run.json
    """
    folder = ResultsFolder(out)
    folder.read_run()
    return Run(folder)


def conventions(like: str | Iterable[str] | None, rules: Mapping[str, Any]) -> list[Convention]:
    """The conventions of some evaluators, then the one that `rules` make of the default, unless all of them are None.

    Raises:
        ConfigError: no such evaluator is known, or a rule cannot have its value.
    """
    from oodray.metrics.conventions import make_convention
    from oodray.metrics.evaluators import like_evaluator

    found = [like_evaluator(name) for name in ([like] if isinstance(like, str) else like or [])]
    return found if all(value is None for value in rules.values()) else [*found, make_convention(rules)]
