"""The known formats by name. To add one, subclass `format.Format` and list it here."""

from __future__ import annotations

from oodray.errors import ConfigError
from oodray.export.datasets import FiftyOne, HuggingFace
from oodray.export.format import Format
from oodray.export.geojson import GeoJson
from oodray.export.labels import Coco, Labelme, YoloSeg
from oodray.export.pictures import AdeOod, Fishyscapes, Png, Smiyc
from oodray.spelling import did_you_mean

FORMATS: dict[str, Format] = {
    known.name: known
    for known in (
        Png(),
        Coco(),
        YoloSeg(),
        Labelme(),
        GeoJson(),
        FiftyOne(),
        Smiyc(),
        Fishyscapes(),
        AdeOod(),
        HuggingFace(),
    )
}
"""The known formats by name."""


def get_format(name: str) -> Format:
    """The format of a name.

    Raises:
        ConfigError: there is none.

    >>> get_format("coco").about.partition(":")[0]
    'annotations.json'
    """
    if name in FORMATS:
        return FORMATS[name]
    raise ConfigError(f"unknown format {name!r}; {did_you_mean(name.lower(), FORMATS, what='known formats')}")
