"""Pictures of results: which images to show, and one PNG for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from oodray.analysis.files import CountedFiles
from oodray.analysis.images import ImageFacts, image_facts
from oodray.analysis.labels import refuse_without_labels
from oodray.datasets.layouts import get_layout
from oodray.errors import ResultsError
from oodray.method.rule import Rule
from oodray.report.maps import Maps, MapSource
from oodray.report.panels import ImageResult, panels_of
from oodray.report.sheet import compose
from oodray.results.folder import ResultsFolder
from oodray.results.one_image import read_image
from oodray.results.reading import pieces
from oodray.results.rows import OK
from oodray.results.stored_image import StoredImage, stored_image
from oodray.storage.atomic import replacing
from oodray.storage.place import Place, is_inside

EXTREMES = 3
"""Images with the highest and with the lowest image score that are drawn where nobody says which."""

WORST = 5
"""Images with the most missed pixels, and with the most false alarms, that `worst` means."""


@dataclass(frozen=True)
class Choice:
    """Which images to draw; those of several are drawn once.

    Attributes:
        top: how many with the highest image score.
        bottom: how many with the lowest.
        worst: those with the most missed pixels and with the most false alarms, `WORST` of each.
        every: all of them.
    """

    top: int = 0
    bottom: int = 0
    worst: bool = False
    every: bool = False


EITHER_END = Choice(top=EXTREMES, bottom=EXTREMES)


def write_pictures(
    folder: ResultsFolder,
    image_id: str | None = None,
    choice: Choice = EITHER_END,
    on_picture: Callable[[Place], None] = lambda _: None,
    maps: MapSource | None = None,
) -> list[Place]:
    """Draw images of a run with their masks, labels, clusters and ratios: `OUT/pictures/IMAGE_ID.png` for each.

    Args:
        folder: the results; the run may still go on.
        image_id: the image to draw; None draws those of a choice.
        choice: which to draw without an `image_id`.
        on_picture: hears of each file.
        maps: where the maps of confidence and classes come from; None for none.

    Returns:
        The files, highest image score first.

    Raises:
        ResultsError: the image is unknown, failed or not done yet; its file is gone or has changed.
        DatasetError: nothing has a label that `worst` could be judged by.
        RunError: a picture cannot be written.
    """
    rule = folder.clustering_rule()
    if image_id is None:
        chosen = [(facts.unit, facts.image_id) for facts in _chosen(folder, rule, choice)]
    else:
        chosen = [(read_image(folder, image_id, ["unit"])["unit"], image_id)]
    pictures = []
    for unit, chosen_id in chosen:
        stored = stored_image(folder, unit, chosen_id, rule)
        pictures.append(_write_picture(folder, rule, stored, Maps() if maps is None else maps(stored)))
        on_picture(pictures[-1])
    return pictures


def _chosen(folder: ResultsFolder, rule: Rule, choice: Choice) -> list[ImageFacts]:
    """The images of a choice, highest image score first."""
    images = [image for image in image_facts(CountedFiles(pieces(folder.parts())), rule) if image.status == OK]
    if not images:
        raise ResultsError(f"{folder.path} has no image to show yet; `oodray status {folder.path}` says why")
    ranked = sorted(images, key=lambda image: (-(image.image_score or 0.0), image.image_id))
    if choice.every:
        return ranked
    kept = {image.image_id for image in ranked[: choice.top] + ranked[max(0, len(ranked) - choice.bottom) :]}
    if choice.worst:
        kept |= {image.image_id for image in _worst(folder, images)}
    return [image for image in ranked if image.image_id in kept]


def _worst(folder: ResultsFolder, images: Sequence[ImageFacts]) -> list[ImageFacts]:
    refuse_without_labels(folder, "which are worst is not known")
    missed = sorted(images, key=lambda image: -image.missed)[:WORST]
    false = sorted(images, key=lambda image: -image.false)[:WORST]
    return [image for image in missed if image.missed] + [image for image in false if image.false]


def _write_picture(folder: ResultsFolder, rule: Rule, stored: StoredImage, maps: Maps) -> Place:
    model = str(folder.read_run().get("model") or "")
    sheet = compose(stored.image_id, _details(stored, model, rule), panels_of(_image_result(stored, rule, maps)))
    target = _picture(folder, stored.image_id)
    with replacing(target) as temporary:
        sheet.save(temporary, format="PNG")
    return target


def _picture(folder: ResultsFolder, image_id: str) -> Place:
    """Where the picture of an image belongs: an id is a path, and its folders are kept."""
    target = folder.pictures / f"{image_id}.png"
    if not is_inside(target.resolve(), folder.pictures.resolve()):
        raise ResultsError(f"the id {image_id!r} leads out of {folder.pictures}; its picture is not written")
    return target


def _image_result(stored: StoredImage, rule: Rule, maps: Maps) -> ImageResult:
    assert stored.clusters is not None, "a run with a rule has clusters"
    assert stored.mask is not None, "and masks"
    return ImageResult(
        image=stored.read_photo(),
        label=stored.read_label(),
        clusters=stored.clusters,
        mask=stored.mask,
        ratios=dict(stored.ratios),
        ood=stored.ood,
        tau=rule.tau,
        ood_ratio=rule.ood_ratio,
        maps=maps,
    )


def _details(stored: StoredImage, model: str, rule: Rule) -> str:
    parts = (
        get_layout(stored.dataset).title,
        model,
        f"K = {rule.k}",
        f"tau = {rule.tau}",
        f"T = {rule.ood_ratio}",
        f"image score {stored.image_score:.3f}",
        f"OoD share {stored.ood_fraction:.1%}",
    )
    return "  |  ".join(part for part in parts if part)
