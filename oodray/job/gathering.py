"""What a worker gathers of in-distribution images for a fit: it alone sees their logits and features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from oodray.datasets.images import decode_codes, read_label
from oodray.errors import ConfigError, ImageError
from oodray.job.units import ImageInTheStream
from oodray.metrics.tally import IN_DISTRIBUTION
from oodray.models.loading import TRIED_SIZE
from oodray.models.segmenter import QUERIES, Segmentation, Segmenter
from oodray.storage.place import storage_path

if TYPE_CHECKING:
    from oodray.scores.fitted.parts import Gathered

_CODE_COUNT = 65536


@dataclass(frozen=True)
class Gathering:
    """What is gathered, and where it is written. Small enough to be sent to every worker.

    Attributes:
        folder: of the parts of the fit.
        bank: vectors of the bank.
        seed: of the bank.
        labelled: whether only pixels that are labelled in-distribution count, as where images have labels.
        classes: codes in label files, in the order of the network's classes, where statistics go by true classes.
        head_scores: scores that need the network's last layer.
        query_scores: scores that need a mask classifier.
    """

    folder: str
    bank: int
    seed: int
    labelled: bool
    classes: tuple[int, ...] | None = None
    head_scores: tuple[str, ...] = ()
    query_scores: tuple[str, ...] = ()

    def gatherer(self, segmenter: Segmenter) -> Gatherer:
        """What gathers, beside a network.

        Raises:
            ConfigError: a score needs the network's last layer, or queries, and it offers none.
        """
        if self.head_scores and not callable(getattr(segmenter, "head", None)):
            raise ConfigError(
                f"{', '.join(self.head_scores)} cannot be fitted: the network offers no head(features), its last layer "
                "alone. Leave the score out of --scores"
            )
        if self.query_scores and not _has_queries(segmenter):
            raise ConfigError(
                f"{', '.join(self.query_scores)} cannot be fitted: it needs {QUERIES}. Leave the score out of --scores"
            )
        return Gatherer(self)


def _has_queries(segmenter: Segmenter) -> bool:
    """What a black image shows; True where the network fails on it, as each image is looked at later."""
    try:
        [found] = segmenter.segment([np.zeros((*TRIED_SIZE, 3), np.uint8)])
    except Exception:
        return True
    return found.queries is not None


class Gatherer:
    """Gathers from the images of one unit after the other."""

    def __init__(self, gathering: Gathering) -> None:
        from oodray.scores.fitted.parts import PartsFolder

        self._gathering = gathering
        self._folder = PartsFolder(storage_path(gathering.folder))
        self._of_image: dict[str, Gathered] = {}
        self._limit: int | None = None

    def add(self, image: ImageInTheStream, segmentation: Segmentation) -> None:
        """Gather from an image of the unit; one that is given again takes its own place.

        Raises:
            ImageError: a value is NaN or infinite, or the label does not fit the network's classes.
        """
        from oodray.scores.fitted.bank import Bank
        from oodray.scores.fitted.grid import logit_maps, positions_of
        from oodray.scores.fitted.parts import Gathered
        from oodray.scores.fitted.sums import Sums
        from oodray.scores.maskomaly import QueryUse

        if not self._of_image:
            self._limit = self._folder.read_limit()
        logits, (height, width) = segmentation.logits, image.size
        counts, true = self._counts(image), self._true_classes(image, len(logits))
        maps = logit_maps(segmentation.per_pixel, height, width, counts=counts, true_classes=true)
        positions = positions_of(
            segmentation.features,
            logits,
            counts=counts,
            true_classes=true,
            head_inputs=segmentation.head_input,
        )
        sums = Sums.of(maps, positions, len(logits))
        size, seed = self._gathering.bank, self._gathering.seed
        bank = Bank.of(image.image_id, positions, size=size, seed=seed, limit=self._limit)
        queries = segmentation.queries
        use = None if queries is None else QueryUse.of(queries)
        self._of_image[image.image_id] = Gathered(sums, bank, use)

    def write(self, images: list[ImageInTheStream]) -> None:
        """Write what the images of a unit gave, in their order; those with an error give nothing.

        Raises:
            RunError: it cannot be written.
        """
        from oodray.scores.fitted.parts import Gathered

        found = [self._of_image[image.image_id] for image in images if image.error is None]
        Gathered.total(found).write(self._folder.unit(images[0].unit))
        self._of_image.clear()

    def _counts(self, image: ImageInTheStream) -> NDArray[np.bool_] | None:
        """The pixels that count; None for all."""
        if not self._gathering.labelled:
            return None
        return np.zeros(image.size, np.bool_) if image.label is None else image.label == IN_DISTRIBUTION

    def _true_classes(self, image: ImageInTheStream, known: int) -> NDArray[np.int16] | None:
        """The labelled class of every pixel; None where the predicted ones are meant."""
        codes = self._gathering.classes
        if codes is None or image.label_uri is None:
            return None
        if len(codes) != known:
            raise ImageError(
                f"the dataset labels {len(codes)} classes, the network knows {known}: --labels true needs the classes "
                "that it was trained on, in their order; pass --labels predicted"
            )
        table = np.zeros(_CODE_COUNT, np.int16)  # what is no class does not count
        table[list(codes)] = np.arange(len(codes))
        data = read_label(image.label_uri)
        if data is None:
            return None
        classes: NDArray[np.int16] = table[decode_codes(data)]
        return classes
