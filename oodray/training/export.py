"""From a trained network to the two files that oodray reads: the weights, and the card beside them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from oodray.models.segmenter import Segmenter
from oodray.training.samples import Example


def export_weights(network: nn.Module, path: Path) -> None:
    """Write the state dict of `network` alone, floating point as float16."""
    state = {
        key: (value.half() if value.is_floating_point() else value).cpu() for key, value in network.state_dict().items()
    }
    torch.save(state, path)


def write_card(path: Path, segmenter: Segmenter, examples: Iterable[Example], classes: Sequence[str]) -> dict[str, Any]:
    """Measure a segmenter on labelled examples and write what was found as JSON.

    Args:
        path: the card.
        segmenter: the network as users will load it.
        examples: images `(H, W, 3)` and class ids `(H, W)`, 255 ignored.
        classes: their names. One that is neither there nor predicted has no IoU, and no part in the mean.
    """
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    images = 0
    for image, semantic in examples:
        logits = _logits_at_image_size(segmenter, image)
        confusion += _confusion(logits.argmax(0).numpy(), semantic, len(classes))
        images += 1
    iou = _iou_percent(confusion)
    known = [value for value in iou if value is not None]
    card = {
        "miou": round(sum(known) / len(known), 2),
        "iou": {name: None if value is None else round(value, 2) for name, value in zip(classes, iou, strict=True)},
        "images": images,
    }
    path.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    return card


def _logits_at_image_size(segmenter: Segmenter, image: NDArray[np.uint8]) -> torch.Tensor:
    logits = segmenter.segment([image])[0].logits.float()
    size = image.shape[:2]
    return nn.functional.interpolate(logits[None], size, mode="bilinear", align_corners=False)[0]


def _confusion(predicted: NDArray[np.int64], semantic: NDArray[np.uint8], classes: int) -> NDArray[np.int64]:
    """Pixels by (true class, predicted class)."""
    known = semantic < classes
    pairs = semantic[known].astype(np.int64) * classes + predicted[known]
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def _iou_percent(confusion: NDArray[np.int64]) -> list[float | None]:
    """IoU of each class, None where its union is empty."""
    hits = np.diag(confusion)
    unions = confusion.sum(0) + confusion.sum(1) - hits
    return [100 * int(hit) / int(union) if union else None for hit, union in zip(hits, unions, strict=True)]
