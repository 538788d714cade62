"""BDD100K, whose labels name the classes of Cityscapes, and the part of it that Hendrycks et al. took for anomalies."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import numpy as np

from oodray.datasets.images import LabelCodes, decode_codes, read_bytes
from oodray.datasets.layout import Layout, Pair, is_image_name, mirrored, png_of_that_name
from oodray.datasets.remarks import remark
from oodray.errors import ImageError
from oodray.storage.place import Place

LIST = "anom.odgt"
"""The list of the images that hold an anomaly, as Hendrycks' `create_dataset.py` writes it."""

_WHERE = "https://www.vis.xyz/bdd100k (10K images; semantic segmentation)"
_OOD = frozenset({16, 17})  # train, motorcycle


def _train_id_name(image: Place) -> str:
    return f"{image.stem}_train_id.png"


class Bdd100k(Layout):
    """Yu et al., BDD100K, CVPR 2020: the validation images with semantic labels."""

    name = "bdd100k"
    title = "BDD100K, validation"
    images = 1000
    where = _WHERE
    tree = (
        "ROOT/seg/images/val/NAME.jpg\n"
        "ROOT/seg/labels/val/NAME_train_id.png   0 to 18 in-distribution, 255 ignore\n"
        "or, as it is published since 2021:\n"
        "ROOT/images/10k/val/NAME.jpg\n"
        "ROOT/labels/sem_seg/masks/val/NAME.png"
    )
    folders: ClassVar[tuple[str, ...]] = ("seg/images/val", "seg/labels/val")
    repackings = (("images/10k/val", "labels/sem_seg/masks/val"),)
    label_codes = LabelCodes(ood=frozenset(), ignore=frozenset({255}), in_distribution=frozenset(range(19)))
    size = (720, 1280)

    def pairs(self, root: Place) -> Iterable[Pair]:
        """Labels bear the names of their images, in the older form with `_train_id`."""
        images, labels = self.form(root) or self.folders
        name = _train_id_name if images == self.folders[0] else png_of_that_name
        return mirrored(root / images, root / labels, name)


class BddAnomaly(Layout):
    """Hendrycks et al., Scaling Out-of-Distribution Detection for Real-World Settings, ICML 2022: trains, motorcycles.

    The images of BDD100K, of training and validation, that hold a train or a motorcycle. `anom.odgt` names them; where
    it is not there, the labels are looked through, which takes about a minute.
    """

    name = "bdd-anomaly"
    title = "BDD-Anomaly"
    images = 361
    where = f"{_WHERE}; {LIST} by create_dataset.py of https://github.com/hendrycks/anomaly-seg"
    tree = (
        "ROOT/seg/images/SPLIT/NAME.jpg   train and val\n"
        "ROOT/seg/labels/SPLIT/NAME_train_id.png   0 to 15 and 18 in-distribution, 16 and 17 OoD, 255 ignore\n"
        f"ROOT/{LIST}   the images with OoD pixels; may be absent"
    )
    folders = ("seg/images", "seg/labels")
    folder_names = ("BDDAnomaly",)
    label_codes = LabelCodes(ood=_OOD, ignore=frozenset({255}), in_distribution=frozenset(range(19)) - _OOD)
    size = (720, 1280)

    def pairs(self, root: Place) -> Iterable[Pair]:
        """The images that the list names, or whose labels hold OoD pixels."""
        images, labels = (root / folder for folder in self.folders)
        pairs = list(mirrored(images, labels, _train_id_name, recursive=True))
        listed = root / LIST
        if listed.is_file():
            names = self._listed(listed)
            return [(image, label) for image, label in pairs if image.name in names]
        found = list(_with_ood(pairs))
        remark(
            f"{root} has no {LIST}: {len(found)} of {len(pairs)} images hold a train or a motorcycle, and are taken",
            wrong=False,
        )
        return found

    def _listed(self, path: Place) -> set[str]:
        """The names of images in a list of objects, one list or one object a line."""
        try:
            text = path.read_text("utf-8")
            rows = json.loads(text) if text.lstrip().startswith("[") else [*map(json.loads, text.splitlines())]
            names = {row["fpath_img"].rpartition("/")[2] for row in rows}
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise self.error(f"{path} is no list of images with `fpath_img` ({error})") from error
        if not all(map(is_image_name, names)):
            raise self.error(f"{path} names files that are no images")
        return names


def _with_ood(pairs: list[Pair]) -> Iterator[Pair]:
    """Those whose label holds OoD pixels, or cannot be read: the latter become error rows."""
    with ThreadPoolExecutor() as threads:
        for pair, holds in zip(pairs, threads.map(lambda pair: _holds_ood(pair[1]), pairs), strict=True):
            if holds:
                yield pair


def _holds_ood(label: Place | None) -> bool:
    if label is None or not label.is_file():
        return False
    try:
        return bool(np.isin(decode_codes(read_bytes(str(label))), list(_OOD)).any())
    except ImageError:
        return True
