"""The known datasets: one small class per public layout, and the registry of them by name."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Sized
from pathlib import Path

from oodray.datasets.images import LabelCodes
from oodray.datasets.layout import IMAGE_SUFFIXES, Layout, Pair, Sample, image_files, is_image_name
from oodray.errors import DatasetError

__all__ = ["LAYOUTS", "AdeOod", "Demo", "Folder", "Layout", "RoadAnomaly", "Sample", "count_warning", "get_layout"]


class Demo(Layout):
    """Procedural street scenes, drawn on demand."""

    name = "demo"
    title = "Demo scenes"
    images = 24
    drawn = True
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
        "https://datasets-cvlab.epfl.ch/2019-road-anomaly/RoadAnomaly_jpg.zip (md5 87a0908e5c72827824693913cf2e4fb0)"
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
        if not isinstance(names, list) or not all(map(is_image_name, names)):
            raise self.error(f"{frame_list} is not a list of names of image files")
        return names


class AdeOod(Layout):
    """Galesso et al., Diffusion for Out-of-Distribution Detection on Road Scenes and Beyond, ECCV 2024."""

    name = "ade-ood"
    title = "ADE-OoD"
    images = 111
    where = "https://lmb.informatik.uni-freiburg.de/resources/datasets/ADE-OoD/ (ADE-OoD.zip)"
    tree = "ROOT/images/NAME.jpg\nROOT/annotations/NAME_mask.png   1 OoD, 255 ignore, anything else in-distribution"
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
        """All images below the root; with images/ and labels/, those below images/, and labels that exist.

        Results folders of oodray are left out, see `image_files`.
        """
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
