"""Reading weights without ever executing what is in the file."""

from __future__ import annotations

import hashlib
import pickle
import re
import zipfile
from pathlib import Path

import torch
from torch import Tensor, nn

from oodray.errors import ModelError

NAMED_KEYS = 10
# Training only, and not part of the networks built here.
UNUSED_PREFIX = "auxiliary_head."
# Official files may lack layer scales, which then are 1, or hold a counter that overflowed in float16.
OPTIONAL_KEY = re.compile(r"\.(gamma[12]|num_batches_tracked)$")

StateDict = dict[str, Tensor]


def read_state_dict(path: Path) -> StateDict:
    """The tensors of a checkpoint: a bare state dict or one under `state_dict`, with or without `module.`.

    Raises:
        ModelError: if the file is missing, is no checkpoint, or holds anything but tensors and plain values.
    """
    try:
        # Files in the format before torch 1.6, as mmsegmentation publishes them, cannot be memory-mapped.
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except FileNotFoundError as error:
        raise ModelError(f"the checkpoint {path} does not exist") from error
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path} was refused: it is not a plain checkpoint of tensors, and code in it is not executed. "
            f"Save its state dict alone: torch.save(model.state_dict(), FILE)."
        ) from error
    except Exception as error:
        raise ModelError(f"{path} cannot be read as a checkpoint, it may be truncated: {error}") from error
    state = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ModelError(f"{path} holds no state dict: expected names and tensors, bare or under 'state_dict'")
    return {str(key).removeprefix("module."): value for key, value in state.items()}


def load_weights(network: nn.Module, state: StateDict, *, source: Path) -> None:
    """Copy `state` into `network`, strictly: every key and shape must fit, whatever the stored dtype.

    Raises:
        ModelError: naming the keys that are missing, surplus or misshapen.
    """
    own = network.state_dict()
    state = {key: value for key, value in state.items() if key in own or not key.startswith(UNUSED_PREFIX)}
    missing = [key for key in own if key not in state and not OPTIONAL_KEY.search(key)]
    surplus = [key for key in state if key not in own]
    misshapen = [
        f"{key} {tuple(value.shape)} instead of {tuple(own[key].shape)}"
        for key, value in state.items()
        if key in own and value.shape != own[key].shape
    ]
    problems = [
        f"{len(keys)} {kind}: {_name(keys)}"
        for kind, keys in (("missing", missing), ("surplus", surplus), ("misshapen", misshapen))
        if keys
    ]
    if problems:
        raise ModelError(f"{source} does not fit the network. " + "; ".join(problems))
    with torch.no_grad():
        for key, target in own.items():
            if key.endswith("num_batches_tracked"):
                target.zero_()
            elif key in state:
                target.copy_(state[key])
            else:
                target.fill_(1.0)


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file.

    Raises:
        ModelError: if it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"cannot read the checkpoint {path}: {error.strerror}") from error


def _name(keys: list[str]) -> str:
    rest = len(keys) - NAMED_KEYS
    return ", ".join(keys[:NAMED_KEYS]) + (f" and {rest} more" if rest > 0 else "")
