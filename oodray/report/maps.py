"""Maps of an image that not every run stores: of scores, of the confidence and of the predicted classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from oodray.results.stored_image import StoredImage


@dataclass(frozen=True, eq=False)
class Maps:
    """Maps of an image; H and W are its size.

    Attributes:
        scores: by score, `(H, W)`, higher is more out of distribution.
        confidence: `(H, W)`, the largest logit.
        classes: `(H, W)`, the likeliest class of each pixel.
        class_names: by class.
    """

    scores: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    confidence: NDArray[Any] | None = None
    classes: NDArray[Any] | None = None
    class_names: tuple[str, ...] = ()

    def class_name(self, number: int) -> str:
        """The name of a class, or its number where it has none.

        >>> Maps(class_names=("road", "sky")).class_name(1), Maps().class_name(7)
        ('sky', 'class 7')
        """
        return self.class_names[number] if number < len(self.class_names) else f"class {number}"


MapSource = Callable[[StoredImage], Maps]
"""Where the maps of an image come from: a run that has kept them, or its network."""
