from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from pixel_oracles import METHOD, Pixels, curve_metrics, failed_image, random_images, write_results
from places import on_disk
from sklearn.metrics import f1_score, jaccard_score, precision_score, recall_score

from oodray.analysis import totals as job_totals
from oodray.analysis.evaluation import evaluate_run
from oodray.analysis.files import CountedFiles
from oodray.analysis.totals import total, total_here
from oodray.errors import DatasetError, ResultsError
from oodray.job.units import SegmentedImage
from oodray.method.rule import Rule
from oodray.metrics.conventions import DEFAULT, Convention
from oodray.metrics.evaluation import Totals
from oodray.metrics.evaluators import LIKE
from oodray.results.folder import ResultsFolder
from oodray.results.parts import write_part
from oodray.scores.registry import DEFAULT_SCORES as SCORES

RULE = Rule(METHOD.k, METHOD.tau, METHOD.ood_ratio)


def split(images: Sequence[SegmentedImage], *sizes: int) -> list[list[SegmentedImage]]:
    ends = np.cumsum(sizes)
    return [list(images[end - size : end]) for end, size in zip(ends, sizes, strict=True)]


def everything(folder: ResultsFolder) -> dict[str, object]:
    """What all files of a folder hold together."""
    return plain(total(CountedFiles.of(folder), RULE, on_ray=True))


def plain(totals: Totals) -> dict[str, object]:
    """Totals as values that can be compared; the order of clusters says nothing."""
    tallies = {"inside": totals.inside, "outside": totals.outside}
    return {
        "images": (totals.images, totals.failed),
        "clusters": sorted(totals.clusters.T.tolist()),
        "scores": {name: (t.keys.tolist(), t.ood.tolist(), t.ind.tolist()) for name, t in totals.scores.items()},
        "tallies": {name: (t.keys.tolist(), t.labels.tolist(), t.counts.tolist()) for name, t in tallies.items()},
    }


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("ood_ratio", [0.0, 0.3, 1.0])
def test_every_score_is_that_of_scikit_learn_on_all_pixels(tmp_path: Path, seed: int, ood_ratio: float) -> None:
    method = replace(METHOD, ood_ratio=ood_ratio, ks=(3, 4, 7))
    images = random_images(seed, 8, method)
    folder = write_results(tmp_path, [*split(images, 3, 4, 1), [failed_image("x")]], method)
    evaluation = evaluate_run(folder)
    pixels = [Pixels(image, method) for image in images]

    assert (evaluation.images, evaluation.failed) == (8, 1)
    assert [metrics.score for metrics in evaluation.scores] == list(SCORES)
    for metrics in evaluation.scores:
        found = {name: getattr(metrics, name) for name in ("ap", "fpr95", "auroc")}
        assert found == pytest.approx(curve_metrics(pixels, metrics.score), abs=1e-9)
        assert metrics.pixels_ood == sum(int((p.label == 1).sum()) for p in pixels)
        assert metrics.pixels_id == sum(int((p.label == 0).sum()) for p in pixels)


@pytest.mark.parametrize("ood_ratio", [0.3, 0.5])
def test_the_mask_is_judged_as_scikit_learn_does(tmp_path: Path, ood_ratio: float) -> None:
    method = replace(METHOD, ood_ratio=ood_ratio)
    images = random_images(9, 6, method)
    mask = evaluate_run(write_results(tmp_path, [images], method)).mask
    pixels = [Pixels(image, method) for image in images]
    label = np.concatenate([p.label.ravel() for p in pixels])
    marked = np.concatenate([p.mask.ravel() for p in pixels]).astype(bool)[label != 255]
    ood = label[label != 255] == 1
    assert mask.precision == pytest.approx(precision_score(ood, marked), abs=1e-12)
    assert mask.recall == pytest.approx(recall_score(ood, marked), abs=1e-12)
    assert mask.f1 == pytest.approx(f1_score(ood, marked), abs=1e-12)
    assert mask.iou == pytest.approx(jaccard_score(ood, marked), abs=1e-12)
    assert mask.fpr == pytest.approx(marked[~ood].mean(), abs=1e-12)


def test_how_images_are_split_into_files_does_not_matter(tmp_path: Path) -> None:
    images = [*random_images(2, 9), failed_image("x")]
    totals = []
    for index, sizes in enumerate([(10,), (1,) * 10, (4, 5, 1), (1, 8, 1)]):
        folder = write_results(tmp_path / str(index), split(images, *sizes))
        totals.append(plain(total_here(CountedFiles(folder.parts()), RULE)))
        totals.append(plain(total_here(CountedFiles(folder.parts()[::-1]), RULE)))
    assert all(total == totals[0] for total in totals)
    assert totals[0]["images"] == (9, 1)


def test_what_is_written_is_what_is_returned(tmp_path: Path) -> None:
    folder = write_results(tmp_path, [random_images(0, 3)])
    evaluation = evaluate_run(folder)
    assert json.loads(folder.metrics_json.read_text()) == json.loads(json.dumps(asdict(evaluation)))
    rows = pq.read_table(str(folder.metrics)).to_pylist()
    assert rows == [asdict(metrics) | asdict(RULE) | {"tau_used": RULE.tau} for metrics in evaluation.scores]
    assert rows[0].keys() >= {"score", "ap", "fpr95", "auroc", "pooling", "tie_rule", "fpr95_rule", "ap_rule"}
    first = folder.metrics.read_bytes(), folder.metrics_json.read_bytes()
    evaluate_run(folder)
    assert (folder.metrics.read_bytes(), folder.metrics_json.read_bytes()) == first


def test_only_the_scores_of_the_run_are_evaluated(tmp_path: Path) -> None:
    folder = write_results(tmp_path, [random_images(0, 3, replace(METHOD, scores=("msp",)))])
    run = folder.read_run()
    folder.write_run(run | {"config": run["config"] | {"scores": ["ratio", "msp"]}})
    assert [metrics.score for metrics in evaluate_run(folder).scores] == ["ratio", "msp"]


@pytest.mark.parametrize("label", [None, 0, 1, 255])
def test_where_a_class_is_missing_the_metrics_are_nan(tmp_path: Path, label: int | None) -> None:
    images = [
        replace(image, label=None if label is None else np.full(image.size, label, np.uint8))
        for image in random_images(0, 3)
    ]
    folder = write_results(tmp_path, [images])
    evaluation = evaluate_run(folder)
    assert evaluation.images == 3
    for metrics in evaluation.scores:
        assert all(map(math.isnan, (metrics.ap, metrics.fpr95, metrics.auroc)))
    assert "NaN" not in folder.metrics_json.read_text()


def test_where_every_image_failed_there_are_no_scores(tmp_path: Path) -> None:
    evaluation = evaluate_run(write_results(tmp_path, [[failed_image("a"), failed_image("b")]]))
    assert (evaluation.images, evaluation.failed, evaluation.scores) == (0, 2, [])


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="holds no results yet; run `oodray run`"):
        evaluate_run(write_results(tmp_path, []))
    with pytest.raises(ResultsError, match="not a results folder"):
        evaluate_run(ResultsFolder(tmp_path / "none"))


def test_ray_tasks_find_the_same(tmp_path: Path, ray_session: None, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_results(tmp_path, [[image] for image in random_images(2, 5)])
    alone = evaluate_run(folder)
    monkeypatch.setattr(job_totals, "FILES_PER_TASK", 2)
    assert evaluate_run(folder) == alone

    on_disk(folder.part(3)).write_bytes(b"damaged")
    with pytest.raises(ResultsError) as caught:
        evaluate_run(folder)
    assert str(caught.value).startswith(f"cannot read {folder.part(3)}: ")
    assert "Traceback" not in str(caught.value)


def test_an_empty_file_counts_nothing(tmp_path: Path) -> None:
    folder = ResultsFolder(tmp_path)
    write_part(folder, 0, [])
    totals = total_here(CountedFiles(folder.parts()), RULE)
    assert (totals.images, totals.failed, totals.clusters.shape, dict(totals.scores)) == (0, 0, (4, 0), {})


def test_an_image_that_is_there_twice_counts_once(tmp_path: Path) -> None:
    images = random_images(4, 5)
    once = write_results(tmp_path / "once", [images])
    twice = write_results(tmp_path / "twice", [images[:3], images[2:], images[:1], [images[4], images[4]]])
    assert everything(twice) == everything(once)


@pytest.mark.soak
def test_files_are_added_up_in_a_tree(tmp_path: Path, ray_session: None, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_results(tmp_path, [[image] for image in random_images(5, 9)])
    alone = everything(folder)
    monkeypatch.setattr(job_totals, "FILES_PER_TASK", 1)
    monkeypatch.setattr(job_totals, "MERGED_AT_ONCE", 2)
    assert everything(folder) == alone


@pytest.mark.parametrize("score", SCORES)
def test_a_mean_over_images_is_the_mean_of_scikit_learns(tmp_path: Path, score: str) -> None:
    images = random_images(6, 5)
    convention = Convention(pooling="image")
    evaluation = evaluate_run(write_results(tmp_path, [images]), [convention])
    expected = [curve_metrics([Pixels(image, METHOD)], score) for image in images]
    [metrics] = [metrics for metrics in evaluation.of(convention) if metrics.score == score]
    for name in ("ap", "fpr95", "auroc"):
        assert getattr(metrics, name) == pytest.approx(np.mean([row[name] for row in expected]), abs=1e-9)


def test_images_that_lack_a_class_are_kept_dropped_or_refused(tmp_path: Path) -> None:
    images = random_images(7, 4)
    images[1] = replace(images[1], label=np.zeros(images[1].size, np.uint8))  # nothing OoD
    folder = write_results(tmp_path, [images])
    kept, dropped = (Convention(pooling="image", lacking=lacking) for lacking in ("keep", "drop"))
    pooled = Convention(lacking="drop")
    evaluation = evaluate_run(folder, [kept, dropped, pooled])
    assert all(math.isnan(metrics.ap) for metrics in evaluation.of(kept))
    others = [Pixels(image, METHOD) for image in (images[0], *images[2:])]
    by_image = [curve_metrics([image], "energy")["ap"] for image in others]
    found = {metrics.score: metrics.ap for metrics in evaluation.of(dropped)}
    assert found["energy"] == pytest.approx(np.mean(by_image), abs=1e-9)
    found = {metrics.score: metrics.ap for metrics in evaluation.of(pooled)}
    assert found["energy"] == pytest.approx(curve_metrics(others, "energy")["ap"], abs=1e-9)
    with pytest.raises(DatasetError, match="1 of 4 images lack"):
        evaluate_run(folder, [Convention(lacking="refuse")])


def test_more_rows_come_only_when_asked_for(tmp_path: Path) -> None:
    folder = write_results(tmp_path, [random_images(8, 4)])
    assert len(evaluate_run(folder).scores) == len(SCORES)
    evaluation = evaluate_run(folder, [LIKE["pebal"], DEFAULT], resamples=20)
    rows = pq.read_table(str(folder.metrics)).to_pylist()
    assert [row["like"] for row in rows] == [None] * len(SCORES) + ["pebal"] * len(SCORES)
    assert {row["fpr95_rule"] for row in rows} == {"first TPR >= 0.95", "TPR nearest 0.95, the last of several"}
    for metrics in evaluation.scores:
        assert metrics.ap_low is not None
        assert metrics.ap_high is not None
        assert metrics.ap_low <= metrics.ap <= metrics.ap_high
