from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score
from test_evaluation import SCORES, Part, pixels

from oodray.metrics import bootstrap
from oodray.metrics.bootstrap import ImageCounts, resampled, with_intervals
from oodray.metrics.by_image import evaluate_images, seen
from oodray.metrics.conventions import DEFAULT, Convention, measure_curve
from oodray.metrics.curve import Curve
from oodray.metrics.frames import Frame

PARTS = [Part(seed) for seed in range(8)]
IMAGES = [part.totals for part in PARTS]


@pytest.mark.parametrize("score", SCORES)
def test_a_drawn_dataset_is_measured_as_its_pixels_are(score: str) -> None:
    values = resampled(IMAGES, score, DEFAULT, resamples=20, seed=3)
    # The same draws, written out: an image that is drawn twice has its pixels twice.
    draws = np.random.default_rng(3).multinomial(len(PARTS), np.full(len(PARTS), 1 / len(PARTS)), 20)
    for value, draw in zip(values, draws, strict=True):
        drawn = [part for part, times in zip(PARTS, draw, strict=True) for _ in range(times)]
        ood, ranks = pixels(drawn, score)
        assert value[0] == pytest.approx(average_precision_score(ood, ranks), abs=1e-12)
        assert value[2] == pytest.approx(roc_auc_score(ood, ranks), abs=1e-12)


@pytest.mark.parametrize("score", SCORES)
def test_every_image_once_is_the_dataset_itself(score: str) -> None:
    ood, ind = ImageCounts.of([seen(image, score, DEFAULT, levels=False) for image in IMAGES]).pooled(
        np.ones((1, len(IMAGES)))
    )
    whole, ranks = pixels(PARTS, score)
    assert ood.sum() == whole.sum()
    assert ind.sum() == (~whole).sum()
    assert average_precision_score(whole, ranks) == pytest.approx(
        evaluate_images(IMAGES, [score], DEFAULT)[0].ap, abs=1e-12
    )


@pytest.mark.parametrize("pooling", ["dataset", "image"])
def test_intervals_hold_the_value_and_repeat(pooling: str) -> None:
    convention = Convention(pooling=pooling, lacking="drop")  # type: ignore[arg-type]
    [metrics] = evaluate_images(IMAGES, ["energy"], convention)
    found = with_intervals(metrics, IMAGES, convention, 200)
    assert found.ap_low is not None
    assert found.ap_high is not None
    assert found.ap_low < metrics.ap < found.ap_high
    assert found == with_intervals(metrics, IMAGES, convention, 200)


def test_one_image_has_no_interval() -> None:
    [metrics] = evaluate_images(IMAGES[:1], ["energy"], DEFAULT)
    assert with_intervals(metrics, IMAGES[:1], DEFAULT, 50) == metrics


def test_ranks_beyond_the_most_are_joined_by_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """OoD pixels are rare, and all scores distinct, as in a float32 map."""
    most = 500
    monkeypatch.setattr(bootstrap, "MOST_RANKS", most)
    random = np.random.default_rng(0)
    scores = random.normal(size=30_000)
    is_ood = random.random(30_000) < 0.01
    scores[is_ood] += 1.5
    frame = Frame(scores, is_ood.astype(np.int64), (~is_ood).astype(np.int64))
    counts = ImageCounts.of([frame])
    ood, ind = (totals[0] for totals in counts.pooled(np.ones((1, 1))))
    assert (ood.sum(), ind.sum()) == (is_ood.sum(), (~is_ood).sum())
    assert len(ood) <= most
    assert ood.max() / is_ood.sum() <= 2 / most + 1 / is_ood.sum()
    assert ind.max() / (~is_ood).sum() <= 2 / most + 1 / is_ood.sum()
    measures = measure_curve(Curve.of(ood, ind), DEFAULT)
    assert measures.ap == pytest.approx(average_precision_score(is_ood, scores), abs=0.01)
    assert measures.auroc == pytest.approx(roc_auc_score(is_ood, scores), abs=1e-3)
