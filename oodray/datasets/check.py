"""A dataset under inspection: every image and label decoded, counted and compared with what was published."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oodray.datasets.images import LabelCodes, decode_codes, decode_image, read_bytes, storage_oddities
from oodray.datasets.layout import Layout, Sample
from oodray.datasets.layouts import count_warning
from oodray.datasets.orientation import AS_STORED, exif_orientation, upright
from oodray.errors import ImageError
from oodray.metrics.tally import IGNORE, IN_DISTRIBUTION, OOD
from oodray.storage.place import Place

_LABEL_NAMES = {IN_DISTRIBUTION: "in-distribution", OOD: "OoD", IGNORE: "ignore"}
_MOST_LISTED = 20


@dataclass(frozen=True)
class CheckReport:
    """What `check_dataset` saw.

    Attributes:
        title: the dataset's own name.
        root: its folder.
        images: number of images found.
        published: number of images published, None where it is open.
        labelled: number of images that have a label, or should have one.
        sizes: images by (height, width).
        codes: pixels by the code in the label files.
        labels: pixels by label (0 in-distribution, 1 OoD, 255 ignore), of images without a finding only.
        without_ood: ids of the images that have a label, but no OoD pixel.
        findings: what is wrong, in words.
        oddities: what is unusual, in words, and may be as it should.
    """

    title: str
    root: Place
    images: int
    published: int | None
    labelled: int
    sizes: Mapping[tuple[int, int], int]
    codes: Mapping[int, int]
    labels: Mapping[int, int]
    without_ood: list[str]
    findings: list[str]
    oddities: list[str]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    def share(self, label: int) -> float:
        """Share of a label among all labelled pixels, NaN where there are none."""
        pixels = sum(self.labels.values())
        return self.labels.get(label, 0) / pixels if pixels else math.nan

    def lines(self) -> list[str]:
        """The report as plain text."""
        published = "" if self.published is None else f" of {self.published} published"
        frequent = sorted(self.sizes.items(), key=lambda item: (-item[1], item[0]))
        sizes = [f"{_width_by_height(*size)}: {images:,}" for size, images in frequent]
        shares = [f"{name} {self.share(label):.2%}" for label, name in _LABEL_NAMES.items() if self.labels]
        codes = [f"{code}: {pixels:,} px" for code, pixels in sorted(self.codes.items())]
        hidden = len(self.findings) - _MOST_LISTED
        return [
            f"{self.title} in {self.root}",
            f"images       {self.images:,}{published}, {self.labelled:,} with a label",
            f"sizes        {_listed(sizes)}",
            f"labels       {_listed(shares)}",
            f"codes        {_listed(codes)}",
            f"without OoD  {_listed(self.without_ood)}",
            f"findings     {len(self.findings) or 'none'}",
            *(f"  {finding}" for finding in self.findings[:_MOST_LISTED]),
            *([f"  and {hidden:,} more"] if hidden > 0 else []),
            *(f"odd          {oddity}" for oddity in self.oddities),
        ]


@dataclass
class _Inspection:
    """What could be read of one sample; labels are those of a sample without findings, storage is how it is stored."""

    size: tuple[int, int] | None = None
    codes: Counter[int] = field(default_factory=Counter)
    labels: Counter[int] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    storage: list[str] = field(default_factory=list)


def check_dataset(layout: Layout, root: Place, *, allow_outside: bool = False) -> CheckReport:
    """Decode every image and label file of a dataset.

    Raises:
        DatasetError: the dataset is not there, or a link leads outside of `root`, unless `allow_outside`.
    """
    samples = layout.find(root, allow_outside=allow_outside)
    total = _Inspection()
    sizes: Counter[tuple[int, int]] = Counter()
    without_ood, hidden = [], []
    storage: Counter[str] = Counter()
    warning = count_warning(layout, samples)
    for sample in samples:
        inspection = _inspect(sample, layout.label_codes)
        sizes.update([inspection.size] if inspection.size else [])
        total.codes.update(inspection.codes)
        total.labels.update(inspection.labels)
        total.findings += inspection.findings
        storage.update(inspection.storage)
        if sample.label_uri is None or set(inspection.labels) == {IGNORE}:
            hidden.append(sample.image_id)
        elif inspection.labels and layout.label_codes.ood and not inspection.labels[OOD]:
            without_ood.append(sample.image_id)
    return CheckReport(
        title=layout.title,
        root=root,
        images=len(samples),
        published=layout.images,
        labelled=sum(sample.label_uri is not None for sample in samples),
        sizes=sizes,
        codes=total.codes,
        labels=total.labels,
        without_ood=without_ood,
        findings=([warning] if warning else []) + total.findings + _absent_classes(total.labels, layout.label_codes),
        oddities=[
            *_hidden_labels(hidden, len(samples)),
            *(f"{images:,} images: {what}" for what, images in sorted(storage.items())),
            *_odd_sizes(layout, sizes),
            *_odd_codes(layout, total.codes),
            *_odd_share(layout, total.labels),
        ],
    )


def _inspect(sample: Sample, label_codes: LabelCodes) -> _Inspection:
    inspection = _Inspection()
    codes = None
    if sample.label_uri is not None:
        try:
            codes = decode_codes(read_bytes(sample.label_uri))
            inspection.codes = _pixels(codes)
        except ImageError as error:
            inspection.findings.append(f"{sample.image_id}: {error}")
    try:
        _inspect_image(inspection, read_bytes(sample.image_uri), None if codes is None else codes.shape)
    except ImageError as error:
        inspection.findings.append(f"{sample.image_id}: {error}")
    if codes is not None:
        try:
            _inspect_label(inspection, codes, label_codes)
        except ImageError as error:
            inspection.findings.append(f"{sample.image_id}: {error}")
    return inspection


def _inspect_image(inspection: _Inspection, data: bytes, label_size: tuple[int, ...] | None) -> None:
    stored, orientation = decode_image(data), exif_orientation(data)
    pixels, _, warning = upright(stored, orientation, None if label_size is None else (label_size[0], label_size[1]))
    inspection.size = pixels.shape[0], pixels.shape[1]
    inspection.storage = storage_oddities(data)
    if warning is not None:
        inspection.storage.append("an EXIF orientation, applied although their labels fit without it as well")
    elif orientation != AS_STORED:
        inspection.storage.append("an EXIF orientation, applied unless the label lies as the pixels are stored")


def _inspect_label(inspection: _Inspection, codes: NDArray[np.integer[Any]], label_codes: LabelCodes) -> None:
    labels = label_codes.labels(codes)
    if inspection.size is None:
        return
    if labels.shape != inspection.size:
        sizes = " but the image ".join(_width_by_height(*size) for size in (labels.shape, inspection.size))
        raise ImageError(f"the label is {sizes}")
    inspection.labels = _pixels(labels)


def _absent_classes(labels: Counter[int], codes: LabelCodes) -> list[str]:
    """Findings where there are labels, but not of each class that the dataset has."""
    expected = (IN_DISTRIBUTION, OOD) if codes.ood else (IN_DISTRIBUTION,)
    absent = [label for label in expected if labels and not labels[label]]
    return [f"no labelled pixel is {_LABEL_NAMES[label]}: AP and FPR95 are undefined" for label in absent]


def _hidden_labels(hidden: list[str], images: int) -> list[str]:
    """Some images have labels that say something, others have none: benchmarks hide those of their test images."""
    if not 0 < len(hidden) < images:
        return []
    return [f"{len(hidden):,} images have a hidden label, absent or all ignored: they do not count in any metric"]


def _odd_sizes(layout: Layout, sizes: Counter[tuple[int, int]]) -> list[str]:
    others = sum(images for size, images in sizes.items() if size != layout.size)
    if layout.size is None or not others:
        return []
    return [f"{others:,} images have another size than the published {_width_by_height(*layout.size)}"]


def _odd_codes(layout: Layout, found: Counter[int]) -> list[str]:
    """Repackings of one dataset use other codes for OoD; a file set that mixes them is of two origins."""
    if not layout.repackings:
        return []
    codes = layout.label_codes.ood
    used = sorted(code for code in codes if found[code])
    if len(used) > 1:
        return [f"OoD pixels have the codes {_listed(map(str, used))}: labels of two repackings are mixed"]
    if used and used != [max(codes)]:
        return [f"OoD pixels have the code {used[0]}, as in a repacking; the original has {max(codes)}"]
    return []


def _odd_share(layout: Layout, labels: Counter[int]) -> list[str]:
    pixels = labels[IN_DISTRIBUTION] + labels[OOD]
    if layout.ood_percent is None or not pixels:
        return []
    percent = 100 * labels[OOD] / pixels
    if abs(percent - layout.ood_percent) < 0.01:
        return []
    return [f"{percent:.2f} % of the pixels that count are OoD; of the original files {layout.ood_percent:.2f} % are"]


def _pixels(values: NDArray[np.integer[Any]]) -> Counter[int]:
    """Pixels by value."""
    distinct, counts = np.unique(values, return_counts=True)
    return Counter(dict(zip(distinct.tolist(), counts.tolist(), strict=True)))


def _width_by_height(height: int, width: int) -> str:
    return f"{width}x{height}"


def _listed(texts: Iterable[str]) -> str:
    """The first few of many texts in one line."""
    texts = list(texts)
    more = [f"and {len(texts) - _MOST_LISTED} more"] if len(texts) > _MOST_LISTED else []
    return ", ".join([*texts[:_MOST_LISTED], *more]) or "none"
