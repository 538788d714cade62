"""Score maps of another method as an import reads them: found, brought to size, turned, blurred, rounded to float32."""

from __future__ import annotations

import hashlib
import lzma
import shutil
import tarfile
import uuid
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from oodray.datasets.manifest import label_uris, read_manifest
from oodray.datasets.score_files import SUFFIXES, find_score_files
from oodray.datasets.score_maps import filled, read_scores
from oodray.errors import ConfigError, DatasetError, ImageError
from oodray.results.folder import ResultsFolder
from oodray.scores.blur import blurred

RESIZES = ("nearest", "bilinear")
"""How a score map of another size than its label is brought to it; without one of them it is an error."""

CONFIDENCE = "_conf"
"""How BRAVO ends the names of its maps: their shares are high where a method is sure, so 1 - x is the score."""

_ENCODED = "_encoded.bin"
_CHUNK = 2**20
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Reading:
    """What is done with a map once it is read, in this order.

    Attributes:
        resize: one of `RESIZES`, or None.
        negate: whether its scores are higher for less anomalous pixels.
        blur: whether it is blurred, see `oodray.scores.blur`.
    """

    resize: str | None = None
    negate: bool = False
    blur: bool = False


@dataclass(frozen=True)
class Maps:
    """The score maps of some images.

    Attributes:
        files: the file of each image that has one.
        folder: where they are from.
        reading: how they are read.
    """

    files: Mapping[str, Path]
    folder: Path
    reading: Reading

    @classmethod
    def of(cls, folder: Path, manifest: pa.Table, reading: Reading) -> Maps:
        """The maps of the images of a manifest.

        Raises:
            ConfigError: the rule of resizing is unknown, or confidences are to be turned twice.
            DatasetError: see `find_score_files`.
        """
        if reading.resize is not None and reading.resize not in RESIZES:
            raise ConfigError(f"--resize must be one of {', '.join(RESIZES)}, not {reading.resize!r}")
        labels = label_uris(manifest)
        files = find_score_files(folder, labels, labels)
        confidence = next((path for path in files.values() if path.stem.endswith(CONFIDENCE)), None)
        if reading.negate and confidence is not None:
            raise ConfigError(
                f"--negate does not go with {confidence}: a map named {CONFIDENCE} holds confidences, and 1 - x is its "
                "score already: turned twice, the surest pixels would be the most anomalous. Leave --negate "
                "away; if these are no confidences, rename them"
            )
        return cls(files, folder, reading)

    def digest(self) -> str:
        """Of the name, size and date of every file, and of whose it is: another one where a map was written anew.

        Raises:
            DatasetError: a file is gone.
        """
        digest = hashlib.sha256()
        for image_id, path in sorted(self.files.items()):
            try:
                found = path.stat()
            except OSError as error:
                raise DatasetError(f"cannot read the score map {path}: {error.strerror}") from error
            name = path.relative_to(self.folder).as_posix()
            digest.update(f"{image_id}\0{name}\0{found.st_size}\0{found.st_mtime_ns}\n".encode())
        return digest.hexdigest()

    def __call__(self, image_id: str, size: tuple[int, int]) -> NDArray[np.float32]:
        """The score map of an image of a height and a width, which may hold NaN and infinity.

        Raises:
            ImageError: there is none, or it cannot be read, or has another size.
        """
        path = self.files.get(image_id)
        if path is None:
            raise ImageError(f"no score map below {self.folder} is named after this image")
        scores = read_scores(path)
        finite = np.isfinite(scores)
        mixes = (self.reading.blur or scores.shape != size) and finite.any() and not finite.all()
        # In a mean of neighbours NaN would spread to pixels that have a score.
        whole = _resized(path, filled(scores, finite) if mixes else scores, size, self.reading.resize)
        if self.reading.negate:
            whole = -whole
        if path.stem.endswith(CONFIDENCE):
            whole = 1 - whole  # BRAVO's confidence, a share
        if self.reading.blur:
            whole = blurred(whole)
        if mixes:
            whole = np.where(_nearest(finite, size), whole, np.nan).astype(whole.dtype)
        return _rounded(path, whole)


def imported_maps(folder: ResultsFolder) -> Maps | None:
    """The score maps of an import, found again; None of a run that imported nothing.

    Raises:
        DatasetError: they are not there any more.
        ResultsError: this is no results folder.
    """
    imported = folder.read_run().get("imported")
    if imported is None:
        return None
    scores = Path(imported["folder"])
    reading = Reading(**{name: imported[name] for name in asdict(Reading()) if name in imported})
    return Maps.of(scores, read_manifest(folder.manifest), reading)


def unpacked(archive: Path, parent: Path) -> Path:
    """The score maps of a tar file, such as a submission to BRAVO, unpacked into a folder of its whole name.

    What that folder held before is removed: it was unpacked from the same name.

    Args:
        archive: the tar.
        parent: of the folder.

    Raises:
        DatasetError: it cannot be read, or holds none.
    """
    target, temporary = parent / archive.name, parent / f".{archive.name}.{uuid.uuid4().hex}.tmp"
    try:
        with tarfile.open(archive) as tar:
            members = [member for member in tar.getmembers() if Path(member.name).suffix.lower() in SUFFIXES]
            if not members:
                raise DatasetError(f"{archive} holds no score maps ({', '.join(sorted(SUFFIXES))}){_why_none(tar)}")
            tar.extractall(temporary, members, filter="data")
            while tar.fileobj is not None and tar.fileobj.read(_CHUNK):  # gzip checks its sum at the very end
                pass
        if target.exists():
            shutil.rmtree(target)
        temporary.rename(target)
    except (OSError, EOFError, ValueError, tarfile.TarError, lzma.LZMAError, zlib.error) as error:
        raise DatasetError(f"cannot unpack {archive}: {error}; fetch or write it again") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _why_none(tar: tarfile.TarFile) -> str:
    if not any(name.endswith(_ENCODED) for name in tar.getnames()):
        return ""
    return (
        f", but a submission to BRAVO as it is encoded for its server: its *{_ENCODED} have the confidence of a sample "
        "of pixels alone; import the *_conf.png that were encoded"
    )


def _nearest(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """A mask at another size: each pixel is the one that its centre lies in."""
    rows, columns = (
        np.minimum(((np.arange(new) + 0.5) * old / new).astype(np.intp), old - 1)
        for new, old in zip(size, mask.shape, strict=True)
    )
    return np.asarray(mask[rows[:, None], columns])


def _resized(path: Path, scores: NDArray[Any], size: tuple[int, int], rule: str | None) -> NDArray[Any]:
    """The scores at the size of the label."""
    if scores.shape == size:
        return scores
    if rule is None:
        raise ImageError(
            f"the score map {path} is {scores.shape[1]}x{scores.shape[0]}, the label {size[1]}x{size[0]}: "
            "pass --resize bilinear or --resize nearest, whichever its method uses"
        )
    import torch
    from torch.nn.functional import interpolate

    # nearest-exact takes the pixel that a new one's centre lies in, as OpenCV and Pillow do; "nearest" is a bit off.
    mode = {"nearest": "nearest-exact", "bilinear": "bilinear"}[rule]
    tensor = torch.from_numpy(np.ascontiguousarray(scores))[None, None]
    return np.asarray(interpolate(tensor, size, mode=mode)[0, 0].numpy())


def _rounded(path: Path, scores: NDArray[Any]) -> NDArray[np.float32]:
    """The scores as float32, which tallies count exactly."""
    if scores.dtype == np.float32:
        return scores
    if (np.abs(scores[np.isfinite(scores)]) > _LARGEST).any():
        raise ImageError(
            f"{path} holds scores beyond {_LARGEST:g}, the largest float32; divide all of them by a number"
        )
    return scores.astype(np.float32)
