"""Sets of roads with things on them, labelled with the classes of Cityscapes: ISSU, and SmallObstacle."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from oodray.datasets.images import LabelCodes
from oodray.datasets.layout import Layout, Pair, image_files, png_of_that_name
from oodray.storage.place import Place

_CLASSES = frozenset(range(19))


class _Issu(Layout):
    """Laskar, Vojir, Grcic et al., A Dataset for Semantic Segmentation in the Presence of Unknowns, CVPR 2025.

    Roads of India. The files of a subset begin with its name; both tracks have the same files, and read them otherwise.
    """

    where = "https://github.com/vojirt/benchmark_issu"
    folders = ("images", "labels_masks")
    folder_names: ClassVar[tuple[str, ...]] = ("dataset_ISSUTrack", "ISSU")
    track = "issu"
    subset: ClassVar[str]

    def pairs(self, root: Place) -> Iterable[Pair]:
        """The images of the subset; labels bear their names."""
        for image in image_files(root / "images"):
            if image.stem.startswith(f"{self.subset}_"):
                yield image, root / "labels_masks" / png_of_that_name(image)

    def known_by(self, folder: Place) -> bool:
        """See `Layout.known_by`; there must be an image of the subset."""
        return super().known_by(folder) and any(
            image.stem.startswith(f"{self.subset}_") for image in image_files(folder / "images")
        )


class IssuStatic(_Issu):
    """The anomaly track: whatever is none of the 19 classes is OoD."""

    name = "issu-static"
    title = "ISSU anomaly track, static"
    images = 980
    subset = "static"
    tree = (
        "ROOT/images/static_NAME.png\nROOT/labels_masks/static_NAME.png   0 to 18 in-distribution, 254 OoD, 255 ignore"
    )
    label_codes = LabelCodes(ood=frozenset({254}), ignore=frozenset({255}), in_distribution=_CLASSES)


class IssuTemporal(IssuStatic):
    """The same, of videos."""

    name = "issu-temporal"
    title = "ISSU anomaly track, temporal"
    images = 1138
    subset = "temporal"
    tree = IssuStatic.tree.replace("static_", "temporal_")


class IssuObstacleStatic(_Issu):
    """The obstacle track: only the road and what is OoD count."""

    name = "issu-obstacle-static"
    folder_names = ()
    title = "ISSU obstacle track, static"
    images = 980
    subset = "static"
    tree = "ROOT/images/static_NAME.png\nROOT/labels_masks/static_NAME.png   0 road, 254 OoD, 1 to 18 and 255 ignore"
    label_codes = LabelCodes(ood=frozenset({254}), ignore=(_CLASSES - {0}) | {255}, in_distribution=frozenset({0}))


class IssuObstacleTemporal(IssuObstacleStatic):
    """The same, of videos."""

    name = "issu-obstacle-temporal"
    title = "ISSU obstacle track, temporal"
    images = 1138
    subset = "temporal"
    tree = IssuObstacleStatic.tree.replace("static_", "temporal_")


class SmallObstacle(Layout):
    """Singh et al., LiDAR guided Small obstacle Segmentation, IROS 2020: the test split."""

    name = "small-obstacle"
    title = "SmallObstacle, test"
    images = None
    where = "https://small-obstacle-dataset.github.io"
    tree = "ROOT/test/SCENE/image/NAME.png\nROOT/test/SCENE/labels/NAME.png   1 road, 2 to 254 OoD, 0 and 255 ignore"
    folders = ("test",)
    folder_names = ("Small_Obstacle_Dataset",)
    label_codes = LabelCodes(ood=frozenset(range(2, 255)), ignore=frozenset({0, 255}), in_distribution=frozenset({1}))
    track = "obstacle"

    def pairs(self, root: Place) -> Iterable[Pair]:
        """Labels bear the names of their images, in a folder beside theirs."""
        for image in image_files(root / "test", recursive=True):
            if image.parent.name == "image":
                yield image, image.parent.parent / "labels" / png_of_that_name(image)
