"""The forms in which trainers store weights, each as its own library writes it."""

from __future__ import annotations

import argparse
import gzip
import re
import tarfile
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from oodray.errors import ModelError
from oodray.models.weights.checkpoints import read_checkpoint
from oodray.models.weights.state_dicts import StateDict

STATE: StateDict = {"conv.weight": torch.arange(6.0).reshape(2, 3), "conv.bias": torch.tensor([0.1, -2.5])}


def under(prefix: str) -> StateDict:
    return {prefix + key: value for key, value in STATE.items()}


def copies_of_mmcv() -> StateDict:
    return {"ema_" + key.replace(".", "_"): value + 1 for key, value in STATE.items()}


def read(folder: Path, content: Any) -> tuple[StateDict, str | None]:
    path = folder / "weights.pth"
    torch.save(content, path)
    found = read_checkpoint(path)
    return found.state, found.remark


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda: under("module."), None),
        (lambda: under("_orig_mod."), r"the word '_orig_mod\.' before every key is left out"),
        (lambda: under("module._orig_mod."), r"the word 'module\._orig_mod\.'"),
        (lambda: under("_orig_mod.module."), r"the word '_orig_mod\.module\.'"),
        (lambda: {"state_dict": under("net."), "epoch": 3, "hyper_parameters": {"lr": 1e-3}}, r"the word 'net\.'"),
        (lambda: {"teacher": STATE, "optimizer": {"lr": 0.1}}, "the weights under 'teacher' are taken"),
        (lambda: {"model": under("teacher."), "epoch": 3}, r"'model' are taken; the word 'teacher\.'"),
        (lambda: {"model_state_dict": STATE, "optimizer_state_dict": {}}, "under 'model_state_dict' are taken"),
        (lambda: {"state_dict": STATE, "ema_state_dict": under("module.") | {"steps": torch.tensor(3)}}, None),
        (lambda: {"state_dict": STATE | copies_of_mmcv()}, "the copies named ema_ are left out"),
        (lambda: {**STATE, "epoch": 7, "best": 0.5, "note": "a", "done": True}, None),
        (lambda: {"state_dict": {**STATE, "loss.weight": None}}, None),
        (lambda: {"state_dict": STATE, "hyper_parameters": argparse.Namespace(lr=1e-3)}, None),
        (lambda: {"state_dict": STATE, "meta": {"time": datetime.now(UTC).replace(tzinfo=None)}}, None),
        (lambda: {"state_dict": STATE, "meta": {"work_dir": Path("/x")}}, None),
    ],
)
def test_what_is_unambiguous_is_read_and_said(content: Callable[[], Any], said: str | None, tmp_path: Path) -> None:
    state, remark = read(tmp_path, content())
    assert state.keys() == STATE.keys()
    assert all(torch.equal(state[key], value) for key, value in STATE.items())
    assert (remark is None) == (said is None)
    assert re.search(said or "", remark or "")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: {"state_dict": under("student.") | under("teacher.")}, r"several networks, .* student\., teacher\."),
        (lambda: {"model": STATE, "teacher": STATE}, "several state dicts, under 'model', 'teacher': save the one"),
        (lambda: {"optimizer": {"a": torch.zeros(1)}, "epoch": 3}, "holds no state dict: .* 'optimizer', 'epoch'"),
    ],
)
def test_of_several_networks_none_is_guessed(content: Callable[[], Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=message):
        read(tmp_path, content())


def as_gzip(folder: Path, plain: Path) -> Path:
    path = folder / "weights.pth.gz"
    path.write_bytes(gzip.compress(plain.read_bytes()))
    return path


def as_tar(folder: Path, plain: Path) -> Path:
    path = folder / "weights.pth.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(plain, "weights.pth")
    return path


def as_zip(folder: Path, plain: Path) -> Path:
    path = folder / "weights.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(plain, "weights.pth")
    return path


def as_part(folder: Path, plain: Path) -> Path:
    path = folder / "model-00001-of-00002.safetensors"
    save_file(STATE, path)
    return path


def as_index(folder: Path, plain: Path) -> Path:
    path = folder / "model.safetensors.index.json"
    path.write_text('{"weight_map": {"conv.weight": "model-00001-of-00002.safetensors"}}')
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (as_gzip, r"compressed by gzip: `gunzip weights\.pth\.gz`"),
        (as_tar, r"a tar archive: `tar -xf weights\.pth\.tar`"),
        (as_zip, r"a zip archive of weights\.pth: `unzip weights\.zip`"),
        (as_part, r"it is part 1 of 2 of a checkpoint"),
        (as_index, r"it lists the parts of a checkpoint"),
    ],
)
def test_what_holds_a_checkpoint_is_named_as_what_it_is(
    make: Callable[[Path, Path], Path], message: str, tmp_path: Path
) -> None:
    plain = tmp_path / "weights.pth"
    torch.save(STATE, plain)
    with pytest.raises(ModelError, match=message):
        read_checkpoint(make(tmp_path, plain))
