"""Which images of a run a page draws: all of them, or of many those that one looks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from oodray.analysis.images import ImageFacts
from oodray.results.rows import OK

MOST_DRAWN = 600
"""Images that a page draws where it is not told otherwise."""


def drawn_images(images: Sequence[ImageFacts], most: int) -> list[ImageFacts]:
    """The processed images that a page draws, in the order of the dataset; at most `most`.

    Of more, those that come first by one of these, in turn: the largest image score, the largest mask, the most false
    alarms, the most missed pixels, the smallest mask.

    >>> images = [ImageFacts(unit=i, image_id=str(i), dataset="d", status="ok", image_score=i / 9) for i in range(9)]
    >>> [image.image_id for image in drawn_images(images, 2)]
    ['0', '8']
    """
    good = [image for image in images if image.status == OK]
    if len(good) <= most:
        return good
    by: tuple[Callable[[ImageFacts], float], ...] = (
        lambda image: max(image.scores.values(), default=0.0) if image.image_score is None else image.image_score,
        lambda image: image.ood_fraction or 0.0,
        lambda image: image.false,
        lambda image: image.missed,
        lambda image: -(image.ood_fraction or 0.0),
    )
    ranked = [sorted(good, key=key, reverse=True) for key in by]
    chosen: dict[str, ImageFacts] = {}
    for place in range(len(good)):
        for ranking in ranked:
            if len(chosen) < most:
                chosen[ranking[place].image_id] = ranking[place]
    return [image for image in good if image.image_id in chosen]
