"""Lists of keys against the cells that they stand for: whatever is read from either is the same."""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from oodray.metrics import long_lists
from oodray.metrics.by_image import ByImage, evaluate_images
from oodray.metrics.conventions import Convention
from oodray.metrics.evaluation import RankedPixels, Totals
from oodray.metrics.evaluators import LIKE
from oodray.metrics.frames import as_float16, in_quantile_bins
from oodray.metrics.further import FurtherNumbers
from oodray.metrics.pixel_counts import PixelCounts, PixelKeys, cells_of_grid
from oodray.metrics.scales import Float32
from oodray.metrics.score_counts import RunningCounts, ScoreCounts

PIXELS = st.lists(
    st.tuples(st.sampled_from([2**30, 2**31, 2**31 + 7, 2**31 + 2**20, 3 * 2**30]), st.sampled_from([0, 1, 255])),
    max_size=30,
)
IMAGES = st.lists(PIXELS, min_size=1, max_size=5)

Pixels = list[tuple[int, int]]


@pytest.fixture(autouse=True, scope="module")
def small_blocks() -> Iterator[None]:
    """Lists as short as those of these tests are cut into blocks and ranges, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(long_lists, "_BLOCK", 3)
        patch.setattr(long_lists, "_IN_CACHE", 4)
        yield


def keys_of(pixels: Pixels) -> PixelKeys:
    keys = np.array([key for key, _ in pixels], np.uint32)
    return PixelKeys.of(keys, np.array([label for _, label in pixels], np.uint8))


def listed(*images: Pixels) -> PixelCounts:
    return PixelCounts(Float32(), [keys_of(pixels) for pixels in images])


def celled(*images: Pixels) -> ScoreCounts:
    joined = [pixel for pixels in images for pixel in pixels]
    keys, labels = (np.array([pixel[place] for pixel in joined]) for place in (0, 1))
    counts = np.ones(len(joined), np.int64)
    return ScoreCounts.of(Float32(), keys.astype(np.uint32), labels.astype(np.uint8), counts)


@given(PIXELS)
def test_cells_are_those_of_a_tally(pixels: Pixels) -> None:
    found = zip(*(column.tolist() for column in keys_of(pixels).cells()), strict=True)
    assert list(found) == [
        (key, label, pixels.count((key, label))) for label, key in sorted({(label, key) for key, label in pixels})
    ]
    assert keys_of(pixels).count_of_cells == len(set(pixels))


@pytest.mark.parametrize("spread", [1e-7, 1.0, 65504.0])
def test_cells_of_rounded_scores_are_those_of_sorted_keys(spread: float) -> None:
    random = np.random.default_rng(3)
    scores = (random.standard_normal(2000) * spread).clip(-65504, 65504).astype(np.float16)
    scores[:3] = [0, -0.0, spread]
    keys = Float32().keys(scores.astype(np.float32))
    labels = random.choice(np.array([0, 1, 255], np.uint8), keys.shape)
    cells = cells_of_grid(keys, labels)
    assert cells is not None
    columns: Any = zip(cells, PixelKeys.of(keys, labels).cells(), strict=True)
    for found, wanted in columns:
        assert found.dtype == wanted.dtype
        np.testing.assert_array_equal(found, wanted)


def test_cells_are_not_counted_of_keys_that_lie_anywhere() -> None:
    keys, none = np.array([1, 2**31], np.uint32), np.zeros(2, np.uint8)
    assert cells_of_grid(keys, none) is None
    assert cells_of_grid(keys[:0], none[:0]) is None
    with pytest.raises(ValueError, match="unknown labels 7"):
        cells_of_grid(keys[:1], np.array([7], np.uint8))


def test_keys_and_labels_must_fit() -> None:
    with pytest.raises(ValueError, match="do not match"):
        PixelKeys.of(np.zeros(3, np.uint32), np.zeros(2, np.uint8))
    with pytest.raises(ValueError, match="unknown labels 7"):
        PixelKeys.of(np.zeros(1, np.uint32), np.array([7], np.uint8))


@given(IMAGES)
def test_the_columns_are_those_of_cells(images: list[Pixels]) -> None:
    counts, cells = listed(*images), celled(*images)
    assert pickle.loads(pickle.dumps(counts)).labelled_pixels() == cells.labelled_pixels() == counts.labelled_pixels()
    assert counts.limits() == cells.limits()
    assert counts.largest_tie() == cells.largest_tie()
    assert counts == cells
    assert counts.labelled() == cells.labelled()


@given(IMAGES)
def test_a_curve_is_that_of_cells(images: list[Pixels]) -> None:
    found, expected = listed(*images).curve(), celled(*images).curve()
    assert found.measurable == expected.measurable
    for name in ("found", "alarms", "alarms_before", "kept"):
        assert getattr(found, name).tolist() == getattr(expected, name).tolist(), name
    assert int(found.ind) == int(expected.ind)
    f1, row = found.best_f1()
    other, place = expected.best_f1()
    assert f1 == other or (math.isnan(f1) and math.isnan(other))
    if row >= 0:
        assert listed(*images).value(row) == celled(*images).value(place)


@given(IMAGES, st.integers(0, 5))
def test_lists_and_cells_add_up(images: list[Pixels], as_cells: int) -> None:
    running = RunningCounts()
    for number, pixels in enumerate(images):
        running.add(celled(pixels) if number < as_cells else listed(pixels))
    whole = running.total()
    assert whole == celled(*images)
    in_cells = sum(map(len, images[:as_cells]))
    in_lists = sum(map(len, images[as_cells:]))
    if len(images) > 1:
        assert isinstance(whole, PixelCounts) == (as_cells < len(images) and in_lists >= in_cells)


@given(IMAGES, st.integers(0, 5))
def test_less_some_images(images: list[Pixels], left_out: int) -> None:
    less = [listed(pixels) for pixels in images[:left_out]]
    assert listed(*images).without(less).labelled() == celled(*images[left_out:]).labelled()


@pytest.mark.parametrize("seed", range(5))
def test_rounding_to_float16_finds_the_same_steps(seed: int) -> None:
    random = np.random.default_rng(seed)
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    middles = (halves[1:] + halves[:-1]) / 2  # what is as near to two of them
    chosen = random.choice(
        np.concatenate([halves, middles, np.nextafter(middles, 9e9), np.nextafter(middles, 0)]), 3000
    )
    scores = (chosen * random.choice([-1, 1], len(chosen))).astype(np.float32)
    scores[:4] = 65520, -65520, 3e38, -0.0
    labels = random.choice(np.array([0, 1, 255], np.uint8), len(scores))
    frame = PixelCounts(Float32(), [PixelKeys.of(Float32().keys(scores).astype(np.uint32), labels)]).frame(rounded=True)
    rounded = as_float16(scores.astype(np.float64))
    for label, counts in ((1, frame.ood), (0, frame.ind)):
        values, expected = np.unique(rounded[labels == label], return_counts=True)
        assert frame.scores[counts > 0].tolist() == values.tolist()
        assert counts[counts > 0].tolist() == expected.tolist()


def draw(seed: int, *, alike: bool) -> list[tuple[NDArray[np.float32], NDArray[np.uint8]]]:
    """A few images: all or few scores differ, in all or in one class, few OoD pixels, some ignored."""
    random = np.random.default_rng(seed)
    images = []
    for _ in range(random.integers(1, 5)):
        size = 600 if alike else int(random.choice([1, 20, 600]))
        ood = random.random(size) < random.choice([0, 1, 1 / size, 0.1, 0.5])
        scores = np.clip(random.normal(0.4 + 0.2 * ood, random.choice([0.01, 0.3])), 0, 1) * random.choice([1, 3])
        if random.random() < 0.5:
            scores = np.round(scores * 5) / 5
        labels = np.where((random.random(size) < 0.1) & (not alike), 255, ood).astype(np.uint8)
        images.append((scores.astype(np.float32), labels))
    return images


def both(seed: int, *, alike: bool = False) -> tuple[list[Totals], list[Totals]]:
    """The images of a draw as lists of keys, and as cells."""
    found: tuple[list[Totals], list[Totals]] = ([], [])
    for scores, labels in draw(seed, alike=alike):
        keys = PixelKeys.of(Float32().keys(scores).astype(np.uint32), labels)
        found[0].append(Totals(images=1, scores={"s": PixelCounts(Float32(), [keys])}))
        found[1].append(Totals(images=1, scores={"s": ScoreCounts.of(Float32(), *keys.cells())}))
    return found


CONVENTIONS = [
    Convention(),
    Convention(pooling="image", lacking="drop"),
    Convention(ap_rule="trapezoid"),
    *LIKE.values(),
]


@pytest.mark.parametrize("alike", [False, True])
@pytest.mark.parametrize("seed", range(15))
def test_every_convention_says_the_same(seed: int, alike: bool) -> None:
    lists, cells = both(seed, alike=alike)
    for convention in CONVENTIONS:
        [found], [expected] = (evaluate_images(images, ["s"], convention) for images in (lists, cells))
        np.testing.assert_equal(asdict(found), asdict(expected), err_msg=str(convention.like))


@pytest.mark.parametrize("alike", [False, True])
@pytest.mark.parametrize("seed", range(15))
def test_images_that_weigh_the_same_are_one_curve(seed: int, alike: bool) -> None:
    lists, cells = both(seed, alike=alike)
    few = Convention(image_pixels=50)
    for images in (lists, cells):
        total = Totals.sum(images)
        found = _by_images(few, images, total, RankedPixels.of(total, "s"))
        expected = _by_images(few, images, total, None)
        for name in ("ap", "fpr95", "auroc", "best_f1", "best_f1_threshold"):
            one, other = found[name], expected[name]
            assert one == pytest.approx(other, abs=1e-12, nan_ok=True) or (one is None and other is None), name


def _by_images(
    convention: Convention, images: list[Totals], total: Totals, whole: RankedPixels | None
) -> dict[str, Any]:
    by_image = ByImage("s", convention, total, whole)
    for image in images:
        by_image.add(image)
    return asdict(by_image.metrics())


@pytest.mark.parametrize("seed", range(10))
def test_further_numbers_and_bins_are_the_same(seed: int) -> None:
    lists, cells = both(seed)
    numbers: list[Any] = []
    for images in (lists, cells):
        further = FurtherNumbers("s", Totals.sum(images))
        for image in images:
            further.add(image)
        numbers.append(asdict(further.numbers()))
        binned = [in_quantile_bins(image.ranking("s").frame(image, rounded=True)) for image in images]
        numbers.append([frame.ood.tolist() + frame.scores.tolist() for frame in binned])
    np.testing.assert_equal(numbers[0], numbers[2])
    assert numbers[1] == numbers[3]


def test_pixels_that_weigh_the_same_are_counted() -> None:
    scores = np.arange(60, dtype=np.float32)[::-1]
    labels = np.zeros(60, np.uint8)
    labels[[*range(9), 40]] = 1  # 9 of 10 lie above all others, and are 90 %
    keys = PixelKeys.of(Float32().keys(scores).astype(np.uint32), labels)
    images = [Totals(images=1, scores={"s": PixelCounts(Float32(), [keys])})] * 2
    total = Totals.sum(images)
    for most in range(1, 60):  # each pixel weighs most / 60, which floats round up or down
        found = _by_images(Convention(image_pixels=most, tpr=0.9), images, total, RankedPixels.of(total, "s"))
        assert found["fpr_at_tpr"] == 0.0, most
