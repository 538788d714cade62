from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import fakes
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from oodray.job.stages import Method
from pixel_oracles import METHOD, Row, failed_row

from oodray import Segmentation
from oodray.errors import ModelError
from oodray.job.units import DECODED, Rows, pack, unpack
from oodray.job.worker import SegmentAndCluster
from oodray.method.kmeans import cluster_features, kmeans_seed
from oodray.method.scores import pixel_scores
from oodray.models.source import ModelSource


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """The stage sets the number of threads of its process, here that of all tests."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def stage(network: str = "colours", method: Method = METHOD) -> SegmentAndCluster:
    source = ModelSource(f"fakes:{network}", search_path=str(Path(__file__).parents[1]))
    return SegmentAndCluster(source, device="cpu", threads=1, method=method)


def segment(rows: Rows, network: str = "colours", method: Method = METHOD) -> Rows:
    _, segmented = unpack(stage(network, method)(pack(0, rows, DECODED)))
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


IMAGE = random_image(0)


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
            [[expected]] = cluster_features([found.features], [k], seeds=[[seed]], normalize=True, n_init=3)
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
            ("lacks_memory", "the network failed: OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB"),
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
        source = ModelSource("fakes:colours", search_path=str(Path(__file__).parents[1]))
        for threads in (1, 3):
            SegmentAndCluster(source, "cpu", threads, METHOD)
            assert torch.get_num_threads() == threads
