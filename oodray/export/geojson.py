"""GeoJSON: the regions of an image as polygons, in the coordinates of its GeoTIFF where it is one."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Callable, Mapping
from typing import Any

from PIL import Image

from oodray.datasets.images import read_bytes
from oodray.datasets.orientation import AS_STORED
from oodray.export.format import CLASS, ExportedImage, Files, Format, json_file
from oodray.export.regions import Ring, outlines

_PIXEL_SCALE, _TIE_POINTS, _TRANSFORMATION, _GEO_KEYS = 33550, 33922, 34264, 34735
_RASTER_TYPE, _GEOGRAPHIC, _PROJECTED = 1025, 2048, 3072
_PIXEL_IS_POINT = 2
_USER_DEFINED = 32767

ToMap = Callable[[float, float], tuple[float, float]]


class GeoJson(Format):
    """A feature collection for each image."""

    name = "geojson"
    about = "ID.geojson with the regions as polygons: in pixels, or in the coordinates of a GeoTIFF"

    def image_files(self, image: ExportedImage) -> Files:
        """One file; `crs` names the EPSG code of a GeoTIFF, as GDAL reads and writes it."""
        to_map, epsg = _georeference(image)
        features = []
        for region in image.regions:
            outer, holes = outlines(region)
            features.append(
                {
                    "type": "Feature",
                    "geometry": {"type": "Polygon", "coordinates": [_closed(ring, to_map) for ring in (outer, *holes)]},
                    "properties": {"class": CLASS, "score": region.score, "pixels": region.pixels},
                }
            )
        content: dict[str, Any] = {"type": "FeatureCollection", "name": image.image_id, "features": features}
        if epsg is not None:
            content["crs"] = {"type": "name", "properties": {"name": f"urn:ogc:def:crs:EPSG::{epsg}"}}
        yield f"{image.image_id}.geojson", json_file(content)


def _closed(ring: Ring, to_map: ToMap) -> list[list[float]]:
    # Counter-clockwise outside, as RFC 7946 has it, where y grows upwards: what an image has clockwise, a map has, too.
    points = [list(to_map(x, y)) for x, y in reversed(ring)]
    return [*points, points[0]]


def _georeference(image: ExportedImage) -> tuple[ToMap, int | None]:
    """From pixels to the coordinates of a map, and their EPSG code; as they are, and None, where there is no map."""
    plain: ToMap = lambda x, y: (float(x), float(y))  # noqa: E731
    if image.stored.orientation not in (None, AS_STORED):
        return plain, None
    try:
        with Image.open(io.BytesIO(read_bytes(image.stored.image_uri))) as opened:
            tags = _numbers(getattr(opened, "tag_v2", {}))
    except Exception:  # hostile bytes: OSError, ValueError, struct.error, KeyError, DecompressionBombError, ...
        return plain, None
    matrix = _matrix(tags)
    if matrix is None:
        return plain, None
    a, b, c, d, e, f = matrix
    return lambda x, y: (a * x + b * y + c, d * x + e * y + f), _epsg(tags)


def _numbers(tags: Mapping[int, Any]) -> dict[int, tuple[float, ...]]:
    """The tags of a GeoTIFF as numbers; without those that hold others, or what is no number."""
    found: dict[int, tuple[float, ...]] = {}
    for tag in (_PIXEL_SCALE, _TIE_POINTS, _TRANSFORMATION, _GEO_KEYS):
        values = tags.get(tag, ())
        with contextlib.suppress(TypeError, ValueError, ZeroDivisionError):
            numbers = tuple(map(float, values if isinstance(values, tuple) else (values,)))
            if all(map(math.isfinite, numbers)):
                found[tag] = numbers
    return found


def _matrix(tags: Mapping[int, tuple[float, ...]]) -> tuple[float, ...] | None:
    """x' = a x + b y + c, y' = d x + e y + f, of the tags of a GeoTIFF; x and y from the upper left corner."""
    scale, tie, full = tags.get(_PIXEL_SCALE, ()), tags.get(_TIE_POINTS, ()), tags.get(_TRANSFORMATION, ())
    if len(full) == 16:
        a, b, c, d, e, f = full[0], full[1], full[3], full[4], full[5], full[7]
    elif len(scale) >= 2 and len(tie) >= 6:
        a, b, d, e = scale[0], 0.0, 0.0, -scale[1]
        c, f = tie[3] - tie[0] * a, tie[4] - tie[1] * e
    else:
        return None
    if _geo_keys(tags).get(_RASTER_TYPE) == _PIXEL_IS_POINT:  # then x and y count from the centre of the first pixel
        c, f = c - (a + b) / 2, f - (d + e) / 2
    return a, b, c, d, e, f


def _epsg(tags: Mapping[int, tuple[float, ...]]) -> int | None:
    codes = _geo_keys(tags)
    code = codes.get(_PROJECTED, codes.get(_GEOGRAPHIC))
    return code if code and code != _USER_DEFINED else None


def _geo_keys(tags: Mapping[int, tuple[float, ...]]) -> dict[int, int]:
    """The keys of a GeoTIFF whose value stands beside them."""
    keys = [int(value) for value in tags.get(_GEO_KEYS, ())]
    return {keys[at]: keys[at + 3] for at in range(4, len(keys) - 3, 4) if keys[at + 1] == 0}
