"""A fit: one pass over in-distribution images, and from what they gave the parameters of every score.

The images pass the stages of a run, in `FIT/parts`, with the executor of one. Its files give tau and the false alarms,
as those of `oodray calibrate` do; beside them a worker gathers sums and the bank. When all units are done, the scores
are fitted, fit.json is written, and the parts are removed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from oodray.analysis.calibration import calibrate, known_confidence
from oodray.cluster.signals import noted
from oodray.datasets.layouts import Layout
from oodray.errors import ConfigError, ResultsError, RunError
from oodray.job.gathering import Gathering
from oodray.job.pipeline import Executor, Job
from oodray.job.plan import Plan
from oodray.job.run import description
from oodray.job.units import UnitDone
from oodray.results.continuing import refuse_another, start_or_continue, what_is_left
from oodray.results.folder import ResultsFolder
from oodray.results.numbering import numbered
from oodray.results.reading import finished_units
from oodray.results.waves import open_waves
from oodray.scores.fitted.bank import Bank
from oodray.scores.fitted.folder import Fit, FitFolder
from oodray.scores.fitted.parts import Adding, Gathered, PartsFolder
from oodray.scores.fitted.scores import BY_NAME_ALONE, FITTED_SCORES, scores_needing
from oodray.scores.fitted.settings import FitSettings
from oodray.scores.fitted.sums import Sums
from oodray.storage.place import remove_folder

UNITS_BETWEEN = 64
"""Finished units after which what they gave is added up: often enough that little is left to do at the end."""

QUANTILES = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999)
"""Of the maximum logit, noted in fit.json."""


@dataclass(frozen=True)
class FitRequest:
    """What is to be fitted.

    Attributes:
        folder: of the fit.
        settings: of the statistics.
        quantile: share of in-distribution pixels that may be unsure, for tau.
        scores: asked for by name; empty for all that the network allows.
    """

    folder: FitFolder
    settings: FitSettings = field(default_factory=FitSettings)
    quantile: float = 0.05
    scores: tuple[str, ...] = ()

    @property
    def parts(self) -> ResultsFolder:
        """The folder of the pass."""
        return ResultsFolder(self.folder.parts)

    def names(self, gathered: Gathered) -> tuple[str, ...]:
        """The scores to fit."""
        if self.scores:
            return self.scores
        lacking = {*BY_NAME_ALONE}
        if gathered.bank is None or gathered.bank.head_inputs is None:
            lacking |= {*scores_needing("head")}
        if gathered.queries is None:
            lacking |= {*scores_needing("queries")}
        return tuple(name for name in FITTED_SCORES if name not in lacking)

    def identity(self, plan: Plan) -> dict[str, Any]:
        """What a continued fit must share with the one that it continues."""
        return plan.identity() | {name: value for name, value in asdict(self.settings).items() if name != "seed"}


def check_labels(settings: FitSettings, plan: Plan) -> None:
    """Refuse true classes where no label file has them, before any work is done.

    Raises:
        ConfigError: saying why there are none.
    """
    if settings.labels == "true" and (not _labelled(plan) or len(classes_of(plan.layout)) < 2):
        raise ConfigError(
            f"--labels true needs labels of classes, which {plan.layout.title} does not have: pass --labels predicted, "
            "or --dataset cityscapes, ade20k or camvid"
        )


def classes_of(layout: Layout) -> tuple[int, ...]:
    """The codes of a dataset's classes, in the order of a network's that was trained on it; empty where unknown."""
    return tuple(sorted(layout.label_codes.in_distribution or ()))


def stored(request: FitRequest, plan: Plan) -> Fit | None:
    """The fit that a folder holds, if it is finished.

    Raises:
        ResultsError: it is one of another network or with other settings.
    """
    if not request.folder.fit.exists():
        return None
    fit = Fit(request.folder.path)
    refuse_another(request.folder.path, "fit", fit.content["identity"], _as_json(request.identity(plan)))
    quantile = fit.content["calibration"]["quantile"]
    if request.quantile != quantile:
        raise ResultsError(
            f"{request.folder.path} holds a fit whose tau is of the quantile {quantile}, not of {request.quantile}: "
            f"pass --quantile {quantile}, choose another --out, or pass --overwrite"
        )
    return fit


def prepare(request: FitRequest, plan: Plan) -> Job:
    """Prepare the pass, a new one or the one that the folder holds; gives what is left to do.

    Raises:
        ResultsError: the folder holds another fit; the message names what is different.
    """
    parts = request.parts
    manifest = numbered(parts, plan.manifest)
    finished = start_or_continue(parts, manifest, request.identity(plan), description(plan))
    if not finished:
        PartsFolder(parts.path).remove()
    settings = request.settings
    gathering = Gathering(
        folder=str(parts.path),
        bank=settings.bank,
        seed=settings.seed,
        labelled=_labelled(plan),
        classes=classes_of(plan.layout) if settings.labels == "true" else None,
        head_scores=tuple(name for name in request.scores if name in scores_needing("head")),
        query_scores=tuple(name for name in request.scores if name in scores_needing("queries")),
    )
    return Job(plan, parts, what_is_left(parts, manifest, finished), manifest, gathering)


def fit(
    request: FitRequest,
    job: Job,
    executor: Executor,
    on_unit: Callable[[UnitDone], None] = lambda _: None,
    on_start: Callable[[str], None] = lambda _: None,
) -> Fit:
    """Gather from the images that are left, then fit the scores and write them.

    Args:
        request: what is to be fitted.
        job: what is left.
        executor: where it is computed, entered by the caller.
        on_unit: hears of every finished unit.
        on_start: hears how the pass is scheduled.

    Raises:
        ConfigError: the cluster cannot have the workers, or a machine does not see a file.
        DatasetError: pixels are labelled OoD.
        RunError: the pass fails, all images failing included.
    """
    total = gathered(job, executor, on_unit, on_start)
    if total.sums is None or total.bank is None:
        raise RunError(
            f"all {job.plan.manifest.num_rows} images failed; `oodray status {job.folder.path}` shows the most "
            "frequent errors"
        )
    about = _confidence(job.folder, request.quantile)
    return write(request, request.identity(job.plan), total, about)


def write(request: FitRequest, identity: dict[str, Any], gathered: Gathered, about: dict[str, Any]) -> Fit:
    """Fit the scores, write the fit, and remove its parts.

    Raises:
        ConfigError: a name is unknown.
        RunError: it cannot be written.
    """
    from oodray.scores.fitted.fitting import fit_scores
    from oodray.scores.fitted.key_scales import key_scale

    sums, bank = gathered.sums, gathered.bank
    assert isinstance(sums, Sums), "there is an image"
    assert isinstance(bank, Bank), "there is an image"
    fitted = fit_scores(request.names(gathered), sums, bank, request.settings, gathered.queries)
    request.folder.write(
        _as_json(identity),
        request.settings,
        sums,
        bank,
        fitted.parameters,
        queries=gathered.queries,
        fitted=fitted.names,
        refused=fitted.refused,
        remarks=fitted.remarks,
        scales={name: key_scale(name, sums, bank, fitted.parameters.get(name)).name for name in fitted.names},
        **about,
    )
    remove_folder(request.folder.parts)
    return Fit(request.folder.path)


def gathered(
    job: Job, executor: Executor, on_unit: Callable[[UnitDone], None], on_start: Callable[[str], None]
) -> Gathered:
    """What a pass gathers of all images, those that were done before included; see `fit` for the arguments.

    Raises:
        RunError: the pass fails.
    """
    adding = Adding(PartsFolder(job.folder.path))
    for number, done in enumerate(_streamed(job, executor, on_start), 1):
        on_unit(done)
        if number % UNITS_BETWEEN == 0:
            adding.take(finished_units(job.folder))
    adding.take(finished_units(job.folder))
    return adding.total(len(set(job.manifest["unit"].to_pylist())))


def _streamed(job: Job, executor: Executor, on_start: Callable[[str], None]) -> Iterator[UnitDone]:
    """What an executor does of a job, until a signal asks to stop."""
    if not job.left.images.num_rows:
        return
    # Units in waves, which stay open: a folder with a file for each of many would be slow to list.
    open_waves(job.folder, job.manifest, job.left.units)
    with noted() as stopped:
        for done in executor.stream(job, on_start):
            yield done
            if stopped.is_set():
                raise KeyboardInterrupt


def _confidence(parts: ResultsFolder, quantile: float) -> dict[str, Any]:
    """What fit.json says of the maximum logit: tau and its false alarms, and quantiles."""
    known, _, _ = known_confidence(parts)
    return {
        "calibration": asdict(calibrate(parts, quantile)),
        "confidence_quantiles": {f"{share:g}": known.quantile(share) for share in QUANTILES},
    }


def _labelled(plan: Plan) -> bool:
    return plan.manifest["label_uri"].null_count < plan.manifest.num_rows


def _as_json(identity: dict[str, Any]) -> dict[str, Any]:
    """As it is read again: JSON has lists alone."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in identity.items()}
