"""The two passes of a run whose own images are what each of them is compared with, `--fit self`.

The first pass draws the bank: a sample of the feature vectors of all images. Medians and ranges follow from it when all
units are done, see `oodray.job.reference`. The second pass is the run, with scores that need the bank.

What the first pass found of an image may be kept for the second, which then needs no network: everything but the scores
that need the bank, and the features, rounded to float16. As the bank and the second pass round features in any case, an
image that was kept has the same results as one that passes the network again.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from oodray.datasets.manifest import read_manifest
from oodray.datasets.sequence import Sequences
from oodray.errors import ImageError, ResultsError
from oodray.job.attempts import Guard
from oodray.job.gathering import Gathering
from oodray.job.units import DecodedImage, ScoreMap, SegmentedImage
from oodray.job.worker import Pending, Worker, cluster_images, failure_of, head_of, score_maps
from oodray.method.settings import MethodSettings
from oodray.models.segmenter import Segmentation, Segmenter
from oodray.records import Int32, extended, from_arrow, table_of
from oodray.results.folder import ResultsFolder, write_table
from oodray.scores.registry import without_fit
from oodray.scores.score import ImageFeatures
from oodray.storage.place import Place, open_seekable, remove_folder, storage_path

if TYPE_CHECKING:
    from oodray.scores.fitted.novelty import LeftOut
    from oodray.scores.fitted.parts import Gathered

READ_RATE = 200e6
"""Bytes a second at which kept maps are read, of a slow disk: where the network is faster, nothing is kept."""


@dataclass(frozen=True)
class FirstPass:
    """What the first pass gathers, and where it is written. Small enough to be sent to every worker.

    Attributes:
        folder: of the parts of the reference.
        kept: where maps are kept for the second pass.
        bank: vectors of the bank.
        seed: of the bank.
        bytes_of_image: that may be kept of an image; 0 keeps none.
    """

    folder: str
    kept: str
    bank: int
    seed: int
    bytes_of_image: int


@dataclass(frozen=True)
class SecondPass:
    """What the second pass starts from.

    Attributes:
        kept: where maps may have been kept.
        manifest: of the run, for the order of its images.
    """

    kept: str
    manifest: str

    @classmethod
    def of(cls, folder: ResultsFolder) -> Self:
        """That of a run."""
        return cls(str(kept_folder(folder)), str(folder.manifest))


@dataclass(frozen=True, kw_only=True, slots=True)
class KeptImage(SegmentedImage):
    """What is kept of an image between the passes: all but its label.

    Attributes:
        depth: features of a position.
        rows: of the grid of the features.
        columns: of that grid.
        features: `(depth, rows, columns)` float16.
        device: where they were.
    """

    depth: Int32
    rows: Int32
    columns: Int32
    features: Annotated[bytes, pa.large_binary()]
    device: str


def worker_of(
    segmenter: Segmenter,
    settings: MethodSettings,
    guard: Guard | None = None,
    gathering: Gathering | FirstPass | SecondPass | None = None,
    *,
    beside: ThreadPoolExecutor | None = None,
) -> Worker:
    """The worker of a pass; see `Worker` for the arguments.

    Raises:
        ConfigError: a score to fit needs what the network does not offer.
    """
    if isinstance(gathering, FirstPass):
        return FirstPassWorker(segmenter, settings, guard, gathering)
    if isinstance(gathering, SecondPass):
        return SecondPassWorker(segmenter, settings, guard, gathering, beside=beside)
    return Worker(segmenter, settings, guard, gathering, beside=beside)


class FirstPassWorker(Worker):
    """Draws the bank, and keeps what pays off; it gives images without maps."""

    def __init__(self, segmenter: Segmenter, settings: MethodSettings, guard: Guard | None, first: FirstPass) -> None:
        from oodray.scores.fitted.parts import PartsFolder

        super().__init__(segmenter, replace(settings, scores=without_fit(settings.scores), fit=None), guard)
        self._first, self._parts = first, PartsFolder(storage_path(first.folder))
        self._banks: dict[str, Gathered] = {}
        self._kept: dict[str, KeptImage] = {}

    def begin(self, images: list[DecodedImage]) -> list[Pending]:
        """See `Worker.begin`."""
        from oodray.scores.fitted.parts import Gathered

        self._banks.clear()
        self._kept.clear()
        done = [pending.get() for pending in super().begin(images)]
        healthy = [image.image_id for image in done if image.error is None]
        kept = [self._kept[image_id] for image_id in healthy if image_id in self._kept]
        if kept:
            write_table(table_of(KeptImage, kept), kept_unit(storage_path(self._first.kept), images[0].unit))
        Gathered.total([self._banks[image_id] for image_id in healthy]).write(self._parts.unit(images[0].unit))
        nothing: dict[str, Any] = dict.fromkeys(("confidence", "cluster_maps", "score_maps", "classes", "confidences"))
        return [Pending.of(replace(image, **nothing)) for image in done]

    def results(
        self, images: list[DecodedImage], segmentations: list[Segmentation], seconds_segment: float
    ) -> list[SegmentedImage]:
        """See `Worker.results`."""
        found = [extended(SegmentedImage, image) for image in images]
        if self._pays_off(images, segmentations, seconds_segment):
            # As the second pass would, all images of the batch in one call.
            found = cluster_images(images, segmentations, self.settings, self.scores, head_of(self.segmenter))
        return [self._gathered_from(*each, seconds_segment) for each in zip(images, found, segmentations, strict=True)]

    def _pays_off(self, images: list[DecodedImage], segmentations: list[Segmentation], seconds: float) -> bool:
        pixels = sum(image.size[0] * image.size[1] for image in images)
        maps = 1 + len(self.scores) + bool(self.settings.keep_maps)
        grids = sum(
            2 * found.features.numel() + len(self.settings.ks) * found.features[0].numel() for found in segmentations
        )
        needed = 2 * maps * pixels + grids
        return needed <= self._first.bytes_of_image * len(images) and needed / READ_RATE < seconds * len(images)

    def _gathered_from(
        self, image: DecodedImage, found: SegmentedImage, segmentation: Segmentation, seconds_segment: float
    ) -> SegmentedImage:
        """The image with the error that keeps it from the bank; what else fails, fails again in the second pass."""
        try:
            self._banks[image.image_id] = self._bank_of(image, segmentation)
        except Exception as error:
            return extended(SegmentedImage, image, error=failure_of("gathering features failed", error))
        if found.error is None and found.confidence is not None:
            self._kept[image.image_id] = _kept(replace(found, seconds_segment=seconds_segment), segmentation)
        return extended(SegmentedImage, image)

    def _bank_of(self, image: DecodedImage, segmentation: Segmentation) -> Gathered:
        from oodray.scores.fitted.bank import Bank
        from oodray.scores.fitted.grid import positions_of
        from oodray.scores.fitted.parts import Gathered

        features = segmentation.features.half().float()
        for what, values in (("features", features), ("logits", segmentation.logits.half())):
            if not bool(values.isfinite().all()):
                raise ImageError(f"{what} are NaN or infinite in float16, beyond 65504")
        positions = positions_of(features, segmentation.logits)
        size, seed, limit = self._first.bank, self._first.seed, self._parts.read_limit()
        return Gathered(bank=Bank.of(image.image_id, positions, size=size, seed=seed, limit=limit))


class SecondPassWorker(Worker):
    """A worker of the run, which takes what the first pass kept instead of the network."""

    def __init__(
        self,
        segmenter: Segmenter,
        settings: MethodSettings,
        guard: Guard | None,
        second: SecondPass,
        *,
        beside: ThreadPoolExecutor | None = None,
    ) -> None:
        super().__init__(segmenter, settings, guard, beside=beside, left_out=_left_out(second, settings))
        self._folder = storage_path(second.kept)
        self._of_bank = [score for score in self.scores if "fit" in score.source.needs]

    def begin(self, images: list[DecodedImage]) -> list[Pending]:
        """See `Worker.begin`."""
        kept = read_kept(self._folder, images[0].unit)
        known = {image.image_id: image for image in images if image.error is None and image.image_id in kept}
        done = {name: Pending.of(self._with_scores(image, kept[name])) for name, image in known.items()}
        others = [image for image in images if image.image_id not in done]
        done |= {pending.image_id: pending for pending in (super().begin(others) if others else ())}
        return [done[image.image_id] for image in images]

    def _with_scores(self, image: DecodedImage, kept: KeptImage) -> SegmentedImage:
        """An image as the first pass left it, with its label, and the scores that need the bank."""
        start = time.perf_counter()
        try:
            maps = {found.score: found for found in [*(kept.score_maps or ()), *self._maps_of_bank(image, kept)]}
        except Exception as error:
            return extended(SegmentedImage, image, error=failure_of("comparing features failed", error))
        return replace(
            extended(SegmentedImage, kept),
            label=image.label,
            true_classes=image.true_classes,
            seconds_decode=image.seconds_decode,
            score_maps=[maps[score.name] for score in self.scores],
            seconds_cluster=(kept.seconds_cluster or 0) + time.perf_counter() - start,
        )

    def _maps_of_bank(self, image: DecodedImage, kept: KeptImage) -> list[ScoreMap]:
        import torch

        from oodray.scores.maps import pixel_maps

        assert kept.confidence is not None, "an image without results is not kept"
        grid = np.frombuffer(kept.features, np.float16).reshape(kept.depth, kept.rows, kept.columns)
        features = ImageFeatures(torch.from_numpy(grid.astype(np.float32)).to(kept.device), image.image_id)
        # Of the logits these scores need the largest alone.
        confidence = torch.from_numpy(kept.confidence.astype(np.float32))[None].to(kept.device)
        maps = pixel_maps(confidence, *image.size, self._of_bank, features).refined(image.rgb, self.settings.refine)
        return score_maps(image, maps, self._of_bank, kept.cluster_maps or [], self.settings)


def kept_folder(folder: ResultsFolder) -> Place:
    """Where a run keeps maps between its passes."""
    return folder.reference / "kept"


def remove_kept(folder: ResultsFolder) -> None:
    """Remove what was kept for the second pass."""
    remove_folder(kept_folder(folder))


def kept_unit(folder: Place, unit: int) -> Place:
    """The file of what is kept of a unit."""
    return folder / f"unit-{unit:06d}.parquet"


def read_kept(folder: Place, unit: int) -> dict[str, KeptImage]:
    """What is kept of a unit, by image; nothing where there is no file, or a damaged one."""
    try:
        with open_seekable(kept_unit(folder, unit)) as file:
            batches = pq.read_table(file).to_batches()
        images = [image for batch in batches for image in from_arrow(KeptImage, batch.to_struct_array())]
    except (OSError, pa.ArrowException, KeyError, ResultsError):
        return {}
    return {image.image_id: image for image in images}


def _kept(image: SegmentedImage, segmentation: Segmentation) -> KeptImage:
    features = segmentation.features
    depth, rows, columns = features.shape
    return extended(
        KeptImage,
        replace(image, label=None),
        depth=depth,
        rows=rows,
        columns=columns,
        features=features.half().cpu().contiguous().numpy().tobytes(),
        device=str(features.device),
    )


def _left_out(second: SecondPass, settings: MethodSettings) -> LeftOut | None:
    """Of an image, those around it in its sequence; None for itself alone."""
    gap = settings.fit.gap if settings.fit is not None else 0
    if not gap:
        return None
    sequences = Sequences.of(read_manifest(storage_path(second.manifest)))
    return lambda image_id: sequences.around(image_id, gap)
