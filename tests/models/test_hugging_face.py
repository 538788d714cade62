"""Small random models of Hugging Face, saved to disk and read back without a network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from oodray.errors import ModelError
from oodray.models.loading import load_segmenter
from oodray.models.segmenter import Segmentation
from oodray.models.source import resolve_model

transformers = pytest.importorskip("transformers", reason="transformers is an extra: pip install 'oodray[hf]'")

Image = NDArray[np.uint8]

WIDTHS: dict[str, Any] = {"hidden_sizes": [8, 16, 32, 64], "depths": [1, 1, 1, 1]}
PLAIN: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}


def segformer() -> Any:
    config = transformers.SegformerConfig(
        **WIDTHS, decoder_hidden_size=16, num_attention_heads=[1, 1, 2, 4], num_labels=5
    )
    return transformers.SegformerForSemanticSegmentation(config)


def upernet() -> Any:
    stages = ["stage1", "stage2", "stage3", "stage4"]
    backbone = transformers.ConvNextConfig(**WIDTHS, out_features=stages)
    config = transformers.UperNetConfig(
        backbone_config=backbone, hidden_size=16, num_labels=5, use_auxiliary_head=False, auxiliary_in_channels=32
    )
    return transformers.UperNetForSemanticSegmentation(config)


def beit() -> Any:
    config = transformers.BeitConfig(
        **PLAIN | {"num_hidden_layers": 4},
        image_size=64,
        patch_size=16,
        out_indices=[1, 2, 3, 4],
        num_labels=5,
        use_auxiliary_head=False,
        pool_scales=[1, 2],
    )
    return transformers.BeitForSemanticSegmentation(config)


def mobilevit() -> Any:
    config = transformers.MobileViTConfig(
        hidden_sizes=[16, 24, 32],
        neck_hidden_sizes=[8, 8, 16, 16, 16, 16, 32],
        num_labels=5,
        aspp_out_channels=16,
    )
    return transformers.MobileViTForSemanticSegmentation(config)


PROCESSORS: dict[Any, tuple[str, dict[str, Any]]] = {
    segformer: ("SegformerImageProcessor", {"size": {"height": 64, "width": 96}}),
    upernet: ("SegformerImageProcessor", {"size": {"height": 64, "width": 96}}),
    beit: ("BeitImageProcessor", {"size": {"height": 96, "width": 64}, "do_center_crop": True}),
    mobilevit: ("MobileViTImageProcessor", {"size": {"height": 64, "width": 128}}),
}
FEATURES = {segformer: (32, 4, 6), upernet: (32, 4, 6), beit: (16, 6, 4), mobilevit: (16, 4, 8)}


def saved(make: Any, folder: Path) -> Path:
    torch.manual_seed(0)
    network = make()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.normal_(module.weight, std=0.2)
    network.save_pretrained(folder)
    name, settings = PROCESSORS[make]
    getattr(transformers, name)(**settings).save_pretrained(folder)
    return folder


def images_of(count: int, height: int, width: int) -> list[Image]:
    return list(np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8))


def segment(folder: Path, images: list[Image], **options: Any) -> list[Segmentation]:
    return load_segmenter(resolve_model(str(folder), **options)).segment(images)


@pytest.mark.parametrize("make", PROCESSORS)
def test_logits_are_the_models_own_and_features_those_of_stride_16(make: Any, tmp_path: Path) -> None:
    folder, images = saved(make, tmp_path), images_of(2, 75, 101)
    found = segment(folder, images)
    network = transformers.AutoModelForSemanticSegmentation.from_pretrained(folder).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    pixels = processor(images, return_tensors="pt", do_center_crop=False)["pixel_values"]
    with torch.no_grad():
        expected = network(pixels, **({"interpolate_pos_encoding": True} if make is beit else {})).logits
    torch.testing.assert_close(torch.stack([one.logits for one in found]), expected)
    assert (expected[0] - expected[1]).abs().max() > 0
    assert found[0].features.shape == FEATURES[make]


@pytest.mark.parametrize("make", PROCESSORS)
def test_in_bfloat16_nearly_the_same_leaves_as_float32(make: Any, tmp_path: Path) -> None:
    source, images = resolve_model(str(saved(make, tmp_path))), images_of(1, 75, 101)
    [exact], [found] = (load_segmenter(source, dtype=dtype).segment(images) for dtype in ("float32", "bfloat16"))
    assert_near(found.logits, exact.logits)
    assert_near(found.features, exact.features)


def test_features_of_another_network_have_the_dtype_too(tmp_path: Path) -> None:
    source = resolve_model(str(saved(segformer, tmp_path / "a")), features=str(dinov2(tmp_path / "b")))
    images = images_of(1, 70, 98)
    [exact], [found] = (load_segmenter(source, dtype=dtype).segment(images) for dtype in ("float32", "bfloat16"))
    assert_near(found.features, exact.features)


def assert_near(found: Tensor, exact: Tensor) -> None:
    assert found.dtype == torch.float32
    assert 0 < (found - exact).norm() < 0.05 * exact.norm()


def test_a_feature_stage_can_be_chosen(tmp_path: Path) -> None:
    folder = saved(segformer, tmp_path)
    assert segment(folder, images_of(1, 64, 96), feature_stage=0)[0].features.shape == (8, 16, 24)
    with pytest.raises(ModelError, match=r"no feature stage 9; .*3: \(64, 2, 3\)"):
        segment(folder, images_of(1, 64, 96), feature_stage=9)


def test_tokens_are_put_where_their_patches_are(tmp_path: Path) -> None:
    """One bright patch: its token is the one that differs most from what a dark image gives, wherever it lies."""
    folder = dinov2(tmp_path)
    dark = np.zeros((42, 70, 3), np.uint8)
    for row, column in ((0, 0), (1, 3), (2, 4)):
        bright = dark.copy()
        bright[14 * row : 14 * row + 14, 14 * column : 14 * column + 14] = 255
        features = extract(folder, [dark, bright])
        change = (features[1] - features[0]).norm(dim=0)
        assert change.shape == (3, 5)
        assert int(change.argmax()) == row * 5 + column


def dinov2(folder: Path) -> Path:
    torch.manual_seed(0)
    config = transformers.Dinov2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=56)
    transformers.Dinov2Model(config).save_pretrained(folder)
    transformers.BitImageProcessor().save_pretrained(folder)
    return folder


def clip(folder: Path) -> Path:
    torch.manual_seed(0)
    vision = {**PLAIN, "image_size": 32, "patch_size": 8}
    text = {**PLAIN, "vocab_size": 50, "max_position_embeddings": 8, "bos_token_id": 0, "eos_token_id": 1}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    transformers.CLIPModel(config).save_pretrained(folder)
    transformers.CLIPImageProcessor().save_pretrained(folder)
    return folder


def extract(folder: Path, images: list[Image]) -> Tensor:
    from oodray.models.hugging_face import HuggingFaceFeatures

    return HuggingFaceFeatures(folder).features(images)


@pytest.mark.parametrize(("make", "patch"), [(dinov2, 14), (clip, 8)])
def test_features_are_those_of_the_patches(make: Any, patch: int, tmp_path: Path) -> None:
    folder, height, width = make(tmp_path), 5 * patch, 7 * patch
    images = images_of(2, height, width)
    found = extract(folder, images)
    kind = transformers.CLIPVisionModel if make is clip else transformers.AutoModel
    network = kind.from_pretrained(folder).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    options = {"do_resize": False, "do_center_crop": False}
    pixels = processor(images, return_tensors="pt", **options)["pixel_values"]
    with torch.no_grad():
        tokens = network(pixels, **({"interpolate_pos_encoding": True} if make is clip else {})).last_hidden_state
    expected = tokens[:, 1:].reshape(2, 5, 7, -1).permute(0, 3, 1, 2)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_an_image_of_any_size_is_covered_by_whole_patches(tmp_path: Path) -> None:
    folder = dinov2(tmp_path)
    assert extract(folder, images_of(1, 75, 101)).shape == (1, 16, 5, 7)
    assert extract(folder, images_of(1, 3, 5)).shape == (1, 16, 1, 1)


def test_features_of_another_network_replace_those_of_the_segmenter(tmp_path: Path) -> None:
    folder, images = saved(segformer, tmp_path / "a"), images_of(1, 70, 98)
    alone = segment(folder, images)
    both = segment(folder, images, features=str(dinov2(tmp_path / "b")))
    assert torch.equal(both[0].logits, alone[0].logits)
    assert both[0].features.shape == (16, 5, 7)


def test_a_change_of_weights_or_settings_shows_in_the_digest(tmp_path: Path) -> None:
    folder = saved(segformer, tmp_path)
    before = resolve_model(str(folder)).weights_sha256()
    assert before == resolve_model(f"hf:{folder}").weights_sha256()
    (folder / "preprocessor_config.json").write_text('{"image_processor_type": "SegformerImageProcessor"}')
    assert resolve_model(str(folder)).weights_sha256() != before


def test_without_a_network_one_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(
        ModelError, match=r"cannot get no/body from Hugging Face: .*`hf download no/body --local-dir DIR`"
    ):
        resolve_model("hf:no/body")


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="holds no weights"):
        resolve_model(str(tmp_path))


def test_a_reason_that_begins_with_an_empty_line_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise ImportError("\nit requires another library\nand so on")

    folder = saved(segformer, tmp_path)
    monkeypatch.setattr("transformers.AutoImageProcessor.from_pretrained", refuse)
    with pytest.raises(ModelError, match=r"cannot be used as a AutoImageProcessor: it requires another library$"):
        segment(folder, images_of(1, 32, 32))


def test_a_model_that_does_not_segment_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be used as a AutoModelForSemanticSegmentation"):
        segment(dinov2(tmp_path), images_of(1, 28, 28))


def changed(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Path:
    """The folder, with its weights changed."""
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("left_out", ["decode_head.", "segformer.encoder.patch_embeddings.1."])
def test_weights_that_do_not_cover_the_network_are_refused(left_out: str, tmp_path: Path) -> None:
    folder = changed(
        saved(segformer, tmp_path),
        lambda state: {key: value for key, value in state.items() if not key.startswith(left_out)},
    )
    with pytest.raises(
        ModelError, match=r"do not cover the network, a Segformer.* \d+ missing: (segformer|decode_head)\..*random"
    ):
        segment(folder, images_of(1, 32, 32))


def test_nor_may_they_for_features(tmp_path: Path) -> None:
    folder = changed(
        dinov2(tmp_path),
        lambda state: {key: value for key, value in state.items() if not key.startswith("layernorm.")},
    )
    with pytest.raises(ModelError, match=r"do not cover the network, a Dinov2Model. 2 missing: layernorm"):
        extract(folder, images_of(1, 28, 28))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "teacher.", "module._orig_mod."])
def test_a_word_before_every_key_changes_nothing(prefix: str, tmp_path: Path) -> None:
    images = images_of(1, 32, 48)
    [expected] = segment(saved(segformer, tmp_path), images)
    folder = changed(tmp_path, lambda state: {prefix + key: value for key, value in state.items()})
    assert torch.equal(segment(folder, images)[0].logits, expected.logits)


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16])
def test_weights_stored_in_half_precision_run_in_the_dtype_asked_for(stored: torch.dtype, tmp_path: Path) -> None:
    images = images_of(1, 32, 48)
    [expected] = segment(saved(segformer, tmp_path / "a"), images)
    network = transformers.AutoModelForSemanticSegmentation.from_pretrained(tmp_path / "a").to(stored)
    network.save_pretrained(tmp_path / "a")
    [found] = segment(tmp_path / "a", images)
    assert found.logits.dtype == torch.float32
    assert 0 < (found.logits - expected.logits).norm() < 0.05 * expected.logits.norm()
    transformers.AutoModel.from_pretrained(dinov2(tmp_path / "b")).to(stored).save_pretrained(tmp_path / "b")
    assert extract(tmp_path / "b", images).dtype == torch.float32


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    key = "decode_head.classifier.bias"
    folder = changed(saved(segformer, tmp_path), lambda state: state | {key: state[key] * float("nan")})
    with pytest.raises(ModelError, match=rf"holds NaN or infinity, .* {key}"):
        segment(folder, images_of(1, 32, 32))


def test_code_of_a_repository_is_never_run(tmp_path: Path) -> None:
    folder = saved(segformer, tmp_path)
    (folder / "evil.py").write_text("raise SystemExit('ran')\n")
    config = (folder / "config.json").read_text()
    auto = '{"auto_map": {"AutoModelForSemanticSegmentation": "evil.Model", "AutoConfig": "evil.Config"},'
    (folder / "config.json").write_text(config.replace("{", auto, 1).replace('"segformer"', '"evil"'))
    with pytest.raises(ModelError):
        segment(folder, images_of(1, 32, 32))


def test_a_checkpoint_does_not_go_with_a_folder(tmp_path: Path) -> None:
    folder = saved(segformer, tmp_path)
    with pytest.raises(ModelError, match="its folder has the weights"):
        resolve_model(str(folder), str(folder / "model.safetensors"))
