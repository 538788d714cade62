"""An image of a page: its numbers, its thumbnail, and what its large view is drawn from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oodray.analysis.images import ImageFacts
from oodray.cluster.shares import usable_cores
from oodray.errors import ResultsError
from oodray.method.rule import Rule
from oodray.report.maps import Maps, MapSource
from oodray.report.page.pictures import data_uri, id_map, photo, score_picture, thumbnail
from oodray.report.page.regions import Region, wrong_regions
from oodray.report.palette import places_for_numbers
from oodray.results.folder import ResultsFolder
from oodray.results.stored_image import StoredImage, stored_image


@dataclass(frozen=True, eq=False)
class Card:
    """An image as a page shows it.

    Attributes:
        facts: its numbers.
        alt: its thumbnail in words.
        thumbnail: WebP; None where the image file is gone.
        view: what the script draws its large view from, to be written as JSON.
        regions: its false alarms and misses.
    """

    facts: ImageFacts
    alt: str
    thumbnail: bytes | None
    view: Mapping[str, Any] = field(default_factory=dict)
    regions: Sequence[Region] = ()


def make_cards(
    folder: ResultsFolder, rule: Rule | None, images: Sequence[ImageFacts], maps: MapSource | None
) -> Iterator[Card]:
    """The cards of some images, in their order.

    Args:
        folder: of the run.
        rule: the setting at which clusters are judged; None of imported scores.
        images: those to draw, each processed.
        maps: where further maps come from; one image after the other, as a network may compute them.

    Raises:
        ResultsError: a file of the results cannot be read.
    """

    def card(facts: ImageFacts) -> Card:
        return _card(stored_image(folder, facts.unit, facts.image_id, rule), facts, maps)

    if maps is not None:
        yield from map(card, images)
        return
    with ThreadPoolExecutor(usable_cores()) as threads:
        yield from threads.map(card, images)


def described(facts: ImageFacts) -> str:
    """An image in words, for those who do not see it.

    >>> described(ImageFacts(unit=0, image_id="a", dataset="d", status="ok", ood_fraction=0.25, image_score=0.9))
    'a: 25.0% of the image found OoD, image score 0.900'
    """
    if facts.ood_fraction is None or facts.image_score is None:
        return facts.image_id
    return f"{facts.image_id}: {facts.ood_fraction:.1%} of the image found OoD, image score {facts.image_score:.3f}"


def _card(stored: StoredImage, facts: ImageFacts, maps: MapSource | None) -> Card:
    view: dict[str, Any] = {"width": stored.width, "height": stored.height, "photo": None, "note": None}
    picture: NDArray[np.uint8] | None = None
    label = stored.read_label()
    try:
        picture = stored.read_photo()
        view["photo"] = data_uri(photo(picture), "webp")
    except ResultsError as error:
        view["note"] = str(error)
    if stored.clusters is not None:
        view["clusters"] = _clusters(stored.clusters, stored)
    view["label"] = data_uri(id_map(label), "png") if isinstance(label, np.ndarray) else None
    if maps is not None and picture is not None:
        view |= _further(maps(stored))
    regions = []
    if picture is not None and stored.mask is not None and isinstance(label, np.ndarray):
        regions = wrong_regions(facts.image_id, picture, stored.mask, label)
    small = None if picture is None else thumbnail(picture, stored.mask)
    return Card(facts=facts, alt=described(facts), thumbnail=small, view=view, regions=regions)


def _clusters(ids: NDArray[np.uint8], stored: StoredImage) -> dict[str, Any]:
    places = places_for_numbers(ids)
    pixels = np.bincount(ids.ravel(), minlength=256)
    return {
        "picture": data_uri(id_map(ids), "png"),
        "known": [
            {
                "id": cluster,
                "ratio": ratio,
                "share": int(pixels[cluster]) / ids.size,
                "ood": cluster in stored.ood,
                "at": places.get(cluster),
            }
            for cluster, ratio in sorted(stored.ratios.items())
        ],
    }


def _further(maps: Maps) -> dict[str, Any]:
    found: dict[str, Any] = {"scores": {name: score_picture(scores) for name, scores in maps.scores.items()}}
    if maps.classes is not None:
        present, pixels = np.unique(maps.classes, return_counts=True)
        places = places_for_numbers(maps.classes)
        found["classes"] = {
            "picture": data_uri(id_map(maps.classes), "png"),
            "known": [
                {
                    "id": int(number),
                    "name": maps.class_name(number),
                    "share": int(count) / maps.classes.size,
                    "at": places.get(number),
                }
                for number, count in zip(present.tolist(), pixels.tolist(), strict=True)
            ],
        }
    return found


def card_numbers(facts: ImageFacts) -> dict[str, Any]:
    """The numbers of an image as the script sorts and filters by them."""
    numbers = asdict(facts) | {"labelled": facts.labelled}
    del numbers["unit"], numbers["seconds"]
    return numbers
