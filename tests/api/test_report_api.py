from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import oodray
from oodray.api.maps import recomputed_maps
from oodray.errors import ResultsError
from oodray.results.folder import ResultsFolder
from oodray.results.stored_image import stored_image
from oodray.scores.registry import pixel_scores


def test_a_recomputed_map_is_what_the_run_has_seen(two_images: Path, tmp_path: Path) -> None:
    """With every way of asking a network: several networks, views, passes with dropout."""
    run = oodray.run(
        dataset="ade-ood",
        root=str(two_images),
        model=["internimage-n-demo", "internimage-n-demo"],
        flip=True,
        scales="0.5,1",
        tau=0.5,
        keep_maps="energy",
        scores="energy",
        executor="local",
        out=tmp_path / "out",
        progress=False,
    )
    folder = ResultsFolder(run.out)
    image_id = run.images["image_id"][0]
    [energy] = pixel_scores(["energy"])
    image = stored_image(folder, int(run.images["unit"][0]), image_id, folder.rule())
    found = recomputed_maps(folder)(image).scores["energy"]
    stored = run.score_map(image_id, "energy").astype(np.float32)
    np.testing.assert_array_equal(energy.scale.keys(stored), energy.scale.keys(found.astype(np.float32)))


def test_blurred_maps_are_not_recomputed(two_images: Path, tmp_path: Path) -> None:
    run = oodray.run(
        dataset="ade-ood",
        root=str(two_images),
        model="internimage-n-demo",
        blur=True,
        executor="local",
        out=tmp_path / "out",
        progress=False,
    )
    with pytest.raises(ResultsError, match=r"was made with --blur.*--keep-maps all"):
        recomputed_maps(ResultsFolder(run.out))
