from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from pixel_oracles import METHOD, Pixels, failed_image, segmented_image
from plain_records import without_seconds

from oodray import decode_mask
from oodray.errors import ResultsError, RunError
from oodray.job.attempts import ATTEMPTS, AttemptLog, Guard
from oodray.job.finisher import Finisher
from oodray.job.units import ClusterMap, SegmentedImage, UnitDone
from oodray.metrics.scales import scale_named
from oodray.metrics.tally import first_key_at_least
from oodray.results.folder import ResultsFolder
from oodray.results.reading import finished_units
from oodray.results.rows import RESULT_SCHEMA, ClusterRow, ScoreTally


def tally_of(found: ClusterRow | ScoreTally) -> dict[tuple[float, int], int]:
    """A stored tally as pixels by (value, label)."""
    scale = scale_named(found.scale if isinstance(found, ScoreTally) else None)
    values = scale.scores(found.keys).tolist()
    return dict(zip(zip(values, found.labels.tolist(), strict=True), found.counts.tolist(), strict=True))


def pixel_tally(values: NDArray[np.floating[Any]], labels: NDArray[np.uint8]) -> dict[tuple[float, int], int]:
    pairs = list(zip(values.astype(float).tolist(), labels.tolist(), strict=True))
    return {pair: pairs.count(pair) for pair in set(pairs)}


class TestFinisher:
    def test_every_column_is_what_counting_pixels_gives(self, tmp_path: Path) -> None:
        method = replace(METHOD, ks=(2, 4))
        for seed in range(20):
            image = segmented_image(np.random.default_rng(seed), method=method)
            found = Finisher(method, str(tmp_path)).finish(image)
            pixels = Pixels(image, method)
            assert (found.status, found.error) == ("ok", None)
            assert found.seconds_finish is not None
            assert found.seconds_finish > 0
            assert found.mask_png is not None
            assert found.clusters_png is not None
            np.testing.assert_array_equal(decode_mask(found.mask_png), np.where(pixels.mask, 255, 0))
            np.testing.assert_array_equal(decode_mask(found.clusters_png), pixels.cluster)
            assert found.ood_fraction == pytest.approx(pixels.mask.mean(), abs=1e-15)
            assert found.image_score == float(pixels.ratio.max())
            assert {tally.score: tally_of(tally) for tally in found.tallies or ()} == {
                name: pixel_tally(values.ravel(), pixels.label.ravel()) for name, values in pixels.scores.items()
            }

    def test_the_clusters_of_every_k_are_there(self, tmp_path: Path) -> None:
        method = replace(METHOD, ks=(2, 4, 7))
        for seed in range(5):
            image = segmented_image(np.random.default_rng(seed), method=method)
            rows = Finisher(method, str(tmp_path)).finish(image).clusters or []
            expected = []
            for k in method.ks:
                pixels = Pixels(image, replace(method, k=k))
                for cluster in np.unique(pixels.cluster):
                    inside = pixels.cluster == cluster
                    expected.append(
                        {
                            "k": k,
                            "cluster": cluster,
                            "pixels": inside.sum(),
                            "ratio": float(pixels.ratio[inside][0]),
                            "tally": pixel_tally(pixels.confidence[inside], pixels.label[inside]),
                        }
                    )
            found = [
                {"k": row.k, "cluster": row.cluster, "pixels": row.pixels, "ratio": row.ratio, "tally": tally_of(row)}
                for row in rows
            ]
            assert found == expected

    def test_an_image_without_label_counts_as_ignored(self, tmp_path: Path) -> None:
        image = replace(segmented_image(np.random.default_rng(0)), label=None)
        found = Finisher(METHOD, str(tmp_path)).finish(image)
        assert found.status == "ok"
        assert found.clusters
        assert found.tallies
        for labels in [row.labels for row in found.clusters] + [tally.labels for tally in found.tallies]:
            assert set(labels.tolist()) == {255}

    def test_tau_and_the_ood_ratio_are_exceeded_strictly(self, tmp_path: Path) -> None:
        image = replace(
            segmented_image(np.random.default_rng(0)),
            height=1,
            width=4,
            label=np.zeros((1, 4), np.uint8),
            confidence=np.array([[1.5, 1.5, 1.5, 1.0]], np.float16),
            cluster_maps=[ClusterMap(k=4, height=1, width=1, ids=np.zeros((1, 1), np.uint8))],
            score_maps=[],
        )
        for ood_ratio, marked in ((0.25, 0), (0.24999, 255)):
            method = replace(METHOD, tau=1.5, ood_ratio=ood_ratio, scores=())
            found = Finisher(method, str(tmp_path)).finish(image)
            assert found.mask_png is not None
            assert decode_mask(found.mask_png).tolist() == [[marked] * 4]
            assert found.image_score == 0.25

    def test_failed_images_keep_their_error(self, tmp_path: Path) -> None:
        found = Finisher(METHOD, str(tmp_path)).finish(failed_image("a", "broken"))
        assert (found.status, found.error) == ("error", "broken")
        results = (found.mask_png, found.clusters_png, found.ood_fraction, found.image_score)
        assert (results, found.clusters, found.tallies) == ((None,) * 4, None, None)

    def test_an_image_that_is_given_up_is_an_error_row(self, tmp_path: Path) -> None:
        journal = AttemptLog()
        for _ in range(ATTEMPTS):
            journal.begin(("finish", "a"))
        image = segmented_image(np.random.default_rng(0))
        done = Finisher(METHOD, str(tmp_path), Guard(journal, 0))([image])
        [error] = done.errors
        assert error.startswith(f"a: given up after {ATTEMPTS} attempts (finish): the process died")
        [row] = pq.read_table(str(ResultsFolder(tmp_path).part(0))).to_pylist()
        assert (row["status"], row["mask_png"], row["height"]) == ("error", None, image.height)

    def test_the_unit_is_written_and_summed_up(self, tmp_path: Path) -> None:
        turned = replace(segmented_image(np.random.default_rng(0)), unit=3, warning="either way")
        done = Finisher(METHOD, str(tmp_path))([turned, failed_image("b", "no\nthing", unit=3)])
        assert done == UnitDone(1, 1, ["b: no\nthing"], ["a: either way"])
        table = pq.read_table(str(ResultsFolder(tmp_path).part(3)))
        assert table.schema.equals(RESULT_SCHEMA)
        assert table["status"].to_pylist() == ["ok", "error"]
        assert table["image_id"].to_pylist() == ["a", "b"]
        assert table["seconds_segment"].to_pylist() == [0.5, None]

    def test_of_a_unit_that_is_tried_again_other_images_stay(self, tmp_path: Path) -> None:
        random, part = np.random.default_rng(0), ResultsFolder(tmp_path).part(0)
        a, b, c = (segmented_image(random, image_id) for image_id in "abc")
        Finisher(METHOD, str(tmp_path))([a, failed_image("b"), c])
        before = pq.read_table(str(part))
        finisher = Finisher(METHOD, str(tmp_path), tried_again={0})
        assert finisher([b]) == UnitDone(1, 0)
        after = pq.read_table(str(part))
        assert after["image_id"].to_pylist() == ["a", "b", "c"]
        assert after["status"].to_pylist() == ["ok", "ok", "ok"]
        # Their seconds too: they were not computed again.
        assert after.take([0, 2]).equals(before.take([0, 2]))
        part.unlink()
        with pytest.raises(ResultsError, match=r"part-000000.parquet"):
            finisher([b])
        assert not part.exists()

    def test_nothing_is_written_into_a_folder_that_has_come_to_hold_another_run(self, tmp_path: Path) -> None:
        folder = ResultsFolder(tmp_path)
        folder.write_run({"config": {}, "identity": {"k": 6, "scores": ["ratio"]}})
        images = [segmented_image(np.random.default_rng(0))]
        orphan = Finisher(METHOD, str(tmp_path), identity={"k": 5, "scores": ["ratio"]})
        with pytest.raises(RunError, match="another run was started in "):
            orphan(images)
        folder.run.unlink()
        with pytest.raises(ResultsError, match="not a results folder"):
            orphan(images)
        assert folder.parts() == []
        folder.write_run({"config": {}, "identity": orphan.identity})
        orphan(images)
        assert finished_units(folder) == {0}

    def test_a_folder_that_cannot_be_written_ends_the_run(self, tmp_path: Path) -> None:
        (tmp_path / "out").touch()
        with pytest.raises(RunError, match=r"cannot write .*part-000000.parquet: "):
            Finisher(METHOD, str(tmp_path / "out"))([failed_image("a")])


class TestImagesWithoutALabel:
    METHOD = replace(METHOD, ks=(4,), exact_counts=False, scores=("energy",))

    def image(self, seed: int) -> SegmentedImage:
        random = np.random.default_rng(seed)
        image = segmented_image(random, method=self.METHOD)
        confidence = random.normal(2, 1, image.size).astype(np.float16)
        return replace(image, label=None, confidence=confidence)

    @pytest.mark.parametrize("tau", [1.5, 1.7001, -3.0, 1e9])
    def test_the_rule_is_exact_all_the_same(self, tmp_path: Path, tau: float) -> None:
        method = replace(self.METHOD, tau=tau)
        for seed in range(10):
            image = self.image(seed)
            found = Finisher(method, str(tmp_path)).finish(image)
            expected = Finisher(replace(method, exact_counts=True), str(tmp_path)).finish(image)
            assert (found.mask_png, found.image_score) == (expected.mask_png, expected.image_score)
            ratios = [
                [(row.cluster, row.pixels, row.ratio) for row in rows.clusters or ()] for rows in (found, expected)
            ]
            assert ratios[0] == ratios[1]
            below = first_key_at_least(tau)
            for row in found.clusters or ():
                assert row.counts[row.keys < below].sum() / row.pixels == row.ratio

    def test_a_score_has_at_most_256_bins_which_hold_all_pixels(self, tmp_path: Path) -> None:
        image = self.image(0)
        [tally] = Finisher(self.METHOD, str(tmp_path)).finish(image).tallies or []
        assert set(tally.keys.tolist()) <= set(range(0, 65536, 256))
        assert tally.counts.sum() == image.size[0] * image.size[1]

    def test_an_image_with_a_label_keeps_every_key(self, tmp_path: Path) -> None:
        image = segmented_image(np.random.default_rng(0), method=self.METHOD)
        found = Finisher(self.METHOD, str(tmp_path)).finish(image)
        expected = Finisher(replace(self.METHOD, exact_counts=True), str(tmp_path)).finish(image)
        assert without_seconds(found) == without_seconds(expected)
