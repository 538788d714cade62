from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fakes
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from pixel_oracles import METHOD, Pixels, Row, failed_row, segmented_row

from oodray import Segmentation, decode_mask
from oodray.datasets.layouts import get_layout
from oodray.errors import ImageError, ModelError, RunError
from oodray.job.results import RESULT_SCHEMA, ResultsFolder
from oodray.job.stages import Decoder, Finisher, Method, SegmentAndCluster, check_segmentations
from oodray.job.units import DECODED, LISTED, SEGMENTED, Rows, pack, unpack
from oodray.method.kmeans import cluster_features, kmeans_seed
from oodray.method.scores import pixel_scores
from oodray.metrics.tally import key_scores
from oodray.models.segmenter import ModelSource

Draw = Callable[..., Row]


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """The stage sets the number of threads of its process, here that of all tests."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def decode(*rows: Row) -> Rows:
    [(_, decoded)] = unpack(next(Decoder(get_layout("ade-ood").label_codes)(pack(0, list(rows), LISTED))))
    return decoded


def stage(network: str = "colours", method: Method = METHOD) -> SegmentAndCluster:
    source = ModelSource(f"fakes:{network}", search_path=str(Path(__file__).parent))
    return SegmentAndCluster(source, device="cpu", threads=1, method=method)


def segment(rows: Rows, network: str = "colours", method: Method = METHOD) -> Rows:
    [(_, segmented)] = unpack(next(stage(network, method)(pack(0, rows, DECODED))))
    return segmented


def random_image(seed: int, height: int = 24, width: int = 40) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def decoded_row(image_id: str, image: NDArray[np.uint8], *, marked: bool = False) -> Row:
    if marked:
        image = image.copy()
        image[0, 0] = fakes.MARK
    height, width, _ = image.shape
    row = failed_row(image_id) | {"error": None, "height": height, "width": width, "image": image.tobytes()}
    return {name: row.get(name) for name in (field.name for field in DECODED)}


def without_seconds(rows: Rows) -> Rows:
    return [{name: value for name, value in row.items() if not name.startswith("seconds")} for row in rows]


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
            "image": IMAGE.tobytes(),
            "label": labels.tobytes(),
        }

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
        assert "unknown codes: 1, 9, 255" in Decoder(codes).decode(row)["error"]


class TestSegmentAndCluster:
    def test_confidence_is_the_largest_logit_at_image_size(self) -> None:
        [row] = segment([decoded_row("a", IMAGE)])
        logits = fakes.Colours().segment_one(IMAGE).logits.double()
        resized = F.interpolate(logits[None], IMAGE.shape[:2], mode="bilinear", align_corners=False)[0]
        confidence = np.frombuffer(row["confidence"], np.float16).reshape(IMAGE.shape[:2])
        np.testing.assert_allclose(confidence, resized.amax(0).numpy(), rtol=2**-11, atol=1e-6)

    def test_maps_are_those_of_the_method(self) -> None:
        method = replace(METHOD, ks=(4, 9), seed=5, normalize_features=True, n_init=3, scores=("energy", "msp"))
        image = random_image(0, 160, 208)  # enough cells for other seeds to find other clusters
        [row] = segment([decoded_row("a", image)], method=method)
        found = fakes.Colours().segment_one(image)
        scores = pixel_scores(found.logits, 160, 208, method.scores)
        assert {m["score"]: m["values"] for m in row["score_maps"]} == {
            name: scores[name].tobytes() for name in method.scores
        }
        for k, ids in zip(method.ks, row["cluster_maps"], strict=True):
            seed = kmeans_seed(5, "a", k)
            expected = cluster_features(found.features, k, seed=seed, normalize=True, n_init=3)
            assert ids == {"k": k, "height": 10, "width": 13, "ids": expected.tobytes()}

    @pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
    def test_images_of_all_sizes_keep_their_order(self, batch_size: int) -> None:
        sizes = [(24, 40), (16, 16), (24, 40), (40, 24), (16, 16), (24, 40), (24, 40)]
        rows = [decoded_row(str(index), random_image(index, *size)) for index, size in enumerate(sizes)]
        together = segment(rows, method=replace(METHOD, batch_size=batch_size))
        alone = [segment([row])[0] for row in rows]
        assert without_seconds(together) == without_seconds(alone)

    def test_the_network_sees_images_of_one_size_in_batches(self) -> None:
        seen = []

        class Watching(fakes.Colours):
            def segment(self, images: list[NDArray[np.uint8]]) -> list[Segmentation]:
                seen.append([image.shape for image in images])
                images[0] += 1  # its own to write to
                return super().segment(images)

        sizes = [(16, 16), (24, 40), (16, 16), (16, 16), (24, 40)]
        rows = [decoded_row(str(index), random_image(index, *size)) for index, size in enumerate(sizes)]
        watched = stage(method=replace(METHOD, batch_size=2))
        watched.segmenter = Watching()
        watched.process([*rows, failed_row("broken")])
        assert seen == [[(16, 16, 3)] * 2, [(16, 16, 3)], [(24, 40, 3)] * 2]

    @pytest.mark.parametrize(
        ("network", "problem"),
        [
            ("fails_on_mark", "the network failed: RuntimeError: cannot take magenta"),
            ("nan_on_mark", "confidence is NaN at 960 and infinite at 0 of 960 pixels"),
        ],
    )
    @pytest.mark.parametrize("batch_size", [1, 5])
    def test_an_image_that_fails_takes_no_other_with_it(self, network: str, problem: str, batch_size: int) -> None:
        rows = [decoded_row(str(index), random_image(index), marked=index == 2) for index in range(4)]
        found = segment(rows, network, replace(METHOD, batch_size=batch_size))
        assert found[2]["error"].startswith(problem)
        assert found[2]["confidence"] is None
        others = [row for row in rows if row["image_id"] != "2"]
        assert without_seconds(found[:2] + found[3:]) == without_seconds(segment(others))

    @pytest.mark.parametrize(
        ("network", "problem"),
        [
            ("one_too_many", "the segmenter returned 2 results for 1 images"),
            (
                "flat",
                "the segmenter returned features of torch.float32 (30,), expected floats (channels, height",
            ),
        ],
    )
    def test_a_network_that_breaks_the_protocol_is_told_so(self, network: str, problem: str) -> None:
        rows = [decoded_row(str(index), random_image(index)) for index in range(2)]
        found = segment(rows, network, replace(METHOD, batch_size=2))
        assert all(row["error"].startswith(problem) for row in found)

    def test_failed_images_pass_through(self) -> None:
        [row] = segment([failed_row("a", "the image is empty")])
        assert row["error"] == "the image is empty"
        assert row["confidence"] is None

    def test_an_image_of_one_pixel_is_one_cluster(self) -> None:
        [row] = segment([decoded_row("a", random_image(0, 1, 1))])
        assert row["error"] is None
        assert row["cluster_maps"] == [{"k": 4, "height": 1, "width": 1, "ids": b"\0"}]

    def test_a_constant_image_has_clusters_by_position_alone(self) -> None:
        [row] = segment([decoded_row("a", np.full((64, 64, 3), 90, np.uint8))])
        assert len(set(np.frombuffer(row["confidence"], np.float16))) == 1
        assert set(row["cluster_maps"][0]["ids"]) == {0, 1, 2, 3}

    def test_more_clusters_than_cells_leave_every_cell_its_own(self) -> None:
        [row] = segment([decoded_row("a", IMAGE)], method=replace(METHOD, k=255, ks=(255,)))
        assert list(row["cluster_maps"][0]["ids"]) == [0, 1, 2, 3, 4, 5]

    def test_what_keeps_the_network_from_starting_is_an_error_of_the_model(self) -> None:
        with pytest.raises(ModelError, match="fakes:never_starts failed: RuntimeError: the licence server"):
            segment([decoded_row("a", IMAGE)], "never_starts")

    def test_threads_are_those_asked_for(self) -> None:
        source = ModelSource("fakes:colours", search_path=str(Path(__file__).parent))
        for threads in (1, 3):
            SegmentAndCluster(source, "cpu", threads, METHOD)
            assert torch.get_num_threads() == threads


class TestCheckSegmentations:
    GOOD = Segmentation(torch.zeros(2, 3, 4), torch.zeros(5, 1, 1))

    def test_good_ones_are_handed_on(self) -> None:
        found = [self.GOOD, self.GOOD]
        assert check_segmentations(found, 2) is found

    @pytest.mark.parametrize(
        ("bad", "problem"),
        [
            (torch.zeros(1, 2, 3, 4), r"torch.float32 \(1, 2, 3, 4\)"),
            (torch.zeros(2, 0, 4), r"\(2, 0, 4\)"),
            (torch.zeros(2, 3, 4, dtype=torch.int64), "torch.int64"),
            (np.zeros((2, 3, 4)), "type ndarray"),
            (None, "type NoneType"),
        ],
    )
    def test_others_are_named(self, bad: Any, problem: str) -> None:
        for name in ("logits", "features"):
            with pytest.raises(ImageError, match=f"returned {name} of .*{problem}"):
                check_segmentations([replace(self.GOOD, **{name: bad})], 1)


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
        [summary] = Finisher(METHOD, str(tmp_path))(pack(3, rows, SEGMENTED))
        assert summary.to_pylist() == [{"unit": 3, "ok": 1, "failed": 1, "errors": ["b: no\nthing"]}]
        table = pq.read_table(ResultsFolder(tmp_path).part(3))
        assert table.schema.equals(RESULT_SCHEMA)
        assert table["status"].to_pylist() == ["ok", "error"]
        assert table["image_id"].to_pylist() == ["a", "b"]
        assert table["seconds_segment"].to_pylist() == [0.5, None]

    def test_a_folder_that_cannot_be_written_ends_the_run(self, tmp_path: Path) -> None:
        (tmp_path / "out").touch()
        with pytest.raises(RunError, match=r"cannot write .*part-000000.parquet: "):
            next(Finisher(METHOD, str(tmp_path / "out"))(pack(0, [failed_row("a")], SEGMENTED)))


def test_the_stages_fit_together(listed: Draw, tmp_path: Path) -> None:
    rows = [listed("a", IMAGE, CODES), listed("b", b"nothing", CODES), listed("c", random_image(3), CODES)]
    batch = pack(0, rows, LISTED)
    for work in (Decoder(get_layout("ade-ood").label_codes), stage(), Finisher(METHOD, str(tmp_path))):
        [batch] = work(batch)
    assert batch.to_pylist()[0]["ok"] == 2
    table = pq.read_table(ResultsFolder(tmp_path).part(0)).to_pylist()
    assert [row["status"] for row in table] == ["ok", "error", "ok"]
    for row in (table[0], table[2]):
        assert decode_mask(row["mask_png"]).shape == IMAGE.shape[:2]
        assert sum(cluster["pixels"] for cluster in row["clusters"]) == IMAGE.shape[0] * IMAGE.shape[1]
        assert all(row[f"seconds_{stage}"] > 0 for stage in ("decode", "segment", "cluster", "finish"))
