"""Hidden states of transformers as maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from oodray.errors import ModelError


def as_map(state: Tensor, image: Sequence[int], config: Any) -> Tensor:
    """A hidden state as a map `(N, D, h, w)`: of tokens, those of the patches, row by row, without the ones before.

    Raises:
        ModelError: if the tokens are not those of the patches of an image of that size.
    """
    if state.ndim == 4:
        return state
    patch = patch_size(config)
    rows, columns = image[0] // patch, image[1] // patch
    others = state.shape[1] - rows * columns
    if state.ndim != 3 or others < 0:
        raise ModelError(
            f"a hidden state of shape {tuple(state.shape)} is no map of an image of {image[1]}x{image[0]} pixels in "
            f"patches of {patch}"
        )
    return state[:, others:].transpose(1, 2).reshape(state.shape[0], -1, rows, columns)


def patch_size(config: Any) -> int:
    """The side of a patch, in pixels, as the settings of a network have it."""
    size = getattr(config, "patch_size", None)
    size = size[0] if isinstance(size, list | tuple) else size
    # Networks without patches give maps; 32 is what most of them divide a side by.
    return int(size) if size else 32
