"""The published variants have exactly the keys, shapes and numbers of parameters of the authors' code."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

import pytest
import torch
from model_oracles import GOLDENS

# Before mmseg, which cannot be imported without a compiled mmcv until this has been.
import oodray.models.mmseg  # noqa: F401

# isort: split
from mmseg.registry import MODELS
from torch import nn

from oodray.config import config_root
from oodray.errors import ModelError
from oodray.models.mmseg import build_network
from oodray.models.weights.parameters import check_fit

# Of losses, which serve training alone.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:mmseg")

INDICES = {
    r"levels\.\d+": "levels.{i}",
    r"blocks\.\d+": "blocks.{j}",
    r"post_norms\.\d+": "post_norms.{n}",
    r"psp_modules\.\d+": "psp_modules.{p}",
    r"(lateral|fpn)_convs\.\d+": r"\1_convs.{q}",
}
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Variant:
    """What the reference counted: keys with the auxiliary head, parameters of each part."""

    channels: int
    keys: int
    backbone: int
    decode_head: int
    auxiliary_head: int


VARIANTS = {
    "t": Variant(64, 767, 28_769_520, 29_678_742, 628_886),
    "s": Variant(80, 825, 48_502_560, 30_588_054, 776_342),
    "b": Variant(112, 825, 94_909_920, 32_406_678, 1_071_254),
    "l": Variant(160, 913, 218_952_370, 35_134_614, 1_513_622),
    "xl": Variant(192, 957, 328_971_228, 36_953_238, 1_808_534),
    "h": Variant(320, 1417, 1_073_122_480, 44_227_734, 2_988_182),
}
WITHOUT_LAYER_SCALE = ("h",)


def pattern(key: str) -> str:
    for index, name in INDICES.items():
        key = re.sub(index, name, key)
    return key


@cache
def listed(size: str) -> dict[str, tuple[int, Shape, Shape]]:
    """The reference's table of a variant: pattern -> number of keys, first and last shape; T and H: what B lacks."""
    tables = (GOLDENS / "internimage_keys.txt").read_text(encoding="utf-8").split("# ")
    (text,) = (table for table in tables if table.startswith(f"{size} "))
    rows = re.findall(r"^\| `(\S+)` \| (\d+) \| `\S+` \(([\d, ]*)\)[^;]*; last \(([\d, ]*)\)", text, re.MULTILINE)
    return {name: (int(count), shape_of(first), shape_of(last)) for name, count, first, last in rows}


def shape_of(text: str) -> Shape:
    return tuple(int(side) for side in text.split(",") if side.strip())


@cache
def plain_network(size: str) -> nn.Module:
    """A variant as it is used here, without values."""
    with torch.device("meta"):
        return build_network(config_root() / "models" / f"internimage-{size}.py")


@cache
def network_of(size: str) -> nn.ModuleDict:
    """A variant as it is published: with its auxiliary head."""
    head = {
        "type": "FCNHead",
        "in_channels": 4 * VARIANTS[size].channels,
        "in_index": 2,
        "channels": 256,
        "num_convs": 1,
        "concat_input": False,
        "num_classes": 150,
        "norm_cfg": {"type": "BN"},
    }
    with torch.device("meta"):
        auxiliary = MODELS.build(head)
    return nn.ModuleDict(dict(plain_network(size).named_children()) | {"auxiliary_head": auxiliary})


def found(size: str) -> dict[str, tuple[int, Shape, Shape]]:
    """As `listed`, of our network."""
    groups: dict[str, list[Shape]] = {}
    for key, value in network_of(size).state_dict().items():
        groups.setdefault(pattern(key), []).append(tuple(value.shape))
    return {name: (len(shapes), shapes[0], shapes[-1]) for name, shapes in groups.items()}


@pytest.mark.parametrize("size", ["b", "l"])
def test_keys_and_shapes_are_those_of_the_table(size: str) -> None:
    assert len(listed(size)) == 73
    assert found(size) == listed(size)


@pytest.mark.parametrize("size", ["t", "h"])
def test_what_others_have_beside_the_keys_of_b_is_in_the_table(size: str) -> None:
    ours = found(size)
    assert len(listed(size)) == {"t": 2, "h": 10}[size]
    assert {name: ours[name] for name in ours.keys() - listed("b").keys()} == listed(size)


@pytest.mark.parametrize("size", VARIANTS)
def test_every_key_is_one_of_the_reference(size: str) -> None:
    expected = set(listed("b")) | (set(listed(size)) if size in ("t", "h") else set())
    if size in WITHOUT_LAYER_SCALE:
        expected -= {name for name in expected if name.endswith((".gamma1", ".gamma2"))}
    assert found(size).keys() == expected
    assert len(network_of(size).state_dict()) == VARIANTS[size].keys


@pytest.mark.parametrize("size", VARIANTS)
def test_parameters_are_as_many_as_in_the_reference(size: str) -> None:
    counts = {
        name: sum(value.numel() for value in part.parameters()) for name, part in network_of(size).named_children()
    }
    variant = VARIANTS[size]
    assert counts == {
        "data_preprocessor": 0,
        "backbone": variant.backbone,
        "decode_head": variant.decode_head,
        "auxiliary_head": variant.auxiliary_head,
    }


@pytest.mark.parametrize("size", VARIANTS)
def test_a_file_with_the_auxiliary_head_fits_its_own_variant_alone(size: str) -> None:
    state = network_of(size).state_dict()
    for other in VARIANTS:
        network = plain_network(other)
        if other == size:
            check_fit(network, state, source=GOLDENS)
        else:
            with pytest.raises(ModelError, match="does not fit the network"):
                check_fit(network, state, source=GOLDENS)
