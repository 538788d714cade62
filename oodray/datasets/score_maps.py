"""Score maps that another method wrote: finding the file of each image, and reading it.

A file belongs to an image by its name: the image's id or the last part of it, followed by nothing or by what an
evaluator appends. Formats are `.npy`, `.npz`, PNG of 16 bits, TIFF, and HDF5 as the benchmark of SegmentMeIfYouCan
writes it.
"""

from __future__ import annotations

import io
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray
from PIL import Image

from oodray.datasets.images import MAX_BYTES, MAX_PIXELS
from oodray.errors import DatasetError, ImageError

ENDINGS = ("", "_dood_scores", "_anomaly", "_score", "_scores")
"""What stands after the image's name: nothing, or what ADE-OoD's and Fishyscapes' evaluators expect, or plain words."""

SUFFIXES = frozenset({".npy", ".npz", ".png", ".tif", ".tiff", ".hdf5", ".h5"})
"""Suffixes of score files, in any case."""

_ARRAY_NAMES = ("scores", "score", "anomaly", "value", "arr_0")
_LEVELS_16_BITS = 65535


def find_score_files(folder: Path, image_ids: Iterable[str]) -> dict[str, Path]:
    """The score file of each image that has one.

    Raises:
        DatasetError: the folder is not there, no image has a file, or one has two.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder; name the one with the score maps")
    by_name = _files_by_name(folder)
    wanted = list(image_ids)
    found = {}
    for image_id in wanted:
        files = _files_of(image_id, by_name)
        if len(files) > 1:
            raise DatasetError(f"two score maps belong to {image_id}: {files[0]} and {files[1]}; remove one of them")
        if files:
            found[image_id] = files[0]
    if not found:
        name = wanted[0].rpartition("/")[2]
        examples = ", ".join([*sorted(by_name)[:3], "..."]) if by_name else "none at all"
        raise DatasetError(
            f"no score map below {folder} is named after an image: expected is {name}.npy or {name}_anomaly.npy, for "
            f"example (also {', '.join(sorted(SUFFIXES - {'.npy'}))}); there are {examples}"
        )
    return found


def read_scores(path: Path) -> NDArray[np.float32] | NDArray[np.float64]:
    """The scores of one file, `(H, W)`, higher = more anomalous: float64 as they are, everything else as float32.

    A PNG's 16 bits are shares of 65535. Nothing in a file is executed.

    Raises:
        ImageError: the file cannot be read, holds no such map, or one with NaN or infinity.
    """
    with _score_errors(path):
        scores = _without_axes_of_one(_READERS[path.suffix.lower()](path))
    if scores.ndim != 2 or not 0 < scores.size <= MAX_PIXELS:
        raise ImageError(f"{path} holds an array of shape {scores.shape}, not the scores of an image, (H, W)")
    if scores.dtype.kind not in "fiub":
        raise ImageError(f"{path} holds {scores.dtype}, not numbers")
    scores = scores.astype(np.float64 if scores.dtype == np.float64 else np.float32)
    if not np.isfinite(scores).all():
        raise ImageError(f"{path} holds NaN or infinity, which have no place in a ranking")
    return scores


def open_arrays(file: BinaryIO) -> NpzFile:
    """The arrays of an npz file, read without pickle. A few megabytes of zip can unpack to as many gigabytes.

    Raises:
        ImageError: one of them has more than `MAX_BYTES`.
    """
    with zipfile.ZipFile(file) as archive:
        largest = max((entry.file_size for entry in archive.infolist()), default=0)
    if largest > MAX_BYTES:
        raise ImageError(f"an array in the archive has {largest} bytes, more than {MAX_BYTES}")
    file.seek(0)
    return NpzFile(file, allow_pickle=False)


def _files_by_name(folder: Path) -> dict[str, list[Path]]:
    """Score files by their path below the folder, without suffix."""
    files: defaultdict[str, list[Path]] = defaultdict(list)
    try:
        for path in sorted(folder.rglob("*")):
            hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
            if path.suffix.lower() in SUFFIXES and not hidden and path.is_file():
                files[path.relative_to(folder).with_suffix("").as_posix()].append(path)
    except OSError as error:
        raise DatasetError(f"cannot read {error.filename or folder}: {error.strerror}") from error
    for name in list(files):
        last = name.rpartition("/")[2]
        if last != name:
            files[last].extend(path for path in files[name] if path not in files[last])
    return dict(files)


def _files_of(image_id: str, by_name: dict[str, list[Path]]) -> list[Path]:
    """Files named after an image: after its whole id, or else after the last part of it."""
    for name in (image_id, image_id.rpartition("/")[2]):
        files = [path for ending in ENDINGS for path in by_name.get(name + ending, [])]
        if files:
            return files
    return []


@contextmanager
def _score_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (ImageError, DatasetError):
        raise
    except Exception as error:  # hostile bytes: OSError, ValueError, struct.error, zipfile.BadZipFile, ...
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ImageError(f"cannot read the score map {path} ({type(error).__name__}: {reason})") from error


def _without_axes_of_one(array: NDArray[Any]) -> NDArray[Any]:
    """The map of a batch of one, or of one channel."""
    while array.ndim > 2 and array.shape[0] == 1:
        array = array[0]
    while array.ndim > 2 and array.shape[-1] == 1:
        array = array[..., 0]
    return array


def _read_npy(path: Path) -> NDArray[Any]:
    with path.open("rb") as file:
        array: NDArray[Any] = np.load(file, allow_pickle=False)
        return array


def _read_npz(path: Path) -> NDArray[Any]:
    with path.open("rb") as file, open_arrays(file) as arrays:
        array: NDArray[Any] = arrays[_only_name(path, arrays.files)]
        return array


def _read_image(path: Path) -> NDArray[Any]:
    image = Image.open(io.BytesIO(path.read_bytes()), formats=("PNG", "TIFF"))
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(f"{path} has more than {MAX_PIXELS} pixels")
    if image.mode == "F":
        return np.array(image)
    if not image.mode.startswith("I"):
        raise ImageError(
            f"{path} has 8 bits a pixel (mode {image.mode}): 256 levels are too few for a ranking; write 16 bits"
        )
    return np.array(image).astype(np.float64) / _LEVELS_16_BITS


def _read_hdf5(path: Path) -> NDArray[Any]:
    try:
        import h5py
    except ImportError:
        raise DatasetError(f"{path} is an HDF5 file, which h5py reads: pip install 'oodray[hdf5]'") from None
    with h5py.File(path, "r") as file:
        names = [name for name in file if isinstance(file[name], h5py.Dataset)]
        dataset = file[_only_name(path, names)]
        if dataset.size > MAX_PIXELS:
            raise ImageError(f"{path} holds an array of shape {dataset.shape}, more than {MAX_PIXELS} scores")
        array: NDArray[Any] = dataset[()]
        return array


_READERS = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".png": _read_image,
    ".tif": _read_image,
    ".tiff": _read_image,
    ".hdf5": _read_hdf5,
    ".h5": _read_hdf5,
}


def _only_name(path: Path, names: list[str]) -> str:
    """The array that holds the scores: the only one, or the one with a usual name."""
    usual = [name for name in _ARRAY_NAMES if name in names]
    if len(names) == 1 or usual:
        return usual[0] if usual else names[0]
    raise ImageError(f"{path} holds {len(names)} arrays, none named {', '.join(_ARRAY_NAMES)}")
