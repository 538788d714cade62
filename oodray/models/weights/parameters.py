"""Weights into a network, strictly: what does not fit is named, and nothing is loaded then."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import nn

from oodray.errors import ModelError
from oodray.models.weights.checkpoints import is_mapped, read_state_dict
from oodray.models.weights.state_dicts import StateDict, name_some

# Training only, and not part of the networks built here: of mmsegmentation, of torchvision.
UNUSED_PREFIXES = ("auxiliary_head.", "aux_classifier.")
# Weights of a loss, and the mean and deviation that a config has, too.
NOT_OF_A_NETWORK = re.compile(r"^data_preprocessor\.|(^|\.)loss_\w+\.")
# Official files may lack layer scales, which then are 1, or hold a counter that overflowed in float16.
OPTIONAL_KEY = re.compile(r"\.(gamma[12]|num_batches_tracked)$")
# How much of a file is mapped into memory at a time.
MAPPED_BYTES = 64 * 2**20


def check_fit(network: nn.Module, state: StateDict, *, source: Path) -> None:
    """Whether `state` fits `network` strictly: every key and shape, whatever the stored dtype.

    An auxiliary head, which serves training alone, is looked at only if the network has one.

    Raises:
        ModelError: naming the keys that are missing, surplus or misshapen.
    """
    own = network.state_dict()
    missing = [key for key in own if key not in state and not OPTIONAL_KEY.search(key)]
    surplus = [key for key in state if key not in own and not _is_not_used(key)]
    misshapen = [
        f"{key} {tuple(value.shape)} instead of {tuple(own[key].shape)}"
        for key, value in state.items()
        # The value of a counter is not used, so neither is its shape.
        if key in own and value.shape != own[key].shape and not _is_counter(key)
    ]
    problems = [
        f"{len(keys)} {kind}: {name_some(keys)}"
        for kind, keys in (("missing", missing), ("surplus", surplus), ("misshapen", misshapen))
        if keys
    ]
    if problems:
        of_backbone = f" {_BACKBONE_ALONE}" if state and all(f"backbone.{key}" in own for key in state) else ""
        raise ModelError(f"{source} does not fit the network.{of_backbone} " + "; ".join(problems))


_BACKBONE_ALONE = "It holds the backbone alone, as a training begins with it: without a head there are no logits."


def refuse_not_finite(network: nn.Module, *, source: Path) -> None:
    """Whether the weights of a network are numbers.

    Raises:
        ModelError: naming those that hold NaN or infinity.
    """
    state = network.state_dict()
    wrong = [key for key, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if wrong:
        raise ModelError(f"{source} holds NaN or infinity, as after a training that diverged, in {name_some(wrong)}")


def load_weights(network: nn.Module, state: StateDict, *, source: Path) -> None:
    """Copy `state` into `network`, strictly.

    Raises:
        ModelError: see `check_fit`; nothing is copied then.
    """
    check_fit(network, state, source=source)
    _copy(network, state, network.state_dict())
    refuse_not_finite(network, source=source)


def load_weights_from(network: nn.Module, path: Path) -> None:
    """Copy the weights in a file into `network`, strictly.

    Beside the network itself, about `MAPPED_BYTES` of memory are needed: the pages of a mapped file count as the
    process's own until it is closed, so the file is opened anew for every part of it.

    Raises:
        ModelError: see `read_state_dict` and `check_fit`; nothing is copied then.
    """
    state = read_state_dict(path)
    check_fit(network, state, source=path)
    if not is_mapped(path):
        _copy(network, state, network.state_dict())
        refuse_not_finite(network, source=path)
        return
    parts = list(_parts(network.state_dict(), state))
    for keys in parts:
        # The old mapping is closed before the next one is made.
        state.clear()
        state = read_state_dict(path)
        _copy(network, state, keys)
    refuse_not_finite(network, source=path)


def _parts(own: StateDict, state: StateDict) -> Iterator[list[str]]:
    """The network's keys in the order of the file, in parts of `MAPPED_BYTES` of the file; absent ones at the end."""
    part: list[str] = []
    size = 0
    for key in [*(key for key in state if key in own), *(key for key in own if key not in state)]:
        part.append(key)
        size += state[key].nbytes if key in state else 0
        if size >= MAPPED_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


@torch.no_grad()
def _copy(network: nn.Module, state: StateDict, keys: Iterable[str]) -> None:
    own = network.state_dict()
    for key in keys:
        if _is_counter(key):
            own[key].zero_()
        elif key in state:
            own[key].copy_(state[key])
        else:
            own[key].fill_(1.0)


def _is_not_used(key: str) -> bool:
    return key.startswith(UNUSED_PREFIXES) or NOT_OF_A_NETWORK.search(key) is not None


def _is_counter(key: str) -> bool:
    return key.endswith("num_batches_tracked")
