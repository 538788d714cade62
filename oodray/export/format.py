"""What a format of an export is: which files an image becomes, and which come at the end."""

from __future__ import annotations

import io
import json
from abc import ABC
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from oodray.export.regions import Region, regions_of
from oodray.results.stored_image import StoredImage


@dataclass(frozen=True)
class Original:
    """The content of a file of the dataset as it is: a link to it, or a copy where it lies elsewhere than on a disk.

    Attributes:
        uri: its address.
    """

    uri: str


Files = Iterator[tuple[str, bytes | Original]]
"""Paths inside the folder of the export, with `/` between, and their contents."""

Record = dict[str, Any]
"""What a format keeps of an image for a file of all images; JSON."""

CLASS = "ood"
"""The name of the one class that regions have."""


@dataclass(frozen=True, eq=False)
class ExportedImage:
    """An image to export; H and W are its size.

    Attributes:
        stored: what the run found.
        mask: uint8 `(H, W)`, 255 where OoD.
        score: the name of the score.
        read_scores: gives `scores`.
    """

    stored: StoredImage
    mask: NDArray[np.uint8]
    score: str
    read_scores: Callable[[], NDArray[np.float64]]

    @cached_property
    def scores(self) -> NDArray[np.float64]:
        """The score of each pixel, float64 `(H, W)`, higher is more out of distribution; made where it is asked for."""
        return self.read_scores()

    @property
    def image_id(self) -> str:
        """Its id, a path with `/` between."""
        return self.stored.image_id

    @property
    def name(self) -> str:
        """The last part of the id."""
        return PurePosixPath(self.image_id).name

    @cached_property
    def regions(self) -> list[Region]:
        """The connected regions of the mask, largest first."""
        return regions_of(self.mask, self.scores)


class Format(ABC):
    """A format. Its methods are pure: they give files, and do not write them.

    Attributes:
        name: as `--format` has it.
        about: what it is, in a line.
        needs_score: whether it holds a score of each pixel.
        in_groups: whether a file holds many images, see `group_files`; otherwise an image has files of its own.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    needs_score: ClassVar[bool] = False
    in_groups: ClassVar[bool] = False

    def image_files(self, image: ExportedImage) -> Files:  # noqa: ARG002 the default has none
        """The files of an image."""
        yield from ()

    def group_files(self, group: str, images: Iterator[ExportedImage]) -> Files:  # noqa: ARG002
        """The files of some images that follow each other, of which one is in memory at a time; they have a name."""
        yield from ()

    def record(self, image: ExportedImage) -> Record:  # noqa: ARG002
        """What is kept of an image for `last_files`."""
        return {}

    def last_files(self, records: Sequence[Record], run: Mapping[str, Any]) -> Files:  # noqa: ARG002
        """The files of all images; `records` are in the order of the dataset, `run` is the content of run.json."""
        yield from ()


def png(array: NDArray[Any], text: Mapping[str, str] | None = None) -> bytes:
    """A PNG of 8 or 16 bits, with a few texts in it."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for key, value in (text or {}).items():
        info.add_text(key, value)
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def npy(array: NDArray[Any]) -> bytes:
    """An array as a file of numpy."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def json_file(content: Any) -> bytes:
    """A JSON file."""
    return (json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n").encode()
