"""The size at which a network sees an image, as its authors tested it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class InputRule:
    """Resize so that the image just fits into `short` x `long`, then up to multiples of `divisor`.

    The first step keeps the aspect, the second does not; both are bilinear, on 8-bit values. These are the steps
    `Resize` and `ResizeToMultiple` of mmsegmentation's test pipelines.

    Attributes:
        short: the largest length of the shorter side, in pixels.
        long: the largest length of the longer side.
        divisor: what both sides are multiples of.

    >>> rule = InputRule(512, 2048)
    >>> rule.resized(720, 1280), rule.input_size(720, 1280)
    ((512, 910), (512, 928))
    >>> print(rule)
    short side 512, long side at most 2048, up to multiples of 32
    """

    short: int
    long: int
    divisor: int = 32

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Height and width after the first step."""
        scale = min(self.long / max(height, width), self.short / min(height, width))
        return max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1)

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width that the network sees."""
        rows, columns = (-(-side // self.divisor) * self.divisor for side in self.resized(height, width))
        return rows, columns

    def apply(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The image `(H, W, 3)` uint8 as the network sees it; it still covers the same scene, edge to edge."""
        import cv2

        height, width, _ = image.shape
        for rows, columns in (self.resized(height, width), self.input_size(height, width)):
            image = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_LINEAR).astype("uint8", copy=False)
        return image

    def __str__(self) -> str:
        return f"short side {self.short}, long side at most {self.long}, up to multiples of {self.divisor}"
