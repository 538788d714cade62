"""Counts against the definitions on all pixels at once, and against torchmetrics where it is installed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import jaccard_score

from oodray.metrics.id_quality import IdTally, id_quality

Image = tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.bool_]]
CLASSES = 5


def draw(seed: int) -> Image:
    """Probabilities, true classes of which class 3 never occurs, and a mask."""
    random = np.random.default_rng(seed)
    height, width = random.integers(3, 30, 2)
    logits = random.normal(size=(CLASSES, height, width)) * random.choice([0.1, 2, 60])
    logits[3] = -1e9  # never predicted either
    shares = np.exp(logits - logits.max(axis=0))
    classes = random.choice([0, 1, 2, 4, CLASSES, 255], (height, width), p=[0.3, 0.2, 0.2, 0.1, 0.1, 0.1])
    return (shares / shares.sum(axis=0)).astype(np.float32), classes, random.random((height, width)) < 0.3


IMAGES = [draw(seed) for seed in range(12)]
QUALITY = id_quality(IdTally.sum(IdTally.of(*image) for image in IMAGES))


def together(*, ood: bool = False) -> Image:
    """The labelled pixels of all images; those of OoD objects, too, with `ood`."""
    parts = []
    for shares, classes, mask in IMAGES:
        chosen = (classes < CLASSES) | (ood & (classes == CLASSES))
        parts.append((shares[:, chosen], classes[chosen], mask[chosen]))
    columns = list(zip(*parts, strict=True))
    return np.concatenate(columns[0], axis=1), np.concatenate(columns[1]), np.concatenate(columns[2])


def test_iou_is_that_of_scikit_learn_and_absent_classes_are_left_out() -> None:
    shares, classes, mask = together()
    expected = jaccard_score(classes, shares.argmax(axis=0), labels=[0, 1, 2, 4], average=None)
    assert [QUALITY.iou[place] for place in (0, 1, 2, 4)] == pytest.approx(expected)
    assert math.isnan(QUALITY.iou[3])
    assert QUALITY.miou == pytest.approx(expected.mean())
    kept = jaccard_score(classes[~mask], shares[:, ~mask].argmax(axis=0), labels=[0, 1, 2, 4], average="macro")
    assert QUALITY.miou_kept == pytest.approx(kept)


def test_in_the_open_the_mask_is_a_class_of_its_own() -> None:
    shares, classes, mask = together(ood=True)
    predicted = np.where(mask, CLASSES, shares.argmax(axis=0))
    expected = jaccard_score(classes, predicted, labels=[0, 1, 2, 4], average="macro")
    assert QUALITY.open_iou == pytest.approx(expected)


def test_calibration_is_that_of_its_definition() -> None:
    shares, classes, _ = together()
    confidence, right = shares.max(axis=0).astype(np.float64), shares.argmax(axis=0) == classes
    bins = np.digitize(shares.max(axis=0), np.linspace(0, 1, 16, dtype=np.float32))
    error = sum(
        abs(right[bins == b].mean() - confidence[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins)
    )
    assert QUALITY.ece == pytest.approx(error)
    truth = np.eye(CLASSES)[classes].T
    assert QUALITY.brier == pytest.approx(np.square(shares.astype(np.float64) - truth).sum(axis=0).mean())


def test_torchmetrics_finds_the_same() -> None:
    functional = pytest.importorskip("torchmetrics.functional.classification", reason="torchmetrics is no dependency")
    torch = pytest.importorskip("torch")
    shares, classes, _ = together()
    given = torch.from_numpy(shares.T.copy()), torch.from_numpy(classes)
    error = functional.multiclass_calibration_error(*given, num_classes=CLASSES, n_bins=15, norm="l1")
    overlap = functional.multiclass_jaccard_index(*given, num_classes=CLASSES, average="macro")
    assert QUALITY.ece == pytest.approx(float(error), abs=1e-5)
    assert QUALITY.miou == pytest.approx(float(overlap), abs=1e-6)


def test_nothing_labelled_has_no_quality() -> None:
    shares = np.full((2, 1, 1), 0.5)
    quality = id_quality(IdTally.of(shares, np.array([[255]]), np.array([[False]])))
    assert all(map(math.isnan, (quality.miou, quality.miou_kept, quality.open_iou, quality.ece, quality.brier)))
    with pytest.raises(ValueError, match="no number of classes"):
        IdTally.sum([])


@pytest.mark.parametrize("wrong", [3, -1, 254])
def test_an_unknown_class_is_refused(wrong: int) -> None:
    with pytest.raises(ValueError, match=r"within 0\.\.2"):
        IdTally.of(np.full((2, 1, 1), 0.5), np.array([[wrong]]), np.array([[False]]))
