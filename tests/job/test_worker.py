from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace

import fakes
import numpy as np
import pytest
import torch.nn.functional as F
from numpy.typing import NDArray
from pixel_oracles import METHOD, failed_image, listed_image
from plain_records import plain, without_seconds
from runs import TESTS
from written_images import random_pixels

from oodray import Segmentation
from oodray.job.units import ClusterMap, DecodedImage, SegmentedImage
from oodray.job.worker import Worker
from oodray.method.kmeans import cluster_features, kmeans_seed
from oodray.method.settings import MethodSettings
from oodray.models.loading import load_segmenter
from oodray.models.source import ModelSource
from oodray.records import extended
from oodray.scores.maps import pixel_maps
from oodray.scores.registry import pixel_scores


def worker(network: str = "colours", method: MethodSettings = METHOD) -> Worker:
    return Worker(load_segmenter(ModelSource(f"fakes:{network}", search_path=str(TESTS))), method)


def segment(
    images: list[DecodedImage], network: str = "colours", method: MethodSettings = METHOD
) -> list[SegmentedImage]:
    return worker(network, method)(images)


def decoded_image(image_id: str, pixels: NDArray[np.uint8], *, marked: bool = False) -> DecodedImage:
    """An image as the first stage hands it on: it cannot be written to."""
    pixels = pixels.copy()
    if marked:
        pixels[0, 0] = fakes.MARK
    pixels.flags.writeable = False
    height, width, _ = pixels.shape
    return extended(DecodedImage, listed_image(image_id), height=height, width=width, image=pixels)


def undecoded_image(image_id: str, error: str = "broken") -> DecodedImage:
    return extended(DecodedImage, listed_image(image_id), error=error)


def cluster_ids(image: SegmentedImage) -> list[int]:
    """Of the first map, all ids."""
    assert image.cluster_maps
    ids: list[int] = image.cluster_maps[0].ids.ravel().tolist()
    return ids


IMAGE = random_pixels(0)


class TestClusteringBeside:
    """In a thread, while the network sees the next batch."""

    @pytest.mark.parametrize("batch_size", [1, 2])
    @pytest.mark.parametrize("network", ["colours", "fails_on_mark", "nan_on_mark", "lacks_memory"])
    def test_it_gives_the_same(self, network: str, batch_size: int) -> None:
        images = [decoded_image(str(index), random_pixels(index), marked=index == 1) for index in range(5)]
        images.insert(2, undecoded_image("broken"))
        method = replace(METHOD, batch_size=batch_size)
        with ThreadPoolExecutor(1) as thread:
            beside = Worker(worker(network).segmenter, method, beside=thread)
            begun = [beside.begin(images[:4]), beside.begin(images[4:])]
            found = [pending.get() for unit in begun for pending in unit]
        expected = segment(images, network, method)
        assert [plain(without_seconds(image)) for image in found] == [
            plain(without_seconds(image)) for image in expected
        ]

    def test_the_logits_of_two_batches_are_there_at_most(self) -> None:
        at_work, may_end = threading.Event(), threading.Event()
        seen: list[int] = []

        class Watching(fakes.Colours):
            def segment(self, images: list[NDArray[np.uint8]]) -> list[Segmentation]:
                seen.append(len(images))
                return super().segment(images)

        with ThreadPoolExecutor(1) as thread, ThreadPoolExecutor(1) as caller:

            def hold() -> None:
                at_work.set()
                may_end.wait(60)

            thread.submit(hold)
            at_work.wait(60)
            beside = Worker(Watching(), METHOD, beside=thread)
            [first] = beside.begin([decoded_image("a", IMAGE)])
            second = caller.submit(beside.begin, [decoded_image("b", IMAGE), decoded_image("c", IMAGE)])
            try:
                # The network has seen the second image; its clustering has to wait for that of the first.
                while len(seen) < 2:
                    assert not second.done()
                assert not wait([second], timeout=0.1).done
                assert len(seen) == 2
            finally:
                may_end.set()
            assert [first.get().image_id, *(pending.get().image_id for pending in second.result())] == ["a", "b", "c"]


class TestWorker:
    def test_confidence_is_the_largest_logit_at_image_size(self) -> None:
        [image] = segment([decoded_image("a", IMAGE)])
        logits = fakes.Colours().segment_one(IMAGE).logits.double()
        resized = F.interpolate(logits[None], IMAGE.shape[:2], mode="bilinear", align_corners=False)[0]
        assert image.confidence is not None
        assert image.confidence.dtype == np.float16
        np.testing.assert_allclose(image.confidence, resized.amax(0).numpy(), rtol=2**-11, atol=1e-6)

    def test_maps_are_those_of_the_method(self) -> None:
        method = replace(METHOD, ks=(4, 9), seed=5, normalize_features=True, n_init=3, scores=("energy", "msp"))
        pixels = random_pixels(0, 160, 208)  # enough cells for other seeds to find other clusters
        [image] = segment([decoded_image("a", pixels)], method=method)
        found = fakes.Colours().segment_one(pixels)
        scores = pixel_scores(method.scores)
        maps = pixel_maps(found.logits, 160, 208, scores).scores
        assert image.score_maps is not None
        assert {(found.score, found.height, found.width) for found in image.score_maps} == {
            (name, 160, 208) for name in method.scores
        }
        for score, of_score in zip(scores, image.score_maps, strict=True):
            assert of_score.scale == score.scale.name
            np.testing.assert_array_equal(of_score.keys, score.scale.keys(maps[score.name]), strict=True)
        assert image.cluster_maps is not None
        for k, of_k in zip(method.ks, image.cluster_maps, strict=True):
            seed = kmeans_seed(5, "a", k)
            [[expected]] = cluster_features([found.features], [k], seeds=[[seed]], normalize=True, n_init=3)
            assert plain(of_k) == plain(ClusterMap(k=k, height=10, width=13, ids=expected))

    @pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
    def test_images_of_all_sizes_keep_their_order(self, batch_size: int) -> None:
        sizes = [(24, 40), (16, 16), (24, 40), (40, 24), (16, 16), (24, 40), (24, 40)]
        images = [decoded_image(str(index), random_pixels(index, *size)) for index, size in enumerate(sizes)]
        together = segment(images, method=replace(METHOD, batch_size=batch_size))
        alone = [segment([image])[0] for image in images]
        assert without_seconds(together) == without_seconds(alone)

    def test_the_network_sees_images_of_one_size_in_batches(self) -> None:
        seen = []

        class Watching(fakes.Colours):
            def segment(self, images: list[NDArray[np.uint8]]) -> list[Segmentation]:
                seen.append([image.shape for image in images])
                images[0] += 1  # its own to write to
                return super().segment(images)

        sizes = [(16, 16), (24, 40), (16, 16), (16, 16), (24, 40)]
        images = [decoded_image(str(index), random_pixels(index, *size)) for index, size in enumerate(sizes)]
        Worker(Watching(), replace(METHOD, batch_size=2))([*images, undecoded_image("broken")])
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
        images = [decoded_image(str(index), random_pixels(index), marked=index == 2) for index in range(4)]
        found = segment(images, network, replace(METHOD, batch_size=batch_size))
        assert str(found[2].error).startswith(problem)
        assert found[2].confidence is None
        others = [image for image in images if image.image_id != "2"]
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
        images = [decoded_image(str(index), random_pixels(index)) for index in range(2)]
        found = segment(images, network, replace(METHOD, batch_size=2))
        assert all(str(image.error).startswith(problem) for image in found)

    def test_failed_images_pass_through(self) -> None:
        undecoded = undecoded_image("a", "the image is empty")
        assert plain(segment([undecoded])) == plain([failed_image("a", "the image is empty")])

    def test_failed_images_keep_their_place(self) -> None:
        images = [undecoded_image("a"), decoded_image("b", IMAGE), undecoded_image("c")]
        assert [(image.image_id, image.error) for image in segment(images)] == [
            ("a", "broken"),
            ("b", None),
            ("c", "broken"),
        ]

    def test_an_image_of_one_pixel_is_one_cluster(self) -> None:
        [image] = segment([decoded_image("a", random_pixels(0, 1, 1))])
        assert image.error is None
        assert plain(image.cluster_maps) == plain([ClusterMap(k=4, height=1, width=1, ids=np.zeros((1, 1), np.uint8))])

    def test_a_constant_image_has_clusters_by_position_alone(self) -> None:
        [image] = segment([decoded_image("a", np.full((64, 64, 3), 90, np.uint8))])
        assert image.confidence is not None
        assert len(np.unique(image.confidence)) == 1
        assert set(cluster_ids(image)) == {0, 1, 2, 3}

    def test_more_clusters_than_cells_leave_every_cell_its_own(self) -> None:
        [image] = segment([decoded_image("a", IMAGE)], method=replace(METHOD, k=255, ks=(255,)))
        assert cluster_ids(image) == [0, 1, 2, 3, 4, 5]

    def test_seconds_are_those_of_an_image(self) -> None:
        images = [decoded_image(str(index), random_pixels(index)) for index in range(2)]
        first, second = segment(images, method=replace(METHOD, batch_size=2))
        assert first.seconds_segment is not None
        assert first.seconds_cluster is not None
        assert (first.seconds_segment > 0, first.seconds_cluster > 0) == (True, True)
        assert first.seconds_segment == second.seconds_segment
