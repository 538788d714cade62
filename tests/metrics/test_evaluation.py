from __future__ import annotations

import math
import pickle
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from oodray.metrics.evaluation import ScoreMetrics, Totals, evaluate
from oodray.metrics.score_counts import ScoreCounts
from oodray.metrics.tally import IGNORE, IN_DISTRIBUTION, OOD, Tally, score_keys

SCORES = ("ratio", "mask-then-logit", "energy")


class Part:
    """Random pixels of some images, and their totals by the definition of each count."""

    def __init__(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        pixels = int(random.integers(1, 60))
        self.labels = random.choice([IN_DISTRIBUTION, OOD, IGNORE], pixels).astype(np.uint8)
        self.confidence = (random.integers(-3, 4, pixels) / 2).astype(np.float16)
        self.energy = (random.integers(-3, 4, pixels) / 2).astype(np.float16)
        self.cluster = random.integers(0, 4, pixels)
        self.unsure = self.confidence < 0.25
        self.mask = self.cluster == 2
        keys = score_keys(self.confidence)
        self.totals = Totals(
            images=1,
            failed=int(random.integers(0, 2)),
            scores={"energy": ScoreCounts.of_tally(Tally.of(score_keys(self.energy), self.labels))},
            inside=Tally.of(keys[self.mask], self.labels[self.mask]),
            outside=Tally.of(keys[~self.mask], self.labels[~self.mask]),
            clusters=np.array([self._cluster(c) for c in np.unique(self.cluster)], np.int64).T,
        )

    def _cluster(self, cluster: int) -> list[int]:
        inside = self.cluster == cluster
        labels = self.labels[inside]
        counts = (
            self.unsure[inside].sum(),
            inside.sum(),
            (labels == OOD).sum(),
            (labels == IN_DISTRIBUTION).sum(),
        )
        return [int(count) for count in counts]

    def values(self, score: str) -> list[Fraction | float]:
        """A number per pixel that ranks it."""
        if score == "energy":
            return [float(value) for value in self.energy]
        if score == "mask-then-logit":
            confidence = self.confidence.astype(float)
            return [float(value) for value in np.where(self.mask, 1e6, 0) - confidence]
        shares = {c: self._cluster(c)[:2] for c in np.unique(self.cluster)}
        return [Fraction(*shares[cluster]) for cluster in self.cluster]


def pixels(parts: list[Part], score: str) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Of all labelled pixels: whether each is OoD, and its rank among all values."""
    labels = np.concatenate([part.labels for part in parts])
    values = [value for part in parts for value in part.values(score)]
    ranks = {value: rank for rank, value in enumerate(sorted(set(values)))}
    labelled = labels != IGNORE
    return labels[labelled] == OOD, np.array([ranks[value] for value in values])[labelled]


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=6))
def test_metrics_are_those_of_scikit_learn_on_all_pixels(seeds: list[int]) -> None:
    parts = [Part(seed) for seed in seeds]
    found = evaluate(Totals.sum(part.totals for part in parts), SCORES)
    assert [metrics.score for metrics in found] == list(SCORES)
    for metrics in found:
        ood, ranks = pixels(parts, metrics.score)
        assert (metrics.pixels_ood, metrics.pixels_id) == (ood.sum(), (~ood).sum())
        if ood.all() or not ood.any():
            assert all(map(math.isnan, (metrics.ap, metrics.fpr95, metrics.auroc)))
            continue
        fpr, tpr, _ = roc_curve(ood, ranks, drop_intermediate=False)
        assert metrics.ap == pytest.approx(average_precision_score(ood, ranks), abs=1e-12)
        assert metrics.fpr95 == pytest.approx(fpr[np.argmax(tpr >= 0.95)], abs=1e-12)
        assert metrics.auroc == pytest.approx(roc_auc_score(ood, ranks), abs=1e-12)


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=6))
def test_the_mask_is_counted_over_all_pixels(seeds: list[int]) -> None:
    parts = [Part(seed) for seed in seeds]
    mask = np.concatenate([part.mask for part in parts])
    labels = np.concatenate([part.labels for part in parts])
    found = Totals.sum(part.totals for part in parts).mask()
    hits = int((mask & (labels == OOD)).sum())
    for value, whole in (
        (found.precision, (mask & (labels != IGNORE)).sum()),
        (found.recall, (labels == OOD).sum()),
        (found.iou, ((mask & (labels != IGNORE)) | (labels == OOD)).sum()),
    ):
        assert value == pytest.approx(hits / whole) if whole else math.isnan(value)


@given(st.permutations(range(5)), st.integers(0, 5))
def test_totals_add_up_in_any_order_and_grouping(order: list[int], cut: int) -> None:
    parts = [Part(seed).totals for seed in range(5)]
    together = Totals.sum(parts)
    shuffled = [parts[index] for index in order]
    grouped = Totals.sum([Totals.sum(shuffled[:cut]), Totals.sum(shuffled[cut:])])
    assert (grouped.images, grouped.failed) == (together.images, together.failed)
    assert (grouped.inside, grouped.outside) == (together.inside, together.outside)
    assert grouped.scores == together.scores
    assert sorted(grouped.clusters.T.tolist()) == sorted(together.clusters.T.tolist())
    assert str(evaluate(grouped, SCORES)) == str(evaluate(together, SCORES))


def test_the_total_of_nothing() -> None:
    nothing = Totals.sum([])
    assert (nothing.images, nothing.failed, dict(nothing.scores)) == (0, 0, {})
    assert nothing.clusters.shape == (4, 0)
    assert math.isnan(nothing.mask().precision)
    for metrics in evaluate(nothing, ("ratio", "mask-then-logit")):
        assert (metrics.pixels_id, metrics.pixels_ood) == (0, 0)
        assert math.isnan(metrics.ap)


def test_a_part_without_a_score_adds_nothing_to_it() -> None:
    part = Part(3).totals
    total = Totals.sum([Totals(failed=2), part, Totals()])
    assert total.scores == part.scores
    assert (total.images, total.failed) == (1, 2 + part.failed)


def test_a_score_that_was_not_counted_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(KeyError, match="entropy"):
        evaluate(Part(0).totals, ["entropy"])


def test_every_number_says_how_it_was_found() -> None:
    [metrics] = evaluate(Part(0).totals, ["ratio"])
    assert isinstance(metrics, ScoreMetrics)
    assert (metrics.pooling, metrics.ap_rule) == ("dataset", "step")
    assert (metrics.fpr95_rule, metrics.tie_rule) == ("first TPR >= 0.95", "equal scores share one threshold")


def test_totals_travel_between_processes() -> None:
    part = Part(1).totals
    again = pickle.loads(pickle.dumps(part))
    assert again.scores == part.scores
    assert again.clusters.tolist() == part.clusters.tolist()


def test_equal_ratios_of_different_clusters_share_one_threshold() -> None:
    # 1/3 of an image's cluster and 2/6 of another's: were they two thresholds, AP would be 1.
    clusters = np.array([[1, 3, 3, 0], [2, 6, 0, 6]], np.int64).T
    [metrics] = evaluate(Totals(images=2, clusters=clusters), ["ratio"])
    assert metrics.ap == pytest.approx(3 / 9)
    assert metrics.fpr95 == 1.0
    assert metrics.auroc == 0.5
