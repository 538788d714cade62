"""Instance images: which OoD pixels of a label belong to one object.

RoadAnomaly and LostAndFound ship them beside their labels; OoDIS has them for three benchmarks in folders of their own,
as `NAME_instanceIds.png`. What is OoD is for the label to say: an id only tells objects apart.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oodray.datasets.images import decode_codes, read_bytes
from oodray.datasets.layout import image_files
from oodray.datasets.members import member_of
from oodray.datasets.score_files import ends_of, names_of
from oodray.errors import DatasetError, ImageError
from oodray.storage.place import path_inside, storage_path

ENDING = "_instanceIds"
"""How OoDIS, Cityscapes and LostAndFound end the names of instance images."""

_BESIDE = (("labels_semantic", "labels_instance"), ("_labelTrainIds", ENDING))
"""How names of labels end, and those of the instance images beside them: RoadAnomaly, LostAndFound."""

_KINDS = ("", "_gtCoarse", "_gtFine")


@dataclass(frozen=True)
class InstanceLabels:
    """Where the instance images of a dataset lie.

    Attributes:
        files: by the name of a frame, alone and with each of the folders that it lies in; None: beside the labels.
    """

    files: dict[str, list[str]] | None = None

    @classmethod
    def below(cls, folder: Path) -> InstanceLabels:
        """Those of a folder, at any depth.

        Raises:
            DatasetError: it holds none, or cannot be read.
        """
        root = storage_path(folder)
        try:
            paths = [path for path in image_files(root, recursive=True) if path.stem.endswith(ENDING)]
        except OSError as error:
            raise DatasetError(f"cannot read the instance images in {folder}: {error.strerror or error}") from error
        if not paths:
            raise DatasetError(f"{folder} holds no instance images: they are called NAME{ENDING}.png")
        found: defaultdict[str, list[str]] = defaultdict(list)
        for path in paths:
            *folders, _ = path_inside(path, root).parts
            for name in ends_of("/".join([*folders, path.stem.removesuffix(ENDING)])):
                found[name].append(str(path))
        return cls(dict(found))

    def ids(self, image_id: str, label_uri: str, size: tuple[int, int]) -> NDArray[np.integer[Any]] | None:
        """The instance ids of an image, `(H, W)`, 0 where there is none; None where it has no instance image.

        Raises:
            DatasetError: two files have the name of the image.
            ImageError: the file cannot be read, or has another size than the label.
        """
        uri = self._uri(image_id, label_uri)
        if uri is None:
            return None
        try:
            ids = decode_codes(read_bytes(uri))
        except ImageError as error:
            raise ImageError(f"the instance image {uri} of {image_id}: {error}") from error
        if ids.shape != size:
            raise ImageError(
                f"the instance image {uri} is {ids.shape[1]}x{ids.shape[0]}, its label {size[1]}x{size[0]}: they are "
                "of two images"
            )
        return ids

    def _uri(self, image_id: str, label_uri: str) -> str | None:
        if self.files is not None:
            names = (f"{name}{kind}" for name in names_of(image_id, label_uri) for kind in _KINDS)
            found = next((self.files[name] for name in names if name in self.files), [])
            if len(found) > 1:
                raise DatasetError(
                    f"two instance images have the name of {image_id}: {found[0]} and {found[1]}; put each into "
                    "folders that are called as those of its image, or remove one"
                )
            return found[0] if found else None
        beside = None if member_of(label_uri) else beside_label(label_uri)
        return beside if beside is not None and storage_path(beside).is_file() else None


def beside_label(label_uri: str) -> str | None:
    """Where the instance image of a label is, in the sets that ship one; None where the name is none of theirs.

    >>> beside_label("/ra/frames/001.labels/labels_semantic.png")
    '/ra/frames/001.labels/labels_instance.png'
    """
    path = PurePosixPath(label_uri)
    for ending, other in _BESIDE:
        if path.stem.endswith(ending):
            return f"{label_uri.removesuffix(path.name)}{path.stem.removesuffix(ending)}{other}{path.suffix}"
    return None
