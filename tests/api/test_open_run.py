from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from places import on_disk
from runs import in_parts

import oodray
from oodray.analysis.evaluation import evaluate_run
from oodray.api.run import Run, open_run
from oodray.errors import ConfigError, ResultsError
from oodray.metrics.conventions import make_convention
from oodray.metrics.evaluators import LIKE
from oodray.results.folder import ResultsFolder

IMAGE = "images/03"


@pytest.fixture
def opened(undisturbed: Path) -> Run:
    return open_run(undisturbed)


@pytest.fixture
def copied(undisturbed: Path, tmp_path: Path) -> ResultsFolder:
    """A copy of a finished run, to spoil."""
    return ResultsFolder(shutil.copytree(undisturbed, tmp_path / "copy"))


def stored(out: Path, image_id: str, column: str) -> Any:
    frame = pd.read_parquet(out / "results")
    return frame.loc[frame["image_id"] == image_id, column].item()


def state(out: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in out.rglob("*")}


class TestTables:
    def test_images_are_the_rows_of_the_files(self, opened: Run, undisturbed: Path) -> None:
        pd.testing.assert_frame_equal(opened.images, pd.read_parquet(undisturbed / "results"))
        assert opened.images["image_id"].tolist() == [f"images/{index:02}" for index in range(10)]
        assert opened.images is opened.images

    def test_clusters_make_the_masks(self, opened: Run) -> None:
        clusters = opened.clusters
        of_image = clusters[(clusters["image_id"] == IMAGE) & (clusters["k"] == 6)]
        ids = opened.cluster_map(IMAGE)
        assert dict(zip(of_image["cluster"], of_image["pixels"], strict=True)) == dict(
            zip(*np.unique(ids, return_counts=True), strict=True)
        )
        ood = of_image.loc[of_image["ood"], "cluster"]
        assert 0 < len(ood) < len(of_image)
        assert np.array_equal(opened.mask(IMAGE), np.where(np.isin(ids, ood), 255, 0))

    def test_metrics_are_those_that_the_run_wrote(self, opened: Run, undisturbed: Path) -> None:
        pd.testing.assert_frame_equal(opened.metrics, pd.read_parquet(undisturbed / "metrics.parquet"))

    def test_metrics_that_are_not_there_are_computed(self, copied: ResultsFolder, undisturbed: Path) -> None:
        copied.metrics.unlink()
        pd.testing.assert_frame_equal(
            open_run(on_disk(copied.path)).metrics, pd.read_parquet(undisturbed / "metrics.parquet")
        )
        assert not copied.metrics.exists()

    def test_metrics_are_those_of_the_default_convention(self, opened: Run, copied: ResultsFolder) -> None:
        evaluate_run(copied, [LIKE["pebal"], make_convention({"fpr_rule": ">"})])
        assert len(pd.read_parquet(str(copied.metrics))) == 3 * len(opened.metrics)
        pd.testing.assert_frame_equal(open_run(on_disk(copied.path)).metrics, opened.metrics)

    def test_metrics_that_are_damaged_are_named(self, copied: ResultsFolder) -> None:
        on_disk(copied.metrics).write_bytes(b"PAR1")
        with pytest.raises(ResultsError, match=r"cannot read .*metrics.parquet: .* `oodray evaluate .*` writes it"):
            _ = open_run(on_disk(copied.path)).metrics

    def test_the_mask_is_measured_too(self, opened: Run, undisturbed: Path) -> None:
        mask = json.loads((undisturbed / "metrics.json").read_text())["mask"]
        assert opened.evaluation.mask.f1 == mask["f1"]
        assert opened.evaluation.images == 10


class TestPictures:
    @pytest.mark.parametrize(("read", "column"), [(Run.mask, "mask_png"), (Run.cluster_map, "clusters_png")])
    def test_they_are_the_pixels_of_the_png(self, opened: Run, undisturbed: Path, read: Any, column: str) -> None:
        for image_id in opened.images["image_id"]:
            found = read(opened, image_id)
            with Image.open(io.BytesIO(stored(undisturbed, image_id, column))) as picture:
                assert np.array_equal(found, np.asarray(picture))
            assert found.dtype == np.uint8
            assert found.shape == tuple(stored(undisturbed, image_id, name) for name in ("height", "width"))

    @pytest.mark.parametrize(
        ("image_id", "problem"),
        [
            ("03", "has no image '03'; ids that contain it: images/03"),
            ("image/03", "has no image 'image/03'; did you mean 'images/03'?"),
            ("", "has no image ''; known ids: images/00, "),
            ("zzz", "has no image 'zzz'; known ids: images/00, "),
        ],
    )
    def test_an_image_that_is_unknown_is_named(self, opened: Run, image_id: str, problem: str) -> None:
        for read in (opened.mask, opened.cluster_map):
            with pytest.raises(ResultsError) as caught:
                read(image_id)
            assert problem in str(caught.value)

    def test_an_image_that_failed_says_why(self, copied: ResultsFolder) -> None:
        part = on_disk(in_parts(copied).part(3))
        table = pq.read_table(part)
        kept = table.select(["unit", "image_id", "dataset", "image_uri", "label_uri"]).to_pylist()[0]
        failed = dict.fromkeys(table.column_names) | kept
        failed |= {"status": "error", "error": "it is cut short"}
        pq.write_table(pa.Table.from_pylist([failed], schema=table.schema), part)
        with pytest.raises(ResultsError, match=r"^images/03 failed, so there is nothing to show: it is cut short$"):
            open_run(on_disk(copied.path)).mask(IMAGE)

    def test_an_image_that_is_not_done_is_no_unknown_one(self, copied: ResultsFolder) -> None:
        in_parts(copied).part(3).unlink()
        going_on = open_run(on_disk(copied.path))
        with pytest.raises(ResultsError, match=r"^images/03 is not done yet; run the command of "):
            going_on.mask(IMAGE)
        assert going_on.mask("images/04").any()
        assert len(going_on.images) == 9
        assert going_on.evaluation.left == 1

    def test_imported_scores_have_none(self, tmp_path: Path) -> None:
        folder = ResultsFolder(tmp_path)
        folder.create()
        folder.write_run({"config": {"dataset": "ade-ood", "scores": ["theirs"]}, "identity": {}, "imported": {}})
        imported = open_run(tmp_path)
        for read in (imported.mask, imported.cluster_map):
            with pytest.raises(ResultsError, match="holds imported scores, which have no clusters"):
                read(IMAGE)
        assert "ade-ood, imported scores, not finished" in repr(imported)


class TestEvaluate:
    def test_without_arguments_it_is_the_default_convention(self, opened: Run) -> None:
        pd.testing.assert_frame_equal(opened.evaluate(), opened.metrics)

    def test_it_gives_what_the_command_writes(self, opened: Run, copied: ResultsFolder) -> None:
        other = make_convention({"fpr_rule": ">", "tpr": 0.9})
        evaluate_run(copied, [LIKE["pebal"], LIKE["bravo"], other], 20)
        written = pd.read_parquet(str(copied.metrics))
        found = opened.evaluate(like=["pebal", "bravo"], bootstrap=20, fpr_rule=">", tpr=0.9)
        # The default convention, which the command always writes too, was not asked for.
        pd.testing.assert_frame_equal(found, written[6:].reset_index(drop=True))
        assert found["like"].fillna("none").tolist() == ["pebal"] * 6 + ["bravo"] * 6 + ["none"] * 6
        assert (found["ap_low"] <= found["ap"]).all()

    def test_one_evaluator_may_be_named_alone(self, opened: Run) -> None:
        pd.testing.assert_frame_equal(opened.evaluate("pebal"), opened.evaluate(like=["pebal"]))

    @pytest.mark.parametrize(
        ("arguments", "problem"),
        [
            ({"like": "pebble"}, "no evaluator 'pebble' is known"),
            ({"like": ["smiyc", ""]}, "no evaluator '' is known"),
            ({"pooling": "images"}, "pooling must be one of dataset, image, not 'images'"),
            ({"tpr": 0.0}, "tpr must be above 0"),
            ({"bootstrap": -1}, "bootstrap must be a whole number of at least 0, not -1"),
        ],
    )
    def test_what_is_wrong_is_named(self, opened: Run, arguments: dict[str, Any], problem: str) -> None:
        with pytest.raises(ConfigError, match=problem):
            opened.evaluate(**arguments)


class TestSweep:
    def test_a_range_or_its_numbers(self, opened: Run) -> None:
        found = opened.sweep(tau="-1:3:0.5", ood_ratio="0:1:0.25")
        assert len(found) == 9 * 5
        assert sorted(set(found["k"])) == [6]
        again = opened.sweep(np.arange(-1, 3.1, 0.5), [1, 0.75, 0.5, 0.25, 0, 0])
        pd.testing.assert_frame_equal(found, again)

    def test_errors_of_arithmetic_are_no_decimals(self, opened: Run) -> None:
        ood_ratios = np.arange(0, 1, 0.01)
        assert 0.35000000000000003 in ood_ratios
        found = opened.sweep(1.5, ood_ratios)
        pd.testing.assert_frame_equal(found, opened.sweep(1.5, "0:0.99:0.01"))

    def test_the_runs_own_setting_has_the_runs_own_metrics(self, opened: Run) -> None:
        [row] = opened.sweep(1.5, 0.4, with_mask_then_logit=True).to_dict("records")
        metrics = opened.metrics.set_index("score")["ap"]
        assert (row["ratio_ap"], row["mask_then_logit_ap"]) == (metrics["ratio"], metrics["mask-then-logit"])
        assert row["f1"] == opened.evaluation.mask.f1

    @pytest.mark.parametrize(
        ("arguments", "problem"),
        [
            ({"tau": []}, "at least one number"),
            ({"tau": [float("nan")]}, "none that is not finite"),
            ({"tau": ["low"]}, "no numbers, and no range such as 0:1:0.01"),
            ({"tau": "a:b"}, "'a:b' is no range"),
            ({"ood_ratio": [1.5]}, "1.5"),
            ({"ood_ratio": "0.35000000000000003,0.4"}, "T = 0.35000000000000003 has more than 8 decimals"),
            ({"ood_ratio": [0.3500000001]}, "T = 0.3500000001 has more than 8 decimals"),
        ],
    )
    def test_what_is_no_range_is_named(self, opened: Run, arguments: dict[str, Any], problem: str) -> None:
        with pytest.raises(ConfigError, match=problem):
            opened.sweep(**arguments)


def test_reading_changes_nothing(copied: ResultsFolder) -> None:
    before = state(on_disk(copied.path))
    read = open_run(on_disk(copied.path))
    _ = read.images, read.clusters, read.metrics, read.evaluation, read.mask(IMAGE)
    read.evaluate(like="smiyc", bootstrap=2)
    read.sweep(tau=1.5)
    assert state(on_disk(copied.path)) == before


def test_what_is_no_results_folder_is_named(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "none", str(tmp_path)):
        with pytest.raises(ResultsError, match=f"^{place} is not a results folder: it has no run.json$"):
            open_run(place)


def test_it_says_what_it_is(opened: Run, copied: ResultsFolder) -> None:
    assert repr(opened) == f"<oodray.Run {opened.out}: ade-ood, fakes:colours, 10 images, 0 failed>"
    read = open_run(on_disk(copied.path))
    on_disk(copied.run).write_text("{")
    assert repr(read) == f"<oodray.Run {copied.path}: unreadable>"


def test_neither_torch_nor_ray_is_needed(undisturbed: Path) -> None:
    script = f"""
import sys
import oodray
run = oodray.open_run({str(undisturbed)!r})
assert isinstance(run, oodray.Run)
print(run, len(run.images), len(run.clusters), len(run.metrics), run.mask({IMAGE!r}).shape)
print(len(run.evaluate(like="smiyc")), len(run.sweep(tau=1.5)))
print("loaded:", *sorted({{"torch", "ray", "mmseg", "mmengine", "sklearn", "rich", "typer"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("loaded:\n")
    assert oodray.open_run is open_run
