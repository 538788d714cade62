"""Small random mask classifiers of Hugging Face, saved to disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

transformers = pytest.importorskip("transformers", reason="transformers is an extra: pip install 'oodray[hf]'")

transformers.logging.disable_progress_bar()

CLASSES = 5
SWIN: dict[str, Any] = {
    "embed_dim": 8,
    "depths": [1, 1, 1, 1],
    "num_heads": [1, 1, 2, 2],
    "window_size": 4,
    "out_features": ["stage1", "stage2", "stage3", "stage4"],
}


LAYERS: dict[str, Any] = {
    "hidden_dim": 32,
    "encoder_feedforward_dim": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "num_attention_heads": 2,
    "dim_feedforward": 32,
    "num_queries": 6,
    "num_labels": CLASSES,
}
"""Of the networks with deformable attention."""


def mask2former() -> Any:
    sizes = {"feature_size": 32, "mask_feature_size": 32}
    config = transformers.Mask2FormerConfig(backbone_config=transformers.SwinConfig(**SWIN), **sizes, **LAYERS)
    return transformers.Mask2FormerForUniversalSegmentation(config)


def maskformer() -> Any:
    sides = ("encoder", "decoder")
    sizes = {f"{side}_{name}": size for side in sides for name, size in (("layers", 1), ("ffn_dim", 32))}
    heads = {f"{side}_attention_heads": 2 for side in sides}
    decoder = transformers.DetrConfig(
        d_model=32, num_queries=6, backbone_config=transformers.ResNetConfig(), **sizes, **heads
    )
    config = transformers.MaskFormerConfig(
        backbone_config=transformers.SwinConfig(**SWIN),
        decoder_config=decoder,
        fpn_feature_size=32,
        mask_feature_size=32,
        num_labels=CLASSES,
    )
    return transformers.MaskFormerForInstanceSegmentation(config)


def oneformer() -> Any:
    sizes = {"conv_dim": 32, "mask_dim": 32, "query_dec_layers": 1, "task_seq_len": 12}
    text = {"text_encoder_width": 16, "text_encoder_num_layers": 1, "text_encoder_vocab_size": 600}
    swin = transformers.SwinConfig(**SWIN)
    config = transformers.OneFormerConfig(backbone_config=swin, **sizes, **text, **LAYERS)
    return transformers.OneFormerForUniversalSegmentation(config)


PLAIN: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 64,
    "patch_size": 16,
    "num_blocks": 1,
    "num_queries": 6,
    "num_register_tokens": 2,
    "num_upscale_blocks": 2,
    "num_labels": CLASSES,
}


def eomt() -> Any:
    network = transformers.EomtForUniversalSegmentation(transformers.EomtConfig(**PLAIN))
    network.attn_mask_probs.zero_()  # as after training: no masked attention, and nothing random
    return network


def eomt_dinov3() -> Any:
    config = transformers.EomtDinov3Config(**PLAIN, intermediate_size=32)
    network = transformers.EomtDinov3ForUniversalSegmentation(config)
    network.attn_mask_probs.zero_()
    return network


PROCESSORS: dict[Any, tuple[str, dict[str, Any]]] = {
    mask2former: ("Mask2FormerImageProcessorPil", {"size": {"height": 64, "width": 96}}),
    maskformer: ("MaskFormerImageProcessorPil", {"size": {"height": 64, "width": 96}}),
    oneformer: ("OneFormerImageProcessorPil", {"size": {"height": 64, "width": 96}}),
    eomt: ("EomtImageProcessorPil", {"size": {"shortest_edge": 64, "longest_edge": None}, "do_split_image": True}),
    eomt_dinov3: (
        "EomtImageProcessorPil",
        {"size": {"shortest_edge": 64, "longest_edge": None}, "do_split_image": True},
    ),
}


def saved(make: Any, folder: Path, **processor: Any) -> Path:
    """The folder of a family, with weights far from zero."""
    torch.manual_seed(0)
    network = make()
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if weight.ndim > 1 and "text" not in name:
                weight.normal_(std=0.3)
    network.save_pretrained(folder)
    name, settings = PROCESSORS[make]
    getattr(transformers, name)(**settings | processor).save_pretrained(folder)
    if make is oneformer:
        save_tokenizer(folder)
        with_class_names_elsewhere(folder)
    return folder


def save_tokenizer(folder: Path) -> None:
    """A CLIP tokenizer that knows letters alone."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    transformers.CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder)


def with_class_names_elsewhere(folder: Path) -> None:
    """As published: the names of the classes lie in another repository."""
    path = folder / "preprocessor_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps(settings | {"class_info_file": "cityscapes_panoptic.json", "repo_path": "no/where"}))


def images_of(count: int, height: int, width: int) -> list[NDArray[np.uint8]]:
    return list(np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8))
