"""Semantic maps and scores of queries against float64 restatements, pixel by pixel."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import oodray
from oodray.errors import ImageError
from oodray.models.segmenter import Segmentation, check_segmentations
from oodray.scores import queries as module
from oodray.scores import strips
from oodray.scores.maps import pixel_maps
from oodray.scores.queries import Queries, Window, Windows, semantic_map
from oodray.scores.registry import pixel_scores

Floats = NDArray[np.float64]

NAMES = ("max-logit", "msp", "entropy", "energy", "gen", "rba", "eam", "mask2anomaly")


def made(queries: int = 7, classes: int = 4, size: tuple[int, int] = (6, 9), windows: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    class_logits = 2 * torch.randn(windows, queries, classes + 1, generator=generator)
    return class_logits, 4 * torch.randn(windows, queries, *size, generator=generator)


def bilinear(plane: Floats, height: int, width: int) -> Floats:
    """Pixel by pixel, from the definition: half-pixel centres, borders repeated."""

    def taps(old: int, new: int) -> list[tuple[int, int, float]]:
        centres = [min(max((position + 0.5) * old / new - 0.5, 0.0), old - 1.0) for position in range(new)]
        return [(int(centre), min(int(centre) + 1, old - 1), centre - int(centre)) for centre in centres]

    result = np.empty((height, width))
    for y, (top, bottom, down) in enumerate(taps(plane.shape[0], height)):
        for x, (left, right, along) in enumerate(taps(plane.shape[1], width)):
            upper = (1 - along) * plane[top, left] + along * plane[top, right]
            lower = (1 - along) * plane[bottom, left] + along * plane[bottom, right]
            result[y, x] = (1 - down) * upper + down * lower
    return result


def softmax(logits: Floats) -> Floats:
    weights: Floats = np.exp(logits - logits.max(-1, keepdims=True))
    shares: Floats = weights / weights.sum(-1, keepdims=True)
    return shares


def of_window(class_logits: Tensor, mask_logits: Tensor, height: int, width: int) -> tuple[Floats, Floats]:
    """L of a window, and its EAM."""
    p = softmax(class_logits.double().numpy())
    s = 1 / (1 + np.exp(-np.stack([bilinear(mask, height, width) for mask in mask_logits.double().numpy()])))
    semantic = np.zeros((p.shape[1] - 1, height, width))
    eam = np.ones((height, width))
    for q in range(len(p)):
        for c in range(len(semantic)):
            semantic[c] += p[q, c] * s[q]
        eam -= s[q] * p[q, :-1].max()
    return semantic, eam


def scores_of(semantic: Floats, eam: Floats) -> dict[str, Floats]:
    total = semantic.sum(0)
    share = np.where(total > 0, semantic / np.where(total > 0, total, 1), 1 / len(semantic))
    logs = np.log(share, where=share > 0, out=np.zeros_like(share))
    return {
        "max-logit": -semantic.max(0),
        "msp": 1 - share.max(0),
        "entropy": -(share * logs).sum(0),
        "energy": -np.log(np.exp(semantic).sum(0)),
        "gen": ((share * (1 - share)) ** 0.1).sum(0),
        "rba": -np.tanh(semantic).sum(0),
        "eam": eam,
        "mask2anomaly": 1 - semantic.max(0),
    }


def assert_scores(queries: Queries, size: tuple[int, int], semantic: Floats, eam: Floats) -> None:
    maps = pixel_maps(queries, *size, pixel_scores(NAMES), with_classes=True)
    np.testing.assert_allclose(maps.confidence, semantic.max(0), rtol=2**-10)
    expected = scores_of(semantic, eam)
    assert maps.scores.keys() == expected.keys()
    for name, values in expected.items():
        assert maps.scores[name].dtype == np.float32
        np.testing.assert_allclose(maps.scores[name], values, rtol=1e-5, atol=3e-6, err_msg=name)
    np.testing.assert_array_equal(maps.classes, semantic.argmax(0))


@pytest.mark.parametrize("size", [(24, 36), (6, 9), (13, 11), (5, 40), (1, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scores_of_one_window_at_image_size(size: tuple[int, int], dtype: torch.dtype) -> None:
    class_logits, mask_logits = (values.to(dtype) for values in made())
    assert_scores(Queries(class_logits, mask_logits), size, *of_window(class_logits[0], mask_logits[0], *size))


@pytest.mark.parametrize("image", [(20, 50), (16, 40), (9, 21)])
def test_windows_are_averaged_at_the_size_of_the_input(image: tuple[int, int]) -> None:
    class_logits, mask_logits = made(size=(4, 5), windows=3)
    places = (0, 10, 24)
    windows = Windows(16, 40, tuple(Window(0, left, 16, 16) for left in places))
    total, count = np.zeros((5, 16, 40)), np.zeros((16, 40))
    for index, left in enumerate(places):
        semantic, eam = of_window(class_logits[index], mask_logits[index], 16, 16)
        total[:, :, left : left + 16] += np.concatenate([semantic, eam[None]])
        count[:, left : left + 16] += 1
    at_image = np.stack([bilinear(plane, *image) for plane in total / count])
    assert_scores(Queries(class_logits, mask_logits, windows), image, at_image[:-1], at_image[-1])


def test_what_was_padded_is_cut_off() -> None:
    class_logits, mask_logits = made(size=(8, 8))
    windows = Windows(20, 32, (Window(0, 0, 32, 32),))
    semantic, eam = of_window(class_logits[0], mask_logits[0], 32, 32)
    at_image = np.stack([bilinear(plane[:20], 10, 15) for plane in (*semantic, eam)])
    assert_scores(Queries(class_logits, mask_logits, windows), (10, 15), at_image[:-1], at_image[-1])


def test_where_no_query_sees_anything_all_classes_are_as_likely() -> None:
    class_logits, mask_logits = made()
    mask_logits[..., :4] = -1e4
    maps = pixel_maps(Queries(class_logits, mask_logits), 6, 9, pixel_scores(NAMES)).scores
    assert set(maps["msp"][:, :4].ravel().tolist()) == {0.75}
    np.testing.assert_allclose(maps["entropy"][:, :4], math.log(4), rtol=1e-6)
    assert not maps["rba"][:, :4].any()
    assert set(maps["eam"][:, :4].ravel().tolist()) == {1.0}


def test_masks_of_all_queries_never_lie_in_memory_at_image_size(monkeypatch: pytest.MonkeyPatch) -> None:
    class_logits, mask_logits = made(queries=40, size=(8, 8))
    expected = pixel_maps(Queries(class_logits, mask_logits), 120, 160, pixel_scores(NAMES))
    largest = 0
    resize = strips.at_image_size

    def counted(planes: Tensor, height: int, width: int, rows: slice) -> Tensor:
        nonlocal largest
        found = resize(planes, height, width, rows)
        largest = max(largest, found.shape[1])
        return found

    monkeypatch.setattr(module, "at_image_size", counted)
    monkeypatch.setattr(strips, "CPU_STRIP_BYTES", 200_000)
    found = pixel_maps(Queries(class_logits, mask_logits), 120, 160, pixel_scores(NAMES))
    assert 0 < largest < 10
    for name, values in expected.scores.items():
        np.testing.assert_allclose(found.scores[name], values, rtol=1e-5, atol=1e-6, err_msg=name)


def test_the_logits_of_a_segmentation_are_the_semantic_map() -> None:
    class_logits, mask_logits = made()
    found = Segmentation.of_queries(class_logits[0], mask_logits[0], torch.zeros(2, 3, 3))
    expected, _ = of_window(class_logits[0], mask_logits[0], 6, 9)
    np.testing.assert_allclose(found.logits, expected, rtol=1e-5)
    windows = Windows(16, 40, tuple(Window(0, left, 16, 16) for left in (0, 10, 24)))
    assert semantic_map(Queries(*made(size=(4, 4), windows=3), windows)).shape == (4, 4, 10)


def test_one_image_by_its_queries() -> None:
    class_logits, mask_logits = (values[0] for values in made())
    photo, features = np.zeros((24, 36, 3), np.uint8), torch.randn(3, 4, 4)
    found = oodray.detect(
        photo, Segmentation.of_queries(class_logits, mask_logits, features), k=2, tau=0.5, scores=["rba", "ratio"]
    )
    semantic, _ = of_window(class_logits, mask_logits, 24, 36)
    np.testing.assert_allclose(found.scores["rba"], -np.tanh(semantic).sum(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found.classes, semantic.argmax(0))
    as_arrays: Any = {"class_logits": class_logits.numpy(), "mask_logits": mask_logits.numpy()}
    again = oodray.detect(photo, Segmentation(torch.zeros(4, 6, 9), features, **as_arrays), k=2, tau=0.5, scores="rba")
    np.testing.assert_array_equal(again.scores["rba"], found.scores["rba"])


@pytest.mark.parametrize("score", ["rba", "eam", "mask2anomaly"])
def test_without_queries_a_score_of_queries_is_refused_by_name(score: str) -> None:
    plain = Segmentation(torch.zeros(4, 6, 9), torch.zeros(2, 3, 3))
    with pytest.raises(ImageError, match=f"the score {score} needs a mask classifier, with class_logits and mask_log"):
        oodray.detect(np.zeros((24, 36, 3), np.uint8), plain, k=2, tau=0.5, scores=[score])


def test_queries_of_another_form_are_refused() -> None:
    class_logits, mask_logits = (values[0] for values in made())
    features = torch.zeros(2, 3, 3)
    for classes, masks in [
        (class_logits[1:], mask_logits),
        (class_logits[:, :1], mask_logits),
        (class_logits, None),
        (class_logits[None], mask_logits[None]),
        (class_logits, mask_logits.long()),
    ]:
        with pytest.raises(ImageError, match=r"the segmenter returned class_logits .* and mask_logits "):
            check_segmentations([Segmentation(features, features, classes, masks)], 1)
