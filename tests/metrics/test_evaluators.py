"""Each evaluator's rule against its steps written out on plain arrays, as its source takes them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_curve

from oodray.errors import ConfigError
from oodray.metrics.by_image import evaluate_images
from oodray.metrics.conventions import measure
from oodray.metrics.evaluation import Totals
from oodray.metrics.evaluators import LIKE, like_evaluator
from oodray.metrics.pixel_counts import PixelKeys
from oodray.metrics.scales import Float32
from oodray.metrics.score_counts import ScoreCounts

DRAWS = 100


@dataclass
class Image:
    """The labelled pixels of an image."""

    scores: NDArray[np.float32]
    ood: NDArray[np.bool_]

    @property
    def totals(self) -> Totals:
        keys = PixelKeys.of(Float32().keys(self.scores).astype(np.uint32), self.ood.astype(np.uint8))
        return Totals(images=1, scores={"s": ScoreCounts.of(Float32(), *keys.cells())})


@cache
def draw(seed: int) -> list[Image]:
    """A few images made to hurt: few OoD pixels, ties, one class alone, scores that fill the ends of 0..1."""
    random = np.random.default_rng(seed)
    images = []
    for _ in range(random.integers(1, 6)):
        pixels = int(random.choice([1, 3, 20, 400, 1500]))
        levels = int(random.choice([1, 2, 5, 100, 10**6]))
        ood = random.random(pixels) < random.choice([0, 1, 1 / pixels, 0.05, 0.5])
        raw = np.clip(random.normal(0.4 + 0.2 * ood, random.choice([0.01, 0.3])), 0, 1)
        images.append(Image((np.round(raw * levels) / levels).astype(np.float32), ood))
    # With the last one the OoD pixels are a multiple of 20: a TPR may be 0.95, and two as near to it.
    more = 2 + -(2 + sum(int(image.ood.sum()) for image in images)) % 20
    last = np.concatenate([np.array([0.5]), random.integers(1, 9, more) / 8]).astype(np.float32)
    images.append(Image(last, np.arange(len(last)) > 0))
    return images


Three = tuple[float, float, float]
"""AP, FPR95, AUROC."""


def together(images: Sequence[Image]) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    return np.concatenate([i.ood for i in images]), np.concatenate([i.scores for i in images])


def first(tpr: NDArray[np.float64], fpr: NDArray[np.float64]) -> float:
    return float(fpr[np.searchsorted(tpr, 0.95)])


def by_fishyscapes(images: Sequence[Image]) -> Three:
    truth, scores = together(images)
    fpr, tpr, _ = roc_curve(truth, scores, drop_intermediate=False)
    return average_precision_score(truth, scores), first(tpr, fpr), auc(fpr, tpr)


def by_ade_ood(images: Sequence[Image]) -> Three:
    truth, scores = together(images)
    fpr, tpr, _ = roc_curve(truth, scores)
    return average_precision_score(truth, scores), fpr[np.argmin(np.abs(tpr - 0.95))], auc(fpr, tpr)


def by_rba(images: Sequence[Image]) -> Three:
    truth, scores = together(images)
    fpr, tpr, _ = roc_curve(truth, scores)
    return average_precision_score(truth, scores), fpr[np.argmax(tpr > 0.95)], auc(fpr, tpr)


def by_ood_metrics(images: Sequence[Image]) -> Three:
    truth, scores = together(images)
    precision, recall, _ = precision_recall_curve(truth, scores)
    fpr, tpr, _ = roc_curve(truth, scores)
    return auc(recall, precision), float(np.interp(0.95, tpr, fpr)), auc(fpr, tpr)


def by_mask2anomaly(images: Sequence[Image]) -> Three:
    truth, scores = together([image for image in images if image.ood.any()])
    fpr, tpr, _ = roc_curve(truth, scores)
    return average_precision_score(truth, scores), float(np.interp(0.95, tpr, fpr)), auc(fpr, tpr)


def hendrycks_fpr(truth: NDArray[np.bool_], scores: NDArray[np.float32]) -> float:
    """Thresholds from the one that finds all OoD pixels upwards; the first of those whose recall is nearest."""
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]), 1))
    found, called = np.cumsum(truth[order])[ends], np.cumsum(~truth[order])[ends]
    upwards = slice(int(np.argmax(found == found[-1])), None, -1)
    return float(called[upwards][np.argmin(np.abs(found[upwards] / found[-1] - 0.95))] / np.sum(~truth))


def by_pebal(images: Sequence[Image]) -> Three:
    truth, scores = together(images)
    return average_precision_score(truth, scores), hendrycks_fpr(truth, scores), auc(*roc_curve(truth, scores)[:2])


def complete(images: Sequence[Image]) -> list[Image]:
    return [image for image in images if image.ood.any() and not image.ood.all()]


def by_torch_uncertainty(images: Sequence[Image]) -> Three:
    rows = [by_pebal([image]) for image in complete(images)]
    found = np.average(rows, axis=0, weights=[len(image.ood) for image in complete(images)])
    return found[0], found[1], found[2]


def by_pytorch_ood(images: Sequence[Image]) -> Three:
    rows = []
    for image in complete(images):
        precision, recall, _ = precision_recall_curve(image.ood, image.scores)
        fpr, tpr, _ = roc_curve(image.ood, image.scores, drop_intermediate=False)
        rows.append((auc(recall, precision), first(tpr, fpr), auc(fpr, tpr)))
    found = np.mean(rows, axis=0)
    return found[0], found[1], found[2]


def by_smiyc(images: Sequence[Image]) -> Three:
    """768 bins a frame of float16 scores, their lower edges as thresholds; of equal ones the last in order counts."""
    lower, ood, ind = [], [], []
    for image in images:
        stored = image.scores.astype(np.float16)
        reach = max(0.01, 0.01 * float(stored.max() - stored.min()))
        edges = [np.array([stored.min() - reach, stored.max() + reach], np.float64)]
        for chosen in (stored[image.ood], stored[~image.ood]):
            if chosen.size:
                edges.append(np.quantile(chosen, np.linspace(0, 1, min(384, chosen.size))))
        bins = np.unique(np.concatenate(edges))
        # Histograms of numpy would look for float64 edges in sorted float16.
        of_ood, _ = np.histogram(stored[image.ood].astype(np.float64), bins)
        of_ind, _ = np.histogram(stored[~image.ood].astype(np.float64), bins)
        lower.append(bins[::-1][1:])
        ood.append(of_ood[::-1])
        ind.append(of_ind[::-1])
    order = np.argsort(np.concatenate(lower), kind="stable")[::-1]
    thresholds = np.concatenate(lower)[order]
    found, called = np.cumsum(np.concatenate(ood)[order]), np.cumsum(np.concatenate(ind)[order])
    last = [0, *np.flatnonzero(thresholds[:-1] != thresholds[1:]), len(thresholds) - 1]
    found, called = np.concatenate([[0], found[last]]), np.concatenate([[0], called[last]])
    precision = np.where(found + called > 0, found / np.maximum(found + called, 1), 1)
    recall, fpr = found / found[-1], called / called[-1]
    return float(np.sum(np.diff(recall) * precision[1:])), first(recall, fpr), float(auc(fpr, recall))


def by_bravo(images: Sequence[Image], pixels: int = 100_000) -> Three:
    """65,536 levels; of each image as many pixels as are drawn, here each with its chance."""
    found, called = np.zeros(65536), np.zeros(65536)
    for image in images:
        levels = np.rint(image.scores.astype(np.float64) * 65535).astype(int)
        weight = min(1, pixels / len(levels))
        np.add.at(found, levels[image.ood], weight)
        np.add.at(called, levels[~image.ood], weight)
    found, called = (np.concatenate([[0], np.cumsum(counts[::-1])]) for counts in (found, called))
    recall, fpr = found / found[-1], called / called[-1]
    precision = found / np.maximum(found + called, 1e-300)
    return float(np.sum(np.diff(recall) * precision[1:])), first(recall, fpr), float(auc(fpr, recall))


WRITTEN_OUT: dict[str, Callable[[Sequence[Image]], Three]] = {
    "smiyc": by_smiyc,
    "fishyscapes": by_fishyscapes,
    "ade-ood": by_ade_ood,
    "ood-metrics": by_ood_metrics,
    "pebal": by_pebal,
    "bravo": by_bravo,
    "mask2anomaly": by_mask2anomaly,
    "rba": by_rba,
    "torch-uncertainty": by_torch_uncertainty,
    "pytorch-ood": by_pytorch_ood,
    "issu": by_smiyc,
}


def test_every_evaluator_is_written_out_here() -> None:
    assert set(WRITTEN_OUT) == set(LIKE)


@pytest.mark.filterwarnings("ignore:No positive class")
@pytest.mark.parametrize("name", sorted(WRITTEN_OUT.keys() - {"issu"}))  # the rule of smiyc, see below
def test_its_steps_give_the_same_numbers(name: str) -> None:
    for seed in range(DRAWS):
        images = draw(seed)
        [found] = evaluate_images([image.totals for image in images], ["s"], LIKE[name])
        expected = WRITTEN_OUT[name](images)
        assert (found.ap, found.fpr95, found.auroc) == pytest.approx(expected, abs=1e-9), seed


def test_the_draws_tell_the_rules_apart() -> None:
    """Were two rules one on all draws, the test above would hold no matter which of them is taken."""
    few = [draw(seed) for seed in range(25)]
    for name, other in [("pebal", "fishyscapes"), ("ade-ood", "pebal"), ("rba", "fishyscapes"), ("smiyc", "bravo")]:
        different = [images for images in few if WRITTEN_OUT[name](images) != WRITTEN_OUT[other](images)]
        assert len(different) > 3, (name, other)


def test_a_large_image_weighs_as_much_as_a_hundred_thousand_pixels() -> None:
    random = np.random.default_rng(0)
    large = Image(random.random(400_000).astype(np.float32), random.random(400_000) < 0.1)
    images = [large, *draw(3)]
    [found] = evaluate_images([image.totals for image in images], ["s"], LIKE["bravo"])
    assert (found.ap, found.fpr95, found.auroc) == pytest.approx(by_bravo(images), abs=1e-9)
    assert (found.ap, found.fpr95) != pytest.approx(by_bravo(images, 10**9)[:2], abs=1e-6)
    assert found.pixels_ood + found.pixels_id == sum(len(image.ood) for image in images)


def test_issu_measures_as_smiyc_does() -> None:
    assert replace(LIKE["issu"], like="smiyc") == LIKE["smiyc"]


def test_of_equally_near_thresholds_pebal_takes_the_last() -> None:
    ood, ind = np.array([19, 0, 1]), np.array([3, 5, 7])
    assert measure(ood, ind, LIKE["pebal"]).fpr95 == 8 / 15
    assert measure(ood, ind, LIKE["fishyscapes"]).fpr95 == 0.2


def test_the_example_of_the_package_ood_metrics() -> None:
    # Its README: scores .1 .3 .6 .9 1.3, of which .9 is OoD: AUPR 0.25, FPR95 0.25, AUROC 0.75.
    ood, ind = np.array([0, 1, 0, 0, 0]), np.array([1, 0, 1, 1, 1])
    measures = measure(ood, ind, LIKE["ood-metrics"])
    assert (measures.ap, measures.fpr95, measures.auroc) == (0.25, 0.25, 0.75)


@pytest.mark.parametrize("name", LIKE)
def test_no_pixel_at_all_is_no_number(name: str) -> None:
    empty = Image(np.empty(0, np.float32), np.empty(0, bool))
    [found] = evaluate_images([empty.totals], ["s"], LIKE[name])
    assert all(map(math.isnan, (found.ap, found.fpr95, found.auroc, found.best_f1)))


def test_what_is_not_reproduced_depends_on_the_scores() -> None:
    assert LIKE["pebal"].not_reproduced(blurred=True, exact=True) == ()
    assert "--blur" in LIKE["pebal"].not_reproduced(blurred=False, exact=True)[0]
    assert LIKE["fishyscapes"].not_reproduced(blurred=False, exact=False)[0].startswith("scores of 32 bits")
    assert LIKE["smiyc"].not_reproduced(blurred=False, exact=True) == ()


def test_an_unknown_evaluator_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="no evaluator 'smyic' is known; did you mean 'smiyc'"):
        like_evaluator("smyic")
    with pytest.raises(ConfigError, match="no evaluator 'xyz' is known; known evaluators: smiyc, fishyscapes"):
        like_evaluator("xyz")
