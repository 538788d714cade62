"""`oodray report`: everything that a run found, as one HTML page that needs no network.

A page is a single file as long as its pictures take no more than `MOST_INSIDE` bytes, which are those of about 130
images: photos are scaled to 960 pixels and take at most 120 KB each, see `pictures`. Else all pictures lie in a folder
beside the page, which loads those that it shows.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from oodray.analysis.files import CountedFiles
from oodray.analysis.images import ImageFacts, image_facts, mean_ood_fraction
from oodray.datasets.layouts import get_layout
from oodray.datasets.manifest import read_manifest
from oodray.errors import DatasetError
from oodray.metrics.conventions import DEFAULT
from oodray.report.advice import misfit, next_commands
from oodray.report.maps import MapSource
from oodray.report.page.account import command_of, machine_rows, shell_lines, stage_rows
from oodray.report.page.cards import Card, card_numbers, described, make_cards
from oodray.report.page.charts import legend_line
from oodray.report.page.numbers import Numbers, numbers_of
from oodray.report.page.pictures import data_uri
from oodray.report.page.regions import Region
from oodray.report.page.selection import MOST_DRAWN, drawn_images
from oodray.report.palette import colours
from oodray.report.words import conventions_text
from oodray.results.folder import ResultsFolder
from oodray.results.rows import OK
from oodray.storage.atomic import replacing
from oodray.storage.place import Place

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

MOST_INSIDE = 20_000_000
"""Bytes of pictures that a single file holds; more lie in a folder beside it."""

REGIONS = 24
"""False alarms, and misses, that the page lists."""

FAILED_LISTED = 100
"""Failed images that the page lists."""


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        page: the HTML file.
        pictures: the folder beside it, where there are too many for one file.
        drawn: images on the page.
        images: images of the run that were processed.
    """

    page: Place
    pictures: Place | None
    drawn: int
    images: int


def write_report(
    folder: ResultsFolder,
    target: Place,
    *,
    most: int = MOST_DRAWN,
    resamples: int | None = None,
    maps: MapSource | None = None,
    on_image: Callable[[int, int], None] = lambda _done, _of: None,
) -> Written:
    """Write the page of a run, finished or not.

    Args:
        folder: of the run.
        target: the HTML file.
        most: images to draw.
        resamples: of the bootstrap behind the intervals; 0 for none, None decides by the number of images.
        maps: where maps come from that the run does not store: the network, run again.
        on_image: hears how many images are drawn, of how many.

    Raises:
        ResultsError: there are no results yet, or a file cannot be read.
        RunError: the page cannot be written.
    """
    rule = folder.rule()
    images = image_facts(CountedFiles.of(folder), rule)
    chosen = drawn_images(images, most)
    cards = _Cards(target.parent / f"{target.stem}-files")
    for card in make_cards(folder, rule, chosen, maps):
        cards.add(card)
        on_image(len(cards.shown), len(chosen))
    good = sum(image.status == OK for image in images)
    numbers = numbers_of(folder, good, resamples)
    content = _content(folder, images, cards, numbers)
    with replacing(target) as temporary:
        temporary.write_text(_environment().get_template("page.html").render(content), encoding="utf-8")
    return Written(target, cards.folder, len(chosen), good)


@dataclass(frozen=True, eq=False)
class _Shown:
    """A card of the page; `thumbnail` is an address, and `view` is None where it lies beside the page."""

    index: int
    facts: ImageFacts
    alt: str
    thumbnail: str | None
    view: Mapping[str, Any] | None
    regions: Sequence[Region]


class _Cards:
    """Cards whose pictures are inside of the page, or, once they are too many, all in a folder beside it."""

    def __init__(self, beside: Place) -> None:
        self.shown: list[_Shown] = []
        self.folder: Place | None = None
        self._beside = beside
        self._inside: list[Card] = []
        self._bytes = 0

    def add(self, card: Card) -> None:
        index = len(self.shown)
        if self.folder is None:
            self._bytes += len(json.dumps(card.view)) + 4 * len(card.thumbnail or b"") // 3
            self._inside.append(card)
            thumbnail = None if card.thumbnail is None else data_uri(card.thumbnail, "webp")
            self.shown.append(_Shown(index, card.facts, card.alt, thumbnail, card.view, card.regions))
            if self._bytes > MOST_INSIDE:
                self.folder = self._beside
                self.shown = [self._written(at, held, self.folder) for at, held in enumerate(self._inside)]
                self._inside = []
        else:
            self.shown.append(self._written(index, card, self.folder))

    def _written(self, index: int, card: Card, folder: Place) -> _Shown:
        name = f"{index // 1000:03d}/{index:06d}"
        address = None
        if card.thumbnail is not None:
            _write(folder / f"{name}.webp", card.thumbnail)
            address = f"{quote(folder.name)}/{name}.webp"
        # A script, because a page that was opened from a disk may load no JSON.
        _write(folder / f"{name}.js", f"oodrayImage({index}, {json.dumps(card.view)});\n".encode())
        return _Shown(index, card.facts, card.alt, address, None, card.regions)


def _content(folder: ResultsFolder, images: Sequence[ImageFacts], drawn: _Cards, numbers: Numbers) -> dict[str, Any]:
    """What the template takes."""
    run, rule, evaluation = folder.read_run(), folder.rule(), numbers.evaluation
    cards, pictures = drawn.shown, drawn.folder
    dataset = str(run["config"].get("dataset"))
    failed = [image for image in images if image.status != OK]
    labelled = bool(numbers.curves)
    mean = mean_ood_fraction(images)
    regions = [region for card in cards for region in card.regions]
    script = _environment().get_template("page.js").render()
    return {
        "script": script,
        # No other script runs, wherever a name or a message of somebody else might have put one.
        "script_hash": f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}",
        "beside": "" if pictures is None else " 'self' file:",
        "title": _title(dataset),
        "run": run,
        "rule": rule,
        "images": len(images) - len(failed),
        "left": read_manifest(folder.manifest).num_rows - len(images),
        "mean": mean,
        "misfit": misfit(mean),
        "labelled": labelled,
        "evaluation": evaluation,
        "numbers": numbers,
        "conventions": conventions_text(DEFAULT),
        "lines": {score: legend_line(index) for index, score in enumerate(numbers.curves)},
        "cards": cards,
        "facts": {
            "images": [card_numbers(card.facts) | {"index": card.index} for card in cards],
            "rule": None if rule is None else {"k": rule.k, "tau": rule.tau, "T": rule.ood_ratio},
            "thresholds": {metrics.score: metrics.best_f1_threshold for metrics in evaluation.scores},
            "colours": colours(256).tolist(),
            "folder": None if pictures is None else pictures.name,
        },
        "sizes": sorted({(card.facts.width, card.facts.height) for card in cards}),
        "datasets": sorted({card.facts.dataset for card in cards}),
        "failed": failed[:FAILED_LISTED],
        "failed_count": len(failed),
        "doubtful": sum(image.warning is not None for image in images),
        "alarms": _largest(regions, "false alarm"),
        "misses": _largest(regions, "miss"),
        "command": shell_lines(command_of(run, str(folder.path))),
        "next": next_commands(folder.path),
        "machine": machine_rows(run),
        "stages": stage_rows(images),
    }


def _title(dataset: str) -> str:
    try:
        return get_layout(dataset).title
    except DatasetError:  # of an older or newer version
        return dataset


def _largest(regions: Sequence[Region], kind: str) -> list[Region]:
    return sorted((region for region in regions if region.kind == kind), key=lambda region: -region.share)[:REGIONS]


def _write(target: Place, data: bytes) -> None:
    with replacing(target) as temporary:
        temporary.write_bytes(data)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("oodray.report.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = _percent
    environment.filters["uri"] = data_uri
    environment.filters["with_code"] = _with_code
    environment.policies["json.dumps_kwargs"] = {}  # keys in their own order
    environment.globals["described"] = described
    return environment


def _with_code(text: str) -> Markup:
    """A text of the terminal, where commands stand in backticks."""
    from markupsafe import Markup, escape

    parts = [escape(part) for part in text.split("`")]
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if odd % 2 else part for odd, part in enumerate(parts)
    )


def _percent(share: float | None, digits: int = 2) -> str:
    """A share in percent; a dash where it is of nothing."""
    return "–" if share is None or share != share else f"{100 * share:.{digits}f}"  # noqa: PLR0124 NaN
