"""CamVid as training data: the classes that a config names, and nothing of the others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmseg.registry import DATASETS
from PIL import Image

import oodray.training.camvid
from oodray.config import config_root
from oodray.models.weights.zoo import get_model
from oodray.training.samples import examples

NAMES = ("internimage-n-camvid", "internimage-n-camvid-held-out")
VOID, IGNORED = 11, 255


@pytest.fixture(autouse=True)
def mmseg_scope() -> Iterator[None]:
    """Names in configs are mmsegmentation's, as a Runner would set it."""
    with DefaultScope.overwrite_default_scope("mmseg"):
        yield


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    """Two frames whose labels hold every code."""
    random = np.random.default_rng(3)
    for split in ("train", "val", "test"):
        for folder in (split, f"{split}annot"):
            (tmp_path / folder).mkdir()
        for index in range(2):
            image, codes = random.integers(0, 256, (24, 36, 3), np.uint8), random.integers(0, 12, (24, 36), np.uint8)
            Image.fromarray(image).save(tmp_path / split / f"{index}.jpg")
            Image.fromarray(codes).save(tmp_path / f"{split}annot" / f"{index}.png")
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("split", ["val", "test"])
def test_named_classes_keep_their_number_and_the_others_are_ignored(camvid: Path, name: str, split: str) -> None:
    loader = Config.fromfile(str(config_root() / "train" / f"{name}.py"))[f"{split}_dataloader"]
    loader.dataset.data_root = str(camvid)
    dataset = DATASETS.build(loader.dataset)
    classes = dataset.metainfo["classes"]
    assert classes == oodray.training.camvid.CamVidFrames.METAINFO["classes"][: get_model(name).classes]
    found = list(examples(dataset))
    assert len(found) == 2
    for index, (image, semantic) in enumerate(found):
        codes = np.asarray(Image.open(camvid / f"{split}annot" / f"{index}.png"))
        assert np.array_equal(semantic, np.where(codes < len(classes), codes, IGNORED))
        assert np.array_equal(image, np.asarray(Image.open(camvid / split / f"{index}.jpg")))


@pytest.mark.parametrize("name", NAMES)
def test_training_crops_are_of_the_stated_size(camvid: Path, name: str) -> None:
    config = Config.fromfile(str(config_root() / "train" / f"{name}.py"))
    config.train_dataloader.dataset.data_root = str(camvid)
    sample = DATASETS.build(config.train_dataloader.dataset)[0]
    # Small frames are not padded here: that is the data preprocessor's part.
    assert sample["inputs"].shape[1] <= config.crop[0]
    assert config.model.decode_head.num_classes == len(config.classes)
    assert set(np.unique(sample["data_samples"].gt_sem_seg.data)) <= {*range(len(config.classes)), IGNORED}


def test_the_real_frames_are_all_found(data: Path) -> None:
    counts = {}
    for split in ("train", "val", "test"):
        dataset = DATASETS.build({"type": "CamVidFrames", "data_root": str(data / "camvid"), "split": split})
        counts[split] = len(dataset)
    assert counts == {"train": 367, "val": 101, "test": 233}
