"""Fitting scores: one pass over in-distribution images, and what scores need to know of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex

from oodray.api.calibrate import check_quantile, in_distribution_layers
from oodray.api.execution import plain, planned
from oodray.config import read_settings
from oodray.errors import ConfigError
from oodray.job.process_memory import set_up_process
from oodray.report.terminal import console, note, silent_console, warn
from oodray.results.folder import ResultsFolder
from oodray.results.lease import Lease
from oodray.scores.fitted.folder import Fit, FitFolder
from oodray.scores.fitted.scores import FITTED_SCORES, scores_with
from oodray.scores.fitted.settings import LABELS, FitSettings
from oodray.settings import Settings, shown
from oodray.spelling import did_you_mean
from oodray.storage.place import Place, remove_folder

if TYPE_CHECKING:
    from rich.console import Console

    from oodray.job.fitting import FitRequest
    from oodray.job.pipeline import Executor
    from oodray.job.plan import Plan

Confirm = Callable[[FitFolder], None]
"""Asked before the fit in a folder is removed; raises where it must not be."""


def fit(
    *,
    out: str | Place,
    scores: str | Sequence[str] = (),
    labels: str = "predicted",
    bank: int = 100_000,
    images: int | None = None,
    bank_dims: int | None = None,
    bank_coreset: int | None = None,
    quantile: float = 0.05,
    config: str | Path | None = None,
    progress: bool = True,
    overwrite: bool = False,
    **settings: Any,
) -> Fit:
    """Gather statistics of in-distribution images, and fit the scores that need them: what `oodray fit` does.

    Where the folder holds a part of the same fit, it is continued. Where it holds all of it, no image is read; scores
    that it lacks are fitted from its statistics.

        oodray.fit(dataset="cityscapes", root="cityscapes", model="internimage-l", out="FIT")

    Args:
        out: the folder of the fit, on a disk or in an object store.
        scores: names of `FITTED_SCORES`, as a list or a text with commas; by default all that the network allows.
        labels: whose classes the statistics go by, "predicted" or "true".
        bank: feature vectors to keep; where images have fewer, all are kept.
        images: how many images to take, drawn at random; by default all.
        bank_dims: principal components in which neighbours are searched; by default all dimensions.
        bank_coreset: vectors among which neighbours are searched, that cover the bank; by default all of it.
        quantile: share of in-distribution pixels that may be unsure, for tau.
        config: a YAML file of settings; `settings` win over it.
        progress: show progress and warnings on standard error; without it nothing is printed.
        overwrite: remove the fit that the folder holds, and start anew.
        settings: `dataset`, `root`, `model` and others of `docs/reference.md`; not those that a fit finds.

    Raises:
        ConfigError: a setting is unknown or has a value that it cannot have, or the network lacks what a score needs.
        DatasetError: the dataset is not there, or holds OoD pixels.
        ModelError: the network or its weights are not there.
        ResultsError: the folder holds another fit, or another one is at work on it.
        RunError: the pass failed; the same call continues it.
    """
    chosen = FitSettings(labels=labels, bank=bank, bank_dims=bank_dims, bank_coreset=bank_coreset)
    return start(
        settings,
        out=out,
        scores=scores,
        chosen=chosen,
        images=images,
        quantile=quantile,
        config=config,
        progress=progress,
        overwrite=overwrite,
    )


def start(
    settings: Settings,
    *,
    out: str | Place,
    scores: str | Sequence[str],
    chosen: FitSettings,
    images: int | None = None,
    quantile: float = 0.05,
    config: str | Path | None = None,
    progress: bool = True,
    overwrite: bool = False,
    confirm: Confirm = lambda _: None,
    own_process: bool = False,
) -> Fit:
    """As `fit`, with settings as mappings; see `oodray.api.start.start` for the rest.

    Raises:
        OodrayError: as `fit` does.
    """
    from oodray.datasets.manifest import draw_images
    from oodray.job.fitting import FitRequest, check_labels, stored

    check_quantile(quantile)
    names = check_scores(scores)
    _check(chosen, images)
    terminal = console(stderr=True) if progress else silent_console()
    from_file = {} if config is None else read_settings(Path(config))
    layers = in_distribution_layers(plain(settings), from_file)
    folder = FitFolder(out)
    request = FitRequest(folder, replace(chosen, seed=layers.config.seed), float(quantile), names)
    if own_process and layers.config.executor == "local":
        set_up_process()  # before torch is imported
    with contextlib.ExitStack() as started:
        left = overwrite or not folder.fit.exists()
        plan, executor = planned(layers, request.parts, terminal, started, left=left, seeks_ood=False)
        if images is not None:
            plan = replace(plan, manifest=draw_images(plan.manifest, images, layers.config.seed))
        check_labels(request.settings, plan)
        for warning in plan.warnings:
            warn(terminal, warning)
        if overwrite:
            confirm(folder)
        with Lease(ResultsFolder(folder.path), on_wait=lambda line: note(terminal, line)) as lease, started.pop_all():
            if lease.taken_over is not None:
                warn(terminal, f"{folder.path} was left by {lease.taken_over}, which is gone: its work is continued")
            if overwrite:
                remove(folder)
            there = stored(request, plan)
            found = _carried_out(request, plan, executor, terminal) if there is None else _with_scores(request, there)
    for name, text in {**found.content["refused"], **found.content["remarks"]}.items():
        warn(terminal, f"{name}: {text}")
    if found.content["vectors"] < chosen.bank:
        note(terminal, f"the images have {found.content['vectors']:,} feature vectors, fewer than --bank: all are kept")
    return found


def _carried_out(request: FitRequest, plan: Plan, executor: Executor, terminal: Console) -> Fit:
    from oodray.job.fitting import fit as fit_job
    from oodray.job.fitting import prepare
    from oodray.report.progress import Progress

    job = prepare(request, plan)
    total, left = plan.manifest.num_rows, job.left.images.num_rows
    with Progress(total=total, done=total - left, console=terminal) as shown:
        return fit_job(request, job, executor, shown.update, shown.note)


def _with_scores(request: FitRequest, there: Fit) -> Fit:
    """A finished fit, with the scores that are asked for: what it lacks is fitted from its statistics."""
    from oodray.job.fitting import write
    from oodray.scores.fitted.parts import Gathered

    remove_folder(request.folder.parts)  # of a fit that was stopped after its last step but this
    if {*request.scores} <= {*there.names, *there.content["refused"]}:
        return there
    both = replace(request, scores=check_scores([*there.names, *there.content["refused"], *request.scores]))
    content = there.content
    about = {name: content[name] for name in ("calibration", "confidence_quantiles")}
    return write(both, content["identity"], Gathered(there.sums, there.bank, there.queries), about)


def _check(chosen: FitSettings, images: int | None) -> None:
    if chosen.labels not in LABELS:
        raise ConfigError(f"labels must be {' or '.join(LABELS)}, got {shown(chosen.labels)}")
    for name, value in (
        ("bank", chosen.bank),
        ("images", images),
        ("bank_dims", chosen.bank_dims),
        ("bank_coreset", chosen.bank_coreset),
    ):
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, SupportsIndex) or value.__index__() < 1
        ):
            raise ConfigError(f"{name} must be a whole number of at least 1, got {shown(value)}")


def check_scores(scores: str | Sequence[str]) -> tuple[str, ...]:
    """Names of scores to fit, in the order of tables.

    Raises:
        ConfigError: naming one that is not known.

    >>> check_scores("vim, sml"), check_scores(["cdnp"]), check_scores(())
    (('sml', 'vim'), ('knn', 'cdnp'), ())
    """
    given = [name.strip() for name in scores.split(",")] if isinstance(scores, str) else list(scores)
    for unknown in (name for name in given if name not in FITTED_SCORES):
        raise ConfigError(f"no score to fit is named {unknown!r}; {did_you_mean(unknown, FITTED_SCORES, what='known')}")
    return scores_with(given)


def remove(folder: FitFolder) -> None:
    """Remove the fit that a folder holds, finished or not, and nothing else.

    Raises:
        ResultsError: there is a fit.json that is not one of oodray's.
    """
    if folder.fit.exists():
        folder.read()
    # fit.json goes last: as long as a file is there, it says what it belongs to.
    for path in (folder.statistics, folder.bank, folder.scores, folder.fit):
        path.unlink(missing_ok=True)
    remove_folder(folder.parts)
