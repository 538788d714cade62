from __future__ import annotations

import importlib
import importlib.util
import itertools
import math
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from oodray.errors import ConfigError, ImageError
from oodray.method import kmeans as module
from oodray.method.kmeans import cluster_features, kmeans, kmeans_of_each, kmeans_seed, resolve_backend

BACKENDS = ("torch", "sklearn")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
needs_cuml = pytest.mark.skipif(importlib.util.find_spec("cuml") is None, reason="needs cuML")


def random_points(count: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def blobs(count: int, width: int, k: int, spread: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Points around k centres, and the centre of each, numbered by first appearance."""
    generator = torch.Generator().manual_seed(seed)
    owners = torch.cat([torch.arange(k), torch.randint(k, (count - k,), generator=generator)])
    centres = torch.randn(k, width, generator=generator) * 10
    return centres[owners] + spread * torch.randn(count, width, generator=generator), owners.to(torch.uint8)


def inertia(points: Tensor, labels: Tensor) -> float:
    """Sum of squared distances to the mean of each cluster."""
    exact, ids = points.double().numpy(), labels.numpy()
    groups = [exact[ids == k] for k in np.unique(ids)]
    return float(sum(((group - group.mean(0)) ** 2).sum() for group in groups))


def assert_canonical(labels: Tensor) -> None:
    _, first = np.unique(labels.numpy(), return_index=True)
    assert labels.numpy()[first].tolist() == list(range(len(first)))
    assert (np.diff(first) > 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("k", [1, 2, 5, 12])
def test_separated_blobs_are_found(backend: str, k: int) -> None:
    points, owners = blobs(300, 8, k, spread=0.1, seed=k)
    labels = kmeans(points, k, seed=7, backend=backend)
    assert labels.dtype == torch.uint8
    assert labels.tolist() == owners.tolist()


@pytest.mark.parametrize(
    "points",
    [random_points(400, 3), random_points(500, 16, 1), blobs(400, 6, 9, 6.0)[0], blobs(500, 2, 20, 1.5)[0]],
    ids=["plain3", "plain16", "mixed6", "mixed2"],
)
def test_inertia_is_within_a_hundredth_of_sklearn(points: Tensor) -> None:
    ratios = []
    for seed in range(6):
        ours, theirs = (inertia(points, kmeans(points, 6, seed=seed, backend=backend)) for backend in BACKENDS)
        ratios.append(ours / theirs)
    assert np.mean(ratios) < 1.01


@pytest.mark.parametrize("seed", range(5))
def test_tiny_problems_are_solved_to_the_optimum(seed: int) -> None:
    points = random_points(8, 2, seed)
    for k in (2, 3):
        every = (torch.tensor(labels) for labels in itertools.product(range(k), repeat=8))
        optimum = min(inertia(points, labels) for labels in every)
        found = inertia(points, kmeans(points, k, seed=seed, n_init=200))
        assert found == pytest.approx(optimum, rel=1e-6)


def test_every_point_ends_at_its_nearest_mean() -> None:
    points = random_points(300, 5)
    labels = kmeans(points, 7, seed=0, tol=0.0, max_iter=1000).numpy()
    exact = points.double().numpy()
    means = np.stack([exact[labels == k].mean(0) for k in range(7)])
    distances = ((exact[:, None] - means) ** 2).sum(2)
    np.testing.assert_allclose(distances[np.arange(300), labels], distances.min(1), rtol=1e-5)


def test_more_restarts_and_iterations_do_not_hurt() -> None:
    points = blobs(400, 2, 20, 1.5)[0]
    few = [inertia(points, kmeans(points, 8, seed=seed, n_init=1, max_iter=1)) for seed in range(8)]
    many = [inertia(points, kmeans(points, 8, seed=seed, n_init=8)) for seed in range(8)]
    assert max(many) < min(few)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_seed_alone_decides(backend: str) -> None:
    points = random_points(600, 4)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = kmeans(points, 9, seed=3, backend=backend)
    assert torch.equal(torch.get_rng_state(), state), "the global generator was used"
    torch.manual_seed(2)
    assert torch.equal(kmeans(points, 9, seed=3, backend=backend), first)
    assert any(not torch.equal(kmeans(points, 9, seed=seed, backend=backend), first) for seed in range(4, 8))


def test_strides_and_types_do_not_matter() -> None:
    points = random_points(200, 6).half()
    expected = kmeans(points, 5, seed=0)
    before = points.clone()
    for same in (points.float(), points.double(), points.T.contiguous().T, points.float().requires_grad_()):
        assert torch.equal(kmeans(same, 5, seed=0), expected)
    with torch.inference_mode():
        assert torch.equal(kmeans(points + 0, 5, seed=0), expected)
    assert torch.equal(points, before)


@pytest.mark.parametrize("backend", BACKENDS)
def test_place_and_scale_do_not_matter(backend: str) -> None:
    points, owners = blobs(200, 4, 5, spread=0.5)
    for factor, offset in ((2.0**80, 0.0), (2.0**-120, 0.0), (1.0, 4096.0), (-1.0, -1e5)):
        labels = kmeans(points * factor + offset, 5, seed=0, backend=backend)
        assert labels.tolist() == owners.tolist(), (factor, offset)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_labels_are_numbered_by_first_appearance(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 30))
    row = st.lists(st.integers(-3, 3), min_size=2, max_size=2)
    points = torch.tensor(data.draw(st.lists(row, min_size=count, max_size=count)), dtype=torch.float32)
    k = data.draw(st.integers(1, 8))
    distinct = len(np.unique(points.numpy(), axis=0))
    for backend in BACKENDS:
        labels = kmeans(points, k, seed=data.draw(st.integers(0, 9)), n_init=2, backend=backend)
        assert_canonical(labels)
        assert len(labels) == count
        assert len(set(labels.tolist())) == min(k, distinct)


@pytest.mark.parametrize("backend", BACKENDS)
def test_few_distinct_points_are_a_cluster_each(backend: str) -> None:
    values = torch.tensor([[0.1, 0.2], [1e-8, 0.2], [0.1, -5.0]])
    which = torch.tensor([2, 0, 0, 1, 2, 1, 0] * 30)
    for k in (3, 4, 40):
        assert kmeans(values[which], k, seed=0, backend=backend).tolist() == [0, 1, 1, 2, 0, 2, 1] * 30


@pytest.mark.parametrize("backend", BACKENDS)
def test_degenerate_points(backend: str) -> None:
    assert kmeans(torch.full((50, 640), 0.1), 5, seed=0, backend=backend).tolist() == [0] * 50
    assert kmeans(torch.tensor([[0.0], [-0.0], [0.0]]), 2, seed=0, backend=backend).tolist() == [0, 0, 0]
    assert kmeans(random_points(1, 3), 5, seed=0, backend=backend).tolist() == [0]
    assert kmeans(random_points(4, 3), 5, seed=0, backend=backend).tolist() == [0, 1, 2, 3]
    assert set(kmeans(random_points(300, 2), 256, seed=0, backend=backend).tolist()) == set(range(256))


@pytest.mark.parametrize("backend", BACKENDS)
def test_differences_lost_in_float32_give_fewer_clusters_and_no_warning(backend: str) -> None:
    points = torch.zeros(60, 3, dtype=torch.float64)
    points[:, 0] = torch.arange(60) * 1e-30
    points[30:, 1] = 1
    labels = kmeans(points, 5, seed=0, backend=backend)
    assert_canonical(labels)
    assert not set(labels[:30].tolist()) & set(labels[30:].tolist())


def test_differences_too_small_to_square() -> None:
    points = torch.zeros(9, 1, dtype=torch.float64)
    points[:, 0] = torch.arange(9) * 1e-200
    assert_canonical(kmeans(points, 4, seed=0))


def test_an_outlier_gets_its_cluster() -> None:
    points = torch.cat([random_points(2000, 8), torch.full((1, 8), 500.0)])
    labels = kmeans(points, 2, seed=0)
    assert labels.tolist() == [0] * 2000 + [1]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e39])
@pytest.mark.parametrize("backend", BACKENDS)
def test_points_that_are_no_numbers_are_refused(bad: float, backend: str) -> None:
    points = random_points(20, 3).double()
    points[13, 1] = bad
    with pytest.raises(ValueError, match="finite"):
        kmeans(points, 2, seed=0, backend=backend)


@pytest.mark.parametrize(
    ("points", "changes"),
    [
        (torch.zeros(5), {}),
        (torch.zeros(0, 3), {}),
        (torch.zeros(3, 0), {}),
        (torch.zeros(3, 2), {"k": 0}),
        (torch.zeros(3, 2), {"k": 257}),
        (torch.zeros(3, 2), {"seed": -1}),
        (torch.zeros(3, 2), {"seed": 2**32}),
        (torch.zeros(3, 2), {"n_init": 0}),
        (torch.zeros(3, 2), {"max_iter": 0}),
        (torch.zeros(3, 2), {"backend": "auto"}),
    ],
)
def test_arguments_out_of_range(points: Tensor, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes), "points")):
        kmeans(points, **({"k": 2, "seed": 0} | changes))


def test_seeding_is_as_good_as_that_of_sklearn() -> None:
    """After one restart and one iteration the seeding still shows, and its choice among candidates."""
    points = blobs(400, 2, 20, 1.5)[0]
    ours, theirs = (
        [inertia(points, kmeans(points, 20, seed=seed, n_init=1, max_iter=1, backend=backend)) for seed in range(20)]
        for backend in BACKENDS
    )
    assert np.mean(ours) < 1.05 * np.mean(theirs)


def test_seeds_are_stable_and_differ() -> None:
    assert kmeans_seed(0, "a", 5) == 3758223621  # results in old folders depend on it
    keys = [(seed, image, k) for seed in (0, 1, 12) for image in ("a", "b", "2/a", "ä") for k in (1, 2, 12)]
    seeds = {kmeans_seed(*key) for key in keys}
    assert len(seeds) == len(keys)
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_features_are_clustered_cell_by_cell() -> None:
    points, owners = blobs(6 * 9, 16, 4, spread=0.2)
    features = points.T.reshape(16, 6, 9)
    [[clusters]] = cluster_features([features], [4], seeds=[[0]])
    assert clusters.dtype == np.uint8
    assert clusters.tolist() == owners.reshape(6, 9).tolist()
    assert torch.equal(torch.from_numpy(clusters).flatten(), kmeans(points, 4, seed=0))


def test_normalised_features_compare_directions() -> None:
    directions = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 0.0]])
    which = torch.arange(60) % 3
    lengths = torch.logspace(-6, 4, 60)
    features = (directions[which] * lengths[:, None]).T.reshape(2, 6, 10)
    assert cluster_features([features], [3], seeds=[[0]], normalize=True)[0][0].flatten().tolist() == which.tolist()
    assert cluster_features([features], [3], seeds=[[0]])[0][0].flatten().tolist() != which.tolist()


def test_half_precision_features_of_any_length_are_normalised() -> None:
    features = torch.tensor([[[60000.0, 1e-7]], [[60000.0, 1e-7]]], dtype=torch.float16)
    assert cluster_features([features], [2], seeds=[[0]], normalize=True)[0][0].tolist() == [[0, 0]]


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_features_that_are_no_numbers_are_an_image_error(bad: float, normalize: bool) -> None:
    features = torch.ones(2, 3, 4, 5)
    features[1, 1, 2, 3] = bad
    with pytest.raises(ImageError, match=r"1 of 60 features.*float32"):
        cluster_features([*features], [2], seeds=[[0], [0]], normalize=normalize)


@pytest.mark.parametrize("backend", BACKENDS)
def test_several_k_at_once_are_as_one_by_one(backend: str) -> None:
    points = torch.randn(300, 5, generator=torch.Generator().manual_seed(0))
    ks, seeds = [6, 2, 4], [3, 0, 9]
    [found] = kmeans_of_each(points[None], ks, [seeds], backend=backend)
    alone = [kmeans(points, k, seed=seed, backend=backend) for k, seed in zip(ks, seeds, strict=True)]
    assert [labels.tolist() for labels in found] == [labels.tolist() for labels in alone]


@pytest.mark.parametrize("backend", BACKENDS)
def test_among_several_k_those_with_few_distinct_points_are_exact(backend: str) -> None:
    points = torch.tensor([[0.0], [5.0], [0.0], [9.0], [5.0]])
    [found] = kmeans_of_each(points[None], [4, 3, 2], [[0, 0, 0]], backend=backend)
    assert [labels.tolist() for labels in found] == [[0, 1, 0, 2, 1], [0, 1, 0, 2, 1], [0, 1, 0, 1, 1]]


def test_values_near_the_end_of_float32_are_clustered() -> None:
    points = torch.tensor([[-3e38], [3e38], [-2.9e38], [2.9e38], [0.0]])
    assert kmeans(points, 3, seed=0).tolist() == [0, 1, 0, 1, 2]


@pytest.mark.parametrize(
    "features",
    [[torch.zeros(4, 5)], [], [torch.zeros(2, 4, 5), torch.zeros(2, 5, 4)]],
    ids=["flat", "none", "two shapes"],
)
def test_features_must_be_maps_of_one_shape(features: list[Tensor]) -> None:
    with pytest.raises(ValueError, match="features"):
        cluster_features(features, [2], seeds=[[0]] * len(features))


@pytest.mark.parametrize("backend", BACKENDS)
def test_several_images_at_once_are_as_one_by_one(backend: str) -> None:
    """Those with few distinct points among the others, those that converge late beside those that do at once."""
    images = [blobs(300, 5, 4, spread)[0] for spread in (0.01, 6.0, 20.0)]
    images.insert(1, torch.tensor([[1.0] * 5, [2.0] * 5])[torch.arange(300) % 2])
    images.append(torch.tensor([[1.0] * 5, [2.0] * 5, [4.0] * 5])[torch.arange(300) % 3])
    ks = [2, 4]
    seeds = [[10 * image + k for k in ks] for image in range(len(images))]
    found = kmeans_of_each(torch.stack(images), ks, seeds, backend=backend)
    for points, of_image, own in zip(images, found, seeds, strict=True):
        alone = [kmeans(points, k, seed=seed, backend=backend) for k, seed in zip(ks, own, strict=True)]
        assert [labels.tolist() for labels in of_image] == [labels.tolist() for labels in alone]


class FakeKMeans:
    """Stands in for cuML's: remembers how it was made, and clusters by the sign of the first feature."""

    def __init__(self, **options: Any) -> None:
        self.options = options

    def fit_predict(self, points: NDArray[np.float32]) -> NDArray[np.int32]:
        assert self.options["output_type"] == "numpy"
        assert points.dtype == np.float32
        assert points.var(0).mean() == pytest.approx(1, rel=1e-5)
        return (points[:, 0] > 0).astype(np.int32)


def test_cuml_is_called_where_it_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuml", SimpleNamespace(KMeans=FakeKMeans))
    assert resolve_backend("auto", "cuda") == resolve_backend("cuml", "cpu") == "cuml"
    assert resolve_backend("auto", "cpu") == "torch"
    points = torch.tensor([[9.0], [1.0], [2.0], [8.0]])
    assert kmeans(points, 2, seed=0, backend="cuml").tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("failure", [ModuleNotFoundError("No module named 'cuml'"), RuntimeError("no driver")])
def test_cuml_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch, failure: Exception) -> None:
    def fail(name: str) -> None:
        raise failure

    monkeypatch.setattr(module, "importlib", SimpleNamespace(import_module=fail))
    assert resolve_backend("auto", "cuda") == "torch"
    with pytest.raises(ConfigError, match=rf"{failure}.*oodray\[cuml\].*backend torch"):
        resolve_backend("cuml", "cuda")
    with pytest.raises(ConfigError, match="cuml"):
        kmeans(random_points(20, 3), 2, seed=0, backend="cuml")


def test_backends_by_name() -> None:
    for name in BACKENDS:
        assert resolve_backend(name, "cuda") == name
    with pytest.raises(ConfigError, match=r"'faiss'.*auto, torch, sklearn, cuml"):
        resolve_backend("faiss", "cpu")


@pytest.mark.gpu
@needs_cuda
def test_cuda_finds_what_the_cpu_finds() -> None:
    points, owners = blobs(500, 32, 6, spread=0.5)
    for _ in range(2):
        assert kmeans(points.cuda(), 6, seed=0).tolist() == owners.tolist()


@pytest.mark.gpu
@needs_cuda
@needs_cuml
def test_cuml_finds_what_the_others_find() -> None:
    points, owners = blobs(500, 32, 6, spread=0.5)
    for place in (points, points.cuda()):
        labels = kmeans(place, 6, seed=0, backend="cuml")
        assert labels.tolist() == owners.tolist()
        assert labels.device.type == "cpu"
