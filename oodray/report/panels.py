"""What a run found in one image, as panels: image, mask, label, clusters, ratio, confidence and classes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from oodray.metrics.tally import IGNORE, IN_DISTRIBUTION, OOD
from oodray.report.maps import Maps
from oodray.report.outline import LINE, outlined
from oodray.report.palette import colours, places_for_numbers
from oodray.report.sheet import LARGEST_PANEL, SMALLER_PANEL, Colour, Panel, colour_bar, numbered, panel_size, swatches

IN_DISTRIBUTION_COLOUR: Colour = (70, 99, 130)
OOD_COLOUR: Colour = (213, 94, 0)
IGNORE_COLOUR: Colour = (206, 210, 215)

MOST_CLUSTERS_NAMED = 12
"""Clusters in the legend; of more, those with the highest ratio."""

LEAST_SHARE = 0.01
"""Of the pixels, that a class must have to be named."""

SIX = 6
"""Panels that fit into two rows at their full size."""

_MASK_OPACITY = 0.35
# From dark to light, so that it can be read without colour vision: points of the map "inferno".
_HEAT_POINTS = ((0, 0, 4), (66, 10, 104), (147, 38, 103), (221, 81, 58), (252, 165, 10), (252, 255, 164))


@dataclass(frozen=True, eq=False)
class ImageResult:
    """One image with its label and what the run found in it; H and W are its size.

    Attributes:
        image: RGB, uint8 `(H, W, 3)`.
        label: uint8 `(H, W)`, or in words why there is none.
        clusters: ids, uint8 `(H, W)`.
        mask: uint8 `(H, W)`, 255 where OoD.
        ratios: r_k of each cluster that has a pixel.
        ood: ids of the OoD clusters.
        tau: of the rule.
        ood_ratio: T.
        maps: what the run has kept, or its network said again.
    """

    image: NDArray[np.uint8]
    label: NDArray[np.uint8] | str
    clusters: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    ratios: dict[int, float]
    ood: frozenset[int]
    tau: float
    ood_ratio: float
    maps: Maps = field(default_factory=Maps)

    @property
    def side(self) -> int:
        """Pixels of the longer side of a panel: of more than six panels, four fit into a row."""
        panels = 4 + sum(there for there in (not isinstance(self.label, str), *_maps_there(self.maps)))
        return LARGEST_PANEL if panels <= SIX else SMALLER_PANEL


def panels_of(result: ImageResult) -> list[Panel]:
    """The panels of an image, in the order of the sheet."""
    label = [] if isinstance(result.label, str) else [_label_panel(result.label, result.side)]
    confidence = [] if result.maps.confidence is None else [_confidence_panel(result, result.maps.confidence)]
    classes = [] if result.maps.classes is None else [_classes_panel(result, result.maps.classes)]
    found = [_image_panel(result), _mask_panel(result), *label, _clusters_panel(result), _ratio_panel(result)]
    return [*found, *confidence, *classes]


def _maps_there(maps: Maps) -> tuple[bool, bool]:
    return maps.confidence is not None, maps.classes is not None


def heat_colours() -> NDArray[np.uint8]:
    """The colours of the ratios 0, 1/255, ... 1: uint8 `(256, 3)`."""
    points = np.array(_HEAT_POINTS, np.float64)
    at = np.linspace(0, len(points) - 1, 256)
    channels = [np.interp(at, np.arange(len(points)), channel) for channel in points.T]
    return np.stack(channels, axis=1).round().astype(np.uint8)


def _image_panel(result: ImageResult) -> Panel:
    picture = _small_image(result)
    height, width = result.image.shape[:2]
    entries: list[tuple[Colour | None, str]] = [(None, f"{width} x {height} pixels")]
    if isinstance(result.label, str):
        entries.append((None, result.label))
    return Panel("image", picture, swatches(entries, picture.width))


def _label_panel(label: NDArray[np.uint8], side: int) -> Panel:
    colours_of_labels = np.zeros((256, 3), np.uint8)
    colours_of_labels[[IN_DISTRIBUTION, OOD, IGNORE]] = IN_DISTRIBUTION_COLOUR, OOD_COLOUR, IGNORE_COLOUR
    legend = [(IN_DISTRIBUTION_COLOUR, "in-distribution"), (OOD_COLOUR, "OoD"), (IGNORE_COLOUR, "ignore")]
    picture = Image.fromarray(colours_of_labels[_small_ids(label, side)])
    return Panel("label", picture, swatches(legend, picture.width))


def _clusters_panel(result: ImageResult) -> Panel:
    of_clusters = colours(256)
    ids = _small_ids(result.clusters, result.side)
    picture = numbered(Image.fromarray(of_clusters[ids]), places_for_numbers(ids))
    ranked = sorted(result.ratios, key=lambda cluster: -result.ratios[cluster])
    legend: list[tuple[Colour | None, str]] = [
        (_colour(of_clusters[cluster]), _cluster_text(result, cluster)) for cluster in ranked[:MOST_CLUSTERS_NAMED]
    ]
    if len(ranked) > MOST_CLUSTERS_NAMED:
        legend.append((None, f"and {len(ranked) - MOST_CLUSTERS_NAMED} more"))
    return Panel("clusters and their ratios r", picture, swatches(legend, picture.width))


def _ratio_panel(result: ImageResult) -> Panel:
    levels = np.zeros(256, np.uint8)
    for cluster, ratio in result.ratios.items():
        levels[cluster] = round(255 * ratio)
    heat = heat_colours()
    picture = Image.fromarray(heat[levels][_small_ids(result.clusters, result.side)])
    bar = colour_bar(heat, ("0", "1"), (result.ood_ratio, f"T = {result.ood_ratio}"), picture.width)
    return Panel("ratio: share of unsure pixels", picture, bar)


def _confidence_panel(result: ImageResult, confidence: NDArray[Any]) -> Panel:
    """Bright where the network is unsure, as the ratio is bright where many pixels are."""
    # Of single precision, as half lacks sums.
    size = _size(confidence, result.side)
    values = np.asarray(Image.fromarray(confidence.astype(np.float32)).resize(size, Image.Resampling.BOX))
    low, high = float(values.min()), float(values.max())
    span = high - low or 1.0
    heat = heat_colours()[::-1]
    picture = Image.fromarray(heat[((values - low) * (255 / span)).round().clip(0, 255).astype(np.uint8)])
    tau = (result.tau - low) / span
    mark = (tau, f"tau = {result.tau:.3g}") if 0 <= tau <= 1 else None
    bar = colour_bar(heat, (f"{low:.1f}", f"{high:.1f}"), mark, picture.width)
    return Panel("confidence: largest logit", picture, bar)


def _classes_panel(result: ImageResult, classes: NDArray[Any]) -> Panel:
    ids = _small_ids(classes.astype(np.uint8), result.side)
    of_classes = colours(256)
    present, pixels = np.unique(ids, return_counts=True)
    ranked = sorted(zip(present.tolist(), (pixels / ids.size).tolist(), strict=True), key=lambda one: -one[1])
    shown = {number for number, share in ranked if share >= LEAST_SHARE}
    places = {number: place for number, place in places_for_numbers(ids).items() if number in shown}
    picture = numbered(Image.fromarray(of_classes[ids]), places)
    legend: list[tuple[Colour | None, str]] = [
        (_colour(of_classes[number]), f"{number}: {result.maps.class_name(number)} {share:.0%}")
        for number, share in ranked[:MOST_CLUSTERS_NAMED]
        if number in shown
    ]
    if len(ranked) > len(legend):
        legend.append((None, f"and {len(ranked) - len(legend)} more"))
    return Panel("classes that the network sees", picture, swatches(legend, picture.width))


def _mask_panel(result: ImageResult) -> Panel:
    image = np.asarray(_small_image(result), np.float64)
    mask = _small_ids(result.mask, result.side)
    tinted = np.where(mask[..., None] > 0, (1 - _MASK_OPACITY) * image + _MASK_OPACITY * np.array(OOD_COLOUR), image)
    picture = Image.fromarray(outlined(tinted.round().astype(np.uint8), mask, width=2))
    return Panel("mask", picture, swatches([(LINE, "OoD: clusters with r > T")], picture.width))


def _size(map_: NDArray[Any], side: int) -> tuple[int, int]:
    height, width = map_.shape
    return panel_size(height, width, side)


def _small_image(result: ImageResult) -> Image.Image:
    size = _size(result.mask, result.side)
    return Image.fromarray(result.image).resize(size, Image.Resampling.LANCZOS)


def _small_ids(ids: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    # Nearest: a value between two ids would be the name of a third thing.
    return np.asarray(Image.fromarray(ids).resize(_size(ids, side), Image.Resampling.NEAREST))


def _cluster_text(result: ImageResult, cluster: int) -> str:
    verdict = " OoD" if cluster in result.ood else ""
    return f"{cluster}: {result.ratios[cluster]:.3f}{verdict}"


def _colour(row: NDArray[np.uint8]) -> Colour:
    red, green, blue = row.tolist()
    return red, green, blue
