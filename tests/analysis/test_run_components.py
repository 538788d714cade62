"""Regions of a run: maps from masks, from clusters and from imported files, thresholds from the curve."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from oodray.analysis.components import evaluate_components, track_of
from oodray.analysis.evaluation import measure_run
from oodray.analysis.mapped_run import MappedRun
from oodray.datasets.layouts import LAYOUTS
from oodray.errors import DatasetError, ImageError
from oodray.job.imported_maps import Reading, imported_maps
from oodray.job.importing import import_scores, make_import
from oodray.metrics.components import ALARM, OBJECT, Limits, find_components, summarize
from oodray.metrics.evaluators import LIKE
from oodray.results.folder import ResultsFolder
from oodray.results.reading import read_results

LIMITS = Limits(alarm=4, object=2)


def labels_of(root: Path) -> dict[str, NDArray[np.uint8]]:
    labels = {}
    for path in sorted((root / "annotations").iterdir()):
        codes = np.asarray(Image.open(path))
        labels[f"images/{path.name[:2]}"] = np.where(codes == 255, 255, codes == 1).astype(np.uint8)
    return labels


@pytest.fixture
def imported(tiny_dataset: Path, tmp_path: Path) -> tuple[ResultsFolder, dict[str, NDArray[np.float32]]]:
    random = np.random.default_rng(1)
    maps = {}
    (tmp_path / "mine").mkdir()
    for name, labels in labels_of(tiny_dataset).items():
        maps[name] = (random.normal(size=labels.shape) + 3 * (labels == 1)).astype(np.float32)
        np.save(tmp_path / "mine" / f"{name[-2:]}.npy", -maps[name])
    folder = ResultsFolder(tmp_path / "out")
    request = make_import("ade-ood", tiny_dataset, tmp_path / "mine", score=None, reading=Reading(negate=True))
    import_scores(request, folder, lambda _: None)
    return folder, maps


def above(scores: NDArray[Any], threshold: float) -> NDArray[np.bool_]:
    """Scores are rounded to float16, the threshold is not: numpy before 2 would, did the array stay float16."""
    return np.asarray(scores.astype(np.float16).astype(np.float64) > threshold)


def by_hand(maps: dict[str, Any], root: Path, threshold: float) -> list[Any]:
    labels = labels_of(root)
    return [
        component
        for name, scores in maps.items()
        for component in find_components(above(scores, threshold), labels[name], LIMITS)
    ]


def test_imported_maps_are_read_again_at_the_threshold_of_the_curve(
    imported: tuple[ResultsFolder, dict[str, NDArray[np.float32]]], tiny_dataset: Path
) -> None:
    folder, maps = imported
    report = evaluate_components(MappedRun.of(folder, read_map=imported_maps(folder)), LIMITS)
    [smiyc] = measure_run(folder, [LIKE["smiyc"]]).of(LIKE["smiyc"])
    [judged] = report.judged
    assert judged.score == "mine"
    assert judged.threshold == smiyc.best_f1_threshold
    assert judged.threshold is not None
    expected = by_hand(maps, tiny_dataset, judged.threshold)
    assert judged.metrics == summarize(expected, 10)
    rows = pq.read_table(str(folder.components)).to_pylist()
    assert [(row["size"], row["top"], row["right"]) for row in rows] == [(c.size, c.top, c.right) for c in expected]
    assert {row["kind"] for row in rows} == {OBJECT, ALARM}
    assert all((row["siou"] is None) == (row["kind"] == ALARM) for row in rows)
    [summary] = pq.read_table(str(folder.components_summary)).to_pylist()
    assert summary["f1_star"] == pytest.approx(np.mean([summary[f"f1_{level}"] for level in range(25, 80, 5)]))
    assert list(summary)[:8] == ["score", "threshold", "siou", "ppv", "f1_star", "tp_mean", "fn_mean", "fp_mean"]


def test_a_threshold_of_ones_own(
    imported: tuple[ResultsFolder, dict[str, NDArray[np.float32]]], tiny_dataset: Path
) -> None:
    folder, maps = imported
    [judged] = evaluate_components(MappedRun.of(folder, 2.5, imported_maps(folder)), LIMITS).judged
    assert judged.threshold == 2.5
    assert judged.metrics == summarize(by_hand(maps, tiny_dataset, 2.5), 10)


def test_a_threshold_is_not_rounded_to_float16(
    imported: tuple[ResultsFolder, dict[str, NDArray[np.float32]]], tiny_dataset: Path
) -> None:
    folder, maps = imported
    on_objects = np.concatenate([maps[name][labels == 1] for name, labels in labels_of(tiny_dataset).items()])
    rounded = sorted(on_objects.astype(np.float16).tolist())
    score = rounded[len(rounded) // 2]
    below = score - 1e-5  # the nearest float16 of which is the score
    [judged] = evaluate_components(MappedRun.of(folder, below, imported_maps(folder)), LIMITS).judged
    assert judged.metrics == summarize(by_hand(maps, tiny_dataset, below), 10)
    assert judged.metrics != summarize(by_hand(maps, tiny_dataset, score), 10)


def test_maps_that_are_gone_are_an_error(
    imported: tuple[ResultsFolder, dict[str, NDArray[np.float32]]], tmp_path: Path
) -> None:
    folder, _ = imported
    (tmp_path / "mine" / "03.npy").unlink()
    with pytest.raises(ImageError, match="no score map below"):
        evaluate_components(MappedRun.of(folder, read_map=imported_maps(folder)), LIMITS)
    for path in (tmp_path / "mine").iterdir():
        path.unlink()
    with pytest.raises(DatasetError, match="no score map below"):
        imported_maps(folder)


def test_a_run_has_its_mask_and_its_ratio(undisturbed: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    import shutil

    folder = ResultsFolder(shutil.copytree(undisturbed, tmp_path / "run"))
    report = evaluate_components(MappedRun.of(folder), LIMITS, on_ray=False)
    assert [judged.score for judged in report.judged] == ["mask", "ratio"]
    assert set(report.left_out) == {"max-logit", "msp", "entropy", "energy"} & set(report.left_out)
    mask, ratio = report.judged
    assert mask.threshold is None
    assert ratio.threshold is not None
    rows = read_results(str(folder.path)).set_index("image_id")
    masks = {name: np.asarray(Image.open(_file(rows.mask_png[name]))) / 255 for name in rows.index}
    labels = {name: value for name, value in labels_of(tiny_dataset).items() if name in rows.index}
    assert mask.metrics == summarize(
        [c for name in masks for c in find_components(masks[name] > 0, labels[name], LIMITS)], len(masks)
    )
    # At a threshold of T the map of `ratio` is the mask: T has a float16 here.
    at_t = replace_threshold(folder, 0.5)
    whole = evaluate_components(MappedRun.of(folder, 0.5), LIMITS, on_ray=False).judged[1]
    assert whole.metrics == summarize(at_t(rows, labels), len(masks))


def replace_threshold(folder: ResultsFolder, threshold: float) -> Any:
    k = folder.clustering_rule().k

    def components(rows: Any, labels: dict[str, NDArray[np.uint8]]) -> list[Any]:
        found = []
        for name in rows.index:
            ids = np.asarray(Image.open(_file(rows.clusters_png[name])))
            ratios = {c["cluster"]: c["ratio"] for c in rows.clusters[name] if c["k"] == k}
            called = np.isin(
                ids, [cluster for cluster, ratio in ratios.items() if float(np.float16(ratio)) > threshold]
            )
            found += find_components(called, labels[name], LIMITS)
        return found

    return components


def _file(data: bytes) -> Any:
    import io

    return io.BytesIO(data)


def test_limits_decide_what_counts(imported: tuple[ResultsFolder, dict[str, NDArray[np.float32]]]) -> None:
    folder, _ = imported
    maps = imported_maps(folder)
    few = evaluate_components(MappedRun.of(folder, read_map=maps), replace(LIMITS, alarm=500)).judged[0].metrics
    many = evaluate_components(MappedRun.of(folder, read_map=maps), replace(LIMITS, alarm=1)).judged[0].metrics
    assert few.fp_mean < many.fp_mean


def test_kept_maps_are_judged_as_the_maps_that_they_are(tiny_dataset: Path, tmp_path: Path) -> None:
    import oodray

    run = oodray.run(
        dataset="ade-ood",
        root=str(tiny_dataset),
        model="internimage-n-demo",
        scores="ratio,energy,msp",
        keep_maps=("energy",),
        executor="local",
        out=tmp_path / "out",
        progress=False,
    )
    folder = ResultsFolder(tmp_path / "out")
    report = evaluate_components(MappedRun.of(folder), LIMITS, on_ray=False)
    assert [judged.score for judged in report.judged] == ["mask", "ratio", "energy"]
    assert report.left_out == ["msp"]
    energy = report.judged[2]
    assert energy.threshold is not None
    labels = labels_of(tiny_dataset)
    expected = [
        component
        for name in run.images["image_id"]
        for component in find_components(above(run.score_map(name, "energy"), energy.threshold), labels[name], LIMITS)
    ]
    assert energy.metrics == summarize(expected, 10)


@pytest.mark.parametrize("dataset", LAYOUTS)
def test_a_dataset_has_the_track_of_its_benchmark(dataset: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"identity": {}, "config": {"dataset": dataset}}))
    obstacles = {"road-obstacle-21", "lost-and-found", "small-obstacle"}
    expected = "issu" if dataset.startswith("issu") else "obstacle" if dataset in obstacles else "anomaly"
    assert track_of(ResultsFolder(tmp_path)) == expected
