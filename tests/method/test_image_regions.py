"""Regions made of the image alone, and scores pooled over regions."""

from __future__ import annotations

import numpy as np
import pytest

import oodray
from oodray.errors import ConfigError
from oodray.method.regions import MOST_REGIONS, grid, regions_of, superpixels
from oodray.scores.pooled import Pool, region_means, region_tops
from oodray.scores.registry import check_names, names_of, pixel_scores

IMAGE = np.kron(np.random.default_rng(0).integers(0, 256, (4, 6, 3)), np.ones((12, 12, 1))).astype(np.uint8)


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (48, 72), (97, 31)])
@pytest.mark.parametrize("k", [1, 2, 5, 24, MOST_REGIONS])
def test_a_grid_has_about_as_many_cells_of_about_one_size(size: tuple[int, int], k: int) -> None:
    found = grid(*size, k)
    assert found.shape == size
    ids, pixels = np.unique(found, return_counts=True)
    assert ids.tolist() == list(range(len(ids)))
    assert 0.7 * min(k, size[0] * size[1]) < len(ids) <= k
    rows, columns = len(np.unique(found[:, 0])), len(np.unique(found[0]))
    assert rows * columns == len(ids)
    assert pixels.max() <= (size[0] // rows + 1) * (size[1] // columns + 1)


@pytest.mark.parametrize("k", [1, 4, 24, 100])
def test_superpixels_are_connected_and_no_more_than_asked_for(k: int) -> None:
    from scipy.ndimage import label

    pytest.importorskip("skimage")
    found = superpixels(IMAGE, k)
    ids = np.unique(found)
    assert ids.tolist() == list(range(len(ids)))
    assert len(ids) <= k
    assert all(label(found == region)[1] == 1 for region in ids)


def test_superpixels_follow_colours() -> None:
    pytest.importorskip("skimage")
    image = np.zeros((40, 40, 3), np.uint8)
    image[:, 17:] = 255
    found = superpixels(image, 2)
    assert len(np.unique(found[:, :17])) == len(np.unique(found[:, 17:])) == 1
    assert np.array_equal(found, regions_of("slic", image, 2))


def test_pools_against_loops() -> None:
    random = np.random.default_rng(0)
    values, regions = random.normal(size=(30, 40)).astype(np.float32), random.integers(0, 5, (30, 40)).astype(np.uint8)
    means, tops = region_means(values, regions), region_tops(values, regions)
    for region in range(5):
        inside = sorted(values[regions == region].tolist(), reverse=True)
        count = max(1, round(len(inside) / 10))
        assert means[regions == region] == pytest.approx(sum(inside) / len(inside), rel=1e-6, abs=1e-7)
        assert tops[regions == region] == pytest.approx(sum(inside[:count]) / count, rel=1e-6)


@pytest.mark.parametrize("name", ["mean", "mean()", "mean(energy", "ratio(energy)", "ratio(energy>x)", "max(energy)"])
def test_what_is_no_pool(name: str) -> None:
    assert Pool.named(name) is None


def test_names_of_pools() -> None:
    names = check_names(["mean(energy)", "ratio", "ratio(msp>0.5)", "energy"])
    assert names == ("ratio", "energy", "mean(energy)", "ratio(msp>0.5)")
    assert names_of(names) == names
    assert [score.name for score in pixel_scores(names)] == ["energy", "mean(energy)", "ratio(msp>0.5)"]
    with pytest.raises(ConfigError, match="unknown score 'enrgy'"):
        check_names(["mean(enrgy)"])
    with pytest.raises(ConfigError, match=r"mean\(ratio\): ratio is a score of clusters already"):
        check_names(["mean(ratio)"])
    with pytest.raises(ConfigError, match="the score knn needs statistics"):
        check_names(["mean(knn)"])


@pytest.mark.parametrize("regions", ["kmeans", "slic", "grid"])
def test_pooled_scores_of_an_image(regions: str) -> None:
    if regions == "slic":
        pytest.importorskip("skimage")
    net = oodray.load("internimage-n-demo")
    names = ("ratio", "max-logit", "energy", "mean(energy)", "top-share(energy)", "ratio(max-logit>-2)")
    found = oodray.detect(IMAGE, net, tau=2.0, scores=names, regions=regions, k=6)
    assert tuple(found.scores) == names
    for region in np.unique(found.clusters):
        inside = found.clusters == region
        energy = found.scores["energy"][inside]
        assert np.ptp(found.scores["mean(energy)"][inside]) == 0
        assert found.scores["mean(energy)"][inside][0] == pytest.approx(energy.mean(dtype=np.float64), rel=1e-6)
        assert found.scores["top-share(energy)"][inside][0] <= energy.max()
        above = found.scores["max-logit"][inside] > -2
        assert found.scores["ratio(max-logit>-2)"][inside][0] == pytest.approx(above.mean())
        # Of float16, which the rule compares, a pixel next to tau may lie on its other side.
        assert found.ratio[inside][0] == pytest.approx(above.mean(), abs=0.01)
    if regions == "grid":
        assert np.array_equal(found.clusters, grid(IMAGE.shape[0], IMAGE.shape[1], 6))
