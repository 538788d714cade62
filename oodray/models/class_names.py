"""What the classes of a network are called, as far as it can be known without loading the network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from oodray.models.factory import import_factory
from oodray.models.weights.zoo import get_model, model_names

if TYPE_CHECKING:
    from oodray.models.source import ModelSource

_CITYSCAPES = """
road, sidewalk, building, wall, fence, pole, traffic light, traffic sign, vegetation, terrain, sky, person, rider,
car, truck, bus, train, motorcycle, bicycle
"""

_ADE20K = """
wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk, person, earth, door,
table, mountain, plant, curtain, chair, car, water, painting, sofa, shelf, house, sea, mirror, rug, field, armchair,
seat, fence, desk, rock, wardrobe, lamp, bathtub, railing, cushion, base, box, column, signboard, chest of drawers,
counter, sand, sink, skyscraper, fireplace, refrigerator, grandstand, path, stairs, runway, case, pool table,
pillow, screen door, stairway, river, bridge, bookcase, blind, coffee table, toilet, flower, book, hill, bench,
countertop, stove, palm, kitchen island, computer, swivel chair, boat, bar, arcade machine, hovel, bus, towel,
light, truck, tower, chandelier, awning, streetlight, booth, television receiver, airplane, dirt track, apparel,
pole, land, bannister, escalator, ottoman, bottle, buffet, poster, stage, van, ship, fountain, conveyer belt,
canopy, washer, plaything, swimming pool, stool, barrel, basket, waterfall, tent, bag, minibike, cradle, oven, ball,
food, step, tank, trade name, microwave, pot, animal, bicycle, lake, dishwasher, screen, blanket, sculpture, hood,
sconce, vase, traffic light, tray, ashcan, fan, pier, crt screen, plate, monitor, bulletin board, shower, radiator,
glass, clock, flag
"""

_PUBLISHED = {
    len(names): names for names in (tuple(" ".join(text.split()).split(", ")) for text in (_CITYSCAPES, _ADE20K))
}
"""Of the published networks, by how many classes they have."""


def class_names_of(source: ModelSource) -> tuple[str, ...]:
    """The names of a network's classes, in the order of its logits; none where its source does not say them.

    They are known of networks with a name, by `id2label` of Hugging Face's, by the `dataset_meta` that mmengine writes
    into checkpoints, and by an attribute `class_names` of a factory.

    >>> from oodray.models.source import resolve_model
    >>> class_names_of(resolve_model("internimage-n-demo"))[:3]
    ('road', 'lane marking', 'sidewalk')
    """
    if source.folder is not None:
        return _of_folder(source.folder)
    if source.from_factory:
        return _as_names(getattr(import_factory(source.name, source.search_path), "class_names", None))
    if source.config is None:
        return _of_known(source.name)
    from oodray.models.weights.checkpoints import read_class_names

    return () if source.checkpoint is None else _as_names(read_class_names(source.checkpoint))


def _of_known(name: str) -> tuple[str, ...]:
    if name not in model_names():
        return ()
    known = get_model(name)
    if known.folder is None:
        return _PUBLISHED.get(known.classes, ())
    # The card of a network of ours lists the classes in the order of its logits.
    try:
        card = json.loads(known.checkpoint.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ()
    return tuple(card["iou"])


def _of_folder(folder: Path) -> tuple[str, ...]:
    """As a model of Hugging Face's has them in its config.json: a mapping from numbers, as texts, to names."""
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("id2label") or {}
        names = tuple(str(found[number]) for number in sorted(found, key=int))
        # LABEL_0 and the like is what transformers writes where nobody gave names.
        return () if all(name.startswith("LABEL_") for name in names) else names
    except (OSError, ValueError, AttributeError, TypeError, LookupError):
        return ()


def _as_names(found: object) -> tuple[str, ...]:
    is_list = isinstance(found, list | tuple) and all(isinstance(name, str) for name in found)
    return tuple(found) if is_list else ()  # type: ignore[arg-type]
