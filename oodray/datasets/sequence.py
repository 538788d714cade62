"""Which images follow each other: the order of the manifest, within a folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import pyarrow as pa


class Sequences:
    """The sequences that the images of a dataset form: all images of a folder, in the order of the manifest.

    Args:
        image_ids: of all images, in that order.
        image_uris: where each image is.

    >>> frames = Sequences(["a/0", "a/1", "a/2", "b/0"], ["/a/0.png", "/a/1.png", "/a/2.png", "/b/0.png"])
    >>> frames.around("a/2", 1), frames.around("b/0", 5), frames.around("new", 1)
    (('a/1', 'a/2'), ('b/0',), ('new',))
    """

    def __init__(self, image_ids: Sequence[str], image_uris: Sequence[str]) -> None:
        folders: dict[str, list[str]] = {}
        self._places: dict[str, tuple[list[str], int]] = {}
        for image_id, uri in zip(image_ids, image_uris, strict=True):
            images = folders.setdefault(uri.rpartition("/")[0], [])
            self._places[image_id] = images, len(images)
            images.append(image_id)

    @classmethod
    def of(cls, manifest: pa.Table) -> Sequences:
        """Those of a manifest."""
        image_ids, image_uris = (cast("list[str]", manifest[name].to_pylist()) for name in ("image_id", "image_uri"))
        return cls(image_ids, image_uris)

    def around(self, image_id: str, gap: int) -> tuple[str, ...]:
        """An image and so many before and after it in its sequence; an image that is not listed, alone."""
        if image_id not in self._places:
            return (image_id,)
        images, place = self._places[image_id]
        return tuple(images[max(0, place - gap) : place + gap + 1])
