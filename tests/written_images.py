"""Images written to files, and listed as the manifest does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from oodray.datasets.manifest import ListedImage

Content = bytes | NDArray[np.uint8] | None
"""Of a file: bytes as they are, pixels as a PNG, or no file."""


class WrittenImages:
    """A folder of images and their labels."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, image_id: str, image: Content, codes: Content = None) -> ListedImage:
        """Write an image and, unless there are no codes, its label."""
        image_uri, label_uri = (
            self._written(f"{image_id}.{kind}.png", content) for kind, content in (("image", image), ("label", codes))
        )
        return ListedImage(
            unit=0,
            image_id=image_id,
            dataset="d",
            image_uri=image_uri,
            label_uri=None if codes is None else label_uri,
        )

    def _written(self, name: str, content: Content) -> str:
        path = self.folder / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content is not None:
            Image.fromarray(content).save(path)
        return str(path)


def random_pixels(seed: int, height: int = 24, width: int = 40) -> NDArray[np.uint8]:
    """Noise: `(height, width, 3)`."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
