"""Words that trainers put before every key of a state dict, such as `module.` of PyTorch's data parallelism."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

Value = TypeVar("Value")

PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "student.", "teacher.", "ema.", "model_ema.")
"""Data parallelism; torch.compile; what Lightning and distillation call a network inside of another."""


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
