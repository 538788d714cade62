"""A dataset under inspection: every image and label decoded, counted and compared with what was published."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oodray.datasets.findings import (
    AbsentClass,
    BrokenSample,
    Finding,
    HiddenLabels,
    MixedRepackings,
    Noticed,
    Oddity,
    OddShare,
    OddSizes,
    OddStorage,
    Repacking,
    WhiteMasks,
    WrongCount,
)
from oodray.datasets.images import (
    LabelCodes,
    decode_codes,
    decode_with_warning,
    read_bytes,
    read_label,
    storage_oddities,
)
from oodray.datasets.layout import Layout
from oodray.datasets.layouts import count_warning
from oodray.datasets.listing import Sample
from oodray.datasets.orientation import AS_STORED, exif_orientation, upright
from oodray.datasets.remarks import remarks
from oodray.datasets.white_masks import are_white_masks, meaning_of_white
from oodray.errors import ImageError
from oodray.metrics.tally import IGNORE, IN_DISTRIBUTION, OOD
from oodray.storage.place import Place


@dataclass(frozen=True)
class CheckReport:
    """What `check_dataset` saw.

    Attributes:
        title: the dataset's own name.
        root: its folder.
        images: number of images found.
        published: number of images published, None where it is open.
        is_part: whether these are a part that is evaluated alone, such as the validation images.
        labelled: number of images that have a label, or should have one.
        sizes: images by (height, width).
        codes: pixels by the code in the label files.
        labels: pixels by label (0 in-distribution, 1 OoD, 255 ignore), of images without a finding only.
        without_ood: ids of the images that have a label, but no OoD pixel.
        findings: what is wrong.
        oddities: what is unusual, and may be as it should.
    """

    title: str
    root: Place
    images: int
    published: int | None
    is_part: bool
    labelled: int
    sizes: Mapping[tuple[int, int], int]
    codes: Mapping[int, int]
    labels: Mapping[int, int]
    without_ood: list[str]
    findings: list[Finding]
    oddities: list[Oddity]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    def share(self, label: int) -> float:
        """Share of a label among all labelled pixels, NaN where there are none."""
        pixels = sum(self.labels.values())
        return self.labels.get(label, 0) / pixels if pixels else math.nan


@dataclass
class _Inspection:
    """What could be read of one sample; labels are those of a sample without findings, storage is how it is stored."""

    labelled: bool = True
    size: tuple[int, int] | None = None
    codes: Counter[int] = field(default_factory=Counter)
    labels: Counter[int] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    storage: list[str] = field(default_factory=list)


def check_dataset(layout: Layout, root: Place, *, allow_outside: bool = False) -> CheckReport:
    """Decode every image and label file of a dataset.

    Raises:
        DatasetError: the dataset is not there, or a link leads outside of `root`, unless `allow_outside`.
    """
    with remarks() as noticed:
        samples = layout.find(root, allow_outside=allow_outside)
    total = _Inspection()
    sizes: Counter[tuple[int, int]] = Counter()
    without_ood, hidden = [], []
    storage: Counter[str] = Counter()
    labelled = 0
    warning = count_warning(layout, samples)
    for sample in samples:
        inspection = _inspect(sample, layout.label_codes)
        sizes.update([inspection.size] if inspection.size else [])
        total.codes.update(inspection.codes)
        total.labels.update(inspection.labels)
        total.findings += inspection.findings
        storage.update(inspection.storage)
        labelled += inspection.labelled
        if not inspection.labelled or set(inspection.labels) == {IGNORE}:
            hidden.append(sample.image_id)
        elif inspection.labels and layout.label_codes.ood and not inspection.labels[OOD]:
            without_ood.append(sample.image_id)
    return CheckReport(
        title=layout.title,
        root=root,
        images=len(samples),
        published=layout.images,
        is_part=len(samples) in layout.parts,
        labelled=labelled,
        sizes=sizes,
        codes=total.codes,
        labels=total.labels,
        without_ood=without_ood,
        findings=[
            *([WrongCount(warning)] if warning else []),
            *(Noticed(remark.text) for remark in noticed if remark.wrong),
            *total.findings,
            *_white_masks(layout, total.codes),
            *_absent_classes(total.labels, layout.label_codes),
        ],
        oddities=[
            *(Noticed(remark.text) for remark in noticed if not remark.wrong),
            *_hidden_labels(hidden, len(samples)),
            *(OddStorage(images, what) for what, images in sorted(storage.items())),
            *_odd_sizes(layout, sizes),
            *_odd_codes(layout, total.codes),
            *_odd_share(layout, total.labels),
        ],
    )


def _inspect(sample: Sample, label_codes: LabelCodes) -> _Inspection:
    inspection = _Inspection()
    codes = None
    try:
        label = read_label(sample.label_uri)
        inspection.labelled = label is not None
        if label is not None:
            codes = decode_codes(label)
            inspection.codes = _pixels(codes)
    except ImageError as error:
        inspection.findings.append(BrokenSample(sample.image_id, str(error)))
    try:
        _inspect_image(inspection, read_bytes(sample.image_uri), None if codes is None else codes.shape)
    except ImageError as error:
        inspection.findings.append(BrokenSample(sample.image_id, str(error)))
    if codes is not None:
        try:
            _inspect_label(inspection, codes, label_codes)
        except ImageError as error:
            inspection.findings.append(BrokenSample(sample.image_id, str(error)))
    return inspection


def _inspect_image(inspection: _Inspection, data: bytes, label_size: tuple[int, ...] | None) -> None:
    (stored, of_file), orientation = decode_with_warning(data), exif_orientation(data)
    pixels, _, warning = upright(stored, orientation, None if label_size is None else (label_size[0], label_size[1]))
    inspection.size = pixels.shape[0], pixels.shape[1]
    inspection.storage = [*storage_oddities(data), *([of_file] if of_file else [])]
    if warning is not None:
        inspection.storage.append("an EXIF orientation, applied although their labels fit without it as well")
    elif orientation != AS_STORED:
        inspection.storage.append("an EXIF orientation, applied unless the label lies as the pixels are stored")


def _inspect_label(inspection: _Inspection, codes: NDArray[np.integer[Any]], label_codes: LabelCodes) -> None:
    labels = label_codes.labels(codes)
    if inspection.size is None:
        return
    if labels.shape != inspection.size:
        height, width = inspection.size
        raise ImageError(f"the label is {labels.shape[1]}x{labels.shape[0]} but the image {width}x{height}")
    inspection.labels = _pixels(labels)


def _absent_classes(labels: Counter[int], codes: LabelCodes) -> list[Finding]:
    """Findings where there are labels, but not of each class that the dataset has."""
    expected = (IN_DISTRIBUTION, OOD) if codes.ood else (IN_DISTRIBUTION,)
    return [AbsentClass(label) for label in expected if labels and not labels[label]]


def _white_masks(layout: Layout, codes: Counter[int]) -> list[Finding]:
    return [WhiteMasks(meaning_of_white(layout))] if are_white_masks(layout, codes) else []


def _hidden_labels(hidden: list[str], images: int) -> list[Oddity]:
    """Some images have labels that say something, others have none: benchmarks hide those of their test images."""
    return [HiddenLabels(len(hidden))] if 0 < len(hidden) < images else []


def _odd_sizes(layout: Layout, sizes: Counter[tuple[int, int]]) -> list[Oddity]:
    others = sum(images for size, images in sizes.items() if size != layout.size)
    return [] if layout.size is None or not others else [OddSizes(others, layout.size)]


def _odd_codes(layout: Layout, found: Counter[int]) -> list[Oddity]:
    """Repackings of one dataset use other codes for OoD; a file set that mixes them is of two origins."""
    if layout.ood_code is None:
        return []
    used = tuple(sorted(code for code in layout.label_codes.ood if found[code]))
    if len(used) > 1:
        return [MixedRepackings(used)]
    return [Repacking(used[0], layout.ood_code)] if used and used != (layout.ood_code,) else []


def _odd_share(layout: Layout, labels: Counter[int]) -> list[Oddity]:
    pixels = labels[IN_DISTRIBUTION] + labels[OOD]
    if layout.ood_percent is None or not pixels:
        return []
    percent = 100 * labels[OOD] / pixels
    return [] if abs(percent - layout.ood_percent) < 0.01 else [OddShare(percent, layout.ood_percent)]


def _pixels(values: NDArray[np.integer[Any]]) -> Counter[int]:
    """Pixels by value."""
    distinct, counts = np.unique(values, return_counts=True)
    return Counter(dict(zip(distinct.tolist(), counts.tolist(), strict=True)))
