"""Datasets on disk: one small class per public layout, which finds the images and their label files."""

from __future__ import annotations

import difflib
import itertools
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from oodray.datasets.images import LabelCodes
from oodray.errors import DatasetError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
"""Suffixes of image files, in any case."""

Pair = tuple[Path, Path | None]
"""An image file and its label file."""


@dataclass(frozen=True)
class Sample:
    """One image of a dataset.

    Attributes:
        image_id: its path below the dataset's root, without suffix, with forward slashes.
        image_uri: absolute path of the image file.
        label_uri: absolute path where the label file is, or should be; None where the image has no label.
    """

    image_id: str
    image_uri: str
    label_uri: str | None


class Layout(ABC):
    """Where a dataset keeps its images and labels below its root.

    A subclass declares the attributes and yields its files from `pairs`; `find` does the rest.

    Attributes:
        name: what `--dataset` takes.
        title: the dataset's own name.
        images: the published number of images, None where it is open.
        where: how to get the dataset.
        tree: the expected files and folders, as text.
        folders: folders below the root without which the dataset is not there.
        label_codes: the meaning of the codes in its label files.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    images: ClassVar[int | None]
    where: ClassVar[str]
    tree: ClassVar[str]
    folders: ClassVar[tuple[str, ...]]
    label_codes: ClassVar[LabelCodes]

    @abstractmethod
    def pairs(self, root: Path) -> Iterable[Pair]:
        """Image and label files below an absolute root that has all `folders`, in any order.

        A label file that should be there is named even if it is not: its image then becomes an error row.
        Left out, the image would drop out of the metrics in silence.
        """

    def prepare(self, root: Path) -> None:  # noqa: B027 - a hook: only the demo dataset has something to do
        """Make the dataset where oodray can do that itself."""

    def find(self, root: Path) -> list[Sample]:
        """The dataset's samples, sorted by `image_id`.

        Raises:
            DatasetError: the dataset is not there; two files share an `image_id`; a name is not valid UTF-8.
        """
        root = root.absolute()
        _uri(root)
        try:
            self._require_folders(root)
            pairs = list(self.pairs(root))
            self._require_files(root, pairs)
        except OSError as error:
            raise DatasetError(f"cannot read {error.filename or root}: {error.strerror}") from error
        samples = sorted((_sample(root, *pair) for pair in pairs), key=lambda sample: sample.image_id)
        for first, second in itertools.pairwise(samples):
            if first.image_id == second.image_id:
                raise DatasetError(
                    f"two images have the name {first.image_id!r}: {first.image_uri} and {second.image_uri}; "
                    "remove or rename one of them"
                )
        return samples

    def error(self, problem: str) -> DatasetError:
        """The error that says what is wrong, what was expected and where to get it."""
        tree = "\n".join(f"  {line}" for line in self.tree.splitlines())
        return DatasetError(f"{self.title}: {problem}\nExpected:\n{tree}\nWhere to get it: {self.where}")

    def _require_folders(self, root: Path) -> None:
        if not root.exists():
            raise self.error(f"the folder {root} does not exist")
        if not root.is_dir():
            raise self.error(f"{root} is not a folder")
        absent = [folder for folder in self.folders if not (root / folder).is_dir()]
        if absent:
            problem = f"{root} has no folder {absent[0]}/"
            better = next(filter(self._has_folders, [root.parent, *sorted(root.iterdir())]), None)
            raise self.error(f"{problem}; did you mean --root {better} ?" if better else problem)

    def _has_folders(self, root: Path) -> bool:
        # os.path, because it takes a folder that may not be entered for absent.
        return all(os.path.isdir(root / folder) for folder in self.folders)  # noqa: PTH112

    def _require_files(self, root: Path, pairs: list[Pair]) -> None:
        """At least one image, and one label if there should be any."""
        if not pairs:
            raise self.error(f"no images below {root}")
        if not any(image.is_file() for image, _ in pairs):
            raise self.error(f"none of the {len(pairs)} images is there, the first being {pairs[0][0]}")
        labels = [label for _, label in pairs if label is not None]
        if labels and not any(label.is_file() for label in labels):
            raise self.error(f"none of the {len(labels)} label files is there, the first being {labels[0]}")


class Demo(Layout):
    """Procedural street scenes, drawn on demand."""

    name = "demo"
    title = "Demo scenes"
    images = 24
    where = "nothing to fetch, `oodray run --dataset demo` draws it"
    tree = "ROOT/images/scene-00.png\nROOT/labels/scene-00.png   0 in-distribution, 1 OoD, 255 ignore"
    folders = ("images", "labels")
    label_codes = LabelCodes(ood=frozenset({1}), ignore=frozenset({255}), in_distribution=frozenset({0}))

    def prepare(self, root: Path) -> None:
        """Draw the scenes that are not there yet.

        Raises:
            DatasetError: they cannot be written.
        """
        from oodray.datasets import scenes

        try:
            scenes.write_demo(root)
        except OSError as error:
            raise DatasetError(f"cannot write the demo scenes to {root}: {error.strerror}") from error

    def pairs(self, root: Path) -> Iterable[Pair]:
        """Labels bear the names of their images."""
        for image in image_files(root / "images"):
            yield image, root / "labels" / f"{image.stem}.png"


class RoadAnomaly(Layout):
    """Lis et al., Detecting the Unexpected via Image Resynthesis, ICCV 2019, in its official layout."""

    name = "road-anomaly"
    title = "RoadAnomaly"
    images = 60
    where = (
        "https://datasets-cvlab.epfl.ch/2019-road-anomaly/RoadAnomaly_jpg.zip "
        "(md5 87a0908e5c72827824693913cf2e4fb0)"
    )
    tree = (
        "ROOT/frame_list.json\n"
        "ROOT/frames/NAME.jpg\n"
        "ROOT/frames/NAME.labels/labels_semantic.png   0 in-distribution, 2 OoD"
    )
    folders = ("frames",)
    label_codes = LabelCodes(ood=frozenset({2}), ignore=frozenset(), in_distribution=frozenset({0}))

    def pairs(self, root: Path) -> Iterable[Pair]:
        """The frames that the list names, or all frames where there is no list."""
        frame_list = root / "frame_list.json"
        names = self._listed(frame_list) if frame_list.exists() else None
        frames = image_files(root / "frames") if names is None else [root / "frames" / name for name in names]
        for image in frames:
            yield image, image.with_suffix(".labels") / "labels_semantic.png"

    def _listed(self, frame_list: Path) -> list[str]:
        try:
            names = json.loads(frame_list.read_bytes())
        except ValueError as error:
            raise self.error(f"{frame_list} is not valid JSON ({error})") from error
        if not isinstance(names, list) or not all(map(_is_image_name, names)):
            raise self.error(f"{frame_list} is not a list of names of image files")
        return names


class AdeOod(Layout):
    """Galesso et al., Diffusion for Out-of-Distribution Detection on Road Scenes and Beyond, ECCV 2024."""

    name = "ade-ood"
    title = "ADE-OoD"
    images = 111
    where = "https://lmb.informatik.uni-freiburg.de/resources/datasets/ADE-OoD/ (ADE-OoD.zip)"
    tree = (
        "ROOT/images/NAME.jpg\n"
        "ROOT/annotations/NAME_mask.png   1 OoD, 255 ignore, anything else in-distribution"
    )
    folders = ("images", "annotations")
    label_codes = LabelCodes(ood=frozenset({1}), ignore=frozenset({255}), in_distribution=None)

    def pairs(self, root: Path) -> Iterable[Pair]:
        """Labels bear the names of their images, with `_mask`."""
        for image in image_files(root / "images"):
            yield image, root / "annotations" / f"{image.stem}_mask.png"


class Folder(Layout):
    """Any folder of images, with labels where there are some."""

    name = "folder"
    title = "Folder of images"
    images = None
    where = "your own images"
    tree = (
        f"ROOT/**/NAME.jpg   ({', '.join(sorted(suffix[1:] for suffix in IMAGE_SUFFIXES))})\n"
        "or, with labels:\n"
        "ROOT/images/**/NAME.jpg\n"
        "ROOT/labels/**/NAME.png   0 in-distribution, 1 OoD, 255 ignore; may be absent for some images"
    )
    folders = ()
    label_codes = LabelCodes(ood=frozenset({1}), ignore=frozenset({255}), in_distribution=frozenset({0}))

    def pairs(self, root: Path) -> Iterable[Pair]:
        """All images below the root; with images/ and labels/, those below images/, and labels that exist."""
        images, labels = root / "images", root / "labels"
        if not (images.is_dir() and labels.is_dir()):
            return [(image, None) for image in image_files(root, recursive=True)]
        pairs = [
            (image, (labels / image.relative_to(images)).with_suffix(".png"))
            for image in image_files(images, recursive=True)
        ]
        labelled = {label for _, label in pairs if label.is_file()}
        if pairs and not labelled:
            raise self.error(
                f"no file in {labels} is the label of an image, the first expected being {pairs[0][1]}; "
                f"without labels, give --root {images}"
            )
        return [(image, label if label in labelled else None) for image, label in pairs]


LAYOUTS: dict[str, Layout] = {layout.name: layout for layout in (Demo(), RoadAnomaly(), AdeOod(), Folder())}
"""The known layouts by name."""


def get_layout(name: str) -> Layout:
    """The layout of a name.

    Raises:
        DatasetError: there is none.

    >>> get_layout("ade-ood").images
    111
    """
    if name in LAYOUTS:
        return LAYOUTS[name]
    nearest = difflib.get_close_matches(name.lower(), LAYOUTS, n=1)
    suggestion = f" (did you mean {nearest[0]}?)" if nearest else ""
    raise DatasetError(f"unknown dataset {name!r}{suggestion}; known are {', '.join(LAYOUTS)}")


def count_warning(layout: Layout, found: Sized) -> str | None:
    """A warning where the samples (or the rows of a manifest) found are not as many as were published.

    >>> count_warning(get_layout("road-anomaly"), ["frames/000"])
    'RoadAnomaly was published with 60 images, found: 1; the numbers do not compare with published ones'
    """
    if layout.images is None or len(found) == layout.images:
        return None
    return (
        f"{layout.title} was published with {layout.images} images, found: {len(found)}; "
        "the numbers do not compare with published ones"
    )


def image_files(folder: Path, *, recursive: bool = False) -> list[Path]:
    """Image files in a folder, told by suffix, sorted; without hidden files and folders; links are followed.

    Raises:
        OSError: a folder cannot be read.
    """
    return sorted(_walk(folder, recursive, above=frozenset()))


def _walk(folder: Path, recursive: bool, above: frozenset[Path]) -> Iterator[Path]:
    real = folder.resolve()
    if real in above:  # a link back to a folder on the way here
        return
    # os.scandir tells folders from files without a question for each, which is slow on a network drive.
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                if recursive:
                    yield from _walk(Path(entry), recursive, above | {real})
            elif _is_image_name(entry.name):
                yield Path(entry)


def _is_image_name(name: object) -> bool:
    return isinstance(name, str) and Path(name).name == name and Path(name).suffix.lower() in IMAGE_SUFFIXES


def _sample(root: Path, image: Path, label: Path | None) -> Sample:
    image_id = image.relative_to(root).with_suffix("").as_posix()
    return Sample(image_id, _uri(image), None if label is None else _uri(label))


def _uri(path: Path) -> str:
    text = str(path)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DatasetError(f"the file name {text!r} is not valid UTF-8; rename it") from None
    return text
