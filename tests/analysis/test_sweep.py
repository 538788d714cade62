from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pixel_oracles import METHOD, Pixels, curve_metrics, failed_image, random_images, write_results
from sklearn.metrics import f1_score, jaccard_score, precision_score, recall_score

from oodray.analysis import sweep as job_sweep
from oodray.analysis.evaluation import evaluate_run
from oodray.analysis.sweep import Sweep, make_request, sweep_run
from oodray.errors import ConfigError, DatasetError, ResultsError
from oodray.ranges import decimal_range
from oodray.results.folder import ResultsFolder

KS = (3, 4, 6)
METHODS = replace(METHOD, ks=KS)
TAUS = decimal_range("-0.5:2.5:0.75")
OOD_RATIOS = decimal_range("0:1:0.2")


def swept(folder: ResultsFolder, *, with_mask_then_logit: bool = True) -> Sweep:
    return sweep_run(folder, make_request(folder, TAUS, OOD_RATIOS, with_mask_then_logit=with_mask_then_logit))


def equal(one: pa.Table, other: pa.Table) -> bool:
    """Bit by bit; a share of nothing is nan in both."""
    same: bool = one.to_pandas().equals(other.to_pandas())
    return same


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ResultsFolder:
    images = random_images(3, 6, METHODS)
    return write_results(tmp_path_factory.mktemp("run"), [images[:4], images[4:], [failed_image("x")]], METHODS)


def test_every_setting_is_that_of_scikit_learn_on_all_pixels(folder: ResultsFolder) -> None:
    rows = swept(folder).table.to_pylist()
    assert [(row["k"], row["tau"], row["ood_ratio"]) for row in rows] == [
        (k, tau, ood_ratio) for k in KS for tau in TAUS for ood_ratio in OOD_RATIOS
    ]
    images = random_images(3, 6, METHODS)
    for row in rows:
        method = replace(METHODS, k=row["k"], tau=row["tau"], ood_ratio=row["ood_ratio"])
        pixels = [Pixels(image, method) for image in images]
        label = np.concatenate([image.label.ravel() for image in pixels])
        marked = np.concatenate([image.mask.ravel() for image in pixels]).astype(bool)[label != 255]
        truth = label[label != 255] == 1
        for score, prefix in (("ratio", "ratio"), ("mask-then-logit", "mask_then_logit")):
            expected = curve_metrics(pixels, score)
            assert row[f"{prefix}_ap"] == pytest.approx(expected["ap"], abs=1e-9)
            assert row[f"{prefix}_fpr95"] == pytest.approx(expected["fpr95"], abs=1e-9)
        for name, metric in (("recall", recall_score), ("f1", f1_score), ("iou", jaccard_score)):
            assert row[name] == pytest.approx(metric(truth, marked), abs=1e-9)
        if marked.any():
            assert row["precision"] == pytest.approx(precision_score(truth, marked), abs=1e-9)
        else:
            assert math.isnan(row["precision"])


def test_the_setting_of_the_run_has_the_numbers_of_the_run(folder: ResultsFolder) -> None:
    evaluation = evaluate_run(folder)
    row = sweep_run(folder, make_request(folder, [METHOD.tau], [METHOD.ood_ratio], with_mask_then_logit=True))
    found = row.setting(KS.index(METHOD.k))
    scores = {metrics.score: metrics for metrics in evaluation.scores}
    ratio, logit, mask = scores["ratio"], scores["mask-then-logit"], evaluation.mask
    assert (found["ratio_ap"], found["ratio_fpr95"]) == (ratio.ap, ratio.fpr95)
    assert (found["mask_then_logit_ap"], found["mask_then_logit_fpr95"]) == (logit.ap, logit.fpr95)
    assert (found["precision"], found["recall"], found["f1"], found["iou"]) == (
        mask.precision,
        mask.recall,
        mask.f1,
        mask.iou,
    )


def test_a_sweep_has_the_columns_that_are_promised(folder: ResultsFolder) -> None:
    result = swept(folder, with_mask_then_logit=False)
    names = ["k", "tau", "ood_ratio", "ratio_ap", "ratio_fpr95", "precision", "recall", "f1", "iou"]
    assert result.table.column_names == names
    assert swept(folder).table.column_names == [*names, "mask_then_logit_ap", "mask_then_logit_fpr95"]


def test_a_run_of_one_k_is_swept_alone(tmp_path: Path) -> None:
    result = swept(write_results(tmp_path, [random_images(1, 2)]))
    assert set(result.table["k"].to_pylist()) == {METHOD.k}


@pytest.mark.soak
def test_parallel_is_the_same(folder: ResultsFolder, ray_session: None, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = swept(folder)
    monkeypatch.setattr(job_sweep, "FILES_PER_TASK", 1)
    monkeypatch.setattr(job_sweep, "TAUS_PER_TASK", 2)
    assert equal(swept(folder).table, alone.table)


def test_an_image_that_is_there_twice_counts_once(folder: ResultsFolder, tmp_path: Path) -> None:
    images = random_images(3, 6, METHODS)
    twice = write_results(tmp_path, [images[:4], images[2:], images[:1]], METHODS)
    assert equal(swept(twice).table, swept(folder).table)


def test_coarse_tallies_say_which_tau_was_used(tmp_path: Path) -> None:
    method = replace(METHODS, confidence_bits=8)
    exact, coarse = (
        write_results(tmp_path / str(m.confidence_bits), [random_images(3, 6, m)], m) for m in (METHODS, method)
    )
    taus = [1.0, 1.06, 1.5]  # edges of 8 bits are 1, 1.25 and 1.5 among these
    found = sweep_run(coarse, make_request(coarse, taus, [0.3])).table
    assert found["tau"].to_pylist()[:3] == taus
    assert found["tau_used"].to_pylist()[:3] == [1.0, 1.0, 1.5]
    expected = sweep_run(exact, make_request(exact, [1.0, 1.5], [0.3])).table
    assert found["ratio_ap"].to_pylist()[:3:2] == expected["ratio_ap"].to_pylist()[:2]


@pytest.mark.parametrize("label", [None, 0])
def test_without_ood_there_is_nothing_to_choose_by(tmp_path: Path, label: int | None) -> None:
    images = [
        replace(image, label=None if label is None else np.full(image.size, label, np.uint8))
        for image in random_images(1, 2)
    ]
    result = swept(write_results(tmp_path, [images]))
    assert not result.finds_any
    if label is None:
        assert result.best(10) == []
    with pytest.raises(DatasetError, match="nothing to choose"):
        result.chosen()


def test_the_best_are_peaks(folder: ResultsFolder) -> None:
    result = swept(folder)
    f1 = result.table["f1"].to_numpy()
    best = result.best(10)
    assert f1[best[0]] == f1.max() == f1[result.chosen()]
    assert list(f1[best]) == sorted(f1[best], reverse=True)
    shape = result.request.shape
    for row in best:
        k, tau, ratio = np.unravel_index(row, shape)
        around = f1.reshape(shape)[k, max(tau - 1, 0) : tau + 2, max(ratio - 1, 0) : ratio + 2]
        assert f1[row] == around.max()


@pytest.mark.parametrize(
    ("ood_ratios", "message"), [([1.5], "T is a share from 0 to 1"), ([0.1234567891], "more than 8 decimals")]
)
def test_a_wrong_grid_is_refused(folder: ResultsFolder, ood_ratios: list[float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_request(folder, TAUS, ood_ratios)


def test_a_grid_that_is_too_large_is_refused(folder: ResultsFolder) -> None:
    with pytest.raises(ConfigError, match="are more than a sweep takes"):
        make_request(folder, list(range(100_000)), [index / 1000 for index in range(1001)])


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="no results yet"):
        swept(write_results(tmp_path, []))
