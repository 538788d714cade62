"""Reading weights without ever executing what is in the file.

Three formats are read: torch's two, through its own restricted unpickler, and safetensors. What mmengine's `Runner`
saves names classes and functions beside the tensors, `getattr` among them: each known name stands for an inert object
here, so that nothing of theirs is imported or called, and of the file the state dict alone is taken.
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from oodray.errors import ModelError
from oodray.models.weights.state_dicts import Chosen, StateDict, chosen
from oodray.models.weights.wrong_files import is_safetensors, refuse_wrong_file


class _Inert:
    """Stands for something that a Runner's file names: takes everything, does nothing, keeps nothing."""

    def __new__(cls, *_args: object, **_kwargs: object) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *_args: object, **_kwargs: object) -> None:
        pass

    def __setstate__(self, _state: object) -> None:
        pass


def _inert(name: str) -> type[_Inert]:
    """An inert class that torch's unpickler takes for what is called `name`."""
    module, _, qualname = name.rpartition(".")
    return type(qualname, (_Inert,), {"__module__": module})


# What mmengine's Runner writes beside tensors, the history of the losses, with numpy of either major version; and what
# the settings of a training hold.
_RUNNER_GLOBALS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    _inert(name)
    for name in (
        "builtins.getattr",
        "mmengine.logging.history_buffer.HistoryBuffer",
        "numpy.ndarray",
        "numpy.dtype",
        "numpy._core.multiarray._reconstruct",
        "numpy._core.multiarray.scalar",
        "numpy.core.multiarray._reconstruct",
        "numpy.core.multiarray.scalar",
        "_codecs.encode",
        "argparse.Namespace",
        "datetime.datetime",
        "pathlib.Path",
        "pathlib.PosixPath",
        "pathlib.WindowsPath",
        "pathlib._local.PosixPath",
        "pathlib._local.WindowsPath",
    )
]


def read_state_dict(path: Path) -> StateDict:
    """The tensors of a checkpoint by the keys of the network, see `oodray.models.weights.state_dicts`.

    The tensors may be views of the file, mapped into memory: copy what is to be kept.

    Raises:
        ModelError: if the file is missing, is no checkpoint, holds code, or several networks.
    """
    return read_checkpoint(path).state


def read_checkpoint(path: Path) -> Chosen:
    """As `read_state_dict`, and what was done to find the tensors.

    Raises:
        ModelError: see `read_state_dict`.
    """
    refuse_wrong_file(path)
    try:
        content = _read(path)
    except OSError as error:
        raise ModelError(f"{path} cannot be read as a checkpoint: {error.strerror or error}") from error
    return chosen(content, path)


def read_class_names(path: Path) -> object:
    """What a checkpoint says its classes are called, as mmengine writes it, or mmsegmentation 0.x did; else None.

    Raises:
        ModelError: see `read_state_dict`.
    """
    content = _read(path)
    meta = content.get("meta") if isinstance(content, dict) else None
    if not isinstance(meta, dict):
        return None
    of_dataset = meta.get("dataset_meta")
    return of_dataset.get("classes") if isinstance(of_dataset, dict) else meta.get("CLASSES")


def is_mapped(path: Path) -> bool:
    """Whether `read_state_dict` gives views of this file: torch's format before 1.6 is read into memory as a whole."""
    return zipfile.is_zipfile(path) or _is_safetensors(path)


def _read(path: Path) -> Any:
    """The content of a checkpoint, with inert objects for what else a Runner's file names."""
    if _is_safetensors(path):
        return _read_safetensors(path)
    try:
        with torch.serialization.safe_globals(_RUNNER_GLOBALS), warnings.catch_warnings():
            # Of pickle protocols that the restricted unpickler may not know all of; it refuses what it does not know.
            warnings.filterwarnings("ignore", message="Detected pickle protocol", category=UserWarning)
            # Files in the format before torch 1.6, as mmsegmentation publishes them, cannot be memory-mapped.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        name = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"it names {name[1]}" if name else "it is not a plain checkpoint of tensors"
        raise ModelError(
            f"{path} was refused: {what}, and code in it is not executed. "
            "Save the state dict alone: torch.save(model.state_dict(), FILE)."
        ) from error
    except OSError:
        raise
    except Exception as error:
        raise ModelError(f"{path} cannot be read as a checkpoint, it may be truncated: {error}") from error


def _read_safetensors(path: Path) -> StateDict:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ModelError(f"{path} cannot be read as safetensors, it may be truncated: {error}") from error


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        return is_safetensors(file.read(9))
