"""Each family against the semantic map of its own image processor, at the size that it makes one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from mask_classifiers import PROCESSORS, eomt, images_of, mask2former, oneformer, saved, transformers
from torch import Tensor

from oodray.errors import ModelError
from oodray.models.loading import load_segmenter
from oodray.models.segmenter import Segmentation
from oodray.models.source import resolve_model
from oodray.scores.queries import Window, Windows

LIBRARYS_SIZE = {"Mask2FormerForUniversalSegmentation": (384, 384)}
"""Where a processor squeezes masks to; the others make a semantic map at the size of the mask logits."""


def segment(folder: Path, images: list[Any], **options: Any) -> list[Segmentation]:
    return load_segmenter(resolve_model(str(folder)), **options).segment(images)


def the_librarys(folder: Path, images: list[Any]) -> tuple[Any, list[Tensor]]:
    """What the network itself gives for images, and the semantic maps that its processor makes of it."""
    name = json.loads((folder / "config.json").read_text())["architectures"][0]
    network = getattr(transformers, name).from_pretrained(folder).eval()
    if "OneFormer" in name:
        processor = transformers.OneFormerProcessor(
            transformers.AutoImageProcessor.from_pretrained(folder, class_info_file=None),
            transformers.AutoTokenizer.from_pretrained(folder),
            task_seq_length=network.config.task_seq_len,
        )
        inputs = processor(images, ["semantic"] * len(images), return_tensors="pt")
    else:
        processor = transformers.AutoImageProcessor.from_pretrained(folder)
        inputs = processor(images, return_tensors="pt")
    with torch.no_grad():
        outputs = network(**inputs)
    height, width = LIBRARYS_SIZE.get(name, outputs.masks_queries_logits.shape[-2:])
    sizes = [images[0].shape[:2] if "Eomt" in name else (height, width)] * len(images)
    found = processor.post_process_semantic_segmentation(outputs, sizes, return_segmentation_scores=True)
    return outputs, [one.segmentation_scores for one in found]


@pytest.mark.parametrize("make", PROCESSORS)
@pytest.mark.parametrize("size", [(75, 101), (101, 75)])
def test_the_semantic_map_is_the_librarys(make: Any, size: tuple[int, int], tmp_path: Path) -> None:
    folder, images = saved(make, tmp_path), images_of(2, *size)
    found = segment(folder, images)
    outputs, expected = the_librarys(folder, images)
    raw = torch.cat([one.class_logits.reshape(-1, *one.class_logits.shape[-2:]) for one in found])  # type: ignore[union-attr]
    torch.testing.assert_close(raw, outputs.class_queries_logits)
    for one, semantic in zip(found, expected, strict=True):
        assert one.queries is not None
        height, width = semantic.shape[-2:]
        torch.testing.assert_close(one.queries.rows(height, width, slice(0, height))[0], semantic, rtol=1e-4, atol=1e-5)
        assert semantic.std() > 0.1
    assert (expected[0] - expected[1]).abs().max() > 0.1


@pytest.mark.parametrize("make", PROCESSORS)
def test_features_have_stride_16(make: Any, tmp_path: Path) -> None:
    [found] = segment(saved(make, tmp_path), images_of(1, 64, 96))
    channels = 16 if "eomt" in make.__name__ else 32
    assert found.features.shape == (channels, 4, 6)
    assert found.features.std() > 0


def test_features_of_windows_lie_where_their_patches_are(tmp_path: Path) -> None:
    """Side by side without overlap, each patch token of a window is one of the map."""
    folder, images = saved(eomt, tmp_path), images_of(1, 64, 128)
    [found] = segment(folder, images)
    network = transformers.EomtForUniversalSegmentation.from_pretrained(folder).eval()
    inputs = transformers.AutoImageProcessor.from_pretrained(folder)(images, return_tensors="pt")
    with torch.no_grad():
        tokens = network(**inputs).last_hidden_state[:, 6 + 3 :]
    left, right = tokens.reshape(2, 4, 4, 16).permute(0, 3, 1, 2)
    torch.testing.assert_close(found.features, torch.cat([left, right], -1), rtol=1e-4, atol=1e-5)


def test_eomt_without_windows_pads_and_the_padding_is_cut_off(tmp_path: Path) -> None:
    size = {"shortest_edge": 64, "longest_edge": 64}
    folder = saved(eomt, tmp_path, size=size, do_split_image=False, do_pad=True)
    [found] = segment(folder, images_of(1, 48, 96))
    assert found.windows == Windows(32, 64, (Window(0, 0, 64, 64),))
    assert found.features.shape == (16, 2, 4)
    assert found.logits.shape == (5, 8, 16)


def test_a_feature_stage_can_be_chosen(tmp_path: Path) -> None:
    source = resolve_model(str(saved(mask2former, tmp_path / "a")), feature_stage=0)
    assert load_segmenter(source).segment(images_of(1, 64, 96))[0].features.shape == (8, 16, 24)
    source = resolve_model(str(saved(eomt, tmp_path / "b")), feature_stage=1)
    assert load_segmenter(source).segment(images_of(1, 64, 96))[0].features.shape == (16, 4, 6)
    with pytest.raises(ModelError, match="no feature stage 9"):
        load_segmenter(resolve_model(str(saved(mask2former, tmp_path / "a")), feature_stage=9))


def test_in_bfloat16_nearly_the_same(tmp_path: Path) -> None:
    folder, images = saved(eomt, tmp_path), images_of(1, 64, 96)
    [exact], [found] = segment(folder, images), segment(folder, images, dtype="bfloat16")
    assert found.logits.dtype == found.features.dtype == torch.float32
    for name in ("logits", "features"):
        before = getattr(exact, name)
        assert 0 < (getattr(found, name) - before).norm() < 0.05 * before.norm()


def test_a_class_that_transformers_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved(eomt, tmp_path)
    monkeypatch.setattr("oodray.models.mask_classifiers.transformers", lambda: _Old)
    with pytest.raises(ModelError, match=r"EomtForUniversalSegmentation needs transformers 4\.54, here is 4\.49\.0"):
        load_segmenter(resolve_model(str(folder)))


class _Old:
    __version__ = "4.49.0"


def test_without_a_processor_config_the_message_says_where_to_get_one(tmp_path: Path) -> None:
    folder = saved(mask2former, tmp_path)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match=r"has no preprocessor_config\.json.*Copy it from .*save_pretrained"):
        load_segmenter(resolve_model(str(folder)))


def test_oneformer_without_a_tokenizer(tmp_path: Path) -> None:
    folder = saved(oneformer, tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"):
        (folder / name).unlink(missing_ok=True)
    with pytest.raises(ModelError, match="lacks the files of its tokenizer"):
        load_segmenter(resolve_model(str(folder)))
