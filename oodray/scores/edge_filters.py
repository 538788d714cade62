"""Filters that keep to the edges of an image, in time linear in pixels, compiled by numba.

He, Sun and Tang, Guided Image Filtering, PAMI 2013. Kopf, Cohen, Lischinski and Uyttendaele, Joint Bilateral
Upsampling, SIGGRAPH 2007.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from oodray.compiled import compiled

EPSILON = 1e-3
"""Of the guided filter, added to the variance of a brightness within 0..1: edges that vary less are smoothed over."""

CELL = 8
"""Pixels of a side of the cells that `cell_means` is over."""

COLOUR_SIGMA = 0.1
"""Of the bilateral weights, for colours within 0..1."""

_TABLE_STEP = 64
"""Of the squared distances of 8-bit colours for which weights are tabled."""


def guided_filter(
    values: NDArray[np.float32], image: NDArray[np.uint8], radius: int, epsilon: float = EPSILON
) -> NDArray[np.float32]:
    """A map, smoothed within the edges of an image.

    Args:
        values: `(H, W)` float32.
        image: `(H, W, 3)` uint8 RGB. Its brightness, within 0..1, guides.
        radius: windows have 2 radius + 1 pixels a side; at the borders of the image what is left of them.
        epsilon: how much the brightness must vary to be an edge.

    Returns:
        `(H, W)` float32; sums are float64.

    >>> flat = np.full((4, 4, 3), 100, np.uint8)
    >>> guided_filter(np.eye(4, dtype=np.float32), flat, 4).round(3).tolist()[0]
    [0.25, 0.25, 0.25, 0.25]
    """
    _check(values, image)
    found: NDArray[np.float32] = _guided(
        np.ascontiguousarray(values, np.float32), np.ascontiguousarray(image), radius, epsilon
    )
    return found


def joint_bilateral_upsampling(
    planes: NDArray[np.float32], image: NDArray[np.uint8], radius: int = 2
) -> NDArray[np.float32]:
    """Planes on a coarse grid, brought to the size of an image: near cells of a pixel's own colour weigh most.

    Args:
        planes: `(h, w)` or `(p, h, w)` float32, that cover the image.
        image: `(H, W, 3)` uint8 RGB.
        radius: of the neighbourhood, in cells; the Gaussian of distances has half of it as its sigma.

    Returns:
        `(H, W)` or `(p, H, W)` float32.

    >>> image = np.zeros((2, 4, 3), np.uint8)
    >>> image[:, 2:] = 255
    >>> joint_bilateral_upsampling(np.array([[1.0, 5.0]], np.float32), image).round(3).tolist()[0]
    [1.0, 1.0, 5.0, 5.0]
    """
    given = planes[None] if planes.ndim == 2 else planes
    height, width = image.shape[:2]
    rows, row_weights = _taps(given.shape[1], height, radius)
    columns, column_weights = _taps(given.shape[2], width, radius)
    colours = np.stack([_cell_means(image[..., channel], given.shape[1:]) for channel in range(3)], -1)
    squares = (np.arange(3 * 255**2 // _TABLE_STEP + 2) + 0.5) * _TABLE_STEP / 255**2
    found = _bilateral(
        np.ascontiguousarray(given, np.float32),
        np.ascontiguousarray(image),
        colours.astype(np.float32),
        rows,
        row_weights,
        columns,
        column_weights,
        np.exp(-squares / (2 * COLOUR_SIGMA**2)).astype(np.float32),
    )
    upsampled: NDArray[np.float32] = found[0] if planes.ndim == 2 else found
    return upsampled


def cell_means(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The means of a map over cells of `CELL` pixels a side.

    >>> cell_means(np.arange(16, dtype=np.float32)[None]).tolist()
    [[3.5, 11.5]]
    """
    grid = (-(-values.shape[0] // CELL), -(-values.shape[1] // CELL))
    return _cell_means(values, grid).astype(np.float32)


def _check(values: NDArray[np.float32], image: NDArray[np.uint8]) -> None:
    if values.ndim != 2 or image.shape != (*values.shape, 3) or image.dtype != np.uint8:
        raise ValueError(
            f"a map (H, W) and its image (H, W, 3) uint8, not {values.shape} and {image.dtype} {image.shape}"
        )


def _cell_means(values: NDArray[Any], grid: tuple[int, ...]) -> NDArray[np.float64]:
    """Means over the cells of a grid that covers a map; a pixel belongs to the cell that its centre lies in."""
    starts = [-(-np.arange(cells) * size // cells) for cells, size in zip(grid, values.shape, strict=True)]
    starts = [np.minimum(first, size - 1) for first, size in zip(starts, values.shape, strict=True)]
    sums = np.add.reduceat(np.add.reduceat(values.astype(np.float64), starts[0], 0), starts[1], 1)
    counts = [np.diff([*first, size]).clip(1) for first, size in zip(starts, values.shape, strict=True)]
    means: NDArray[np.float64] = sums / np.outer(*counts)
    return means


def _taps(cells: int, pixels: int, radius: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Along an axis, for every pixel: the cells around it, `(pixels, 2 radius + 1)`, and the weights of distance.

    Cells beyond the border have no weight.
    """
    position = (np.arange(pixels) + 0.5) * cells / pixels - 0.5
    around = np.rint(position).astype(np.int64)[:, None] + np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * ((around - position[:, None]) / (radius / 2)) ** 2)
    weights[(around < 0) | (around >= cells)] = 0
    return around.clip(0, cells - 1), weights.astype(np.float32)


@compiled
def _guided(values: NDArray[np.float32], image: NDArray[np.uint8], radius: int, epsilon: float) -> NDArray[np.float32]:
    """See `guided_filter`. The sums of windows run: down every column, then along the row."""
    height, width = values.shape
    light = _brightness(image)
    # Of every pixel's window: slope and offset. Of every column, within the window's rows: sums of the brightness, the
    # value, their product and the squared brightness.
    lines, shares = np.empty((height, width, 2)), _shares(width, radius)
    columns, row_sums = np.zeros((width + 2 * radius + 1, 4)), np.empty((width, 4))
    for row in range(-radius, height):
        _move_down(columns[radius + 1 :], values, light, row + radius, row - radius - 1)
        if row < 0:
            continue
        _along(columns[:, :2], row_sums[:, :2])
        _along(columns[:, 2:], row_sums[:, 2:])
        tall = min(height - 1, row + radius) - max(0, row - radius) + 1
        for column in range(width):
            share = shares[column] / tall
            mean_light, mean = row_sums[column, 0] * share, row_sums[column, 1] * share
            covariance = row_sums[column, 2] * share - mean_light * mean
            slope = covariance / (row_sums[column, 3] * share - mean_light * mean_light + epsilon)
            lines[row, column, 0] = slope
            lines[row, column, 1] = mean - slope * mean_light
    refined: NDArray[np.float32] = _applied(lines, light, radius)
    return refined


@compiled
def _move_down(
    columns: NDArray[np.float64],
    values: NDArray[np.float32],
    light: NDArray[np.float32],
    entering: int,
    leaving: int,
) -> None:
    """Take a row into the sums of columns, and one out of them, as far as the image has them."""
    height, width = values.shape
    if entering < height:
        for column in range(width):
            of_light, value = np.float64(light[entering, column]), np.float64(values[entering, column])
            columns[column, 0] += of_light
            columns[column, 1] += value
            columns[column, 2] += of_light * value
            columns[column, 3] += of_light * of_light
    if leaving >= 0:
        for column in range(width):
            of_light, value = np.float64(light[leaving, column]), np.float64(values[leaving, column])
            columns[column, 0] -= of_light
            columns[column, 1] -= value
            columns[column, 2] -= of_light * value
            columns[column, 3] -= of_light * of_light


@compiled
def _applied(lines: NDArray[np.float64], light: NDArray[np.float32], radius: int) -> NDArray[np.float32]:
    """The mean slope of all windows that hold a pixel, times its brightness, plus their mean offset."""
    height, width = light.shape
    found, shares = np.empty((height, width), np.float32), _shares(width, radius)
    columns, row_sums = np.zeros((width + 2 * radius + 1, 2)), np.empty((width, 2))
    inside = columns[radius + 1 : radius + 1 + width]
    for row in range(-radius, height):
        entering, leaving = row + radius, row - radius - 1
        if entering < height:
            inside += lines[entering]
        if leaving >= 0:
            inside -= lines[leaving]
        if row < 0:
            continue
        _along(columns, row_sums)
        tall = min(height - 1, row + radius) - max(0, row - radius) + 1
        for column in range(width):
            share = shares[column] / tall
            found[row, column] = (row_sums[column, 0] * light[row, column] + row_sums[column, 1]) * share
    return found


@compiled
def _along(columns: NDArray[np.float64], found: NDArray[np.float64]) -> None:
    """Two sums of the windows around the pixels of a row, from the sums of its columns; beyond the border these are 0.

    Two at a time: each addition waits for the last one of its own sum.
    """
    reach = len(columns) - len(found)
    first = second = 0.0
    for column in range(reach):
        first += columns[column, 0]
        second += columns[column, 1]
    for column in range(len(found)):
        first += columns[column + reach, 0] - columns[column, 0]
        second += columns[column + reach, 1] - columns[column, 1]
        found[column, 0] = first
        found[column, 1] = second


@compiled
def _shares(width: int, radius: int) -> NDArray[np.float64]:
    """One over the columns of the window around each pixel of a row."""
    found = np.empty(width)
    for column in range(width):
        found[column] = 1.0 / (min(width - 1, column + radius) - max(0, column - radius) + 1)
    return found


@compiled
def _brightness(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Luma of ITU-R BT.601, within 0..1."""
    height, width = image.shape[:2]
    found = np.empty((height, width), np.float32)
    for row in range(height):
        for column in range(width):
            red, green, blue = image[row, column, 0], image[row, column, 1], image[row, column, 2]
            found[row, column] = (299 * int(red) + 587 * int(green) + 114 * int(blue)) / np.float32(255000)
    return found


@compiled
def _bilateral(  # noqa: PLR0917 - numba knows no keyword-only arguments
    planes: NDArray[np.float32],
    image: NDArray[np.uint8],
    colours: NDArray[np.float32],
    rows: NDArray[np.int64],
    row_weights: NDArray[np.float32],
    columns: NDArray[np.int64],
    column_weights: NDArray[np.float32],
    of_colour: NDArray[np.float32],
) -> NDArray[np.float32]:
    """See `joint_bilateral_upsampling`."""
    height, width = image.shape[:2]
    found = np.zeros((len(planes), height, width), np.float32)
    for row in range(height):
        for column in range(width):
            total = 0.0
            for down in range(rows.shape[1]):
                for across in range(columns.shape[1]):
                    near = row_weights[row, down] * column_weights[column, across]
                    if near == 0:
                        continue
                    y, x = rows[row, down], columns[column, across]
                    apart = 0.0
                    for channel in range(3):
                        apart += (np.float64(image[row, column, channel]) - colours[y, x, channel]) ** 2
                    # A weight of 0 for all cells would leave nothing to take the mean of.
                    weight = near * (of_colour[int(apart) // _TABLE_STEP] + 1e-6)
                    total += weight
                    for plane in range(len(planes)):
                        found[plane, row, column] += weight * planes[plane, y, x]
            for plane in range(len(planes)):
                found[plane, row, column] /= total
    return found
