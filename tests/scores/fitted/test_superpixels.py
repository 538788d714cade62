"""suplid against the formula, superpixel by superpixel and distance by distance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from fitted_images import FEATURES, fitted, images, queries
from numpy.typing import NDArray

from oodray.errors import ConfigError
from oodray.scores.fitted import superpixels
from oodray.scores.fitted.bank import Bank
from oodray.scores.fitted.scores import SupLid
from oodray.scores.fitted.superpixels import (
    SupLidParameters,
    fit_suplid,
    local_dimensions,
    mean_features,
    superpixels_of,
)
from oodray.scores.maps import pixel_maps
from oodray.scores.score import ImageFeatures

Floats = NDArray[np.float64]


@pytest.fixture(params=[400, 7])
def k(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(superpixels, "NEIGHBOURS", request.param)
    return int(request.param)


def lid(row: Floats, others: Floats, k: int) -> float:
    r = sorted(float(np.sqrt(((row - other) ** 2).sum())) for other in others)[:k]
    return float(-len(r) / sum(np.log(one / r[-1]) for one in r))


def directions(rows: NDArray[np.floating]) -> Floats:
    exact = rows.astype(np.float64)
    return np.asarray(exact / np.linalg.norm(exact, axis=1, keepdims=True))


def coreset(bank: Bank, k: int) -> Floats:
    kept = []
    for of_class in np.unique(bank.classes):
        rows = directions(bank.features[bank.classes == of_class])
        dimensions = [lid(row, np.delete(rows, place, 0), k) for place, row in enumerate(rows)]
        kept += [rows[place] * dimensions[place] for place in np.argsort(dimensions, kind="stable")[:k]]
    return np.array(kept)


def test_the_coreset_is_of_the_vectors_of_least_dimension(k: int) -> None:
    _, bank = fitted(images(4), size=120)
    found = fit_suplid(bank)
    np.testing.assert_allclose(found.vectors, coreset(bank, k), rtol=1e-5, atol=1e-6)
    assert (np.diff(found.classes) >= 0).all()
    assert len(found.vectors) == min(len(bank), 7 * 5 if k == 7 else len(bank))


def test_the_score_of_every_pixel(k: int) -> None:
    pytest.importorskip("skimage", reason="scikit-image is an extra: pip install 'oodray[slic]'")
    _, bank = fitted(images(4), size=120)
    parameters = fit_suplid(bank)
    random = np.random.default_rng(3)
    rgb = np.kron(random.integers(0, 256, (3, 4, 3)), np.ones((10, 12, 1))).astype(np.uint8)
    logits, features = 3 * torch.from_numpy(random.standard_normal((5, 8, 9))).float(), queries()
    image = ImageFeatures(features, "", rgb=rgb)
    score = SupLid(parameters, SupLid.scale)
    found = pixel_maps(logits, 30, 48, [score], image).scores["suplid"]

    at_size = [
        torch.nn.functional.interpolate(map_[None].double(), (30, 48), mode="bilinear", align_corners=False)[0]
        for map_ in (logits, features)
    ]
    energy, f = -at_size[0].logsumexp(0).numpy(), at_size[1].numpy()
    ids, known = superpixels_of(rgb), coreset(bank, k)
    assert len(np.unique(ids)) > 3
    flat = np.zeros((30, 48))
    for superpixel in np.unique(ids):
        inside = ids == superpixel
        mean = directions(f[:, inside].mean(1)[None])[0]
        flat[inside] = lid(mean, known, k) * energy[inside].mean()
    taps = np.exp(-(np.arange(-3, 4) ** 2) / 2.0)
    kernel = np.outer(taps, taps) / np.outer(taps, taps).sum()
    padded = np.pad(flat, 3, mode="reflect")
    expected = np.array([[(padded[y : y + 7, x : x + 7] * kernel).sum() for x in range(48)] for y in range(30)])
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-3)


def test_mean_features_of_an_image_smaller_than_their_grid() -> None:
    features = torch.randn(3, 6, 7, generator=torch.Generator().manual_seed(0))
    ids = np.array([[0, 0, 1], [0, 2, 1]])
    at_size = torch.nn.functional.interpolate(features[None].double(), (2, 3), mode="bilinear", align_corners=False)[0]
    expected = np.stack([at_size.numpy()[:, ids == one].mean(1) for one in range(3)])
    np.testing.assert_allclose(mean_features(features, ids), expected, rtol=1e-5, atol=1e-6)


def test_classes_too_small_and_vectors_too_alike_are_left_out() -> None:
    _, bank = fitted(images(4), size=120)
    arrays = bank.to_arrays()
    arrays["classes"] = arrays["classes"].copy()
    arrays["classes"][:2] = 90
    assert 90 not in fit_suplid(Bank.from_arrays(arrays, size=120, image_ids=bank.image_ids)).classes
    arrays["features"] = np.ones_like(arrays["features"])
    with pytest.raises(ValueError, match="too few different feature vectors"):
        fit_suplid(Bank.from_arrays(arrays, size=120, image_ids=bank.image_ids))


def test_a_feature_that_the_coreset_holds_has_no_dimension() -> None:
    parameters = SupLidParameters(np.eye(FEATURES, dtype=np.float32), np.arange(FEATURES))
    assert local_dimensions(torch.eye(FEATURES)[:1], parameters).tolist() == [0.0]


def test_superpixels_have_about_as_many_pixels_as_published() -> None:
    pytest.importorskip("skimage", reason="scikit-image is an extra: pip install 'oodray[slic]'")
    random = np.random.default_rng(0)
    rgb = np.kron(random.integers(0, 256, (8, 8, 3)), np.ones((20, 20, 1))).astype(np.uint8)
    ids = superpixels_of(rgb)
    assert sorted(np.unique(ids)) == list(range(ids.max() + 1))
    assert 60 < ids.max() + 1 < 250
    assert superpixels_of(rgb[:1, :1]).tolist() == [[0]]


def test_without_scikit_image_it_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"suplid needs scikit-image: pip install 'oodray\[slic\]'"):
        SupLid.of_fit(None)  # type: ignore[arg-type]
