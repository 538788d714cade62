from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oodray.api.calibrate import calibrate
from oodray.errors import ConfigError, DatasetError


@pytest.mark.parametrize("name", ["tau", "scores", "sweep_k", "ood_ratio"])
def test_what_a_calibration_finds_cannot_be_given(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"^a calibration does not take {name}: "):
        calibrate({"dataset": "folder", "root": tmp_path, name: 1.0}, out=tmp_path / "out")


def test_a_growing_cluster_may_be_asked_for(tmp_path: Path) -> None:
    """The next thing that is wrong is the dataset: `--workers 2:16` was taken."""
    with pytest.raises(DatasetError, match="RoadAnomaly holds OoD pixels"):
        calibrate({"dataset": "road-anomaly", "fewest_workers": 2, "workers": 16}, out=tmp_path / "out")


@pytest.mark.parametrize("quantile", [-0.01, 1, 1.0, 5, float("nan"), True, "0.05", None])
def test_a_quantile_that_is_none_starts_nothing(quantile: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^quantile must be a share from 0 to 0\.999, got "):
        calibrate({"dataset": "folder", "root": tmp_path}, quantile=quantile, out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("quantile", [0, 0.999, np.float32(0.5)])
def test_a_quantile_in_range_is_taken(quantile: Any) -> None:
    with pytest.raises(ConfigError, match="no dataset given"):
        calibrate({}, quantile=quantile)


@pytest.mark.parametrize(
    ("settings", "error", "problem"),
    [
        ({}, ConfigError, "no dataset given"),
        ({"datset": "camvid"}, ConfigError, "unknown key 'datset' in the options; did you mean 'dataset'?"),
        ({"dataset": "camvit"}, DatasetError, "did you mean 'camvid'?"),
        ({"dataset": "road-anomaly"}, DatasetError, "RoadAnomaly holds OoD pixels"),
    ],
)
def test_what_is_wrong_starts_nothing(
    settings: dict[str, str], error: type[Exception], problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=problem):
        calibrate(settings)
    assert list(tmp_path.iterdir()) == []
