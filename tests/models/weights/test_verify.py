from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from oodray.errors import ModelError
from oodray.models.weights.checkpoints import read_state_dict
from oodray.models.weights.state_dicts import StateDict
from oodray.models.weights.verify import verify
from oodray.models.weights.wrong_files import file_sha256
from oodray.models.weights.zoo import EMBEDDED, ZooModel, get_model

AUXILIARY: StateDict = {"auxiliary_head.conv_seg.weight": torch.zeros(10, 4, 1, 1)}


@pytest.fixture
def model() -> ZooModel:
    return get_model(EMBEDDED)


@pytest.fixture
def state(model: ZooModel) -> StateDict:
    return read_state_dict(model.checkpoint)


def test_the_published_file_is_known(model: ZooModel) -> None:
    verdict = verify(model.checkpoint, model)
    assert verdict.published
    assert verdict.lines() == [
        f"{model.checkpoint} fits {EMBEDDED}",
        f"{verdict.tensors} tensors of float16 and int64",
        "3,327,966 parameters, 10 outputs",
        f"sha256 {model.sha256}, as published",
    ]


def test_another_form_of_the_same_weights_fits(model: ZooModel, state: StateDict, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(state | AUXILIARY, path)
    verdict = verify(path, model)
    assert not verdict.published
    assert (verdict.tensors, verdict.auxiliary) == (len(state), 1)
    assert verdict.lines()[1].endswith("and 1 of an auxiliary head, which are not used")
    assert verdict.lines()[3] == (
        f"note: not the published file: its sha256 is {file_sha256(path)} instead of {model.sha256}"
    )


@pytest.mark.parametrize(("outputs", "words"), [(10, "10 outputs, of which the first 7 are used"), (7, "7 outputs")])
def test_outputs_may_be_those_in_use_or_those_of_the_config(
    model: ZooModel, state: StateDict, tmp_path: Path, outputs: int, words: str
) -> None:
    for key in ("decode_head.conv_seg.weight", "decode_head.conv_seg.bias"):
        state[key] = state[key][:outputs].clone()
    torch.save(state, tmp_path / "weights.pth")
    verdict = verify(tmp_path / "weights.pth", replace(model, classes=7))
    assert verdict.outputs == outputs
    assert verdict.lines()[2].endswith(f" parameters, {words}")


def test_what_does_not_fit_is_named(model: ZooModel, state: StateDict, tmp_path: Path) -> None:
    del state["backbone.patch_embed.conv1.weight"]
    torch.save(state | {"neck.weight": torch.zeros(1)}, tmp_path / "weights.pth")
    with pytest.raises(ModelError, match=r"1 missing: backbone\.patch_embed\.conv1\.weight; 1 surplus: neck\.weight"):
        verify(tmp_path / "weights.pth", model)
