"""Which state dict a checkpoint means, and its keys as the network has them.

Trainers put words before every key, keep a second copy of the weights, and store other things beside them. What is
unambiguous is taken, and said; of several networks none is guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from oodray.errors import ModelError

NAMED_KEYS = 10

StateDict = dict[str, Tensor]
Value = TypeVar("Value")

PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "student.", "teacher.", "ema.", "ema_model.")
"""Data parallelism; torch.compile; what Lightning and distillation call a network inside of another."""

CONTAINERS = ("state_dict", "model_state_dict", "model", "net", "network", "module", "weights", "params", "teacher")
"""What trainers store the state dict under. mmengine's `ema_state_dict` is the other copy of its `state_dict`."""


@dataclass(frozen=True)
class Chosen:
    """The state dict of a checkpoint.

    Attributes:
        state: by the keys of the network.
        remark: what was done to find it; None where nothing was.
    """

    state: StateDict
    remark: str | None


def chosen(content: object, path: Path) -> Chosen:
    """The state dict in the content of a checkpoint.

    Raises:
        ModelError: there is none, or there are several; the message names them.
    """
    place, state = _state_dict_in(content, path)
    _refuse_several_networks(state, path)
    found = _without_second_copy(state)
    stripped = without_prefix(found)
    done = [f"the weights under {place!r} are taken"] if place not in (None, "state_dict") else []
    if len(found) < len(state):
        done.append("the copies named ema_ are left out")
    if stripped.keys() != found.keys():
        first, bare = next(iter(found)), next(iter(stripped))
        prefix = first.removesuffix(bare)
        if prefix != "module.":
            done.append(f"the word {prefix!r} before every key is left out")
    return Chosen(stripped, f"{path}: {'; '.join(done)}" if done else None)


def without_prefix(state: Mapping[str, Value]) -> dict[str, Value]:
    """A state dict without the known words that all of its keys begin with.

    >>> without_prefix({"module._orig_mod.conv.weight": 1, "module._orig_mod.conv.bias": 2})
    {'conv.weight': 1, 'conv.bias': 2}
    >>> without_prefix({"model.conv.weight": 1, "classifier.weight": 2})
    {'model.conv.weight': 1, 'classifier.weight': 2}
    """
    found = dict(state)
    while found and (prefix := next((word for word in PREFIXES if all(key.startswith(word) for key in found)), None)):
        found = {key.removeprefix(prefix): value for key, value in found.items()}
    return found


def name_some(names: list[str]) -> str:
    """The first names, and how many more there are."""
    rest = len(names) - NAMED_KEYS
    return ", ".join(names[:NAMED_KEYS]) + (f" and {rest} more" if rest > 0 else "")


def _state_dict_in(content: object, path: Path) -> tuple[str | None, StateDict]:
    """Where the state dict lies, None for the content itself, and its tensors."""
    bare = _tensors(content)
    if bare:
        return None, bare
    places = {key: found for key in CONTAINERS if (found := _tensors(_get(content, key)))}
    if "state_dict" in places:
        return "state_dict", places["state_dict"]
    if len(places) == 1:
        return next(iter(places.items()))
    if places:
        raise ModelError(
            f"{path} holds several state dicts, under {', '.join(map(repr, places))}: save the one that is meant "
            f"alone, torch.save(torch.load(FILE)[{next(iter(places))!r}], FILE)"
        )
    raise ModelError(
        f"{path} holds no state dict: expected names and tensors, bare or under 'state_dict', "
        f"found {_describe(content)}"
    )


def _get(content: object, key: str) -> object:
    return content.get(key) if isinstance(content, Mapping) else None


def _tensors(content: object) -> StateDict:
    """The tensors of a dict that holds no more than names, tensors, numbers and None; else nothing."""
    if not isinstance(content, Mapping):
        return {}
    kept = {str(key): value for key, value in content.items() if not isinstance(value, int | float | str | None)}
    return kept if kept and all(map(_is_plain_tensor, kept.values())) else {}


def _refuse_several_networks(state: StateDict, path: Path) -> None:
    """Whether keys of several networks lie side by side, as teacher and student of a distillation do."""
    words = {key.partition(".")[0] + "." for key in state}
    if len(words) > 1 and words <= set(PREFIXES):
        kept = ", ".join(sorted(words))
        raise ModelError(
            f"{path} holds several networks, whose keys begin with {kept}: save the one that is meant alone, without "
            "that word"
        )


def _without_second_copy(state: StateDict) -> StateDict:
    """Without the moving average that mmcv stores as `ema_backbone_conv_weight` beside `backbone.conv.weight`."""
    copies = {"ema_" + key.replace(".", "_") for key in state}
    return {key: value for key, value in state.items() if key not in copies}


def _is_plain_tensor(value: object) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu"


def _describe(content: Any) -> str:
    if isinstance(content, Mapping):
        return f"a dict of {name_some([repr(key) for key in content])}" if content else "an empty dict"
    return f"an object of type {type(content).__name__}"
