"""Score maps that another method wrote: reading a file, whatever its format, without executing anything in it.

Formats are `.npy`, `.npz`, PNG, TIFF, `.pt` of PyTorch, `.mat` of MATLAB, and HDF5 as the benchmark of
SegmentMeIfYouCan writes it. `oodray.datasets.score_files` finds the file of an image.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from oodray.datasets.images import MAX_BYTES, MAX_PIXELS
from oodray.errors import DatasetError, ImageError

_ARRAY_NAMES = ("scores", "score", "anomaly_scores", "anomaly_score", "ood_score", "anomaly", "value", "arr_0")
_LEVELS_16_BITS, _LEVELS_8_BITS = 65535, 255


def read_scores(path: Path) -> NDArray[np.float32] | NDArray[np.float64]:
    """The scores of one file, `(H, W)`: float64 as they are, everything else as float32.

    A PNG's 16 bits are shares of 65535, its 8 bits shares of 255. Scores may be NaN or infinite.

    Raises:
        ImageError: the file cannot be read, or holds no such map.
    """
    with _score_errors(path):
        scores = _without_axes_of_one(_READERS[path.suffix.lower()](path))
    if scores.ndim != 2 or not 0 < scores.size <= MAX_PIXELS:
        raise ImageError(f"{path} holds an array of shape {scores.shape}, not the scores of an image, (H, W)")
    if scores.dtype.kind not in "fiub":
        raise ImageError(f"{path} holds {scores.dtype}, not numbers")
    return scores if scores.dtype == np.float64 else scores.astype(np.float32)


def filled(scores: NDArray[Any], finite: NDArray[np.bool_]) -> NDArray[Any]:
    """The scores, and where there is no number that of the nearest pixel which has one.

    Args:
        scores: `(H, W)`.
        finite: `(H, W)`, where there is a number; somewhere there is.

    >>> filled(np.array([[1.0, np.nan, np.nan, 4.0]]), np.array([[True, False, False, True]])).tolist()
    [[1.0, 1.0, 4.0, 4.0]]
    """
    from scipy import ndimage

    at = ndimage.distance_transform_edt(~finite, return_distances=False, return_indices=True)
    return np.asarray(scores[tuple(at)])


def has_few_levels(path: Path) -> bool:
    """Whether a file holds at most 256 levels: a PNG of 8 bits. A file that cannot be read holds none."""
    if path.suffix.lower() != ".png":
        return False
    try:
        with Image.open(path, formats=("PNG",)) as image:
            return not image.mode.startswith("I")
    except (OSError, SyntaxError, ValueError):
        return False


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
    if image.mode in ("L", "1"):
        return np.array(image.convert("L")).astype(np.float64) / _LEVELS_8_BITS
    if not image.mode.startswith("I"):
        raise ImageError(f"{path} is a picture in colour (mode {image.mode}), not one number a pixel")
    return np.array(image).astype(np.float64) / _LEVELS_16_BITS


def _read_tiff(path: Path) -> NDArray[Any]:
    """A TIFF; of 64 bits by OpenCV, as Pillow has no such pixels."""
    try:
        return _read_image(path)
    except UnidentifiedImageError:
        import cv2

        found = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
        if found is None:
            raise
        return np.asarray(found)


def _read_torch(path: Path) -> NDArray[Any]:
    import torch

    if path.stat().st_size > MAX_BYTES:
        raise ImageError(f"{path} has more than {MAX_BYTES} bytes")
    content = torch.load(path, map_location="cpu", weights_only=True)  # tensors and plain values, nothing else
    if isinstance(content, Mapping):
        tensors = {str(name): value for name, value in content.items() if isinstance(value, torch.Tensor)}
        content = tensors[_only_name(path, list(tensors))]
    if not isinstance(content, torch.Tensor):
        raise ImageError(f"{path} holds {type(content).__name__}, not a tensor of scores")
    wide = content.float() if content.dtype == torch.bfloat16 else content
    return np.asarray(wide.detach().numpy())


def _read_mat(path: Path) -> NDArray[Any]:
    from scipy import io as mat

    if path.stat().st_size > MAX_BYTES:
        raise ImageError(f"{path} has more than {MAX_BYTES} bytes")
    with path.open("rb") as file:
        is_hdf5 = file.read(512).startswith(b"MATLAB 7.3")
    if is_hdf5:
        return _read_hdf5(path).T  # MATLAB stores columns
    arrays = {name: value for name, value in mat.loadmat(path).items() if not name.startswith("__")}
    array: NDArray[Any] = arrays[_only_name(path, list(arrays))]
    return array


def _read_hdf5(path: Path) -> NDArray[Any]:
    try:
        import h5py
    except ImportError:
        raise DatasetError(f"{path} is an HDF5 file, which h5py reads: pip install 'oodray[hdf5]'") from None
    # A reader needs no lock, and many file servers have none to give: https://github.com/h5py/h5py/issues/1101.
    with h5py.File(path, "r", locking=False) as file:
        links = {name: file.get(name, getlink=True) for name in file}
        inside = [name for name, link in links.items() if not isinstance(link, h5py.ExternalLink)]
        dataset = file[_only_name(path, [name for name in inside if isinstance(file.get(name), h5py.Dataset)])]
        if dataset.is_virtual or dataset.external:
            raise ImageError(
                f"{path} takes its scores from other files, which is not followed: store them in this file"
            )
        if dataset.size > MAX_PIXELS:
            raise ImageError(f"{path} holds an array of shape {dataset.shape}, more than {MAX_PIXELS} scores")
        array: NDArray[Any] = dataset[()]
        return array


_READERS = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".png": _read_image,
    ".tif": _read_tiff,
    ".tiff": _read_tiff,
    ".hdf5": _read_hdf5,
    ".h5": _read_hdf5,
    ".pt": _read_torch,
    ".pth": _read_torch,
    ".mat": _read_mat,
}


def _only_name(path: Path, names: list[str]) -> str:
    """The array that holds the scores: the only one, or the one with a usual name."""
    usual = [name for name in _ARRAY_NAMES if name in names]
    if len(names) == 1 or usual:
        return usual[0] if usual else names[0]
    raise ImageError(f"{path} holds {len(names)} arrays, none named {', '.join(_ARRAY_NAMES)}")
