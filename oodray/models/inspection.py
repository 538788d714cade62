"""What a network offers, found out on one image: maps and their sizes, scores, memory and seconds."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from oodray.errors import ImageError, ModelError
from oodray.models.network import Network
from oodray.models.segmenter import Segmentation, check_segmentations, segment_named
from oodray.scores.registry import KNOWN

MIB = 2**20


@dataclass(frozen=True)
class Inspection:
    """What a network says of one image.

    Attributes:
        network: that was asked.
        size: height and width of the image.
        found: what it said.
        parameters: of the network; None where it does not show them.
        seconds: that one image takes, once the first is done.
        memory: the most that was in use, MiB: on a GPU by tensors, else by this process.
    """

    network: Network
    size: tuple[int, int]
    found: Segmentation
    parameters: int | None
    seconds: float
    memory: float

    def offers(self) -> dict[str, str]:
        """What the network gives, by what scores need it for."""
        found, classes = self.found, self.classes
        offered = {"logits": f"{classes} classes, {_shape(found.logits)}, {self._stride(found.logits)}"}
        offered["features"] = f"{_shape(found.features)}, {self._stride(found.features)}"
        if found.queries is not None:
            windows, queries, *grid = found.queries.mask_logits.shape
            each = f" in each of {windows} windows" if found.windows is not None else ""
            offered["queries"] = f"{queries}, masks of {grid[0]}x{grid[1]}{each}"
        if "mutual-information" in found.scores:
            offered["passes"] = "probabilities are averaged"
        if callable(getattr(self.network.segmenter, "head", None)):
            offered["head"] = "head(features), the classifier"
        return offered

    @property
    def classes(self) -> int:
        """How many the network tells apart."""
        queries = self.found.queries
        return len(self.found.logits) if queries is None else queries.classes

    def scores(self) -> Iterator[tuple[str, str | None]]:
        """Every known score, and what it lacks; None where it can be computed."""
        offered = {*self.offers(), "clusters", *(["queries"] if "rba" in self.found.scores else [])}
        for name, score in KNOWN.items():
            lacking = [need for need in sorted(score.needs - offered) if need != "fit"]
            yield name, ", ".join(lacking) or None

    def _stride(self, map_: torch.Tensor) -> str:
        down, across = (round(side / count, 2) for side, count in zip(self.size, map_.shape[-2:], strict=True))
        return f"stride {down:g}" if down == across else f"strides {down:g} and {across:g}"


def inspect_network(network: Network, size: tuple[int, int]) -> Inspection:
    """Let a network segment an image of noise, twice.

    Args:
        network: see `oodray.load`.
        size: height and width of the image, in pixels.

    Raises:
        ModelError: it cannot, and why.
    """
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    on_gpu = network.device == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    try:
        [found] = check_segmentations(segment_named(network, [image.copy()], [""]), 1)
        seconds = _timed(network, image, on_gpu=on_gpu)
    except (ImageError, ModelError):
        raise
    except Exception as error:
        raise ModelError(
            f"{network.name} cannot segment an image of {size[1]}x{size[0]} pixels: {type(error).__name__}: {error}"
        ) from error
    memory = torch.cuda.max_memory_allocated() if on_gpu else _peak_bytes()
    return Inspection(network, size, found, parameters_of(network), seconds, memory / MIB)


def parameters_of(network: Network) -> int | None:
    """How many numbers the network learned; None where its module cannot be found."""
    modules = [*_modules(network.segmenter)]
    return sum(parameter.numel() for module in modules for parameter in module.parameters()) if modules else None


def _modules(segmenter: Any) -> Iterator[torch.nn.Module]:
    """The networks inside of a segmenter: its own, and those of what it is made of."""
    for value in getattr(segmenter, "__dict__", {}).values():
        if isinstance(value, torch.nn.Module):
            yield value
        elif hasattr(value, "segment") or hasattr(value, "extractor"):
            yield from _modules(value)
    for _, member in getattr(segmenter, "members", ()):
        yield from _modules(member)


def _timed(network: Network, image: Any, *, on_gpu: bool) -> float:
    start = time.perf_counter()
    network.segment([image.copy()])
    if on_gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _peak_bytes() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _shape(map_: torch.Tensor) -> str:
    channels, height, width = map_.shape
    return f"{channels} channels of {height}x{width}"
