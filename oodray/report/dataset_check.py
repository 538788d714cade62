"""The inspection of a dataset as lines of plain text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

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
from oodray.metrics.tally import IGNORE, IN_DISTRIBUTION, OOD

if TYPE_CHECKING:
    from oodray.datasets.check import CheckReport

_LABEL_NAMES = {IN_DISTRIBUTION: "in-distribution", OOD: "OoD", IGNORE: "ignore"}
_MOST_LISTED = 20


def check_lines(report: CheckReport) -> list[str]:
    """What was found, the lists shortened to 20 each."""
    published = "" if report.published is None else f" of {report.published:,} published"
    if report.is_part:
        published = f", a part that is evaluated alone, of {report.published:,} published"
    frequent = sorted(report.sizes.items(), key=lambda item: (-item[1], item[0]))
    sizes = [f"{_width_by_height(*size)}: {images:,}" for size, images in frequent]
    shares = [f"{name} {report.share(label):.2%}" for label, name in _LABEL_NAMES.items() if report.labels]
    codes = [f"{code}: {pixels:,} px" for code, pixels in sorted(report.codes.items())]
    hidden = len(report.findings) - _MOST_LISTED
    return [
        f"{report.title} in {report.root}",
        f"images       {report.images:,}{published}, {report.labelled:,} with a label",
        f"sizes        {_listed(sizes)}",
        f"labels       {_listed(shares)}",
        f"codes        {_listed(codes)}",
        f"without OoD  {_listed(report.without_ood)}",
        f"findings     {len(report.findings) or 'none'}",
        *(f"  {finding_text(finding)}" for finding in report.findings[:_MOST_LISTED]),
        *([f"  and {hidden:,} more"] if hidden > 0 else []),
        *(f"odd          {oddity_text(oddity)}" for oddity in report.oddities),
    ]


def finding_text(finding: Finding) -> str:
    """What is wrong, in words.

    >>> finding_text(AbsentClass(OOD))
    'no labelled pixel is OoD: AP and FPR95 are undefined'
    """
    match finding:
        case WrongCount(warning):
            return warning
        case BrokenSample(image_id, reason):
            return f"{image_id}: {reason}"
        case AbsentClass(label):
            return f"no labelled pixel is {_LABEL_NAMES[label]}: AP and FPR95 are undefined"
        case WhiteMasks(meaning):
            return f"the labels hold 0 and 255 alone, {meaning}"
        case Noticed(text):
            return text


def oddity_text(oddity: Oddity) -> str:  # noqa: PLR0911 - one for each kind
    """What is unusual, in words.

    >>> oddity_text(Repacking(1, 2))
    'OoD pixels have the code 1, as in a repacking; the original has 2'
    """
    match oddity:
        case Noticed(text):
            return text
        case HiddenLabels(images):
            return f"{images:,} images have a hidden label, absent or all ignored: they do not count in any metric"
        case OddStorage(images, what):
            return f"{images:,} images: {what}"
        case OddSizes(images, published):
            return f"{images:,} images have another size than the published {_width_by_height(*published)}"
        case MixedRepackings(codes):
            return f"OoD pixels have the codes {_listed(map(str, codes))}: labels of two repackings are mixed"
        case Repacking(code, original):
            return f"OoD pixels have the code {code}, as in a repacking; the original has {original}"
        case OddShare(percent, published_percent):
            of_published = f"of the original files {published_percent:.2f} % are"
            return f"{percent:.2f} % of the pixels that count are OoD; {of_published}"


def _width_by_height(height: int, width: int) -> str:
    return f"{width}x{height}"


def _listed(texts: Iterable[str]) -> str:
    """The first few of many texts in one line."""
    texts = list(texts)
    more = [f"and {len(texts) - _MOST_LISTED} more"] if len(texts) > _MOST_LISTED else []
    return ", ".join([*texts[:_MOST_LISTED], *more]) or "none"
