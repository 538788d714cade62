from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from model_oracles import fill_network
from safetensors.torch import save_file
from torch import Tensor, nn

from oodray.errors import ModelError
from oodray.models.internimage.segmenter import empty_network
from oodray.models.weights import parameters
from oodray.models.weights.parameters import load_weights, load_weights_from


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

    @pytest.mark.parametrize("key", ["decode_head.loss_decode.class_weight", "data_preprocessor.mean"])
    def test_weights_of_a_loss_and_means_of_a_config_are_left_out(self, key: str) -> None:
        state = Network(1, seed=0).state_dict()
        network = Network(1, seed=1)
        load_weights(network, state | {key: torch.zeros(3)}, source=Path("weights.pth"))
        assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items() if value.ndim)

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_weights_that_are_no_numbers(self, value: float) -> None:
        state = Network(1, seed=0).state_dict()
        state["blocks.0.conv.bias"] = torch.full_like(state["blocks.0.conv.bias"], value)
        with pytest.raises(ModelError, match=r"weights\.pth holds NaN or infinity, .* in blocks\.0\.conv\.bias$"):
            load_weights(Network(1, seed=0), state, source=Path("weights.pth"))

    def test_other_heads_than_the_auxiliary_are_surplus(self) -> None:
        state = Network(1, seed=0).state_dict() | {"auxiliary_heads.weight": torch.zeros(1)}
        with pytest.raises(ModelError, match=r"1 surplus: auxiliary_heads\.weight"):
            load_weights(Network(1, seed=0), state, source=Path("weights.pth"))

    @pytest.mark.parametrize("counter", [torch.zeros(3), torch.zeros(1)], ids=["three", "one"])
    def test_the_shape_of_a_counter_does_not_matter(self, counter: Tensor) -> None:
        state = Network(1, seed=0).state_dict() | {"blocks.0.bn.num_batches_tracked": counter}
        network = Network(1, seed=1)
        load_weights(network, state, source=Path("weights.pth"))
        assert network.state_dict()["blocks.0.bn.num_batches_tracked"] == 0


class TestFromAFile:
    @pytest.fixture(params=["zip", "before-torch-1.6", "safetensors"])
    def stored(self, request: pytest.FixtureRequest, tmp_path: Path) -> Path:
        """The weights of `Network(3, seed=1)` as float16, without one layer scale."""
        state = Network(3, seed=1).half().state_dict()
        del state["blocks.1.gamma1"]
        path = tmp_path / "weights.pth"
        if request.param == "safetensors":
            save_file(state, path)
        else:
            torch.save({"state_dict": state}, path, _use_new_zipfile_serialization=request.param == "zip")
        return path

    @pytest.mark.parametrize("mapped_bytes", [1, 300, 2**26])
    def test_every_part_arrives(self, stored: Path, mapped_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(parameters, "MAPPED_BYTES", mapped_bytes)
        network = Network(3, seed=2)
        load_weights_from(network, stored)
        expected = Network(3, seed=1).half().float().state_dict()
        expected["blocks.1.gamma1"] = torch.ones(4)
        for key, value in network.state_dict().items():
            assert torch.equal(value, expected[key]), key

    def test_the_file_may_change_afterwards(self, stored: Path) -> None:
        network = Network(3, seed=2)
        load_weights_from(network, stored)
        before = {key: value.clone() for key, value in network.state_dict().items()}
        stored.write_bytes(bytes(stored.stat().st_size))
        assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())

    def test_what_does_not_fit_is_refused_before_anything_is_copied(self, stored: Path) -> None:
        network = Network(2, seed=2)
        before = {key: value.clone() for key, value in network.state_dict().items()}
        with pytest.raises(ModelError, match=r"surplus: blocks\.2\."):
            load_weights_from(network, stored)
        assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


MEASURE = """
import re, sys
from pathlib import Path
from oodray.models.loading import load_segmenter
from oodray.models.source import resolve_model
from oodray.models.weights import parameters

def peak():
    # Not ru_maxrss, which a process inherits from the one that starts it.
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

name, weights, mapped_bytes = sys.argv[1:]
parameters.MAPPED_BYTES = int(mapped_bytes)
load_segmenter(resolve_model("internimage-n-demo"))  # imports what any network needs
before = peak()
segmenter = load_segmenter(resolve_model(f"internimage-{name}-cityscapes", weights))
print((peak() - before) / sum(value.nbytes for value in segmenter.network.parameters()))
"""


@pytest.mark.soak
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
@pytest.mark.parametrize(
    ("name", "mapped_bytes"),
    # A quarter of the parameters, in parts of a quarter.
    [("t", parameters.MAPPED_BYTES // 4), ("l", parameters.MAPPED_BYTES)],
)
def test_loading_takes_little_more_memory_than_the_parameters(
    tmp_path: Path, environment: dict[str, str], name: str, mapped_bytes: int
) -> None:
    """Of L, a gigabyte from a file of half of that: mapped as a whole, it would count as half of them again."""
    weights = tmp_path / "weights.pth"
    state = empty_network(f"internimage-{name}").state_dict()
    torch.save({key: torch.zeros(value.shape, dtype=torch.float16) for key, value in state.items()}, weights)
    command = [sys.executable, "-c", MEASURE, name, str(weights), str(mapped_bytes)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    weights.unlink()
    # Of T, the packages that reading needs weigh more than of L.
    assert 0.95 < float(done.stdout) < (1.4 if name == "t" else 1.3)
