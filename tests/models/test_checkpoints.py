from __future__ import annotations

import hashlib
import os
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from model_oracles import fill_network
from torch import Tensor, nn

from oodray.errors import ModelError
from oodray.models.checkpoints import StateDict, file_sha256, load_weights, read_state_dict

STATE: StateDict = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.tensor([0.1, -2.5])}


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.gamma1, self.gamma2 = nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(4))


class Network(nn.Module):
    def __init__(self, blocks: int = 2, *, seed: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(blocks))
        fill_network(self, seed)


def save(folder: Path, content: Any, **options: Any) -> Path:
    path = folder / "weights.pth"
    torch.save(content, path, **options)
    return path


class TestReading:
    @pytest.mark.parametrize(
        "wrap",
        [
            dict,
            OrderedDict,
            lambda state: {"state_dict": state},
            lambda state: {"state_dict": OrderedDict(state), "meta": {"epoch": 3, "CLASSES": ["road"]}},
            lambda state: {f"module.{key}": value for key, value in state.items()},
            lambda state: {"state_dict": {f"module.{key}": value for key, value in state.items()}},
        ],
        ids=["bare", "ordered", "nested", "with-meta", "module", "nested-module"],
    )
    @pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before-torch-1.6"])
    def test_known_forms(self, tmp_path: Path, wrap: Callable[[StateDict], Any], zipped: bool) -> None:
        path = save(tmp_path, wrap(STATE), _use_new_zipfile_serialization=zipped)
        state = read_state_dict(path)
        assert list(state) == list(STATE)
        for key, value in STATE.items():
            assert torch.equal(state[key], value)

    def test_half_precision_is_left_as_it_is(self, tmp_path: Path) -> None:
        path = save(tmp_path, {key: value.half() for key, value in STATE.items()})
        assert {value.dtype for value in read_state_dict(path).values()} == {torch.float16}

    def test_module_is_removed_in_front_only(self, tmp_path: Path) -> None:
        path = save(tmp_path, {"module.neck.module.weight": torch.zeros(1)})
        assert list(read_state_dict(path)) == ["neck.module.weight"]


class Attack:
    """Makes a folder when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.target),)


class TestRefusedFiles:
    @pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before-torch-1.6"])
    @pytest.mark.parametrize("place", ["bare", "meta", "state_dict"])
    def test_code_is_not_executed(self, tmp_path: Path, place: str, zipped: bool) -> None:
        target = tmp_path / "harm"
        attack = Attack(target)
        content = {
            "bare": attack,
            "meta": {"state_dict": STATE, "meta": attack},
            "state_dict": {"state_dict": {**STATE, "b": attack}},
        }[place]
        path = save(tmp_path, content, _use_new_zipfile_serialization=zipped)
        with pytest.raises(ModelError, match="code in it is not executed"):
            read_state_dict(path)
        assert not target.exists()
        # The attack does work on whoever loads the file without care.
        torch.load(path, weights_only=False)
        assert target.exists()

    def test_a_plain_pickle_is_not_executed(self, tmp_path: Path) -> None:
        path = tmp_path / "weights.pth"
        path.write_bytes(pickle.dumps(Attack(tmp_path / "harm")))
        with pytest.raises(ModelError, match=r"weights\.pth"):
            read_state_dict(path)
        assert not (tmp_path / "harm").exists()

    @pytest.mark.parametrize("kept", [0, 1, 10, 100, 0.3, 0.9, -1])
    @pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before-torch-1.6"])
    def test_truncated(self, tmp_path: Path, kept: float, zipped: bool) -> None:
        path = save(tmp_path, {"a": torch.randn(500)}, _use_new_zipfile_serialization=zipped)
        data = path.read_bytes()
        path.write_bytes(data[: kept if isinstance(kept, int) else int(kept * len(data))])
        with pytest.raises(ModelError, match=r"weights\.pth"):
            read_state_dict(path)

    @pytest.mark.parametrize(
        "data",
        [
            b"<!DOCTYPE html><html><body>Sign in</body></html>",
            b"\x00" * 1000,
            b"PK\x03\x04" + b"\x00" * 200,
            b"{}",
        ],
        ids=["html", "zeros", "zip-magic", "json"],
    )
    def test_something_else(self, tmp_path: Path, data: bytes) -> None:
        path = tmp_path / "weights.pth"
        path.write_bytes(data)
        with pytest.raises(ModelError, match=r"weights\.pth"):
            read_state_dict(path)

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"nothing\.pth does not exist"):
            read_state_dict(tmp_path / "nothing.pth")

    def test_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="cannot be read as a checkpoint"):
            read_state_dict(tmp_path)

    @pytest.mark.parametrize(
        "content",
        [
            torch.zeros(3),
            [torch.zeros(3)],
            "weights",
            None,
            {},
            {"state_dict": {}},
            {"state_dict": [1]},
            {"a": 1.0},
        ],
        ids=["tensor", "list", "text", "none", "empty", "empty-inside", "list-inside", "number"],
    )
    def test_not_a_state_dict(self, tmp_path: Path, content: Any) -> None:
        with pytest.raises(ModelError, match="holds no state dict"):
            read_state_dict(save(tmp_path, content))


class TestLoading:
    @pytest.fixture
    def source(self) -> Network:
        return Network(seed=1)

    @pytest.fixture
    def network(self) -> Network:
        return Network(seed=2)

    def test_every_tensor_is_copied(self, source: Network, network: Network) -> None:
        load_weights(network, source.state_dict(), source=Path("weights.pth"))
        for key, value in network.state_dict().items():
            assert torch.equal(value, source.state_dict()[key])
        assert not any(own is other for own, other in zip(network.parameters(), source.parameters(), strict=True))

    def test_half_precision_becomes_the_precision_of_the_network(self, source: Network, network: Network) -> None:
        load_weights(network, source.half().state_dict(), source=Path("weights.pth"))
        for key, value in network.named_parameters():
            assert value.dtype == torch.float32
            assert torch.equal(value, source.state_dict()[key].float())

    def test_the_auxiliary_head_is_left_out(self, source: Network, network: Network) -> None:
        state = source.state_dict() | {"auxiliary_head.conv.weight": torch.zeros(1)}
        load_weights(network, state, source=Path("weights.pth"))
        assert torch.equal(network.state_dict()["blocks.0.conv.weight"], state["blocks.0.conv.weight"])

    @pytest.mark.parametrize(
        "counter",
        [None, torch.tensor(160_000), torch.tensor(160_000.0).half(), torch.tensor(float("nan"))],
        ids=["missing", "whole", "overflown", "nan"],
    )
    def test_counters_of_batches_are_reset(self, source: Network, network: Network, counter: Tensor | None) -> None:
        state = {key: value for key, value in source.state_dict().items() if "num_batches" not in key}
        if counter is not None:
            state |= {f"blocks.{index}.bn.num_batches_tracked": counter for index in range(2)}
        for key, value in network.state_dict().items():
            if "num_batches" in key:
                value.fill_(7)
        load_weights(network, state, source=Path("weights.pth"))
        counters = [value for key, value in network.state_dict().items() if "num_batches" in key]
        assert [int(value) for value in counters] == [0, 0]

    def test_a_missing_layer_scale_is_one(self, source: Network, network: Network) -> None:
        state = source.state_dict()
        del state["blocks.0.gamma1"], state["blocks.1.gamma2"]
        load_weights(network, state, source=Path("weights.pth"))
        loaded = network.state_dict()
        assert torch.equal(loaded["blocks.0.gamma1"], torch.ones(4))
        assert torch.equal(loaded["blocks.1.gamma2"], torch.ones(4))
        assert torch.equal(loaded["blocks.0.gamma2"], state["blocks.0.gamma2"])


class TestMisfits:
    def test_all_are_named_at_once_and_nothing_is_loaded(self) -> None:
        network, state = Network(seed=2), dict(Network(seed=1).state_dict())
        before = {key: value.clone() for key, value in network.state_dict().items()}
        del state["blocks.0.conv.bias"], state["blocks.1.bn.running_mean"]
        state["neck.weight"] = torch.zeros(1)
        state["blocks.1.conv.weight"] = torch.zeros(4, 3, 1, 1)
        with pytest.raises(ModelError) as caught:
            load_weights(network, state, source=Path("folder/weights.pth"))
        assert str(caught.value) == (
            "folder/weights.pth does not fit the network. "
            "2 missing: blocks.0.conv.bias, blocks.1.bn.running_mean; "
            "1 surplus: neck.weight; "
            "1 misshapen: blocks.1.conv.weight (4, 3, 1, 1) instead of (4, 3, 3, 3)"
        )
        assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())

    def test_ten_are_named_and_the_rest_counted(self) -> None:
        state = Network(1, seed=0).state_dict()
        with pytest.raises(ModelError) as caught:
            load_weights(Network(4, seed=0), state, source=Path("weights.pth"))
        # Each block has six tensors that must be there.
        assert "18 missing: blocks.1.conv.weight, " in str(caught.value)
        assert str(caught.value).count("blocks.") == 10
        assert str(caught.value).endswith(" and 8 more")

    def test_ten_are_named_without_a_count(self) -> None:
        state = Network(1, seed=0).state_dict() | {f"extra{index}": torch.zeros(1) for index in range(10)}
        with pytest.raises(ModelError, match=r"10 surplus: extra0, .*, extra9$"):
            load_weights(Network(1, seed=0), state, source=Path("weights.pth"))

    def test_a_layer_scale_of_another_width_is_refused(self) -> None:
        state = Network(1, seed=0).state_dict() | {"blocks.0.gamma1": torch.ones(5)}
        with pytest.raises(ModelError, match=r"1 misshapen: blocks\.0\.gamma1 \(5,\) instead of \(4,\)"):
            load_weights(Network(1, seed=0), state, source=Path("weights.pth"))

    def test_other_heads_than_the_auxiliary_are_surplus(self) -> None:
        state = Network(1, seed=0).state_dict() | {"auxiliary_heads.weight": torch.zeros(1)}
        with pytest.raises(ModelError, match=r"1 surplus: auxiliary_heads\.weight"):
            load_weights(Network(1, seed=0), state, source=Path("weights.pth"))


class TestDigest:
    def test_is_that_of_the_bytes(self, tmp_path: Path) -> None:
        path = tmp_path / "weights.pth"
        path.write_bytes(b"\x00\xff" * 100_000)
        assert file_sha256(path) == hashlib.sha256(b"\x00\xff" * 100_000).hexdigest()

    @pytest.mark.parametrize("name", ["nothing.pth", "."])
    def test_of_what_cannot_be_read(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(ModelError, match="cannot read the checkpoint"):
            file_sha256(tmp_path / name)
