"""What a run found in one image, as panels: image, mask, label where there is one, clusters and ratio."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from oodray.metrics.tally import IGNORE, IN_DISTRIBUTION, OOD
from oodray.report.outline import LINE, outlined
from oodray.report.palette import colours, places_for_numbers
from oodray.report.sheet import Colour, Panel, colour_bar, numbered, panel_size, swatches

IN_DISTRIBUTION_COLOUR: Colour = (70, 99, 130)
OOD_COLOUR: Colour = (213, 94, 0)
IGNORE_COLOUR: Colour = (206, 210, 215)

MOST_CLUSTERS_NAMED = 12
"""Clusters in the legend; of more, those with the highest ratio."""

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
        ood_ratio: T.
    """

    image: NDArray[np.uint8]
    label: NDArray[np.uint8] | str
    clusters: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    ratios: dict[int, float]
    ood: frozenset[int]
    ood_ratio: float


def panels_of(result: ImageResult) -> list[Panel]:
    """The panels of an image, in the order of the sheet."""
    label = [] if isinstance(result.label, str) else [_label_panel(result.label)]
    return [_image_panel(result), _mask_panel(result), *label, _clusters_panel(result), _ratio_panel(result)]


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


def _label_panel(label: NDArray[np.uint8]) -> Panel:
    colours_of_labels = np.zeros((256, 3), np.uint8)
    colours_of_labels[[IN_DISTRIBUTION, OOD, IGNORE]] = IN_DISTRIBUTION_COLOUR, OOD_COLOUR, IGNORE_COLOUR
    legend = [(IN_DISTRIBUTION_COLOUR, "in-distribution"), (OOD_COLOUR, "OoD"), (IGNORE_COLOUR, "ignore")]
    width = panel_size(*label.shape)[0]
    return Panel("label", Image.fromarray(colours_of_labels[_small_ids(label)]), swatches(legend, width))


def _clusters_panel(result: ImageResult) -> Panel:
    of_clusters = colours(256)
    ids = _small_ids(result.clusters)
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
    picture = Image.fromarray(heat[levels][_small_ids(result.clusters)])
    return Panel("ratio: share of unsure pixels", picture, colour_bar(heat, result.ood_ratio, picture.width))


def _mask_panel(result: ImageResult) -> Panel:
    image = np.asarray(_small_image(result), np.float64)
    mask = _small_ids(result.mask)
    tinted = np.where(mask[..., None] > 0, (1 - _MASK_OPACITY) * image + _MASK_OPACITY * np.array(OOD_COLOUR), image)
    picture = Image.fromarray(outlined(tinted.round().astype(np.uint8), mask, width=2))
    return Panel("mask", picture, swatches([(LINE, "OoD: clusters with r > T")], picture.width))


def _small_image(result: ImageResult) -> Image.Image:
    size = panel_size(*result.mask.shape)
    return Image.fromarray(result.image).resize(size, Image.Resampling.LANCZOS)


def _small_ids(ids: NDArray[np.uint8]) -> NDArray[np.uint8]:
    # Nearest: a value between two ids would be the name of a third thing.
    return np.asarray(Image.fromarray(ids).resize(panel_size(*ids.shape), Image.Resampling.NEAREST))


def _cluster_text(result: ImageResult, cluster: int) -> str:
    verdict = " OoD" if cluster in result.ood else ""
    return f"{cluster}: {result.ratios[cluster]:.3f}{verdict}"


def _colour(row: NDArray[np.uint8]) -> Colour:
    red, green, blue = row.tolist()
    return red, green, blue
