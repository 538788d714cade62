"""Which files of a folder are images and which are their labels, told by the names of files and folders alone.

People keep labels in `labels/`, `masks/` or `ann_dir/`, or beside the images, and call them `a.png`, `a_mask.png` or
`a_gtFine_labelTrainIds.png`. A file is a label where its name pairs off with that of an image.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from oodray.datasets.layout import is_image_name

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "img_dir", "jpegimages", "leftimg8bit", "frames", "rgb")
"""Names, in lower case, of folders that hold images where labels lie in a folder beside."""

LABEL_FOLDERS = (
    *("labels", "label", "masks", "mask", "labels_masks", "annotations", "annotation", "ann_dir", "anns"),
    *("gt", "gts", "ground_truth", "groundtruth", "gtfine", "gtcoarse", "segmentations"),
)
"""Names, in lower case, of folders that hold labels. Where several pair off, the first of them counts."""

LABEL_ENDINGS = (
    *("", "_mask", "_label", "_labels", "_gt", "_gtfine_labeltrainids", "_gtcoarse_labeltrainids"),
    *("_labeltrainids", "_labels_semantic", "_label_semantic", "_semantic", "_seg", "_segmentation"),
    *("_annotation", "_ann", "_groundtruth", "_ground_truth", "_masks"),
)
"""What stands after an image's name in that of its label, in lower case. The first that is there counts."""

LABEL_SUFFIXES = (".png", ".tif", ".tiff", ".bmp")
"""Formats of labels, in any case."""

_CAMERA = "_leftimg8bit"


@dataclass
class Pairing:
    """Images and their labels, and what is left.

    Attributes:
        labels: of each image its label, or None.
        unmatched: files in a folder of labels that are the label of no image, or cannot be.
        beside: labels that lie beside their images.
        outside: images that lie outside of a folder of images that has labels; they are left out.
        doubtful: folders of labels by their name, of which no file pairs off: what is in them is taken for images.
    """

    labels: dict[PurePosixPath, PurePosixPath | None] = field(default_factory=dict)
    unmatched: list[PurePosixPath] = field(default_factory=list)
    beside: list[PurePosixPath] = field(default_factory=list)
    outside: list[PurePosixPath] = field(default_factory=list)
    doubtful: list[PurePosixPath] = field(default_factory=list)


def pair_off(files: Iterable[PurePosixPath]) -> Pairing:
    """Tell images and labels apart, by their paths below the dataset's root; other files may be among them.

    >>> found = pair_off([PurePosixPath(name) for name in ("img/a.jpg", "Masks/a_mask.PNG", "Masks/b.png")])
    >>> [(str(image), str(label)) for image, label in found.labels.items()], list(map(str, found.unmatched))
    ([('img/a.jpg', 'Masks/a_mask.PNG')], ['Masks/b.png'])
    """
    images: list[PurePosixPath] = []
    of_folders: defaultdict[PurePosixPath, list[PurePosixPath]] = defaultdict(list)
    known: dict[PurePosixPath, PurePosixPath | None] = {}
    for path in sorted(files):
        parent = path.parent
        if parent not in known:
            known[parent] = _label_folder(parent)
        folder = known[parent]
        if folder is not None:
            of_folders[folder].append(path)
        elif is_image_name(path.name):
            images.append(path)
    pairing = Pairing()
    below = _by_folder(images, {folder.parent for folder in of_folders})
    outside: set[PurePosixPath] = set()
    for folder in sorted(of_folders, key=_order_of_labels):
        near = [path for path in below[folder.parent] if path not in outside]
        outside.update(_take_labels(folder, of_folders[folder], near, pairing))
    pairing.outside = sorted(outside)
    pictures = [path for folder in pairing.doubtful for path in of_folders[folder] if is_image_name(path.name)]
    _take_rest([path for path in sorted([*images, *pictures]) if path not in outside], pairing)
    return pairing


def _take_labels(
    folder: PurePosixPath, files: list[PurePosixPath], near: list[PurePosixPath], pairing: Pairing
) -> set[PurePosixPath]:
    """Match the files of a folder of labels with the images below the folder that it lies in; gives those outside."""
    above = folder.parent
    side = _image_folder(above, near) or above
    inside = [path for path in near if path.is_relative_to(side)]
    names = _Names(inside)
    mirrored = {parent: side / parent.relative_to(folder) for parent in {path.parent for path in files}}
    mirrors = {path: mirrored[path.parent] for path in files}
    chosen = names.labels(mirrors, LABEL_ENDINGS)
    if not chosen and any(is_image_name(path.name) for path in files):
        pairing.doubtful.append(folder)
        return set()
    for image, label in chosen.items():
        pairing.labels.setdefault(image, label)
    taken = set(chosen.values())
    left = (path for path in files if path not in taken)
    pairing.unmatched += [path for path in left if names.lacks(mirrors[path], path, pairing.labels)]
    return set(near) - set(inside) if chosen else set()


def _take_rest(images: list[PurePosixPath], pairing: Pairing) -> None:
    """What is left are images, but for labels that lie beside them."""
    endings = LABEL_ENDINGS[1:]
    open_ones = [path for path in images if path not in pairing.labels]
    suspects = {path: path.parent for path in open_ones if _plain(path.stem).endswith(endings)}
    names = _Names(path for path in open_ones if path not in suspects) if suspects else _Names([])
    chosen = names.labels(suspects, endings)
    pairing.beside = sorted(chosen.values())
    taken = set(pairing.beside)
    for image in (image for image in open_ones if image not in taken):
        pairing.labels[image] = chosen.get(image)


class _Names:
    """Images by their folder and name, in which case and Unicode's two ways to write an umlaut make no difference."""

    def __init__(self, images: Iterable[PurePosixPath]) -> None:
        self._images: defaultdict[tuple[PurePosixPath, str], list[PurePosixPath]] = defaultdict(list)
        for image in images:
            name = _plain(image.stem)
            for known in {name, name.removesuffix(_CAMERA)}:
                self._images[image.parent, known].append(image)

    def labels(
        self, files: Mapping[PurePosixPath, PurePosixPath], endings: Sequence[str]
    ) -> dict[PurePosixPath, PurePosixPath]:
        """The label of each image that has one among files, which come with the folder of their image."""
        ranked: defaultdict[PurePosixPath, list[tuple[int, int, PurePosixPath]]] = defaultdict(list)
        for path, folder in files.items():
            suffix = path.suffix.lower()
            found = self._named(folder, path.stem, endings) if suffix in LABEL_SUFFIXES else None
            if found is not None:
                rank, image = found
                ranked[image].append((rank, LABEL_SUFFIXES.index(suffix), path))
        return {image: min(candidates)[-1] for image, candidates in ranked.items()}

    def lacks(
        self, folder: PurePosixPath, path: PurePosixPath, labels: Mapping[PurePosixPath, PurePosixPath | None]
    ) -> bool:
        """Whether a file may have been meant as a label that its image lacks, or is a picture of no image at all.

        It is not where its image has a label: Cityscapes has `_gtFine_color.png` beside it, others a preview.
        """
        name = _plain(path.stem)
        ends = (len(name), *sorted((found.start() for found in re.finditer("_", name)), reverse=True))
        about = next((images for end in ends if (images := self._images.get((folder, name[:end])))), None)
        return is_image_name(path.name) if about is None else any(labels.get(image) is None for image in about)

    def _named(self, folder: PurePosixPath, stem: str, endings: Sequence[str]) -> tuple[int, PurePosixPath] | None:
        """The image that a label's name names, and which ending follows; None where it is none, or not clear which."""
        name = _plain(stem)
        for rank, ending in enumerate(endings):
            if not name.endswith(ending):
                continue
            images = self._images.get((folder, name.removesuffix(ending)), [])
            exact = [image for image in images if image.stem == stem[: len(stem) - len(ending)]]
            if len(exact or images) == 1:
                return rank, (exact or images)[0]
        return None


def _label_folder(parent: PurePosixPath) -> PurePosixPath | None:
    """The first folder on the way to a folder, itself included, that is called as one of labels."""
    folders = parent.parts
    depth = next((depth for depth, name in enumerate(folders, 1) if name.casefold() in LABEL_FOLDERS), None)
    return None if depth is None else PurePosixPath(*folders[:depth])


def _by_folder(
    files: Iterable[PurePosixPath], folders: Container[PurePosixPath]
) -> defaultdict[PurePosixPath, list[PurePosixPath]]:
    """Files by each of some folders that they lie below."""
    found: defaultdict[PurePosixPath, list[PurePosixPath]] = defaultdict(list)
    for path in files:
        for folder in (folder for folder in path.parents if folder in folders):
            found[folder].append(path)
    return found


def _image_folder(above: PurePosixPath, images: Iterable[PurePosixPath]) -> PurePosixPath | None:
    """The folder of images that lies in a folder; the most usual name where there are several."""
    depth = len(above.parts)
    names = {path.parts[depth] for path in images if len(path.parts) > depth + 1}
    known = sorted(name for name in names if name.casefold() in IMAGE_FOLDERS)
    return above / min(known, key=lambda name: IMAGE_FOLDERS.index(name.casefold())) if known else None


def _order_of_labels(folder: PurePosixPath) -> tuple[int, PurePosixPath]:
    return LABEL_FOLDERS.index(folder.name.casefold()), folder


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
