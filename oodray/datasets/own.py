"""Images of one's own: the scenes that oodray draws, and any folder."""

from __future__ import annotations

import copy
import itertools
import os
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import ClassVar, Self

from oodray.datasets.images import LabelCodes
from oodray.datasets.label_names import LABEL_ENDINGS, LABEL_FOLDERS, Pairing, pair_off
from oodray.datasets.layout import (
    IMAGE_SUFFIXES,
    OTHER_PICTURES,
    USUAL_CODES,
    Layout,
    Pair,
    all_files,
    files_of,
    is_image_name,
    mirrored,
    png_of_that_name,
    refuse_outside,
    valid_uri,
)
from oodray.datasets.listing import Sample
from oodray.datasets.remarks import examples, remark
from oodray.errors import DatasetError
from oodray.storage.place import Place, is_inside, path_inside, storage_path


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
        "or, without labels: one image, --root photo.jpg, or a quoted pattern, --root 'photos/*.jpg'\n"
        "or, with labels:\n"
        "ROOT/images/**/NAME.jpg\n"
        "ROOT/labels/**/NAME.png   0 in-distribution, 1 OoD, 255 ignore; may be absent for some images\n"
        "masks/, annotations/, ann_dir/ and the like are taken for labels/, and NAME_mask.png and the like for NAME.png"
    )
    folders = ()
    label_codes = USUAL_CODES
    own_codes: ClassVar[bool] = True
    white_is_ood: str | None = "folder-255"
    labels: str | None = None
    """The folder of labels that the user has named."""

    def with_labels(self, folder: str) -> Self:
        """See `Layout.with_labels`; the folder lies below the root, or elsewhere."""
        found = copy.copy(self)
        vars(found)["labels"] = folder
        return found

    def samples(self, root: Place, *, allow_outside: bool) -> Iterable[Sample]:
        """See `Layout.samples`.

        The root may be an image, or a pattern of names, too. Labels may lie outside of it where the user says so.
        """
        chosen = _chosen_images(root)
        if chosen is not None:
            return self._samples_of(chosen, root, allow_outside=allow_outside)
        if self.labels is None:
            return super().samples(root, allow_outside=allow_outside)
        samples = [*super().samples(root, allow_outside=True)]
        if not allow_outside:
            refuse_outside(root, [sample.image_uri for sample in samples])
            refuse_outside(
                self._label_folder(root), [sample.label_uri for sample in samples if sample.label_uri is not None]
            )
        return samples

    def _samples_of(self, chosen: Sequence[Place], root: Place, *, allow_outside: bool) -> list[Sample]:
        """The images that a root names, which are looked at without labels."""
        folder = folder_of(root)
        if not chosen:
            raise self.error(f"no image file is called {root}")
        if self.labels is not None:
            raise self.error(f"--labels goes with a folder of images as --root; {root} names images themselves")
        samples = [Sample(str(path_inside(path, folder).with_suffix("")), valid_uri(path), None) for path in chosen]
        if not allow_outside:
            refuse_outside(folder, files_of(samples))
        return samples

    def pairs(self, root: Place) -> Iterable[Pair]:
        """All images below the root, with the labels that pair off with them by name.

        Where a folder of labels lies beside one of images, the images are those in there. Results folders of oodray
        are left out, see `image_files`.
        """
        files = self._files(root)
        pairing = pair_off(files)
        if self.labels is not None and not any(pairing.labels.values()):
            raise self.error(
                f"no file in {self._label_folder(root)} is the label of an image below {root}: labels are called as "
                "their images are, NAME.png or NAME_mask.png, in the same folders below"
            )
        self._refuse_labels_of_nothing(root, pairing)
        _remark_on(pairing, files)
        return [(files[image], None if label is None else files[label]) for image, label in pairing.labels.items()]

    def _files(self, root: Place) -> dict[PurePosixPath, Place]:
        """All files by their path below the root, where the folder that the user named is called `labels`."""
        files = {path_inside(path, root): path for path in all_files(root)}
        if self.labels is None:
            return files
        folder = self._label_folder(root)
        inside = path_inside(folder, root).parts if is_inside(folder, root) else ()
        above = PurePosixPath(*itertools.takewhile(lambda part: part.casefold() not in LABEL_FOLDERS, inside[:-1]))
        images = {
            path: place
            for path, place in files.items()
            if not is_inside(place, folder) and not any(part.casefold() in LABEL_FOLDERS for part in path.parts[:-1])
        }
        return images | {above / "labels" / path_inside(place, folder): place for place in all_files(folder)}

    def _label_folder(self, root: Place) -> Place:
        """The folder that the user named, below the root or elsewhere."""
        named = str(self.labels)
        below = root / named
        folder = below if below.is_dir() else storage_path(named)
        if isinstance(folder, Path):
            folder = Path(os.path.abspath(folder))  # noqa: PTH100 - Path.absolute keeps `..`
        if not folder.is_dir():
            raise self.error(f"--labels {named}: there is no folder {below}, and none {folder}")
        return folder

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
    own_codes: ClassVar[bool] = False
    white_is_ood = None


def folder_of(root: Place) -> Place:
    """The folder that a root means: its own, that of a single image, or that before a pattern.

    >>> from pathlib import Path
    >>> print(folder_of(Path("/photos/2024-*/*.jpg")), folder_of(Path("/photos")))
    /photos /photos
    """
    if is_image_name(root.name) and root.is_file():
        return root.parent
    while _is_pattern(str(root)) and not root.exists():
        root = root.parent
    return root


def _chosen_images(root: Place) -> list[Place] | None:
    """The image that a root is, or those that its pattern names, sorted; None of a folder.

    A file or folder with the characters of a pattern in its name is what it is called.
    """
    if is_image_name(root.name) and root.is_file():
        return [root]
    if not _is_pattern(str(root)) or root.exists():
        return None
    folder = folder_of(root)
    pattern = str(path_inside(root, folder))
    return sorted({path for path in folder.glob(pattern) if is_image_name(path.name) and path.is_file()})


def _is_pattern(text: str) -> bool:
    return any(character in text for character in "*?[")


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
