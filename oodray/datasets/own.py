"""Images of one's own: the scenes that oodray draws, and any folder."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from oodray.datasets.images import LabelCodes
from oodray.datasets.layout import IMAGE_SUFFIXES, USUAL_CODES, Layout, Pair, image_files, mirrored, png_of_that_name
from oodray.errors import DatasetError
from oodray.storage.place import Place, path_inside


class Demo(Layout):
    """Procedural street scenes, drawn on demand."""

    name = "demo"
    title = "Demo scenes"
    images: ClassVar[int] = 24
    split: ClassVar[str] = "demo"
    drawn = True
    where = "nothing to fetch, `oodray run --dataset demo` draws it"
    tree = "ROOT/images/scene-00.png\nROOT/labels/scene-00.png   0 in-distribution, 1 OoD, 255 ignore"
    folders = ("images", "labels")
    label_codes = USUAL_CODES

    def prepare(self, root: Place) -> None:
        """Draw the scenes that are not there yet.

        Raises:
            DatasetError: they cannot be written.
        """
        from oodray.datasets.demo import scenes

        try:
            scenes.write_demo(root, self.images, split=self.split)
        except OSError as error:
            raise DatasetError(f"cannot write the demo scenes to {root}: {error.strerror}") from error

    def pairs(self, root: Place) -> Iterable[Pair]:
        """Labels bear the names of their images."""
        return mirrored(root / "images", root / "labels", png_of_that_name)


class DemoValidation(Demo):
    """Scenes with nothing unknown in them, which the embedded network was not trained on: its tau is from them."""

    name = "demo-validation"
    title = "Validation scenes of the demo network"
    images = 64
    split = "val"
    where = "nothing to fetch, `oodray calibrate --dataset demo-validation` draws it"
    tree = "ROOT/images/scene-00.png\nROOT/labels/scene-00.png   0 in-distribution"
    label_codes = LabelCodes(ood=frozenset(), ignore=frozenset({255}), in_distribution=frozenset({0}))


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
    label_codes = USUAL_CODES

    def pairs(self, root: Place) -> Iterable[Pair]:
        """All images below the root; with images/ and labels/, those below images/, and labels that exist.

        Results folders of oodray are left out, see `image_files`.
        """
        images, labels = root / "images", root / "labels"
        if not (images.is_dir() and labels.is_dir()):
            return [(image, None) for image in image_files(root, recursive=True)]
        pairs = [
            (image, (labels / path_inside(image, images)).with_suffix(".png"))
            for image in image_files(images, recursive=True)
        ]
        labelled = {label for _, label in pairs} & set(image_files(labels, recursive=True))
        if pairs and not labelled:
            raise self.error(
                f"no file in {labels} is the label of an image, the first expected being {pairs[0][1]}; "
                f"without labels, give --root {images}"
            )
        return [(image, label if label in labelled else None) for image, label in pairs]
