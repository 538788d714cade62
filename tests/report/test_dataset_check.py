from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from oodray.datasets.check import CheckReport
from oodray.datasets.findings import (
    AbsentClass,
    BrokenSample,
    Finding,
    HiddenLabels,
    MixedRepackings,
    Oddity,
    OddShare,
    OddSizes,
    OddStorage,
    Repacking,
    WrongCount,
)
from oodray.report.dataset_check import check_lines, finding_text, oddity_text


def report(**changed: Any) -> CheckReport:
    content: dict[str, Any] = {
        "title": "ADE-OoD",
        "root": Path("/data/ade"),
        "images": 3,
        "published": 111,
        "is_part": False,
        "labelled": 3,
        "sizes": {(2, 3): 2, (3, 2): 1},
        "codes": {255: 2, 0: 11, 7: 1, 1: 3, 3: 1},
        "labels": {0: 13, 1: 3, 255: 2},
        "without_ood": ["images/b"],
        "findings": [WrongCount("ADE-OoD was published with 111 images, found: 3")],
        "oddities": [],
    }
    return CheckReport(**(content | changed))


def test_the_lines_of_a_report() -> None:
    assert check_lines(report()) == [
        "ADE-OoD in /data/ade",
        "images       3 of 111 published, 3 with a label",
        "sizes        3x2: 2, 2x3: 1",
        "labels       in-distribution 72.22%, OoD 16.67%, ignore 11.11%",
        "codes        0: 11 px, 1: 3 px, 3: 1 px, 7: 1 px, 255: 2 px",
        "without OoD  images/b",
        "findings     1",
        "  ADE-OoD was published with 111 images, found: 3",
    ]


def test_images_without_labels() -> None:
    nothing: dict[str, Any] = {"codes": {}, "labels": {}, "without_ood": [], "findings": []}
    assert check_lines(report(images=1, published=None, labelled=0, sizes={(1, 1): 1}, **nothing))[1:] == [
        "images       1, 0 with a label",
        "sizes        1x1: 1",
        "labels       none",
        "codes        none",
        "without OoD  none",
        "findings     none",
    ]


def test_oddities_come_last() -> None:
    lines = check_lines(report(oddities=[HiddenLabels(2), Repacking(1, 2)]))
    assert lines[-2:] == [f"odd          {oddity_text(oddity)}" for oddity in (HiddenLabels(2), Repacking(1, 2))]


def test_long_lists_are_shortened() -> None:
    broken = [BrokenSample("x", str(index)) for index in range(22)]
    lines = check_lines(report(without_ood=list("abcdefghijklmnopqrstuvwxyz"), findings=broken))
    assert lines[5].endswith("s, t, and 6 more")
    assert lines[6:] == ["findings     22", *(f"  x: {index}" for index in range(20)), "  and 2 more"]


@pytest.mark.parametrize(
    ("finding", "text"),
    [
        (WrongCount("too few"), "too few"),
        (BrokenSample("images/a", "the label file is empty"), "images/a: the label file is empty"),
        (AbsentClass(0), "no labelled pixel is in-distribution: AP and FPR95 are undefined"),
        (AbsentClass(1), "no labelled pixel is OoD: AP and FPR95 are undefined"),
    ],
)
def test_what_is_wrong_in_words(finding: Finding, text: str) -> None:
    assert finding_text(finding) == text


@pytest.mark.parametrize(
    ("oddity", "text"),
    [
        (
            HiddenLabels(1234),
            "1,234 images have a hidden label, absent or all ignored: they do not count in any metric",
        ),
        (OddStorage(1, "an alpha channel"), "1 images: an alpha channel"),
        (OddSizes(2, (720, 1280)), "2 images have another size than the published 1280x720"),
        (MixedRepackings((1, 2)), "OoD pixels have the codes 1, 2: labels of two repackings are mixed"),
        (Repacking(1, 2), "OoD pixels have the code 1, as in a repacking; the original has 2"),
        (
            OddShare(50, 9.85),
            "50.00 % of the pixels that count are OoD; of the original files 9.85 % are",
        ),
    ],
)
def test_what_is_odd_in_words(oddity: Oddity, text: str) -> None:
    assert oddity_text(oddity) == text
