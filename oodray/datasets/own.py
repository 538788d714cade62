"""Images of one's own: the scenes that oodray draws, and any folder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import ClassVar

from oodray.datasets.images import LabelCodes
from oodray.datasets.label_names import LABEL_ENDINGS, Pairing, pair_off
from oodray.datasets.layout import (
    IMAGE_SUFFIXES,
    OTHER_PICTURES,
    USUAL_CODES,
    Layout,
    Pair,
    all_files,
    mirrored,
    png_of_that_name,
)
from oodray.datasets.remarks import examples, remark
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
        "ROOT/labels/**/NAME.png   0 in-distribution, 1 OoD, 255 ignore; may be absent for some images\n"
        "masks/, annotations/, ann_dir/ and the like are taken for labels/, and NAME_mask.png and the like for NAME.png"
    )
    folders = ()
    label_codes = USUAL_CODES
    white_is_ood: ClassVar[str | None] = "folder-255"

    def pairs(self, root: Place) -> Iterable[Pair]:
        """All images below the root, with the labels that pair off with them by name.

        Where a folder of labels lies beside one of images, the images are those in there. Results folders of oodray
        are left out, see `image_files`.
        """
        files = {path_inside(path, root): path for path in all_files(root)}
        pairing = pair_off(files)
        self._refuse_labels_of_nothing(root, pairing)
        _remark_on(pairing, files)
        return [(files[image], None if label is None else files[label]) for image, label in pairing.labels.items()]

    def _refuse_labels_of_nothing(self, root: Place, pairing: Pairing) -> None:
        """Folders `images` and `labels` are meant as such, whatever is in them."""
        first = next((path for path in pairing.labels if path.parts[0] == "images"), None)
        if first is None or any(pairing.labels.values()):
            return
        if (root / "images").is_dir() and (root / "labels").is_dir():
            expected = root / PurePosixPath("labels", *first.parts[1:]).with_suffix(".png")
            raise self.error(
                f"no file in {root / 'labels'} is the label of an image, the first expected being {expected}; "
                f"without labels, give --root {root / 'images'}"
            )


class FolderWhiteOod(Folder):
    """The same, with masks of 0 and 255 in which white is OoD."""

    name = "folder-255"
    title = "Folder of images, white masks"
    where = "your own images, with masks of 0 and 255"
    tree = (
        "ROOT/images/**/NAME.jpg\n"
        "ROOT/labels/**/NAME.png   0 in-distribution, 255 OoD (65535 in 16 bits); nothing is ignored\n"
        "and everything else as in `folder`"
    )
    label_codes = LabelCodes(ood=frozenset({255, 65535}), ignore=frozenset(), in_distribution=frozenset({0}))
    white_is_ood = None


def _remark_on(pairing: Pairing, files: Iterable[PurePosixPath]) -> None:
    """Say what was taken for what where that is not plain."""
    if pairing.unmatched:
        remark(
            f"{_files(pairing.unmatched)} beside the labels that are the label of no image: expected is NAME.png, or "
            "NAME_mask.png, for the image NAME.jpg, in the same folders below, as PNG, TIFF or BMP (JPEG changes codes)"
        )
    if pairing.beside:
        remark(f"{_files(pairing.beside)} taken for labels of the images beside them, by name", wrong=False)
    for folder in pairing.doubtful:
        remark(
            f"{folder}/ is called like a folder of labels, but no name in it pairs off with that of an image: what is "
            "in it is taken for images. Labels are called as their images are",
            wrong=False,
        )
    if pairing.outside:
        remark(f"{_files(pairing.outside)} left out, outside of the folder of images that has labels", wrong=False)
    like_labels = [path for path in pairing.labels if _is_like_a_label(path, pairing)]
    if like_labels:
        remark(
            f"{_files(like_labels)} taken for images, though their names are those of labels of an image beside them: "
            "a label is a PNG, TIFF or BMP file. Move them away if they are none",
            wrong=False,
        )
    unread = [path for path in files if path.suffix.lower() in OTHER_PICTURES]
    if unread:
        remark(f"{_files(unread)} left out, of formats that oodray does not read: convert them to PNG or JPEG")


def _is_like_a_label(path: PurePosixPath, pairing: Pairing) -> bool:
    """Whether the name of an image is that of another one, and what follows that of a label."""
    stem, _, ending = path.stem.rpartition("_")
    if f"_{ending.casefold()}" not in LABEL_ENDINGS:
        return False
    return any(path.with_name(stem + suffix) in pairing.labels for suffix in (*IMAGE_SUFFIXES, path.suffix))


def _files(paths: Sequence[PurePosixPath]) -> str:
    return f"{len(paths):,} file{'s' if len(paths) > 1 else ''} ({examples(paths)})"
