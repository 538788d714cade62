from __future__ import annotations

from pathlib import Path

import pytest

from oodray.api.calibrate import calibrate
from oodray.errors import ConfigError, DatasetError


@pytest.mark.parametrize("name", ["tau", "scores", "sweep_k", "ood_ratio"])
def test_what_a_calibration_finds_cannot_be_given(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"^a calibration does not take {name}: "):
        calibrate({"dataset": "folder", "root": tmp_path, name: 1.0}, out=tmp_path / "out")


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
