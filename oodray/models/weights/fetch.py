"""The weights of a named network, brought to where a run looks for them."""

from __future__ import annotations

import shutil
from pathlib import Path

from oodray.errors import DownloadError, ModelError
from oodray.models.weights.download import CannotWriteError, Report, download
from oodray.models.weights.wrong_files import describe_wrong_file
from oodray.models.weights.zoo import ZooModel, elsewhere, find_checkpoint
from oodray.storage.atomic import replacing, sha256_of


def fetch(model: ZooModel, source: Path | None, report: Report) -> Path:
    """Where the weights of `model` now are: already there, copied from `source`, or downloaded.

    Raises:
        ModelError: if a file at hand is not the published one.
        DownloadError: if the download failed.
    """
    if model.folder is not None:
        return find_checkpoint(model)
    target = model.checkpoint
    if target.is_file():
        _check_present(model, target)
    elif source is not None:
        _copy(model, source, target)
    else:
        try:
            download(model.url, target, sha256=model.sha256, report=report)
        except DownloadError as error:
            no_place = isinstance(error, CannotWriteError)
            remedy = "OODRAY_CACHE=DIR names another folder for weights." if no_place else elsewhere(model)
            raise DownloadError(f"{error}\n{remedy}") from error
    return target


def _check_present(model: ZooModel, target: Path) -> None:
    found = _sha256(target)
    if found != model.sha256:
        raise ModelError(
            f"{target} is there already, and is not the file published as {model.name}: {_difference(target, found)}. "
            "Move it away and run the command again; to use it as it is, pass it as --checkpoint FILE."
        )


def _copy(model: ZooModel, source: Path, target: Path) -> None:
    found = _sha256(source)
    if found != model.sha256:
        raise ModelError(
            f"{source} is not the file published as {model.name}: {_difference(source, found)}. "
            f"Whether it fits the network tells `oodray models verify {source} --model {model.name}`; "
            "to use it as it is, pass it as --checkpoint FILE."
        )
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)


def _difference(path: Path, sha256: str) -> str:
    return describe_wrong_file(path) or f"its sha256 is {sha256}"


def _sha256(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from error
