from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from oodray.job.stages import Decoder, Finisher
from PIL import Image
from pixel_oracles import METHOD, Pixels, Row, failed_row, segmented_row

from oodray import decode_mask
from oodray.datasets.layouts import get_layout
from oodray.errors import ImageError, ResultsError, RunError
from oodray.job.units import LISTED, SEGMENTED, Rows, pack, unpack
from oodray.job.worker import SegmentAndCluster
from oodray.metrics.tally import key_scores
from oodray.models.source import ModelSource
from oodray.results.folder import ResultsFolder
from oodray.results.rows import RESULT_SCHEMA

Draw = Callable[..., Row]


def decode(*rows: Row) -> Rows:
    _, decoded = unpack(Decoder(get_layout("ade-ood").label_codes)(pack(0, list(rows), LISTED)))
    return decoded


def random_image(seed: int, height: int = 24, width: int = 40) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def with_orientation(image: NDArray[np.uint8], orientation: int) -> bytes:
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.fromarray(image).save(buffer, "PNG", exif=exif)
    return buffer.getvalue()


@pytest.fixture
def listed(tmp_path: Path) -> Draw:
    """Writes an image and a label, and lists them as the manifest does."""

    def write(name: str, image: Any, codes: Any = None) -> Row:
        uris = []
        for kind, content in (("image", image), ("label", codes)):
            path = tmp_path / f"{name}.{kind}.png"
            if isinstance(content, bytes):
                path.write_bytes(content)
            elif content is not None:
                Image.fromarray(content).save(path)
            uris.append(str(path))
        label_uri = None if codes is None else uris[1]
        return {"unit": 0, "image_id": name, "dataset": "d", "image_uri": uris[0], "label_uri": label_uri}

    return write


IMAGE = random_image(0)
CODES = np.random.default_rng(1).choice([0, 1, 9, 255], IMAGE.shape[:2]).astype(np.uint8)


class TestDecoder:
    def test_pixels_and_labels_are_those_of_the_files(self, listed: Draw) -> None:
        row = listed("a", IMAGE, CODES)
        [decoded] = decode(row)
        labels = np.where(CODES == 9, 0, CODES).astype(np.uint8)
        assert decoded.pop("seconds_decode") > 0
        assert decoded == row | {
            "error": None,
            "height": 24,
            "width": 40,
            "orientation": 1,
            "warning": None,
            "image": IMAGE.tobytes(),
            "label": labels.tobytes(),
        }

    def test_the_orientation_that_fits_the_label_is_taken_and_recorded(self, listed: Draw) -> None:
        sideways = with_orientation(np.rot90(IMAGE), 6)
        [fits] = decode(listed("a", sideways, CODES))
        assert (fits["orientation"], fits["warning"]) == (6, None)
        assert fits["image"] == IMAGE.tobytes()
        [as_stored] = decode(listed("b", sideways, np.ascontiguousarray(np.rot90(CODES))))
        assert (as_stored["orientation"], as_stored["warning"]) == (1, None)
        assert as_stored["image"] == np.rot90(IMAGE).tobytes()
        [either] = decode(listed("c", with_orientation(IMAGE, 3), CODES))
        assert either["orientation"] == 3
        assert "fits the image both as it is stored and turned" in either["warning"]
        assert either["image"] == np.rot90(IMAGE, 2).tobytes()

    def test_an_image_without_label_has_none(self, listed: Draw) -> None:
        [decoded] = decode(listed("a", IMAGE))
        assert (decoded["label"], decoded["error"]) == (None, None)

    @pytest.mark.parametrize(
        ("image", "codes", "problem"),
        [
            (b"", CODES, "empty"),
            (b"<html>404", CODES, "web page"),
            (None, CODES, r"cannot read .*a\.image\.png"),
            (IMAGE, b"\x89PNG", "label has an unreadable header"),
            (IMAGE, CODES[:, :-1], r"label .* is 39x24 pixels, its image 40x24"),
            (IMAGE, CODES.T, "is 24x40 pixels"),
        ],
    )
    def test_what_cannot_be_read_is_an_error_of_its_row_alone(
        self, listed: Draw, image: Any, codes: Any, problem: str
    ) -> None:
        broken = listed("a", image, codes)
        whole = listed("b", IMAGE, CODES)
        decoded = decode(whole, broken, whole | {"image_id": "c"})
        assert [row["image_id"] for row in decoded] == ["b", "a", "c"]
        assert [row["error"] is None for row in decoded] == [True, False, True]
        with pytest.raises(ImageError, match=problem):
            raise ImageError(decoded[1]["error"])
        assert decoded[1]["image"] is None

    def test_a_label_that_should_be_there_and_is_not_is_an_error(self, listed: Draw, tmp_path: Path) -> None:
        [decoded] = decode(listed("a", IMAGE) | {"label_uri": str(tmp_path / "none.png")})
        assert "none.png: No such file" in decoded["error"]

    def test_unknown_codes_are_named(self, listed: Draw) -> None:
        row = listed("a", IMAGE, CODES)
        codes = get_layout("road-anomaly").label_codes
        assert "unknown codes: 9, 255" in Decoder(codes).decode(row)["error"]


def tally_of(found: Row) -> dict[tuple[float, int], int]:
    """A stored tally as pixels by (value, label)."""
    values = key_scores(np.array(found["keys"], np.uint16)).astype(float).tolist()
    return dict(zip(zip(values, np.array(found["labels"]).tolist(), strict=True), found["counts"], strict=True))


def pixel_tally(values: NDArray[np.float16], labels: NDArray[np.uint8]) -> dict[tuple[float, int], int]:
    pairs = list(zip(values.astype(float).tolist(), labels.tolist(), strict=True))
    return {pair: pairs.count(pair) for pair in set(pairs)}


class TestFinisher:
    def test_every_column_is_what_counting_pixels_gives(self, tmp_path: Path) -> None:
        method = replace(METHOD, ks=(2, 4))
        for seed in range(20):
            row = segmented_row(np.random.default_rng(seed), method=method)
            found = Finisher(method, str(tmp_path)).finish(row)
            pixels = Pixels(row, method)
            assert (found["status"], found["error"]) == ("ok", None)
            assert found["seconds_finish"] > 0
            np.testing.assert_array_equal(decode_mask(found["mask_png"]), np.where(pixels.mask, 255, 0))
            np.testing.assert_array_equal(decode_mask(found["clusters_png"]), pixels.cluster)
            assert found["ood_fraction"] == pytest.approx(pixels.mask.mean(), abs=1e-15)
            assert found["image_score"] == float(pixels.ratio.max())
            assert {t["score"]: tally_of(t) for t in found["tallies"]} == {
                name: pixel_tally(values.ravel(), pixels.label.ravel()) for name, values in pixels.scores.items()
            }

    def test_the_clusters_of_every_k_are_there(self, tmp_path: Path) -> None:
        method = replace(METHOD, ks=(2, 4, 7))
        for seed in range(5):
            row = segmented_row(np.random.default_rng(seed), method=method)
            rows = Finisher(method, str(tmp_path)).finish(row)["clusters"]
            expected = []
            for k in method.ks:
                pixels = Pixels(row, replace(method, k=k))
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
            found = [{name: c[name] for name in ("k", "cluster", "pixels", "ratio")} for c in rows]
            assert [row | {"tally": tally_of(c)} for row, c in zip(found, rows, strict=True)] == expected

    def test_an_image_without_label_counts_as_ignored(self, tmp_path: Path) -> None:
        row = segmented_row(np.random.default_rng(0)) | {"label": None}
        found = Finisher(METHOD, str(tmp_path)).finish(row)
        assert found["status"] == "ok"
        for tally in found["clusters"] + found["tallies"]:
            assert set(np.array(tally["labels"]).tolist()) == {255}

    def test_tau_and_the_ood_ratio_are_exceeded_strictly(self, tmp_path: Path) -> None:
        confidence = np.array([[1.5, 1.5, 1.5, 1.0]], np.float16)
        maps = [{"k": 4, "height": 1, "width": 1, "ids": b"\0"}]
        row = segmented_row(np.random.default_rng(0)) | {"height": 1, "width": 4, "label": bytes(4)}
        row |= {"confidence": confidence.tobytes(), "cluster_maps": maps, "score_maps": []}
        for ood_ratio, marked in ((0.25, 0), (0.24999, 255)):
            method = replace(METHOD, tau=1.5, ood_ratio=ood_ratio, scores=())
            found = Finisher(method, str(tmp_path)).finish(row)
            assert decode_mask(found["mask_png"]).tolist() == [[marked] * 4]
            assert found["image_score"] == 0.25

    def test_failed_images_keep_their_error(self, tmp_path: Path) -> None:
        found = Finisher(METHOD, str(tmp_path)).finish(failed_row("a", "broken"))
        assert (found["status"], found["error"]) == ("error", "broken")
        assert "mask_png" not in found

    def test_the_unit_is_written_and_summed_up(self, tmp_path: Path) -> None:
        rows = [segmented_row(np.random.default_rng(0)), failed_row("b", "no\nthing")]
        summary = Finisher(METHOD, str(tmp_path))(pack(3, rows, SEGMENTED))
        assert summary.to_pylist() == [{"unit": 3, "ok": 1, "failed": 1, "errors": ["b: no\nthing"], "warnings": []}]
        table = pq.read_table(ResultsFolder(tmp_path).part(3))
        assert table.schema.equals(RESULT_SCHEMA)
        assert table["status"].to_pylist() == ["ok", "error"]
        assert table["image_id"].to_pylist() == ["a", "b"]
        assert table["seconds_segment"].to_pylist() == [0.5, None]

    def test_of_a_unit_that_is_tried_again_other_images_stay(self, tmp_path: Path) -> None:
        random, part = np.random.default_rng(0), ResultsFolder(tmp_path).part(0)
        a, b, c = (segmented_row(random, image_id) for image_id in "abc")
        Finisher(METHOD, str(tmp_path))(pack(0, [a, failed_row("b"), c], SEGMENTED))
        before = pq.read_table(part)
        finisher = Finisher(METHOD, str(tmp_path), tried_again={0})
        summary = finisher(pack(0, [b], SEGMENTED))
        assert (summary["ok"].to_pylist(), summary["failed"].to_pylist()) == ([1], [0])
        after = pq.read_table(part)
        assert after["image_id"].to_pylist() == ["a", "b", "c"]
        assert after["status"].to_pylist() == ["ok", "ok", "ok"]
        # Their seconds too: they were not computed again.
        assert after.take([0, 2]).equals(before.take([0, 2]))
        part.unlink()
        with pytest.raises(ResultsError, match=r"part-000000.parquet"):
            finisher(pack(0, [b], SEGMENTED))
        assert not part.exists()

    def test_nothing_is_written_into_a_folder_that_has_come_to_hold_another_run(self, tmp_path: Path) -> None:
        folder = ResultsFolder(tmp_path)
        folder.write_run({"config": {}, "identity": {"k": 6, "scores": ["ratio"]}})
        rows = [segmented_row(np.random.default_rng(0))]
        orphan = Finisher(METHOD, str(tmp_path), identity={"k": 5, "scores": ["ratio"]})
        with pytest.raises(RunError, match="another run was started in "):
            orphan(pack(0, rows, SEGMENTED))
        folder.run.unlink()
        with pytest.raises(ResultsError, match="not a results folder"):
            orphan(pack(0, rows, SEGMENTED))
        assert folder.parts() == []
        folder.write_run({"config": {}, "identity": orphan.identity})
        orphan(pack(0, rows, SEGMENTED))
        assert folder.finished_units() == {0}

    def test_a_folder_that_cannot_be_written_ends_the_run(self, tmp_path: Path) -> None:
        (tmp_path / "out").touch()
        with pytest.raises(RunError, match=r"cannot write .*part-000000.parquet: "):
            Finisher(METHOD, str(tmp_path / "out"))(pack(0, [failed_row("a")], SEGMENTED))


def test_the_stages_fit_together(listed: Draw, tmp_path: Path) -> None:
    rows = [listed("a", IMAGE, CODES), listed("b", b"nothing", CODES), listed("c", random_image(3), CODES)]
    batch = pack(0, rows, LISTED)
    source = ModelSource("fakes:colours", search_path=str(Path(__file__).parents[1]))
    worker = SegmentAndCluster(source, device="cpu", threads=torch.get_num_threads(), method=METHOD)
    for work in (Decoder(get_layout("ade-ood").label_codes), worker, Finisher(METHOD, str(tmp_path))):
        batch = work(batch)
    assert batch.to_pylist()[0]["ok"] == 2
    table = pq.read_table(ResultsFolder(tmp_path).part(0)).to_pylist()
    assert [row["status"] for row in table] == ["ok", "error", "ok"]
    for row in (table[0], table[2]):
        assert decode_mask(row["mask_png"]).shape == IMAGE.shape[:2]
        assert sum(cluster["pixels"] for cluster in row["clusters"]) == IMAGE.shape[0] * IMAGE.shape[1]
        assert all(row[f"seconds_{stage}"] > 0 for stage in ("decode", "segment", "cluster", "finish"))
