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
_TRAIN, _MOTORCYCLE, _BICYCLE = 16, 17, 18


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


def _codes(ood: set[int]) -> LabelCodes:
    return LabelCodes(
        ood=frozenset(ood), ignore=frozenset({255}), in_distribution=frozenset(range(19)) - frozenset(ood)
    )


class BddAnomaly(Layout):
    """Hendrycks et al., Scaling Out-of-Distribution Detection for Real-World Settings, ICML 2022: trains, motorcycles.

    The images of BDD100K, of training and validation, that hold a train or a motorcycle. `anom.odgt` names them; where
    it is not there, the labels are looked through, which takes about a minute. Of the paper, and of `create_dataset.py`
    of hendrycks/anomaly-seg, commit 8a8b6ce, which moves bicycles to the classes that are known.
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
    folder_names: ClassVar[tuple[str, ...]] = ("BDDAnomaly",)
    label_codes = _codes({_TRAIN, _MOTORCYCLE})
    size = (720, 1280)
    holds: ClassVar[str] = "a train or a motorcycle"

    def pairs(self, root: Place) -> Iterable[Pair]:
        """The images that the list names, or whose labels hold OoD pixels."""
        images, labels = (root / folder for folder in self.folders)
        pairs = list(mirrored(images, labels, _train_id_name, recursive=True))
        listed = root / LIST
        if listed.is_file():
            names = self._listed(listed)
            return [(image, label) for image, label in pairs if image.name in names]
        found = list(_with_ood(pairs, self.label_codes.ood))
        remark(
            f"{root} has no {LIST}: {len(found)} of {len(pairs)} images hold {self.holds}, and are taken",
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


class BddAnomalyBicycle(BddAnomaly):
    """The same with bicycles as OoD, too, and so with more images.

    Of `create_bdd_dataset.py` of hendrycks/anomaly-seg, commit 25ec7e4, whose codes are these plus 2, and of its
    authors' answer in issue 17; ObsNet and others measure on its 810 images.
    """

    name = "bdd-anomaly-bicycle"
    title = "BDD-Anomaly with bicycles"
    images = 810
    where = f"{_WHERE}; {LIST} by create_bdd_dataset.py of https://github.com/hendrycks/anomaly-seg"
    tree = (
        "ROOT/seg/images/SPLIT/NAME.jpg   train and val\n"
        "ROOT/seg/labels/SPLIT/NAME_train_id.png   0 to 15 in-distribution, 16 to 18 OoD, 255 ignore\n"
        f"ROOT/{LIST}   the images with OoD pixels; may be absent"
    )
    folder_names = ()
    label_codes = _codes({_TRAIN, _MOTORCYCLE, _BICYCLE})
    holds = "a train, a motorcycle or a bicycle"


def _with_ood(pairs: list[Pair], ood: frozenset[int]) -> Iterator[Pair]:
    """Those whose label holds OoD pixels, or cannot be read: the latter become error rows."""
    with ThreadPoolExecutor() as threads:
        for pair, holds in zip(pairs, threads.map(lambda pair: _holds(pair[1], ood), pairs), strict=True):
            if holds:
                yield pair


def _holds(label: Place | None, codes: frozenset[int]) -> bool:
    if label is None or not label.is_file():
        return False
    try:
        return bool(np.isin(decode_codes(read_bytes(str(label))), list(codes)).any())
    except ImageError:
        return True
