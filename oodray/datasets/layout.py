"""What a dataset on disk is: its samples, the layout that finds them, and the search for image files."""

from __future__ import annotations

import copy
import os
import posixpath
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import ClassVar, Self

import pyarrow as pa

from oodray.datasets.images import LabelCodes
from oodray.datasets.listing import Sample, by_id, samples_of_table, table_of_samples
from oodray.datasets.remarks import remark
from oodray.errors import DatasetError
from oodray.storage.place import Place, concurrently, entries_of, is_inside, path_inside, storage_path
from oodray.storage.remote import is_remote

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff"})
"""Suffixes of image files, in any case."""

OTHER_PICTURES = frozenset(
    {
        *(".gif", ".avif", ".heic", ".heif", ".jp2", ".j2k", ".jxl", ".ppm", ".pgm", ".tga", ".exr"),
        *(".dng", ".cr2", ".nef"),
    }
)
"""Suffixes of pictures of formats that oodray does not read."""

CAMERA = "_leftImg8bit"
"""How Cityscapes and LostAndFound end the names of their images."""

_OF_SYSTEMS = frozenset({"@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "__MACOSX"})
_FILES_OF_A_RUN = frozenset({"run.json", "manifest.parquet"})

Pair = tuple[Place, Place | None]
"""An image file and its label file."""

USUAL_CODES = LabelCodes(ood=frozenset({1}), ignore=frozenset({255}), in_distribution=frozenset({0}))
"""0 in-distribution, 1 OoD, 255 ignore: what most sets with OoD pixels agree on."""

REPACKED_CODES = LabelCodes(ood=frozenset({1, 2}), ignore=frozenset({255}), in_distribution=frozenset({0}))
"""The same with 2 for OoD, too: sets that are repacked as `images/` and `labels_masks/` come with either."""


class Layout:
    """Where a dataset keeps its images and labels below its root.

    A subclass declares the attributes and yields its files from `pairs`; `find` does the rest. One whose images are
    named in a file has `samples` of its own instead, one whose images lie inside of files `table`.

    Attributes:
        name: what `--dataset` takes.
        title: the dataset's own name.
        images: the published number of images, None where it is open.
        where: how to get the dataset.
        tree: the expected files and folders, as text.
        folders: folders below the root without which the dataset is not there.
        repackings: other sets of folders that may be there instead.
        label_codes: the meaning of the codes in its label files; no code is OoD in an in-distribution set.
        ood_code: of OoD pixels in the original files, where repackings have another one.
        parts: images of published parts of it that are evaluated alone, such as its validation images.
        size: height and width that its images all have, None where they differ or none was published.
        track: of which benchmark the smallest regions count, see `oodray.metrics.components.LIMITS`.
        ood_percent: known share of OoD pixels among those that count, in percent, None where none is known.
        own_codes: whether the codes of its label files are the user's to say, see `with_codes`.
        folder_names: further names of its folder by which `oodray datasets check DIR` knows it, see `known_by`.
        white_is_ood: the name of a layout that is the same but for masks of 0 and 255, whose white is OoD.
        drawn: whether `prepare` makes the dataset, so that it need not be there.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    images: ClassVar[int | None]
    where: ClassVar[str]
    tree: ClassVar[str]
    folders: ClassVar[tuple[str, ...]]
    repackings: ClassVar[tuple[tuple[str, ...], ...]] = ()
    label_codes: LabelCodes
    own_codes: ClassVar[bool] = False
    folder_names: ClassVar[tuple[str, ...]] = ()
    ood_code: ClassVar[int | None] = None
    parts: ClassVar[tuple[int, ...]] = ()
    size: ClassVar[tuple[int, int] | None] = None
    track: ClassVar[str] = "anomaly"
    ood_percent: ClassVar[float | None] = None
    white_is_ood: str | None = None
    drawn: ClassVar[bool] = False

    def pairs(self, root: Place) -> Iterable[Pair]:
        """Image and label files below an absolute root that has all `folders`, in any order.

        A label file that should be there is named even if it is not: its image then becomes an error row.
        Left out, the image would drop out of the metrics in silence.
        """
        raise NotImplementedError(f"{type(self).__name__} has neither pairs nor samples")

    def table(self, root: Place, *, allow_outside: bool) -> pa.Table:
        """The samples below an absolute root as a table of `SAMPLES`, in any order; see `listing`."""
        return table_of_samples(self.samples(root, allow_outside=allow_outside))

    def samples(self, root: Place, *, allow_outside: bool) -> Iterable[Sample]:
        """The samples below an absolute root, in any order; see `listing`."""
        self._require_folders(root)
        pairs = list(self.pairs(root))
        self._require_files(root, pairs)
        samples = [_sample(root, *pair) for pair in pairs]
        if not allow_outside:
            refuse_outside(root, files_of(samples))
        return samples

    def of_split(self, split: str) -> Layout:
        """The layout of one split of the dataset, for one whose files are named after splits.

        Raises:
            DatasetError: it has no splits.
        """
        raise DatasetError(f"--split {split} does not go with --dataset {self.name}, whose files have no splits")

    def with_codes(self, codes: LabelCodes) -> Self:
        """The layout with other codes in its label files.

        Raises:
            DatasetError: its codes are known.
        """
        if not self.own_codes:
            raise DatasetError(
                f"--label-codes does not go with --dataset {self.name}, whose codes are known; "
                "--dataset folder takes it"
            )
        found = copy.copy(self)
        # Masks of 0 and 255 that are said to be meant are no mistake.
        vars(found).update(label_codes=codes, white_is_ood=None)
        return found

    def with_labels(self, folder: str) -> Self:
        """The layout with its labels in a folder of any name.

        Raises:
            DatasetError: it is known where they lie.
        """
        raise DatasetError(
            f"--labels {folder} does not go with --dataset {self.name}, whose labels lie where `oodray datasets` "
            "shows; --dataset folder takes it"
        )

    def known_by(self, folder: Place) -> bool:
        """Whether a folder is called like the dataset, and has its folders."""
        names = map(_letters, (self.name, *self.folder_names) if self.folders else self.folder_names)
        return _letters(folder.name) in names and self.form(folder) is not None

    def form(self, root: Place) -> tuple[str, ...] | None:
        """Which of `folders` and `repackings` lies below a root; None where none is whole."""
        forms = (self.folders, *self.repackings)
        return next((form for form in forms if all(_is_folder(root / folder) for folder in form)), None)

    def prepare(self, root: Place) -> None:
        """Make the dataset where oodray can do that itself."""

    def find(self, root: Place, *, allow_outside: bool = False) -> list[Sample]:
        """The samples that `listing` lists, an object each."""
        return [*samples_of_table(self.listing(root, allow_outside=allow_outside))]

    def listing(self, root: Place, *, allow_outside: bool = False) -> pa.Table:
        """The dataset's samples as a table of `SAMPLES`, sorted by `image_id`.

        Args:
            root: the dataset's folder.
            allow_outside: take files that a link leads to outside of it.

        Raises:
            DatasetError: the dataset is not there; two files share an `image_id`; a name is not valid UTF-8; a link
                leads outside.
        """
        root = storage_path(root)
        valid_uri(root)
        try:
            return by_id(self.table(root, allow_outside=allow_outside))
        except OSError as error:
            raise DatasetError(f"cannot read {error.filename or root}: {error.strerror}") from error

    def error(self, problem: str) -> DatasetError:
        """The error that says what is wrong, what was expected and where to get it."""
        tree = "\n".join(f"  {line}" for line in self.tree.splitlines())
        return DatasetError(f"{self.title}: {problem}\nExpected:\n{tree}\nWhere to get it: {self.where}")

    def _require_folders(self, root: Place) -> None:
        if not root.exists():
            raise self.error(f"the folder {root} does not exist")
        if not root.is_dir():
            raise self.error(f"{root} is not a folder")
        absent = [folder for folder in self.folders if not (root / folder).is_dir()]
        if absent and self.form(root) is None:
            problem = f"{root} has no folder {absent[0]}/"
            better = next(filter(self.form, [root.parent, *sorted(root.iterdir())]), None)
            raise self.error(f"{problem}; did you mean --root {better} ?" if better else problem)

    def _require_files(self, root: Place, pairs: list[Pair]) -> None:
        """At least one image, and one label if there should be any."""
        if not pairs:
            raise self.error(f"no images below {root}")
        if not any(image.is_file() for image, _ in pairs):
            raise self.error(f"none of the {len(pairs)} images is there, the first being {pairs[0][0]}")
        labels = [label for _, label in pairs if label is not None]
        if labels and not any(label.is_file() for label in labels):
            raise self.error(f"none of the {len(labels)} label files is there, the first being {labels[0]}")


def image_files(folder: Place, *, recursive: bool = False) -> list[Place]:
    """Image files in a folder, told by suffix, sorted; links are followed. What is hidden or a system keeps is none.

    A folder below it that holds a `run.json` and a `manifest.parquet` is a results folder of oodray and is left out:
    the pictures that `oodray show` draws there are no images of the dataset. One that may not be read, such as the
    `lost+found` of a drive, is left out with a remark.

    Raises:
        OSError: a folder cannot be read.
    """
    return files_named(is_image_name, folder, recursive=recursive)


def all_files(folder: Place) -> list[Place]:
    """As `image_files` with all folders below, but files of any kind.

    Raises:
        OSError: a folder cannot be read.
    """
    return files_named(lambda _: True, folder, recursive=True)


def files_named(wanted: Callable[[str], bool], folder: Place, *, recursive: bool = False) -> list[Place]:
    """As `image_files`, but files whose name is wanted.

    Raises:
        OSError: a folder cannot be read.
    """
    found: list[Place] = []
    # Level by level, as the folders of one are listed side by side in an object store.
    level = [(folder, frozenset[Place]())]
    while level:
        below = []
        contents = concurrently(lambda inside: _content(*inside), level, is_remote(folder))
        for (inside, above), entries in zip(level, contents, strict=True):
            found += [path for path, is_dir in entries if not is_dir and wanted(path.name)]
            way = above | {inside.resolve()}
            # Not along a link back to a folder on the way here.
            below += [(path, way) for path, is_dir in entries if is_dir and recursive and path.resolve() not in way]
        level = below
    return sorted(found)


def mirrored(
    images: Place, labels: Place, label_name: Callable[[Place], str], *, recursive: bool = False
) -> Iterator[Pair]:
    """Every image file of a folder, and the label at the same place below another, named after it."""
    for image in image_files(images, recursive=recursive):
        yield image, labels / path_inside(image.parent, images) / label_name(image)


def stays_below(name: str) -> bool:
    """Whether an id of somebody else's, taken for a path, leads to below the folder that it is put into.

    >>> [stays_below(name) for name in ("a/b.c", "../a", "/a", "a//b", "")]
    [True, False, False, False, False]
    """
    return not any(part in ("", "..") for part in name.split("/"))


def png_of_that_name(image: Place) -> str:
    """The name of a label that is called as its image is.

    >>> png_of_that_name(Path("images/a.b.jpg"))
    'a.b.png'
    """
    return f"{image.stem}.png"


def frame_name(image: Place) -> str:
    """The name of a frame of Cityscapes or LostAndFound, without what names the camera.

    >>> frame_name(Path("test/01/01_a_000000_000010_leftImg8bit.png"))
    '01_a_000000_000010'
    """
    return image.stem.removesuffix(CAMERA)


def _content(folder: Place, above: frozenset[Place]) -> list[tuple[Place, bool]]:
    """What lies in a folder that has some above it; nothing where it is a results folder, or may not be read."""
    try:
        entries = [(path, is_dir) for path, is_dir in entries_of(folder) if not _is_of_the_system(path.name)]
    except PermissionError:
        if not above:  # the folder that was asked for
            raise
        remark(f"{folder} may not be read: what is in it is left out. `chmod -R a+rX {folder}` lets everybody read it")
        return []
    return [] if above and _FILES_OF_A_RUN.issubset(path.name for path, _ in entries) else entries


def _is_of_the_system(name: str) -> bool:
    """Whether a file or folder is hidden, or one in which a system keeps its own: thumbnails, what was deleted."""
    return name.startswith(".") or name in _OF_SYSTEMS


def _is_folder(path: Place) -> bool:
    """Whether a folder is there; one that may not be looked at counts as absent."""
    try:
        return path.is_dir()
    except PermissionError:
        return False


def is_image_name(name: object) -> bool:
    """Whether that is the name of an image file, without a folder.

    >>> [is_image_name(name) for name in ("a.JPG", "a.txt", "b/a.jpg", 3)]
    [True, False, False, False]
    """
    return isinstance(name, str) and Path(name).name == name and Path(name).suffix.lower() in IMAGE_SUFFIXES


def files_of(samples: Iterable[Sample]) -> Iterator[str]:
    """The files of samples, images and labels."""
    return (uri for sample in samples for uri in (sample.image_uri, sample.label_uri) if uri is not None)


def refuse_outside(root: Place, files: Iterable[str]) -> None:
    """No link in a dataset, which may come from anywhere, leads to other files of this machine.

    Raises:
        DatasetError: one does.
    """
    real_root, has_links = root.resolve(), not is_remote(root)
    folders: dict[str, bool] = {}
    # As texts: there may be millions.
    for path in (path for path in files if "\0" not in path):  # no file can have that name
        # Links to folders are looked up once a folder, on network drives too.
        folder = posixpath.dirname(path)
        inside = folders.get(folder)
        if inside is None:
            inside = folders[folder] = is_inside(storage_path(folder).resolve(), real_root)
        if not inside or (has_links and os.path.islink(path)):  # noqa: PTH114 - a Path takes longer than the look
            target = storage_path(path).resolve()
            if not is_inside(target, real_root):
                raise DatasetError(
                    f"{path} leads outside of the dataset's folder, to {target}; "
                    "pass --allow-outside-root if that is meant"
                )


def _letters(name: str) -> str:
    """The letters and digits of a name, in lower case."""
    return "".join(character for character in name.lower() if character.isalnum())


def _sample(root: Place, image: Place, label: Place | None) -> Sample:
    image_id = str(path_inside(image, root).with_suffix(""))
    return Sample(image_id, valid_uri(image), None if label is None else valid_uri(label))


def valid_uri(path: Place) -> str:
    """The name of a place.

    Raises:
        DatasetError: it is not valid UTF-8.
    """
    text = str(path)
    try:
        text.encode()
    except UnicodeEncodeError:
        if sys.getfilesystemencoding() != "utf-8":
            raise DatasetError(
                f"this process reads file names as {sys.getfilesystemencoding()}, so it cannot read {text!a}: "
                "set PYTHONUTF8=1, or LC_ALL=C.UTF-8"
            ) from None
        raise DatasetError(f"the file name {text!r} is not valid UTF-8; rename it") from None
    return text
