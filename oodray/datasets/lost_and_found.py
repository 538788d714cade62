"""LostAndFound, and Fishyscapes, which relabels it and pastes animals and things into Cityscapes."""

from __future__ import annotations

import io
from abc import abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from oodray.datasets.images import LabelCodes, decode_image, encode_png, read_bytes
from oodray.datasets.layout import (
    CAMERA,
    REPACKED_CODES,
    Layout,
    Pair,
    frame_name,
    image_files,
    mirrored,
    png_of_that_name,
)
from oodray.datasets.remarks import remark
from oodray.datasets.score_maps import open_arrays
from oodray.errors import DatasetError, ImageError
from oodray.storage.atomic import replacing
from oodray.storage.place import Place, is_inside


class LostAndFound(Layout):
    """Pinggera et al., Lost and Found: Detecting Small Road Hazards, IROS 2016: the test split.

    Only the free road and the obstacles on it count; all else is ignored.
    """

    name = "lost-and-found"
    title = "LostAndFound"
    images = 1203
    where = "https://wwwlehre.dhbw-stuttgart.de/~sgehrig/lostAndFoundDataset/ (leftImg8bit.zip, gtCoarse.zip)"
    tree = (
        "ROOT/leftImg8bit/test/SCENE/FRAME_leftImg8bit.png\n"
        "ROOT/gtCoarse/test/SCENE/FRAME_gtCoarse_labelTrainIds.png   1 free road, 2 OoD, 255 ignore"
    )
    folders = ("leftImg8bit/test", "gtCoarse/test")
    label_codes = LabelCodes(ood=frozenset({2}), ignore=frozenset({0, 255}), in_distribution=frozenset({1}))
    size = (1024, 2048)
    track = "obstacle"

    def pairs(self, root: Place) -> Iterable[Pair]:
        """Labels bear the names of their frames."""
        images, labels = (root / folder for folder in self.folders)
        return mirrored(images, labels, lambda image: f"{frame_name(image)}_gtCoarse_labelTrainIds.png", recursive=True)


class _Fishyscapes(Layout):
    """Blum et al., The Fishyscapes Benchmark, IJCV 2021: the validation sets, labels `NNNN_FRAME_labels.png`."""

    folders: ClassVar[tuple[str, ...]] = ("labels", "leftImg8bit")
    repackings = (("images", "labels_masks"),)
    label_codes = REPACKED_CODES
    ood_code = 1
    size = (1024, 2048)

    def pairs(self, root: Place) -> Iterable[Pair]:
        """The files of the published form, or of the repacking that names labels as their images."""
        form = self.form(root)
        if form not in self.repackings:
            return self.published(root)
        remark("images/ and labels_masks/: a repacking, labels bear the names of their images", wrong=False)
        images, labels = form
        return mirrored(root / images, root / labels, png_of_that_name)

    @abstractmethod
    def published(self, root: Place) -> Iterable[Pair]:
        """The files of the published form."""

    def labels(self, root: Place) -> Iterable[Place]:
        """The label files."""
        return (path for path in image_files(root / "labels") if path.stem.endswith("_labels"))


class FishyscapesLostAndFound(_Fishyscapes):
    """100 frames of LostAndFound, labelled anew."""

    name = "fishyscapes-lost-and-found"
    title = "Fishyscapes Lost & Found, validation"
    images = 100
    folder_names = ("FS_LostFound_full", "FS_LostFound", "fishyscapes_lostandfound")
    where = (
        "labels: https://fishyscapes.com (Lost & Found validation, md5 0d3bf7c0ec38bd50b84f3d8aaa4b2e26); "
        "images: leftImg8bit of lost-and-found, train and test"
    )
    tree = (
        "ROOT/labels/NNNN_FRAME_labels.png   0 in-distribution, 1 OoD, 255 ignore\n"
        "ROOT/leftImg8bit/SPLIT/SCENE/FRAME_leftImg8bit.png"
    )

    def published(self, root: Place) -> Iterable[Pair]:
        """The frames that have a label, of whichever split."""
        frames = {frame_name(path): path for path in image_files(root / "leftImg8bit", recursive=True)}
        for label in self.labels(root):
            frame = labelled_frame(label)
            yield frames.get(frame, root / "leftImg8bit" / f"{frame}{CAMERA}.png"), label


class FishyscapesStatic(_Fishyscapes):
    """30 validation images of Cityscapes, with objects pasted into them.

    They are published as overlays, signed differences from the image of Cityscapes; the composed images are written
    once, to `ROOT/images`. A repack that has them there already needs neither overlays nor Cityscapes.
    """

    name = "fishyscapes-static"
    title = "Fishyscapes Static, validation"
    images = 30
    folder_names = ("fs_static", "fs_val_v3")
    where = "labels and overlays: https://fishyscapes.com (fs_val_v3.zip); images: leftImg8bit/val of cityscapes"
    folders = ("labels",)
    tree = (
        "ROOT/labels/NNNN_FRAME_labels.png   0 in-distribution, 1 OoD, 255 ignore\n"
        "ROOT/overlays/NNNN_FRAME_rgb.npz\n"
        "ROOT/leftImg8bit/val/CITY/FRAME_leftImg8bit.png\n"
        "or, repacked:\n"
        "ROOT/labels/NNNN_FRAME_labels.png\n"
        "ROOT/images/NNNN_FRAME_rgb.jpg"
    )

    def published(self, root: Place) -> Iterable[Pair]:
        """Labels and their images, which are composed where they are not there yet.

        Raises:
            DatasetError: an image cannot be composed.
        """
        composed = root / "images"
        images = {path.stem: path for path in image_files(composed)} if composed.is_dir() else {}
        for label in self.labels(root):
            stem = f"{label.stem.removesuffix('_labels')}_rgb"
            overlay = root / "overlays" / f"{stem}.npz"
            if stem not in images and overlay.is_file():
                frame = labelled_frame(label)
                photo = root / "leftImg8bit" / "val" / frame.split("_")[0] / f"{frame}{CAMERA}.png"
                composed.mkdir(exist_ok=True)
                if not is_inside(composed.resolve(), root.resolve()):
                    raise DatasetError(f"{composed} leads outside of the dataset's folder: nothing is written there")
                images[stem] = _write_composed(composed / f"{stem}.png", photo, overlay)
            yield images.get(stem, composed / f"{stem}.png"), label


def labelled_frame(label: Place) -> str:
    """The frame that a label of Fishyscapes belongs to.

    >>> from pathlib import Path
    >>> labelled_frame(Path("0003_04_Maurener_Weg_8_000000_000030_labels.png"))
    '04_Maurener_Weg_8_000000_000030'
    """
    return label.stem.removesuffix("_labels").partition("_")[2]


def compose(photo: NDArray[np.uint8], overlay: NDArray[np.signedinteger[Any] | np.floating[Any]]) -> NDArray[np.uint8]:
    """An image `(H, W, 3)` with an overlay of signed differences of its shape added.

    Raises:
        ValueError: the shapes differ; numpy would spread a smaller overlay over the image.

    >>> compose(np.full((1, 2, 3), 250, np.uint8), np.array([[[10, 0, -251], [-1, 0, 0]]], np.int16)).tolist()
    [[[255, 250, 0], [249, 250, 250]]]
    """
    if overlay.shape != photo.shape:
        raise ValueError(f"the overlay has the shape {overlay.shape}, the image {photo.shape}")
    composed: NDArray[np.uint8] = np.clip(photo.astype(np.int32) + overlay, 0, 255).astype(np.uint8)
    return composed


def _write_composed(path: Place, photo: Place, overlay: Place) -> Place:
    try:
        composed = compose(decode_image(read_bytes(str(photo))), _read_overlay(overlay))
        with replacing(path) as temporary:
            temporary.write_bytes(encode_png(composed))
    except (ImageError, OSError, ValueError) as error:
        raise DatasetError(f"cannot compose {path} of {photo} and {overlay}: {error}") from error
    return path


def _read_overlay(path: Place) -> NDArray[np.signedinteger[Any] | np.floating[Any]]:
    """The array `rgb` of an overlay file.

    Raises:
        ImageError: the file cannot be read, is damaged, or holds no signed numbers of that name.
    """
    data = read_bytes(str(path))
    try:
        with open_arrays(io.BytesIO(data)) as arrays:
            overlay: NDArray[np.signedinteger[Any] | np.floating[Any]] = arrays["rgb"]
    except Exception as error:  # hostile bytes: BadZipFile, zlib.error, EOFError, KeyError, TypeError, ...
        raise ImageError(
            f"the overlay is damaged or cut short, or no npz file with an array `rgb` ({type(error).__name__}: "
            f"{error}); fetch it again"
        ) from error
    if overlay.dtype.kind not in "if" or not np.isfinite(overlay).all():
        raise ImageError(f"the overlay ({overlay.dtype}) holds no signed, finite numbers; is it the published file?")
    return overlay
