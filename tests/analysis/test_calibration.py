"""Tau and false alarms from tallies are those that counting pixels gives."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from pixel_oracles import METHOD, Pixels, failed_image, random_images, write_results

from oodray.analysis.calibration import OOD_RATIOS, calibrate, check_in_distribution
from oodray.datasets.layouts import get_layout
from oodray.errors import DatasetError, ResultsError
from oodray.job.units import SegmentedImage
from oodray.results.folder import ResultsFolder

IN_DISTRIBUTION, OOD, IGNORE = 0, 1, 255


def known_images(seed: int, count: int, *, ignored: float = 0.2) -> list[SegmentedImage]:
    """Random images without an OoD pixel; a share of the pixels is ignored."""
    random = np.random.default_rng(seed)
    return [
        replace(image, label=np.where(random.random(image.size) < ignored, IGNORE, IN_DISTRIBUTION).astype(np.uint8))
        for image in random_images(seed, count)
    ]


def write(path: Path, images: list[SegmentedImage]) -> ResultsFolder:
    return write_results(path, [images[:2], [*images[2:], failed_image("x")]], METHOD)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("quantile", [0.0, 0.05, 0.5])
def test_tau_leaves_at_most_the_quantile_below_it(tmp_path: Path, seed: int, quantile: float) -> None:
    rows = known_images(seed, 6)
    found = calibrate(write(tmp_path, rows), quantile)
    pixels = [Pixels(row) for row in rows]
    values = np.sort(np.concatenate([p.confidence[p.label == IN_DISTRIBUTION] for p in pixels]).astype(np.float64))
    assert (found.images, found.failed, found.pixels) == (6, 1, len(values))
    # The largest value that pixels have with no more than that share strictly below it.
    below = np.searchsorted(values, values, side="left")
    assert found.tau == values[below <= quantile * len(values)].max()
    assert found.unsure == np.mean(values < found.tau) <= quantile


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("ignored", [0.0, 0.3, 1.0])
def test_false_alarms_are_those_of_the_pixels(tmp_path: Path, seed: int, ignored: float) -> None:
    rows = known_images(seed, 5, ignored=ignored)
    found = calibrate(write(tmp_path, rows), 0.3)
    pixels = [Pixels(row, replace(METHOD, tau=found.tau)) for row in rows]
    counting = IN_DISTRIBUTION if ignored < 1 else IGNORE  # without any label, all pixels count
    assert [alarms.ood_ratio for alarms in found.false_alarms] == list(OOD_RATIOS)
    for alarms in found.false_alarms:
        clusters, flagged_clusters, counted, flagged, images = 0, 0, 0, 0, 0
        for image in pixels:
            ood = image.ratio > Fraction(str(alarms.ood_ratio))
            clusters += len(np.unique(image.cluster))
            flagged_clusters += len(np.unique(image.cluster[ood]))
            counted += int((image.label == counting).sum())
            flagged += int(ood[image.label == counting].sum())
            images += bool(ood.any())
        expected = (flagged_clusters / clusters, flagged / counted, images / len(pixels))
        assert (alarms.clusters, alarms.pixels, alarms.images) == pytest.approx(expected, abs=1e-15)


def test_false_alarms_grow_rarer_with_t(tmp_path: Path) -> None:
    shares = [alarms.clusters for alarms in calibrate(write(tmp_path, known_images(1, 8)), 0.3).false_alarms]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0.5 > shares[-1]


def test_the_folder_says_that_it_is_a_calibration(tmp_path: Path) -> None:
    folder = write(tmp_path, known_images(0, 3))
    found = calibrate(folder, 0.1)
    noted = json.loads(folder.run.read_text(encoding="utf-8"))["calibration"]
    assert (noted["tau"], noted["quantile"], noted["images"]) == (found.tau, 0.1, 3)
    assert calibrate(folder, 0.1) == found


def test_an_image_that_the_folder_holds_twice_counts_once(tmp_path: Path) -> None:
    images = known_images(2, 4)
    once = calibrate(write_results(tmp_path / "once", [images[:2], images[2:]], METHOD), 0.1)
    assert calibrate(write_results(tmp_path / "twice", [images[:2], images[1:], images[:1]], METHOD), 0.1) == once


def test_ood_pixels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DatasetError, match=r"% of the pixels are labelled OoD: tau comes from images that hold nothing"
    ):
        calibrate(write(tmp_path, random_images(0, 3)), 0.05)


def test_nothing_to_count_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no image to calibrate on: all 1 failed"):
        calibrate(write_results(tmp_path / "failed", [[failed_image("x")]], METHOD), 0.05)
    with pytest.raises(ResultsError, match="is not a results folder"):
        calibrate(ResultsFolder(tmp_path / "empty"), 0.05)


def test_sets_known_for_the_unknown_are_refused_before_any_work() -> None:
    with pytest.raises(DatasetError, match=r"RoadAnomaly holds OoD pixels.* Known sets.*: demo-validation, camvid, "):
        check_in_distribution(get_layout("road-anomaly"))
    for name in ("camvid", "cityscapes", "folder"):
        check_in_distribution(get_layout(name))
