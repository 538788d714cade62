from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn.functional import conv2d, pad

import oodray
from oodray.scores.blur import blurred
from oodray.scores.registry import pixel_scores


def as_torchvision_does(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """`GaussianBlur(7, sigma=1)`: a kernel of 7x7 over a map with mirrored borders."""
    line = torch.exp(-0.5 * torch.linspace(-3, 3, 7) ** 2)
    kernel = torch.outer(line / line.sum(), line / line.sum())
    padded = pad(torch.from_numpy(scores)[None, None], [3, 3, 3, 3], mode="reflect")
    return np.asarray(conv2d(padded, kernel[None, None])[0, 0])


@pytest.mark.parametrize("shape", [(4, 4), (9, 30), (64, 5)])
def test_it_is_that_of_torchvision(shape: tuple[int, int]) -> None:
    scores = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    np.testing.assert_allclose(blurred(scores), as_torchvision_does(scores), atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (1, 50)])
def test_small_maps_are_blurred_too(shape: tuple[int, int]) -> None:
    found = blurred(np.full(shape, 2.5, np.float32))
    assert found.shape == shape
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, 2.5)


def test_shares_stay_shares() -> None:
    ones = np.ones((40, 40), np.float32)
    assert blurred(ones).max() <= 1
    assert blurred(ones * 0).min() >= 0


def test_a_run_counts_blurred_maps_and_leaves_the_mask_as_it_is(tiny_dataset: Path, tmp_path: Path) -> None:
    runs = {}
    for blur in (True, False):
        runs[blur] = oodray.run(
            dataset="ade-ood",
            root=str(tiny_dataset),
            model="internimage-n-demo",
            scores="ratio,energy",
            keep_maps="all",
            blur=blur,
            executor="local",
            out=tmp_path / str(blur),
            progress=False,
        )
    scale = next(score.scale for score in pixel_scores(["energy"]))
    net = oodray.load("internimage-n-demo")
    for image_id, uri in zip(runs[True].images["image_id"][:2], runs[True].images["image_uri"][:2], strict=True):
        found = oodray.detect(uri, net, image_id=image_id, scores="energy").scores["energy"]
        stored = runs[True].score_map(image_id, "energy").astype(np.float32)
        np.testing.assert_array_equal(scale.keys(stored), scale.keys(blurred(found)))
        np.testing.assert_array_equal(runs[True].mask(image_id), runs[False].mask(image_id))
    by_score = {blur: run.metrics.set_index("score")["ap"] for blur, run in runs.items()}
    assert by_score[True]["ratio"] == by_score[False]["ratio"]
    assert by_score[True]["energy"] != by_score[False]["energy"]
    assert runs[True].evaluation.blurred
