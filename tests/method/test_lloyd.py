"""The steps of the torch backend; what they add up to is tested with `kmeans`, against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from oodray.method import lloyd as module
from oodray.method.kmeans import kmeans


def test_no_cluster_stays_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where all centres but one start too far away for any point."""
    points = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))

    def far_away(points: Tensor, norms: Tensor, *_: object) -> tuple[Tensor, Tensor]:
        centres = (torch.arange(5.0)[:, None].expand(4, 5, 4) * 100).reshape(1, 20, 4)
        return centres, module._distances(points, norms, centres)

    monkeypatch.setattr(module, "_seed_centres", far_away)
    assert set(kmeans(points, 5, seed=0).tolist()) == set(range(5))


def test_seeding_knows_the_distances_to_its_centres() -> None:
    points = torch.randn(2, 50, 3, generator=torch.Generator().manual_seed(0))
    centres, distances = module._seed_centres(points, points.square().sum(2), [3, 1, 5], [[0, 1, 2], [3, 4, 5]], 2)
    assert centres.shape == (2, 18, 3)
    exact = (points[:, None].double() - centres[:, :, None].double()).square().sum(3)
    torch.testing.assert_close(distances.double(), exact, rtol=1e-5, atol=1e-5)
    assert (distances.amin(2) < 1e-5).all()  # each centre is a point


def test_images_of_a_batch_do_not_see_each_other() -> None:
    """Some converge at once, some late; what a GPU computes in one go, a CPU can."""
    generator = torch.Generator().manual_seed(0)
    spreads = torch.tensor([0.01, 1.0, 3.0, 0.1])[:, None, None]
    centres = torch.randn(4, 5, 6, generator=generator)
    owners = torch.arange(300) % 5
    points = centres[:, owners] + spreads * torch.randn(4, 300, 6, generator=generator)
    ks, seeds = [2, 5, 7], [[10 * image + k for k in range(3)] for image in range(4)]
    together = module.lloyd(points, ks, seeds, n_init=3, max_iter=100, tol=1e-4)
    for image, found in enumerate(together):
        [alone] = module.lloyd(points[image : image + 1], ks, [seeds[image]], n_init=3, max_iter=100, tol=1e-4)
        for k, ours, theirs in zip(ks, found, alone, strict=True):
            assert set(ours) == set(range(k))
            assert inertia(points[image], ours) == pytest.approx(inertia(points[image], theirs), rel=1e-5)


def inertia(points: Tensor, labels: NDArray[np.int64]) -> float:
    exact = points.double().numpy()
    groups = [exact[labels == cluster] for cluster in np.unique(labels)]
    return float(sum(((group - group.mean(0)) ** 2).sum() for group in groups))


def test_a_point_between_two_centres_belongs_to_one() -> None:
    distances = torch.tensor([[[1.0, 2.0, 0.0], [1.0, 1.0, 4.0]]])
    assert module._members(distances, [2], 1).tolist() == [[[True, False, True], [False, True, False]]]


def test_candidates_are_drawn_in_proportion() -> None:
    weights = torch.tensor([[[0.0, 1.0, 0.0, 3.0, 0.0], [5.0, 0.0, 0.0, 0.0, 5.0]]])
    draws = torch.linspace(0, 1, 4001, dtype=torch.float64)[:-1].expand(1, 2, -1).contiguous()
    [drawn] = module._draw_proportionally(weights, draws)
    assert drawn[0].bincount(minlength=5).tolist() == pytest.approx([0, 1000, 0, 3000, 0], abs=1)
    assert drawn[1].bincount(minlength=5).tolist() == pytest.approx([2000, 0, 0, 0, 2000], abs=1)


def test_candidates_of_no_weight_are_still_points() -> None:
    assert module._draw_proportionally(torch.zeros(1, 1, 3), torch.tensor([[[0.0, 0.999]]]).double()).max() < 3


def test_empty_clusters_take_the_farthest_points() -> None:
    labels = torch.tensor([[[0, 0, 0, 2], [1, 0, 2, 3]]])
    distances = torch.tensor([[[1.0, 5.0, 4.0, 0.5], [9.0, 9.0, 9.0, 9.0]]])
    assert module._fill_empty(labels, distances, 4).tolist() == [[[0, 1, 3, 2], [1, 0, 2, 3]]]


def test_a_cluster_without_points_keeps_its_centre() -> None:
    members = torch.tensor([[[True, True], [False, False]]])
    means = module._means(torch.tensor([[[1.0], [3.0]]]), members, torch.tensor([[[7.0], [8.0]]]))
    assert means.tolist() == [[[2.0], [8.0]]]
