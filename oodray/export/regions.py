"""Connected regions of a mask, their run lengths and their outlines.

Regions are connected by edges, not by corners. Outlines run along the edges of pixels, so that an outline that is
filled again gives the very pixels of its region, a single pixel included.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ring = list[tuple[int, int]]
"""Corners (x, y) of a closed line, in pixels from the upper left corner of the image; the first is not repeated."""


@dataclass(frozen=True, eq=False)
class Region:
    """A connected region; H and W are the size of its image.

    Attributes:
        top: its first row.
        left: its first column.
        inside: bool `(h, w)`: its pixels in its box.
        pixels: how many it has.
        score: the mean score of its pixels.
    """

    top: int
    left: int
    inside: NDArray[np.bool_]
    pixels: int
    score: float

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, width, height."""
        return self.left, self.top, self.inside.shape[1], self.inside.shape[0]


def regions_of(mask: NDArray[np.uint8], scores: NDArray[np.float64]) -> list[Region]:
    """The connected regions of what is not 0, largest first.

    >>> mask = np.array([[255, 0, 255], [255, 0, 0]], np.uint8)
    >>> [(region.box, region.pixels) for region in regions_of(mask, np.ones((2, 3)))]
    [((0, 0, 1, 2), 2), ((2, 0, 1, 1), 1)]
    """
    from scipy import ndimage

    numbered, _ = ndimage.label(mask > 0)
    found = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(numbered), start=1):
        inside = numbered[rows, columns] == number
        mean = float(scores[rows, columns][inside].mean())
        found.append(Region(rows.start, columns.start, inside, int(np.count_nonzero(inside)), mean))
    return sorted(found, key=lambda region: -region.pixels)


def run_lengths(region: Region, height: int, width: int) -> list[int]:
    """The region in COCO's uncompressed run lengths: pixels outside, inside, outside ..., column by column.

    >>> region = Region(top=1, left=1, inside=np.array([[True]]), pixels=1, score=1.0)
    >>> run_lengths(region, 2, 3)
    [3, 1, 2]
    """
    whole = np.zeros((height, width), np.bool_)
    left, top, columns, rows = region.box
    whole[top : top + rows, left : left + columns] = region.inside
    flat = whole.ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    ends = np.concatenate([[0], changes, [flat.size]])
    lengths: list[int] = np.diff(ends).tolist()
    return [0, *lengths] if flat[0] else lengths


def outlines(region: Region) -> tuple[Ring, list[Ring]]:
    """The outer outline of a region, and those of its holes; corners alone, clockwise outside as an image is seen.

    >>> outer, holes = outlines(Region(top=5, left=7, inside=np.array([[True, True]]), pixels=2, score=1.0))
    >>> sorted(outer), holes
    ([(7, 5), (7, 6), (9, 5), (9, 6)], [])
    """
    rings = _rings(np.pad(region.inside, 1))
    outer, *holes = [[(x + region.left - 1, y + region.top - 1) for x, y in _corners(ring)] for ring in rings]
    return outer, holes


def _rings(inside: NDArray[np.bool_]) -> list[Ring]:
    """All outlines as lattice points one step apart, each with the inside on its right; the outer one first."""
    leads_to: defaultdict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    below, above = inside[1:], inside[:-1]
    right, left = inside[:, 1:], inside[:, :-1]
    # An edge above an inside pixel leads right, one below it left; one to its right leads down, one to its left up.
    for chosen, dx in ((below & ~above, 1), (above & ~below, -1)):
        for y, x in zip(*(axis.tolist() for axis in np.nonzero(chosen)), strict=True):
            start = x if dx > 0 else x + 1
            leads_to[start, y + 1].append((start + dx, y + 1))
    for chosen, dy in ((left & ~right, 1), (right & ~left, -1)):
        for y, x in zip(*(axis.tolist() for axis in np.nonzero(chosen)), strict=True):
            start = y if dy > 0 else y + 1
            leads_to[x + 1, start].append((x + 1, start + dy))
    rings = []
    # The highest and leftmost point of an outline belongs to no other one.
    for start in sorted(leads_to, key=lambda point: (point[1], point[0])):
        if start not in leads_to:
            continue
        ring, at, came = [start], start, (0, 0)
        while True:
            ways = leads_to[at]
            # Where two outlines touch at a corner, the sharpest turn to the right stays with this one.
            way = ways[0] if len(ways) == 1 else min(ways, key=lambda to: _turn(came, (to[0] - at[0], to[1] - at[1])))
            ways.remove(way)
            if not ways:
                del leads_to[at]
            came, at = (way[0] - at[0], way[1] - at[1]), way
            if at == start:
                break
            ring.append(at)
        rings.append(ring)
    return rings


def _turn(came: tuple[int, int], goes: tuple[int, int]) -> int:
    """-1 for a turn to the right as an image is seen, 1 to the left."""
    return came[1] * goes[0] - came[0] * goes[1]


def _corners(ring: Ring) -> Ring:
    """The points where a line turns."""
    count = len(ring)
    return [
        (x, y)
        for index, (x, y) in enumerate(ring)
        if not (ring[index - 1][0] == x == ring[(index + 1) % count][0])
        and not (ring[index - 1][1] == y == ring[(index + 1) % count][1])
    ]
