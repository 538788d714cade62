"""Instance images: which OoD pixels of a label belong to one object.

RoadAnomaly and LostAndFound ship them beside their labels; OoDIS has them for three benchmarks in folders of their own,
as `NAME_instanceIds.png`. What is OoD is for the label to say: an id only tells objects apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oodray.datasets.images import decode_codes, read_bytes
from oodray.datasets.layout import image_files
from oodray.datasets.members import member_of
from oodray.datasets.named_files import NamedFiles, names_of
from oodray.errors import DatasetError, ImageError
from oodray.storage.place import Place, path_inside, storage_path

ENDING = "_instanceIds"
"""How OoDIS, Cityscapes and LostAndFound end the names of instance images."""

_BESIDE = (("labels_semantic", "labels_instance"), ("_labelTrainIds", ENDING))
"""How names of labels end, and those of the instance images beside them: RoadAnomaly, LostAndFound."""

_ENDINGS = tuple(kind + ENDING for kind in ("", "_gtCoarse", "_gtFine"))


@dataclass(frozen=True)
class InstanceLabels:
    """Where the instance images of a dataset lie.

    Attributes:
        files: by the id of the image; None: beside the labels.
    """

    files: Mapping[str, str] | None = None

    @classmethod
    def below(cls, folder: Path, label_uris: Mapping[str, str | None]) -> InstanceLabels:
        """Those of a folder, at any depth, which are named after images, see `oodray.datasets.named_files`.

        Args:
            folder: with the files.
            label_uris: where the label of each image of the dataset lies, by the id of the image.

        Raises:
            DatasetError: it holds none, or none of an image, or cannot be read; an image has two, or one may be of two
                images.
        """
        files = NamedFiles.of("instance image", _ENDINGS, _files_below(folder))
        if not files.by_path:
            raise DatasetError(f"{folder} holds no instance images: they are called NAME{ENDING}.png")
        names = {image_id: names_of(image_id, label_uri) for image_id, label_uri in label_uris.items()}
        found = files.of_images(names)
        for image_id, several in found.items():
            if len(several) > 1:
                raise DatasetError(
                    f"two instance images have the name of {image_id}: {several[0]} and {several[1]}; put each into "
                    "folders that are called as those of its image, or remove one"
                )
        files.refuse_shared(names, found)
        if not any(found.values()):
            name = next(iter(names), "NAME").rpartition("/")[2]
            raise DatasetError(
                f"no instance image below {folder} is named after an image of the run: expected is {name}{ENDING}.png, "
                f"for example; there are {', '.join([*sorted(files.by_path)[:3], '...'])}"
            )
        return cls({image_id: str(of_image[0]) for image_id, of_image in found.items() if of_image})

    def ids(self, image_id: str, label_uri: str, size: tuple[int, int]) -> NDArray[np.integer[Any]] | None:
        """The instance ids of an image, `(H, W)`, 0 where there is none; None where it has no instance image.

        Raises:
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
            return self.files.get(image_id)
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


def _files_below(folder: Path) -> Iterator[tuple[str, Place]]:
    """The instance images of a folder, at any depth, each with its path below it, without suffix."""
    root = storage_path(folder)
    try:
        for path in image_files(root, recursive=True):
            if path.stem.endswith(ENDING):
                yield path_inside(path, root).with_suffix("").as_posix(), path
    except OSError as error:
        raise DatasetError(f"cannot read the instance images in {folder}: {error.strerror or error}") from error
