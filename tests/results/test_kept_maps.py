"""Maps that a run keeps are those that `oodray.detect` computes, to the key."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import oodray
from oodray.errors import ConfigError, ResultsError
from oodray.export.writing import export_run
from oodray.results.folder import ResultsFolder
from oodray.results.kept_maps import decode_map, encode_map
from oodray.scores.registry import KNOWN, pixel_scores


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (256, 7), (257, 4), (600, 33)])
@pytest.mark.parametrize("smooth", [True, False])
def test_nothing_is_lost(size: tuple[int, int], smooth: bool) -> None:
    random = np.random.default_rng(0)
    values: NDArray[np.uint16] = random.integers(0, 65536, size).astype(np.uint16)
    if smooth:
        values = (np.cumsum(np.cumsum(random.integers(-3, 4, size), 0), 1) % 65536).astype(np.uint16)
    np.testing.assert_array_equal(decode_map(encode_map(values), size[1]), values)


def test_damaged_bytes_are_named() -> None:
    data = encode_map(np.arange(12, dtype=np.uint16).reshape(3, 4))
    for broken in (data[:-1], data[:5], data[:8] + b"x" + data[9:]):
        with pytest.raises(ResultsError, match="a map that the run kept is damaged"):
            decode_map(broken, 4)


def test_a_run_keeps_maps(tiny_dataset: Path, tmp_path: Path) -> None:
    run = oodray.run(
        dataset="ade-ood",
        root=str(tiny_dataset),
        model="internimage-n-demo",
        keep_maps="all",
        scores="ratio,energy,msp",
        executor="local",
        out=tmp_path / "out",
        progress=False,
    )
    net = oodray.load("internimage-n-demo")
    for image_id, uri in zip(run.images["image_id"][:3], run.images["image_uri"][:3], strict=True):
        found = oodray.detect(uri, net, image_id=image_id, scores="energy,msp")
        np.testing.assert_array_equal(run.class_map(image_id), found.classes)
        for score in pixel_scores(["energy", "msp"]):
            stored = run.score_map(image_id, score.name).astype(np.float32)
            np.testing.assert_array_equal(
                score.scale.keys(stored), score.scale.keys(found.scores[score.name].astype(np.float32))
            )
    export_run(ResultsFolder(tmp_path / "out"), tmp_path / "to", "fishyscapes", score="energy")
    for image_id in run.images["image_id"]:
        exported = np.load(tmp_path / "to" / f"{image_id}_anomaly.npy")
        np.testing.assert_array_equal(exported, run.score_map(image_id, "energy").astype(np.float32))
    with pytest.raises(ResultsError, match="has no score 'knn'"):
        run.score_map(run.images["image_id"][0], "knn")


def test_only_pixel_scores_are_kept(tiny_dataset: Path, tmp_path: Path) -> None:
    for name in ("ratio", "knn"):
        with pytest.raises(ConfigError, match=f"--keep-maps {name}: it is none of the run's pixel scores"):
            oodray.run(
                dataset="ade-ood",
                root=str(tiny_dataset),
                model="internimage-n-demo",
                keep_maps=(name,),
                executor="local",
                out=tmp_path / "out",
                progress=False,
            )
    assert "knn" in KNOWN
