"""In-distribution images for the tests of fitted scores: their features and logits, and sums and bank of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oodray.scores.fitted.bank import Bank
from oodray.scores.fitted.grid import positions_of
from oodray.scores.fitted.sums import LogitMaps, Positions, Sums

CLASSES, FEATURES = 5, 24
HEIGHT, WIDTH = 24, 32
SIZE = 400


@dataclass(frozen=True)
class Image:
    """An image's logits at its own size, `(C, H, W)`, and its features, `(D, 6, 8)`."""

    image_id: str
    logits: Tensor
    features: Tensor

    def maps(self) -> LogitMaps:
        return LogitMaps(
            self.logits.amax(0).numpy(), self.logits.logsumexp(0).numpy(), self.logits.argmax(0).short().numpy()
        )

    def positions(self) -> Positions:
        return positions_of(self.features, self.logits)

    def sums(self) -> Sums:
        return Sums.of(self.maps(), self.positions(), CLASSES)

    def bank(self, size: int = SIZE, seed: int = 0) -> Bank:
        return Bank.of(self.image_id, self.positions(), size=size, seed=seed)


def image(number: int, classes: int = CLASSES, features: int = FEATURES) -> Image:
    """An image in which the first of the classes lie; its features cluster by class, and have a large mean."""
    generator = torch.Generator().manual_seed(number)
    of_position = torch.randint(classes, (6, 8), generator=generator)
    means = 3 * torch.randn(CLASSES, features, generator=torch.Generator().manual_seed(99))
    spread = torch.randn(6, 8, features, generator=generator) * torch.linspace(0.1, 2, features)
    logits = torch.randn(CLASSES, HEIGHT, WIDTH, generator=generator)
    at_size = of_position.repeat_interleave(4, 0).repeat_interleave(4, 1)
    logits += 6 * torch.nn.functional.one_hot(at_size, CLASSES).permute(2, 0, 1)
    return Image(f"frames/{number:03d}", logits, (means[of_position] + spread + 5).permute(2, 0, 1).contiguous())


def images(count: int = 12, classes: int = CLASSES, features: int = FEATURES) -> list[Image]:
    return [image(number, classes, features) for number in range(count)]


def fitted(found: list[Image], size: int = SIZE) -> tuple[Sums, Bank]:
    sums = Sums.total(one.sums() for one in found)
    assert sums is not None
    return sums, Bank.merged([one.bank(size) for one in found])


def all_rows(found: list[Image]) -> NDArray[np.float64]:
    """All features, one a row."""
    return np.concatenate([one.features.flatten(1).T.numpy() for one in found]).astype(np.float64)


def all_classes(found: list[Image]) -> NDArray[np.int64]:
    """The class of each row: that of the logits in the middle of its 4 x 4 pixels, where they are bilinear."""
    middle = [one.logits.view(CLASSES, 6, 4, 8, 4)[:, :, 1:3, :, 1:3].double().mean((2, 4)) for one in found]
    return torch.cat([logits.argmax(0).flatten() for logits in middle]).numpy()


def queries(number: int = 77, features: int = FEATURES) -> Tensor:
    """Features `(D, 3, 5)` of which some are far from those of any class."""
    generator = torch.Generator().manual_seed(number)
    return 5 + 4 * torch.randn(features, 3, 5, generator=generator)


def rows(features: Tensor) -> NDArray[np.float64]:
    """Features `(D, h, w)` as rows."""
    return features.flatten(1).T.double().numpy()
