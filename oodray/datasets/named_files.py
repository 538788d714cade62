"""Files that are named after images: which belongs to which.

A file belongs to an image by its name: the image's id or the last parts of it, its frame (without `_leftImg8bit`), or
the name or number of its label as Fishyscapes counts them. Behind it stands an ending of such files. Less than the
whole id names an image only where no other image has that name, too.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Generic, TypeVar

from oodray.datasets.layout import CAMERA
from oodray.errors import DatasetError
from oodray.storage.place import Place

_LABEL, _RGB = "_labels", "_rgb"

_File = TypeVar("_File", bound=Place)


@dataclass(frozen=True)
class NamedFiles(Generic[_File]):
    """Files of one kind in a folder, by name without suffix.

    Attributes:
        kind: what they are, as a message calls one.
        endings: what may stand behind the name of the image.
        by_path: by their path below the folder.
        by_end: by every end of that path, the whole of it as well.
    """

    kind: str
    endings: Sequence[str]
    by_path: Mapping[str, Sequence[_File]]
    by_end: Mapping[str, Sequence[_File]]

    @classmethod
    def of(cls, kind: str, endings: Sequence[str], files: Iterable[tuple[str, _File]]) -> NamedFiles[_File]:
        """Files, each with its path below the folder, without suffix."""
        by_path: defaultdict[str, list[_File]] = defaultdict(list)
        by_end: defaultdict[str, list[_File]] = defaultdict(list)
        for path, file in files:
            by_path[path].append(file)
            for end in ends_of(path):
                by_end[end].append(file)
        return cls(kind, endings, dict(by_path), dict(by_end))

    def of_images(self, names: Mapping[str, Sequence[str]]) -> dict[str, list[_File]]:
        """The files of each image: those of the first of its names that has any.

        What is called as a whole id is of that image alone, and a name that two images share is of neither.

        Args:
            names: of each image, by its id, see `names_of`.
        """
        times = Counter(name for of_image in names.values() for name in of_image)
        of_id = {file: image_id for image_id in names for file in self._with_ending(image_id, self.by_path)}

        def of(image_id: str, name: str) -> list[_File]:
            if times[name] > 1 and name != image_id:
                return []
            return [file for file in self._with_ending(name, self.by_end) if of_id.get(file, image_id) == image_id]

        return {
            image_id: next((files for name in of_image if (files := of(image_id, name))), [])
            for image_id, of_image in names.items()
        }

    def refuse_shared(self, names: Mapping[str, Sequence[str]], found: Mapping[str, Sequence[_File]]) -> None:
        """Refuse a file that two images would get, and one without an image whose name is that of two.

        Args:
            names: as of `of_images`.
            found: what that gave.

        Raises:
            DatasetError: there is such a file.
        """
        of_file: dict[_File, str] = {}
        for image_id, files in found.items():
            for file in files:
                if (other := of_file.setdefault(file, image_id)) != image_id:
                    raise self._may_be_of(file, other, image_id)
        owners: defaultdict[str, list[str]] = defaultdict(list)
        for image_id, of_image in names.items():
            for name in of_image:
                owners[name].append(image_id)
        for name, images in owners.items():
            if len(images) > 1 and not all(found[image_id] for image_id in images):
                for file in self._with_ending(name, self.by_path):
                    if file not in of_file:
                        raise self._may_be_of(file, *images[:2])

    def _with_ending(self, name: str, files: Mapping[str, Sequence[_File]]) -> list[_File]:
        return [file for ending in self.endings for file in files.get(name + ending, ())]

    def _may_be_of(self, file: _File, one: str, other: str) -> DatasetError:
        behind = f"{self.endings[0]}{file.suffix}"
        return DatasetError(
            f"the {self.kind} {file} may be of {one} as well as of {other}: name it after the whole id of its image, "
            f"{one}{behind} or {other}{behind}, folders included"
        )


def names_of(image_id: str, label_uri: str | None = None) -> list[str]:
    """What a file of an image may be called, without an ending, the likeliest first.

    Fishyscapes hands out the images of its labels `NNNN_FRAME_labels.png` as `NNNN_FRAME_rgb.png` or `N.png`, and takes
    the number that the name of a score file begins with, whether it has zeros before it or not.

    >>> names_of("train/04_A_000030_leftImg8bit", "/fs/labels/0003_04_A_000030_labels.png")[1:-4]
    ['04_A_000030_leftImg8bit', 'train/04_A_000030', '04_A_000030']
    >>> names_of("train/04_A_000030_leftImg8bit", "/fs/labels/0003_04_A_000030_labels.png")[-4:]
    ['0003_04_A_000030', '0003_04_A_000030_rgb', '0003', '3']
    """
    names = ends_of(image_id)
    names += [name.removesuffix(camera) for camera in (CAMERA, _RGB) for name in names]
    label = PurePosixPath(label_uri or "").stem
    number, _, frame = label.removesuffix(_LABEL).partition("_")
    if label.endswith(_LABEL) and number.isdecimal() and frame:
        names += [f"{number}_{frame}", f"{number}_{frame}{_RGB}", number, str(int(number))]
    return list(dict.fromkeys(names))


def ends_of(path: str) -> list[str]:
    """A path, and what is left of it without its first folders.

    >>> ends_of("a/b/c")
    ['a/b/c', 'b/c', 'c']
    """
    parts = path.split("/")
    return ["/".join(parts[at:]) for at in range(len(parts))]
