from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from oodray.models.weights.zoo import get_model, model_names
from oodray.report.networks import network_line, networks_tables

MODELS = [get_model(name) for name in model_names()]


def drawn(width: int) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    for table in networks_tables(MODELS):
        console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_eighty_characters_hold_every_name_file_and_sha256_whole() -> None:
    text = drawn(80)
    assert max(map(len, text.splitlines())) <= 80
    for model in MODELS:
        assert model.name in text.split()
        assert model.file in text.split()
        assert model.sha256 in text.split()


def test_a_line_has_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OODRAY_CACHE", str(tmp_path))
    model = get_model("internimage-l-ade20k")
    expected = [
        "internimage-l-ade20k",
        "254086984",
        "upernet_internimage_l_640_160k_ade20k.pth",
        "512 MB",
        "7e76cd62142c55fc59756887b535116a81462271c9ac05d785782896028b0556",
        "53.90",
        "short side 640, long side at most 2560, up to multiples of 32",
        "not cached",
    ]
    assert network_line(model).split("\t") == expected
    model.checkpoint.parent.mkdir()
    model.checkpoint.touch()
    assert network_line(model).split("\t") == [*expected[:-1], "cached"]
