"""The known datasets by name. To add one, subclass `layout.Layout` and list it here."""

from __future__ import annotations

from collections.abc import Sized

from oodray.datasets.anomalies import AdeOod, RoadAnomaly, RoadAnomaly21, RoadObstacle21, StreetHazards
from oodray.datasets.hf_parquet import HfParquet
from oodray.datasets.image_list import ImageList
from oodray.datasets.in_distribution import Ade20k, CamVid, CamVidHeldOut, CamVidKnown, Cityscapes
from oodray.datasets.layout import Layout, Sample
from oodray.datasets.lost_and_found import FishyscapesLostAndFound, FishyscapesStatic, LostAndFound
from oodray.datasets.own import Demo, DemoValidation, Folder, FolderWhiteOod
from oodray.datasets.road_obstacles import (
    IssuObstacleStatic,
    IssuObstacleTemporal,
    IssuStatic,
    IssuTemporal,
    SmallObstacle,
)
from oodray.datasets.webdataset import WebDataset
from oodray.errors import DatasetError
from oodray.spelling import did_you_mean

__all__ = ["LAYOUTS", "Demo", "Layout", "Sample", "count_warning", "get_layout"]

LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        Demo(),
        DemoValidation(),
        Folder(),
        FolderWhiteOod(),
        ImageList(),
        WebDataset(),
        HfParquet(),
        RoadAnomaly(),
        AdeOod(),
        RoadAnomaly21(),
        RoadObstacle21(),
        FishyscapesStatic(),
        FishyscapesLostAndFound(),
        LostAndFound(),
        StreetHazards(),
        IssuStatic(),
        IssuTemporal(),
        IssuObstacleStatic(),
        IssuObstacleTemporal(),
        SmallObstacle(),
        CamVidHeldOut(),
        CamVid(),
        CamVidKnown(),
        Cityscapes(),
        Ade20k(),
    )
}
"""The known layouts by name."""


def get_layout(name: str) -> Layout:
    """The layout of a name.

    Raises:
        DatasetError: there is none.

    >>> get_layout("ade-ood").images
    111
    """
    if name in LAYOUTS:
        return LAYOUTS[name]
    raise DatasetError(f"unknown dataset {name!r}; {did_you_mean(name.lower(), LAYOUTS, what='known datasets')}")


def count_warning(layout: Layout, found: Sized) -> str | None:
    """A warning where the samples (or the rows of a manifest) found are not as many as were published.

    >>> count_warning(get_layout("road-anomaly"), ["frames/000"])
    'RoadAnomaly was published with 60 images, found: 1; the numbers do not compare with published ones'
    """
    if layout.images is None or len(found) in (layout.images, *layout.parts):
        return None
    return (
        f"{layout.title} was published with {layout.images} images, found: {len(found)}; "
        "the numbers do not compare with published ones"
    )
