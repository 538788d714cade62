"""The procedural scenes as training data: what mmsegmentation gets is what was drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from oodray.datasets.demo.scenes import CLASSES, PALETTE, render_scene
from oodray.training import scenes as scenes_module
from oodray.training.samples import Sample, examples, pack
from oodray.training.scenes import SceneCrops, WholeScenes

WHOLE = (320, 640)


def semantic_of(sample: Sample) -> NDArray[np.int64]:
    [semantic] = sample["data_samples"].gt_sem_seg.data.numpy()
    found: NDArray[np.int64] = semantic
    return found


def rgb_of(sample: Sample) -> NDArray[np.uint8]:
    image: NDArray[np.uint8] = sample["inputs"].flip(0).permute(1, 2, 0).numpy()
    return image


def seeded(dataset: SceneCrops, seed: int, index: int = 0) -> Sample:
    np.random.seed(seed)
    return dataset[index]


@pytest.fixture(scope="module")
def whole_crops() -> SceneCrops:
    """Crops as large as the scenes: only mirrored and relit."""
    return SceneCrops(scenes=1, crop=WHOLE)


def test_packed_images_are_bgr_with_channels_first() -> None:
    image = np.zeros((2, 3, 3), np.uint8)
    image[..., 0], image[0, 1, 1] = 200, 50
    semantic = np.array([[0, 1, 255], [2, 3, 4]], np.uint8)
    sample = pack(image, semantic)
    assert sample["inputs"].shape == (3, 2, 3)
    assert sample["inputs"].dtype == torch.uint8
    assert sample["inputs"].is_contiguous()
    assert sample["inputs"][2].unique().tolist() == [200]  # red last
    assert sample["inputs"][1].tolist() == [[0, 50, 0], [0, 0, 0]]
    assert sample["inputs"][0].unique().tolist() == [0]
    assert sample["data_samples"].gt_sem_seg.data.dtype == torch.int64
    assert semantic_of(sample).tolist() == semantic.tolist()
    assert sample["data_samples"].img_shape == sample["data_samples"].ori_shape == (2, 3)


class TestWholeScenes:
    def test_are_the_validation_scenes(self) -> None:
        dataset = WholeScenes(2)
        assert len(dataset) == 2
        for index in range(2):
            scene = render_scene(index, split="val")
            assert np.array_equal(rgb_of(dataset[index]), scene.image)
            assert np.array_equal(semantic_of(dataset[index]), scene.semantic)

    def test_name_the_classes(self) -> None:
        for dataset in (WholeScenes, SceneCrops):
            assert dataset.metainfo == {"classes": CLASSES, "palette": PALETTE}


class TestSceneCrops:
    def test_have_the_size_asked_for(self) -> None:
        dataset = SceneCrops(scenes=2, crop=(48, 80))
        assert len(dataset) == 2
        for seed in range(4):
            sample = seeded(dataset, seed, seed % 2)
            assert sample["inputs"].shape == (3, 48, 80)
            assert sample["inputs"].dtype == torch.uint8
            assert semantic_of(sample).shape == (48, 80)
            assert sample["data_samples"].img_shape == (48, 80)
            assert semantic_of(sample).max() < len(CLASSES)

    def test_repeat_with_the_seed_of_numpy_alone(self) -> None:
        first, second = (SceneCrops(scenes=1, crop=(48, 80)) for _ in range(2))
        samples = [seeded(first, seed)["inputs"] for seed in range(4)]
        assert all(torch.equal(seeded(second, seed)["inputs"], samples[seed]) for seed in range(4))
        assert len({sample.numpy().tobytes() for sample in samples}) == 4

    def test_are_windows_of_the_training_scene_wherever_they_fit(self) -> None:
        semantic = render_scene(0, split="train").semantic
        dataset = SceneCrops(scenes=1, crop=(319, 639))
        windows = {
            (top, left, mirrored): semantic[top : top + 319, left : left + 639][:, :: -1 if mirrored else 1]
            for top in (0, 1)
            for left in (0, 1)
            for mirrored in (False, True)
        }
        seen = set()
        for seed in range(40):
            crop = semantic_of(seeded(dataset, seed))
            [found] = [name for name, window in windows.items() if np.array_equal(window, crop)]
            seen.add(found)
        assert seen == windows.keys()

    def test_image_and_labels_are_mirrored_together(self, whole_crops: SceneCrops) -> None:
        scene = render_scene(0, split="train")
        seen = set()
        for seed in range(8):
            sample = seeded(whole_crops, seed)
            mirrored = not np.array_equal(semantic_of(sample), scene.semantic)
            step = -1 if mirrored else 1
            assert np.array_equal(semantic_of(sample), scene.semantic[:, ::step])
            alike, other = (
                np.corrcoef(rgb_of(sample).ravel(), scene.image[:, ::s].ravel())[0, 1] for s in (step, -step)
            )
            assert alike > 0.97
            assert alike > other
            seen.add(mirrored)
        assert seen == {False, True}

    def test_light_is_linear_in_the_colours_and_varies(self, whole_crops: SceneCrops) -> None:
        scene = render_scene(0, split="train")
        slopes = []
        for seed in range(6):
            sample = seeded(whole_crops, seed)
            image = scene.image if np.array_equal(semantic_of(sample), scene.semantic) else scene.image[:, ::-1]
            for channel in range(3):
                before, after = image[..., channel].astype(float), rgb_of(sample)[..., channel].astype(float)
                inside = (after > 0) & (after < 255)
                slope, offset = np.polyfit(before[inside], after[inside], 1)
                assert np.abs(slope * before + offset - after)[inside].max() < 1.1
                slopes.append(slope)
        assert 0.8 * 0.93 - 0.01 < min(slopes) < max(slopes) < 1.25 * 1.07 + 0.01
        assert max(slopes) - min(slopes) > 0.1

    def test_scenes_are_drawn_once_and_left_as_they_are(self, monkeypatch: pytest.MonkeyPatch) -> None:
        drawn = []

        def counted(index: int, *, split: str) -> object:
            drawn.append((index, split))
            return render_scene(index, split=split, height=64, width=128)

        monkeypatch.setattr(scenes_module, "render_scene", counted)
        dataset = SceneCrops(scenes=3, crop=(32, 32))
        first = [seeded(dataset, seed=9, index=2)["inputs"] for _ in range(3)]
        assert drawn == [(2, "train")]
        assert torch.equal(first[0], first[2])


def test_the_examples_of_the_card_are_the_first_validation_scenes() -> None:
    unpacked = list(examples(WholeScenes(2)))
    assert len(unpacked) == 2
    for index, (image, semantic) in enumerate(unpacked):
        scene = render_scene(index, split="val")
        assert np.array_equal(image, scene.image)
        assert np.array_equal(semantic, scene.semantic)
