"""Monte Carlo dropout: the part of a network behind its first active dropout, several times.

Gal and Ghahramani, "Dropout as a Bayesian approximation". What lies before the first active dropout gives the same
every time: it is computed once, and its results are given again.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from oodray.errors import ModelError


class RepeatedDropout:
    """The dropouts of a network, active in the passes that it makes.

    Args:
        network: in evaluation mode; it stays so outside of the passes.
        name: of the network, for messages.

    Raises:
        ModelError: it has no dropout that could be active.
    """

    def __init__(self, network: nn.Module, name: str) -> None:
        self.network = network
        self.dropouts = [module for module in network.modules() if isinstance(module, _DropoutNd) and module.p > 0]
        if not self.dropouts:
            raise ModelError(f"--mc-dropout: {name} has no dropout with a rate above 0: all passes would be the same")

    @contextlib.contextmanager
    def image(self) -> Iterator[None]:
        """Inside, passes over one image: each begins with `seeded`."""
        self._saved: dict[nn.Module, list[Any]] = {}
        self._first = True
        parts = list(_parts_without(self.network, set(self.dropouts)))
        hooks = [module.register_forward_pre_hook(self._reached) for module in self.dropouts]
        for part in parts:
            vars(part)["forward"] = self._replaying(part, part.forward)
        for dropout in self.dropouts:
            dropout.train()
        try:
            yield
        finally:
            for dropout in self.dropouts:
                dropout.eval()
            for part in parts:
                del vars(part)["forward"]
            for hook in hooks:
                hook.remove()
            self._saved = {}

    @contextlib.contextmanager
    def seeded(self, seed: int, image_id: str, number: int) -> Iterator[None]:
        """Inside, the pass of that number over the image of that name."""
        self._calls: dict[nn.Module, int] = {}
        self._before = self._first
        devices = {parameter.device for parameter in self.network.parameters() if parameter.device.type == "cuda"}
        with torch.random.fork_rng(devices=list(devices)):
            torch.manual_seed(dropout_seed(seed, image_id, number))
            yield
        self._first = False

    def _reached(self, _module: nn.Module, _inputs: Any) -> None:
        self._before = False

    def _replaying(self, part: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        """The part, whose results before the first dropout are computed in the first pass alone."""

        def replayed(*inputs: Any, **options: Any) -> Any:
            saved, call = self._saved.setdefault(part, []), self._calls.get(part, 0)
            self._calls[part] = call + 1
            if not self._first and call < len(saved):
                return copy.deepcopy(saved[call])  # others may write to what they are given
            found = forward(*inputs, **options)
            if self._before:
                saved.append(copy.deepcopy(found))
            return found

        return replayed


def dropout_seed(seed: int, image_id: str, number: int) -> int:
    """A hash of the seed of the run, the name of an image, and the number of a pass.

    >>> dropout_seed(0, "a", 0) != dropout_seed(0, "a", 1)
    True
    """
    return int.from_bytes(hashlib.sha256(f"dropout {seed} {number} {image_id}".encode()).digest()[:7], "big")


def _parts_without(module: nn.Module, dropouts: set[nn.Module]) -> Iterator[nn.Module]:
    """The largest modules inside of `module` that hold none of the dropouts."""
    for child in module.children():
        # Lists of modules are not called, what is in them is.
        if dropouts.isdisjoint(child.modules()) and not isinstance(child, nn.ModuleList | nn.ModuleDict):
            yield child
        elif child not in dropouts:
            yield from _parts_without(child, dropouts)
