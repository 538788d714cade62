"""The report of a run, with maps that its network computes again where they are asked for."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oodray.errors import ResultsError
from oodray.report.page.document import Written, write_report
from oodray.report.page.selection import MOST_DRAWN
from oodray.report.terminal import note, silent_console
from oodray.results.folder import ResultsFolder
from oodray.storage.place import Place, storage_path

if TYPE_CHECKING:
    from rich.console import Console

    from oodray.models.network import Network
    from oodray.report.page.cards import MapSource
    from oodray.report.page.pictures import Maps
    from oodray.results.stored_image import StoredImage

PAGE = "report.html"
"""Name of the page in the results folder."""

_SECONDS_BETWEEN_LINES = 10


def write_run_report(
    out: str | Place,
    page: str | Path | None = None,
    *,
    images: int = MOST_DRAWN,
    bootstrap: int | None = None,
    recompute: bool = False,
    terminal: Console | None = None,
) -> Written:
    """Write the HTML page of a run, finished or not.

    Args:
        out: the results folder.
        page: the HTML file; by default `report.html` in the results folder.
        images: how many to draw.
        bootstrap: resamples for the intervals; None decides by the number of images.
        recompute: run the network again on the images that are drawn, for the maps of all scores and of the classes.
        terminal: gets lines of progress.

    Raises:
        ResultsError: there are no results, or `recompute` is asked of imported scores.
        ModelError: the network to recompute with is not there.
        RunError: the page cannot be written.
    """
    folder = ResultsFolder(out)
    folder.read_run()
    target = folder.path / PAGE if page is None else storage_path(page)
    lines = _Lines(terminal or silent_console())
    maps = _recomputed(folder) if recompute else _kept(folder)
    return write_report(folder, target, most=images, resamples=bootstrap, maps=maps, on_image=lines.update)


class _Lines:
    """A line every so many seconds."""

    def __init__(self, terminal: Console) -> None:
        self._terminal = terminal
        self._last = time.monotonic()

    def update(self, done: int, of: int) -> None:
        if time.monotonic() - self._last >= _SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            note(self._terminal, f"{done}/{of} images drawn")


def _kept(folder: ResultsFolder) -> MapSource | None:
    """The maps that a run has kept; None where it has kept none."""
    from oodray.report.page.pictures import Maps
    from oodray.results.maps import class_map, kept_scores, score_map

    scores = kept_scores(folder)
    if not scores:
        return None

    def maps(image: StoredImage) -> Maps:
        of_scores = {score: score_map(folder, image.image_id, score) for score in scores}
        return Maps(scores=of_scores, classes=class_map(folder, image.image_id))

    return maps


def _recomputed(folder: ResultsFolder) -> MapSource:
    """The maps of an image from the network of a run, with the run's own settings."""
    run = folder.read_run()
    rule = folder.rule()
    if rule is None:
        raise ResultsError(f"{folder.path} holds imported scores: there is no network to recompute their maps with")
    from oodray.api.detect import detect
    from oodray.report.page.pictures import Maps

    config = run["config"]
    if config.get("blur"):
        raise ResultsError(
            f"{folder.path} was made with --blur, which a recomputed map lacks: pass --keep-maps all to the run"
        )
    net = _network(config)
    kept = (
        "seed",
        "normalize_features",
        "kmeans_backend",
        "n_init",
        "threads",
        "regions",
        "fit",
        "knn_metric",
        "scores",
    )
    settings = {name: config[name] for name in kept if name in config}

    def maps(image: StoredImage) -> Maps:
        found = detect(
            image.read_photo(),
            net,
            k=rule.k,
            tau=rule.tau,
            ood_ratio=rule.ood_ratio,
            image_id=image.image_id,
            **settings,
        )
        # Those two follow from the stored clusters and the others.
        scores = {name: found.scores[name] for name in found.scores if name not in ("ratio", "mask-then-logit")}
        return Maps(scores=scores, classes=found.classes)

    return maps


def _network(config: Mapping[str, Any]) -> Network:
    """The network of a run, asked as the run asked it."""
    from oodray.models.loading import load

    alone: dict[str, Any] = {name: config.get(name) for name in ("feature_stage", "features", "dtype")}
    passes: dict[str, Any] = {name: config[name] for name in ("flip", "scales", "mc_dropout", "seed") if name in config}
    return load(
        [config["model"], *config.get("members", [])],
        checkpoint=[config.get("checkpoint"), *config.get("member_checkpoints", [])],
        **alone,
        **passes,
    )
