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
from torch import Tensor

from oodray.errors import ModelError
from oodray.models.weights.wrong_files import is_safetensors, refuse_wrong_file

NAMED_KEYS = 10

StateDict = dict[str, Tensor]


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


# What mmengine's Runner writes beside tensors: the history of the losses, with numpy of either major version.
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
    )
]


def read_state_dict(path: Path) -> StateDict:
    """The tensors of a checkpoint: a bare state dict or one under `state_dict`, with or without `module.`.

    The tensors may be views of the file, mapped into memory: copy what is to be kept.

    Raises:
        ModelError: if the file is missing, is no checkpoint, or holds code.
    """
    refuse_wrong_file(path)
    try:
        content = _read(path)
    except OSError as error:
        raise ModelError(f"{path} cannot be read as a checkpoint: {error.strerror or error}") from error
    state = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not state or not all(map(_is_plain_tensor, state.values())):
        raise ModelError(
            f"{path} holds no state dict: expected names and tensors, bare or under 'state_dict', "
            f"found {_describe(content)}"
        )
    names = [str(key) for key in state]
    prefix = "module." if all(name.startswith("module.") for name in names) else ""
    return {name.removeprefix(prefix): value for name, value in zip(names, state.values(), strict=True)}


def is_mapped(path: Path) -> bool:
    """Whether `read_state_dict` gives views of this file: torch's format before 1.6 is read into memory as a whole."""
    return zipfile.is_zipfile(path) or _is_safetensors(path)


def name_some(names: list[str]) -> str:
    """The first names, and how many more there are."""
    rest = len(names) - NAMED_KEYS
    return ", ".join(names[:NAMED_KEYS]) + (f" and {rest} more" if rest > 0 else "")


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


def _is_plain_tensor(value: object) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu"


def _describe(content: object) -> str:
    if isinstance(content, dict):
        return f"a dict of {name_some([repr(key) for key in content])}" if content else "an empty dict"
    return f"an object of type {type(content).__name__}"
