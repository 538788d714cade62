"""Sets of images with things that no network for their scenes was taught: RoadAnomaly, SegmentMeIfYouCan, ADE-OoD,
StreetHazards."""

from __future__ import annotations

import json
from collections.abc import Iterable

from oodray.datasets.images import LabelCodes
from oodray.datasets.layout import REPACKED_CODES, Layout, Pair, image_files, is_image_name, mirrored, png_of_that_name
from oodray.datasets.remarks import examples, remark
from oodray.storage.place import Place


class RoadAnomaly(Layout):
    """Lis et al., Detecting the Unexpected via Image Resynthesis, ICCV 2019.

    Beside its official form, two repackings are taken: `original/` with `labels/` (SynBoost, PEBAL, RPL), whose OoD
    code is 1, and `images/` with `labels_masks/` (Mask2Anomaly), whose OoD code is 2 as in the original.
    """

    name = "road-anomaly"
    title = "RoadAnomaly"
    images = 60
    where = (
        "https://datasets-cvlab.epfl.ch/2019-road-anomaly/RoadAnomaly_jpg.zip (md5 87a0908e5c72827824693913cf2e4fb0)"
    )
    tree = (
        "ROOT/frame_list.json\n"
        "ROOT/frames/NAME.jpg\n"
        "ROOT/frames/NAME.labels/labels_semantic.png   0 in-distribution, 2 OoD\n"
        "or, repacked:\n"
        "ROOT/original/NAME.jpg\n"
        "ROOT/labels/NAME.png   0 in-distribution, 1 OoD\n"
        "or:\n"
        "ROOT/images/NAME.jpg\n"
        "ROOT/labels_masks/NAME.png   0 in-distribution, 2 OoD"
    )
    folders = ("frames",)
    repackings = (("original", "labels"), ("images", "labels_masks"))
    folder_names = ("RoadAnomaly_jpg",)
    label_codes = REPACKED_CODES
    ood_code = 2
    size = (720, 1280)
    ood_percent = 9.85

    def pairs(self, root: Place) -> Iterable[Pair]:
        """Of the official form the frames that its list names, or all where there is no list."""
        form = self.form(root)
        if form in self.repackings:
            images, labels = form
            remark(f"{images}/ and {labels}/: a repacking, labels bear the names of their images", wrong=False)
            yield from mirrored(root / images, root / labels, png_of_that_name)
            return
        frame_list = root / "frame_list.json"
        names = self._listed(frame_list) if frame_list.exists() else None
        frames = image_files(root / "frames") if names is None else [root / "frames" / name for name in names]
        for image in frames:
            yield image, image.with_suffix(".labels") / "labels_semantic.png"

    def _listed(self, frame_list: Place) -> list[str]:
        try:
            names = json.loads(frame_list.read_bytes())
        except (ValueError, RecursionError) as error:  # RecursionError: lists of lists of lists ...
            raise self.error(f"{frame_list} is not valid JSON ({error})") from error
        if not isinstance(names, list) or not all(map(is_image_name, names)):
            raise self.error(f"{frame_list} is not a list of names of image files")
        return names


class _SegmentMeIfYouCan(Layout):
    """Chan et al., SegmentMeIfYouCan, NeurIPS Datasets and Benchmarks 2021: labels of the test images are hidden."""

    folders = ("images", "labels_masks")
    label_codes = REPACKED_CODES
    ood_code = 1

    def pairs(self, root: Place) -> Iterable[Pair]:
        """Labels that exist, and those of the validation images, which should."""
        of_tests = []
        for image in image_files(root / "images"):
            label = _label_of(image, root / "labels_masks")
            is_validation = image.stem.startswith("validation")
            is_there = is_validation or label.is_file()
            is_published = label.stem.endswith("_labels_semantic")
            of_tests += [label.name] if is_there and is_published and not is_validation else []
            yield image, label if is_there else None
        if of_tests:
            remark(
                f"labels of test images are there ({examples(of_tests)}), which the benchmark keeps to itself: "
                "stand-ins of 0 alone make metrics that mean nothing. Remove them unless they are your own",
                wrong=False,
            )


def _label_of(image: Place, labels: Place) -> Place:
    """The label of an image, under its published name, or under that of its image, as many repositories repack it."""
    published = labels / f"{image.stem}_labels_semantic.png"
    repacked = labels / png_of_that_name(image)
    if published.is_file() or not repacked.is_file():
        return published
    remark("labels bear the names of their images: a repacking of the validation set, read as such", wrong=False)
    return repacked


class RoadAnomaly21(_SegmentMeIfYouCan):
    """The anomaly track: 100 test images, and 10 for validation."""

    name = "road-anomaly-21"
    title = "SegmentMeIfYouCan RoadAnomaly21"
    images = 110
    parts = (10, 100)
    folder_names = ("dataset_AnomalyTrack",)
    where = "https://zenodo.org/records/5270237 (dataset_AnomalyTrack.zip, md5 231bf79ed58924bcd33d9cbe22e61076)"
    tree = (
        "ROOT/images/NAME.jpg\n"
        "ROOT/labels_masks/NAME_labels_semantic.png   0 in-distribution, 1 OoD, 255 ignore; hidden but for validation*"
    )


class RoadObstacle21(_SegmentMeIfYouCan):
    """The obstacle track: 412 test images (30 at night, 55 in snow), and 30 for validation."""

    name = "road-obstacle-21"
    title = "SegmentMeIfYouCan RoadObstacle21"
    images = 442
    parts = (30, 412, 327)
    folder_names = ("dataset_ObstacleTrack", "RoadObsticle21")
    where = "https://zenodo.org/records/5281633 (dataset_ObstacleTrack.zip, md5 895fb36d18765482cc291f69e63d6da6)"
    tree = (
        "ROOT/images/NAME.webp\n"
        "ROOT/labels_masks/NAME_labels_semantic.png   0 road, 1 OoD, 255 ignore; hidden but for validation*"
    )
    size = (1080, 1920)
    track = "obstacle"


class AdeOod(Layout):
    """Galesso et al., Diffusion for Out-of-Distribution Detection on Road Scenes and Beyond, ECCV 2024."""

    name = "ade-ood"
    title = "ADE-OoD"
    images = 111
    where = "https://lmb.informatik.uni-freiburg.de/resources/datasets/ADE-OoD/ (ADE-OoD.zip)"
    tree = "ROOT/images/NAME.jpg\nROOT/annotations/NAME_mask.png   1 OoD, 255 ignore, anything else in-distribution"
    folders = ("images", "annotations")
    folder_names = ("ADE-OoD",)
    label_codes = LabelCodes(ood=frozenset({1}), ignore=frozenset({255}), in_distribution=None)

    def pairs(self, root: Place) -> Iterable[Pair]:
        """Labels bear the names of their images, with `_mask`."""
        return mirrored(root / "images", root / "annotations", lambda image: f"{image.stem}_mask.png")


class StreetHazards(Layout):
    """Hendrycks et al., Scaling Out-of-Distribution Detection for Real-World Settings, ICML 2022: the test split."""

    name = "street-hazards"
    title = "StreetHazards"
    images = 1500
    where = "https://people.eecs.berkeley.edu/~hendrycks/streethazards_test.tar (md5 8c547c1346b00c21b2483887110bfea7)"
    tree = (
        "ROOT/test/images/test/TOWN/NAME.png\n"
        "ROOT/test/annotations/test/TOWN/NAME.png   1 to 13 in-distribution, 14 OoD"
    )
    folders = ("test/images/test", "test/annotations/test")
    folder_names = ("streethazards_test",)
    label_codes = LabelCodes(ood=frozenset({14}), ignore=frozenset(), in_distribution=frozenset(range(1, 14)))
    size = (720, 1280)

    def pairs(self, root: Place) -> Iterable[Pair]:
        """Labels bear the paths of their images."""
        images, labels = (root / folder for folder in self.folders)
        return mirrored(images, labels, lambda image: image.name, recursive=True)
