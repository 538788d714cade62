"""The reference of a run with `--fit self`: a bank of its own images, with medians and ranges, in OUT/reference.

It is made once, in a first pass over the images of the run, or over a sample of them. A run that is continued, and one
that gets further images, keeps it. It is a fit as `oodray fit` writes it, of `knn` and `novelty` alone, so that
`oodray.detect(image, net, fit="OUT/reference")` compares another image with those of the run.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from oodray.config import SELF
from oodray.datasets.manifest import draw_images
from oodray.datasets.sequence import Sequences
from oodray.errors import ResultsError, RunError
from oodray.job.fitting import gathered
from oodray.job.passes import FirstPass, kept_folder
from oodray.job.pipeline import Executor, Job
from oodray.job.plan import Plan
from oodray.job.run import description
from oodray.job.units import UnitDone
from oodray.results.continuing import start_or_continue, what_is_left
from oodray.results.folder import ResultsFolder
from oodray.scores.fitted.bank import Bank
from oodray.scores.fitted.folder import Fit, FitFolder
from oodray.scores.fitted.parts import PartsFolder
from oodray.scores.fitted.settings import FitSettings
from oodray.storage.place import Place, remove_folder
from oodray.storage.remote import is_remote

FEW_IMAGES = 20
"""Images of a run below which what is common in it is hardly known, see `docs/novelty.md`."""


def prepare_reference(job: Job) -> Job | None:
    """The first pass of a run, a new one or the one that its folder holds; None where there is nothing to do.

    A reference of other settings is removed, unless the run has results that were made with it.
    """
    plan, folder = job.plan, job.folder
    if plan.config.fit != SELF or not job.left.images.num_rows:
        return None
    reference = FitFolder(folder.reference)
    drawn = _drawn(replace(plan, manifest=job.manifest))
    if reference.fit.exists() and (job.left.finished or _is_of(reference, drawn)):
        return None
    parts = ResultsFolder(reference.parts)
    try:
        finished = start_or_continue(parts, drawn.manifest, drawn.identity(), description(drawn))
    except ResultsError:  # of a run with other settings, which left no results
        remove_folder(folder.reference)
        finished = start_or_continue(parts, drawn.manifest, drawn.identity(), description(drawn))
    if not finished:
        PartsFolder(parts.path).remove()
        remove_folder(kept_folder(folder))
    first = FirstPass(
        folder=str(parts.path),
        kept=str(kept_folder(folder)),
        bank=FitSettings.bank,
        seed=plan.config.seed,
        bytes_of_image=bytes_of_image(plan, folder.path),
    )
    return Job(drawn, parts, what_is_left(parts, drawn.manifest, finished), drawn.manifest, first)


def bytes_of_image(plan: Plan, path: Place) -> int:
    """What may be kept of an image between the passes.

    Nothing is kept in an object store, nor where the first pass does not see all images.
    """
    if plan.config.reference_images is not None or is_remote(path):
        return 0
    return math.floor(plan.config.keep_features_gb * 1e9 / plan.manifest.num_rows)


def make_reference(
    job: Job,
    folder: ResultsFolder,
    executor: Executor,
    on_unit: Callable[[UnitDone], None] = lambda _: None,
    on_start: Callable[[str], None] = lambda _: None,
) -> Fit:
    """Draw the bank from the images that are left, and write the reference.

    Args:
        job: the first pass.
        folder: of the run.
        executor: where it is computed, entered by the caller.
        on_unit: hears of every finished unit.
        on_start: hears how the pass is scheduled.

    Raises:
        ConfigError: the cluster cannot have the workers, or a machine does not see a file.
        RunError: the pass fails, all images failing included.
    """
    bank = gathered(job, executor, on_unit, on_start).bank
    if bank is None or not len(bank):
        raise RunError(
            f"all {job.plan.manifest.num_rows} images failed; `oodray status {job.folder.path}` shows the most "
            "frequent errors"
        )
    return _written(job.plan, folder, bank)


def first_pass_text(job: Job) -> str:
    """What the first pass does, in a line."""
    config, first = job.plan.config, job.gathering
    assert isinstance(first, FirstPass), "it is the first pass"
    images = f"{job.plan.manifest.num_rows} images of the run"
    if config.reference_images is not None:
        kept = "they pass the network again with the others"
    elif not first.bytes_of_image:
        kept = "all pass the network again afterwards"
    else:
        kept = (
            f"of each up to {first.bytes_of_image / 1e6:.1f} MB are kept ({config.keep_features_gb:g} GB in all) where "
            "reading them is faster than the network; the others pass it again"
        )
    return f"first pass: features of {images}; {kept}"


def warnings_of(reference: Fit) -> list[str]:
    """What the user should know of a reference."""
    found = [f"{name}: {text}" for name, text in reference.content["remarks"].items()]
    images = reference.content["reference"]["images"]
    if images < FEW_IMAGES:
        found.append(
            f"novelty compares each image with {images - 1} others: below some {FEW_IMAGES} images it knows little of "
            "what is common, see docs/novelty.md"
        )
    return found


def _drawn(plan: Plan) -> Plan:
    """The plan of the first pass: the images of the run, or a sample of them."""
    count = plan.config.reference_images
    if count is None:
        return plan
    return replace(plan, manifest=draw_images(plan.manifest, count, plan.config.seed))


def _is_of(reference: FitFolder, plan: Plan) -> bool:
    return bool(reference.read()["identity"] == plan.identity())


def _written(plan: Plan, folder: ResultsFolder, bank: Bank) -> Fit:
    import torch

    from oodray.scores.fitted.fitting import fit_of_self
    from oodray.scores.fitted.key_scales import scales_of_self

    sequences, gap = Sequences.of(plan.manifest), plan.config.reference_gap or 0
    threads = torch.get_num_threads()
    torch.set_num_threads(plan.config.threads)
    try:
        fitted = fit_of_self(bank, lambda image_id: sequences.around(image_id, gap))
    finally:
        torch.set_num_threads(threads)
    target = FitFolder(folder.reference)
    target.write(
        plan.identity(),
        FitSettings(seed=plan.config.seed),
        None,
        bank,
        fitted.parameters,
        fitted=fitted.names,
        refused=fitted.refused,
        remarks=fitted.remarks,
        scales={name: scale.name for name, scale in scales_of_self(bank).items()},
        reference={"images": plan.manifest.num_rows, "gap": gap},
    )
    remove_folder(target.parts)
    return Fit(target.path)
