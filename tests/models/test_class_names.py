from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import torch

from oodray.models.class_names import class_names_of
from oodray.models.source import ModelSource
from oodray.models.weights.zoo import get_model, model_names


@pytest.mark.parametrize("name", model_names())
def test_every_named_network_has_a_name_for_each_class(name: str) -> None:
    model = get_model(name)
    names = class_names_of(ModelSource(name, architecture=model.architecture, checkpoint=model.checkpoint))
    assert len(names) == model.classes
    assert len(set(names)) >= len(names) - 1  # ADE20K has two that are called screen
    assert all(one == one.strip() and one for one in names)


def test_the_published_ones_are_those_of_mmsegmentation() -> None:
    importlib.import_module("oodray.models.mmseg")  # with what stands in for mmcv's compiled operators
    from mmseg.utils import ade_classes, cityscapes_classes

    known = {"internimage-b-cityscapes": cityscapes_classes(), "internimage-b-ade20k": ade_classes()}
    for name, expected in known.items():
        assert class_names_of(ModelSource(name, architecture="internimage-b")) == tuple(
            name.strip() for name in expected
        )


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"id2label": {"10": "c", "2": "b", "0": "a"}}, ("a", "b", "c")),
        ({"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}, ()),
        ({"id2label": None}, ()),
        ({"id2label": {"a": "b"}}, ()),
        ({"id2label": [1]}, ()),
        ([], ()),
    ],
)
def test_a_folder_of_hugging_face_has_them_by_number(config: object, expected: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert class_names_of(ModelSource("hf:x", folder=tmp_path)) == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"meta": {"dataset_meta": {"classes": ("road", "sky")}}}, ("road", "sky")),
        ({"meta": {"CLASSES": ["road", "sky"], "PALETTE": [[1, 2, 3]]}}, ("road", "sky")),
        ({"meta": {"dataset_meta": {"classes": 5}}}, ()),
        ({"meta": {}}, ()),
        ({}, ()),
    ],
)
def test_a_checkpoint_may_say_them(content: dict[str, object], expected: tuple[str, ...], tmp_path: Path) -> None:
    torch.save({**content, "state_dict": {"a": torch.zeros(1)}}, tmp_path / "net.pth")
    source = ModelSource("net.py", config=Path("net.py"), checkpoint=tmp_path / "net.pth")
    assert class_names_of(source) == expected


def test_a_factory_may_say_them(tmp_path: Path) -> None:
    (tmp_path / "nets_with_names.py").write_text(
        "class Net:\n    class_names = ('road', 'sky')\n\nclass Other:\n    class_names = 3\n"
    )
    for name, expected in (("Net", ("road", "sky")), ("Other", ())):
        assert class_names_of(ModelSource(f"nets_with_names:{name}", search_path=str(tmp_path))) == expected
