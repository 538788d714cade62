"""Joining the shares of a run, which several drivers have computed."""

from __future__ import annotations

from collections.abc import Iterable

from oodray.analysis.evaluation import evaluate_run
from oodray.api.run import Run
from oodray.report.terminal import console, note, silent_console, warn
from oodray.results.continuing import finish
from oodray.results.folder import ResultsFolder
from oodray.results.lease import Lease
from oodray.results.merging import merge_shares, other_versions_of_shares, read_shares
from oodray.storage.place import Place


def merge(outs: Iterable[str | Place], *, out: str | Place, progress: bool = True) -> Run:
    """Join the shares of a run, made with `shard="1/N"` to `shard="N/N"`, and evaluate it: what `oodray merge` does.

    The result is as if one driver had computed it, and is continued, or appended to, as such a run. The shares stay:
    on one drive their files are linked, not copied.

        shares = [oodray.run(dataset="folder", root="photos", out=f"share-{n}", shard=f"{n}/2") for n in (1, 2)]
        oodray.merge([share.out for share in shares], out="photos-run")

    Args:
        outs: the results folders of all shares, in any order.
        out: the results folder of the run, on a disk or in an object store.
        progress: show warnings on standard error; without it nothing is printed.

    Raises:
        ResultsError: a share is missing, given twice, not finished or of another run, `out` holds something else, or
            another run is at work on it.
        RunError: the folder cannot be written to.
    """
    terminal = console(stderr=True) if progress else silent_console()
    shares = read_shares([ResultsFolder(share) for share in outs])
    folder, warnings = ResultsFolder(out), []
    of_versions = other_versions_of_shares(shares)
    if of_versions is not None:
        warnings.append(of_versions)
        warn(terminal, of_versions)
    with Lease(folder, on_wait=lambda line: note(terminal, line)):
        merge_shares(shares, folder)
        evaluation = evaluate_run(folder, on_ray=False)
        if "finished" not in folder.read_run():
            finish(folder, evaluation.images, evaluation.failed, max(share.run.get("seconds", 0.0) for share in shares))
    return Run(folder, evaluation=evaluation, warnings=warnings)
