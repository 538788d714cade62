"""The known datasets by name. To add one, subclass `layout.Layout` and list it here."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from typing import Any

from oodray.datasets.anomalies import AdeOod, RoadAnomaly, RoadAnomaly21, RoadObstacle21, StreetHazards
from oodray.datasets.bdd import Bdd100k, BddAnomaly, BddAnomalyBicycle
from oodray.datasets.hf_parquet import HfParquet
from oodray.datasets.image_list import ImageList
from oodray.datasets.images import LabelCodes
from oodray.datasets.in_distribution import Ade20k, CamVid, CamVidHeldOut, CamVidKnown, Cityscapes
from oodray.datasets.layout import Layout
from oodray.datasets.listing import Sample
from oodray.datasets.lost_and_found import FishyscapesLostAndFound, FishyscapesStatic, LostAndFound
from oodray.datasets.own import Demo, DemoValidation, Folder, FolderWhiteOod
from oodray.datasets.road_obstacles import (
    IssuObstacleStatic,
    IssuObstacleTemporal,
    IssuStatic,
    IssuTemporal,
    SmallObstacle,
)
from oodray.datasets.synthetic import BravoOutOfContext, BravoSynFlare, BravoSynObjs, BravoSynRain, MuadOod
from oodray.datasets.webdataset import WebDataset
from oodray.errors import ConfigError, DatasetError
from oodray.metrics.tally import IGNORE
from oodray.ranges import label_codes
from oodray.spelling import did_you_mean
from oodray.storage.place import Place, entries_of

__all__ = ["LAYOUTS", "Demo", "Layout", "Sample", "count_warning", "get_layout", "layout_of", "recognised"]

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
        MuadOod(),
        BddAnomaly(),
        BddAnomalyBicycle(),
        BravoSynObjs(),
        BravoOutOfContext(),
        BravoSynRain(),
        BravoSynFlare(),
        CamVidHeldOut(),
        CamVid(),
        CamVidKnown(),
        Cityscapes(),
        Ade20k(),
        Bdd100k(),
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


def layout_of(settings: Mapping[str, Any]) -> Layout:
    """The layout that settings of a run name, or the `config` that a results folder has stored of them.

    Args:
        settings: `dataset`, and `split`, `label_codes` and `labels` where they were given.

    Raises:
        ConfigError: the codes are no such list.
        DatasetError: there is no such dataset, or it has no use for a setting.

    >>> layout_of({"dataset": "folder", "label_codes": "2=ood,1=id"}).label_codes
    LabelCodes(ood=frozenset({2}), ignore=frozenset({255}), in_distribution=frozenset({1}))
    """
    layout = get_layout(settings["dataset"])
    if settings.get("split") is not None:
        layout = layout.of_split(settings["split"])
    if settings.get("label_codes") is not None:
        layout = layout.with_codes(codes_of(settings["label_codes"]))
    if settings.get("labels") is not None:
        layout = layout.with_labels(settings["labels"])
    return layout


def codes_of(text: str) -> LabelCodes:
    """What `--label-codes` says; 255 is ignored where it is not named.

    Raises:
        ConfigError: it is no such list, or names no in-distribution code.
    """
    meant = label_codes(text)
    if not meant["id"]:
        raise ConfigError(f"--label-codes {text} names no in-distribution code: add CODE=id, such as 0=id")
    named = meant["id"] | meant["ood"] | meant["ignore"]
    ignore = meant["ignore"] | ({IGNORE} - named)
    return LabelCodes(ood=meant["ood"], ignore=frozenset(ignore), in_distribution=meant["id"])


def recognised(folder: Place) -> list[tuple[Place, Layout]]:
    """The known datasets that lie in a folder, one in each folder below it, and the folder itself if it is one.

    Raises:
        DatasetError: it cannot be listed.
    """
    try:
        below = sorted(path for path, is_dir in entries_of(folder) if is_dir and not path.name.startswith("."))
    except OSError as error:
        raise DatasetError(f"cannot read {folder}: {error.strerror or error}") from error
    found: list[tuple[Place, Layout]] = []
    for path in (folder, *below):
        found += [(path, layout) for layout in LAYOUTS.values() if layout.known_by(path)]
    return found


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
