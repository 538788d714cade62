"""A published network of mmsegmentation end to end: CGNet, trained on CamVid by its authors."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import oodray
from oodray.models.loading import load
from oodray.scores.maps import pixel_maps

VOID = 11


@pytest.fixture
def cgnet(data: Path) -> tuple[Path, Path]:
    folder = data / "cgnet-camvid"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    return folder / "cgnet_camvid.py", folder / "cgnet_camvid.pth"


def frames(data: Path, count: int) -> list[Path]:
    return sorted((data / "camvid" / "test").glob("*"))[:: 233 // count][:count]


def test_it_knows_the_streets_of_camvid(data: Path, cgnet: tuple[Path, Path]) -> None:
    network = load(cgnet[0], checkpoint=cgnet[1], device="cpu")
    right = known = 0
    for path in frames(data, 3):
        image = np.asarray(Image.open(path).convert("RGB"))
        [label] = (data / "camvid" / "testannot").glob(f"{path.stem}.*")
        codes = np.asarray(Image.open(label))
        [found] = network.segment([image.copy()])
        assert found.features.shape == (256, 45, 60)
        height, width = codes.shape
        classes = pixel_maps(found.logits, height, width, [], with_classes=True).classes
        right += int(((classes == codes) & (codes != VOID)).sum())
        known += int((codes != VOID).sum())
    assert right / known > 0.85


def test_a_run_from_images_to_masks(data: Path, cgnet: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for path in frames(data, 2):
        shutil.copy(path, tmp_path / "photos")
    run = oodray.run(
        dataset="folder",
        root=tmp_path / "photos",
        model=str(cgnet[0]),
        checkpoint=str(cgnet[1]),
        tau=9.0,
        out=tmp_path / "out",
        executor="local",
        progress=False,
    )
    assert list(run.images["status"]) == ["ok", "ok"]
    assert run.images["ood_fraction"].between(0, 1).all()
    assert (run.images["ood_fraction"] > 0).any()


def test_its_classifier_can_be_asked_again(data: Path, cgnet: tuple[Path, Path]) -> None:
    network = load(cgnet[0], checkpoint=cgnet[1], device="cpu")
    [path] = frames(data, 1)
    found = oodray.detect(path, network, tau=4.4, scores="energy,ash,scale")
    assert {"energy", "ash", "scale"} == {*found.scores}
    ranks = {name: np.argsort(np.argsort(values.ravel())) for name, values in found.scores.items()}
    for name in ("ash", "scale"):
        agreement = np.corrcoef(ranks["energy"], ranks[name])[0, 1]
        assert 0.2 < agreement < 0.9999, name
