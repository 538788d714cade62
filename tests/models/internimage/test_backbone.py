from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from model_oracles import (
    Config,
    dcnv3_by_loops,
    fill_network,
    golden_parameters,
    read_golden,
)
from torch import Tensor, nn

from oodray.models.internimage.backbone import DCNv3, DropPath, InternImage, Layer

Shape = tuple[int, ...]

POST_NORM: Config = {"post_norm": True, "layer_scale": 1.0}
H_STYLE: Config = {"res_post_norm": True, "dw_kernel_size": 5, "center_feature_scale": True}

# The published variants, and the numbers of their keys and parameters.
VARIANTS: dict[str, tuple[Config, int, int]] = {
    "t": (
        {"channels": 64, "depths": (4, 4, 18, 4), "groups": (4, 8, 16, 32), "layer_scale": 1.0},
        685,
        28_769_520,
    ),
    "s": (
        {"channels": 80, "depths": (4, 4, 21, 4), "groups": (5, 10, 20, 40), **POST_NORM},
        743,
        48_502_560,
    ),
    "b": (
        {"channels": 112, "depths": (4, 4, 21, 4), "groups": (7, 14, 28, 56), **POST_NORM},
        743,
        94_909_920,
    ),
    "l": (
        {
            "channels": 160,
            "depths": (5, 5, 22, 5),
            "groups": (10, 20, 40, 80),
            **POST_NORM,
            "offset_scale": 2.0,
        },
        831,
        218_952_370,
    ),
    "xl": (
        {
            "channels": 192,
            "depths": (5, 5, 24, 5),
            "groups": (12, 24, 48, 96),
            **POST_NORM,
            "offset_scale": 2.0,
        },
        875,
        328_971_228,
    ),
    "h": (
        {
            "channels": 320,
            "depths": (6, 6, 32, 6),
            "groups": (10, 20, 40, 80),
            **H_STYLE,
            "level2_post_norm": True,
            "level2_post_norm_block_ids": (5, 11, 17, 23, 29),
        },
        1335,
        1_073_122_480,
    ),
}

SMALL: Config = {"channels": 8, "depths": (1, 1, 2, 1), "groups": (1, 2, 2, 4)}


def published_keys(config: Config) -> Iterator[tuple[str, Shape]]:
    """Names and shapes of the official files, written out from the listing of what is in them."""

    def with_bias(name: str, *weight: int) -> Iterator[tuple[str, Shape]]:
        yield f"{name}.weight", weight
        yield f"{name}.bias", weight[:1]

    first, kernel = config["channels"], config.get("dw_kernel_size", 3)
    yield from with_bias("patch_embed.conv1", first // 2, 3, 3, 3)
    yield from with_bias("patch_embed.norm1.1", first // 2)
    yield from with_bias("patch_embed.conv2", first, first // 2, 3, 3)
    yield from with_bias("patch_embed.norm2.1", first)
    for i, (depth, groups) in enumerate(zip(config["depths"], config["groups"], strict=True)):
        level, width = f"levels.{i}", first * 2**i
        for block in (f"{level}.blocks.{j}" for j in range(depth)):
            if "layer_scale" in config:
                yield f"{block}.gamma1", (width,)
                yield f"{block}.gamma2", (width,)
            for norm in ("norm1", "norm2"):
                yield from with_bias(f"{block}.{norm}.0", width)
                if "res_post_norm" in config:
                    yield from with_bias(f"{block}.res_post_{norm}.0", width)
            yield from with_bias(f"{block}.dcn.dw_conv.0", width, 1, kernel, kernel)
            yield from with_bias(f"{block}.dcn.dw_conv.1.1", width)
            yield from with_bias(f"{block}.dcn.offset", 18 * groups, width)
            yield from with_bias(f"{block}.dcn.mask", 9 * groups, width)
            yield from with_bias(f"{block}.dcn.input_proj", width, width)
            yield from with_bias(f"{block}.dcn.output_proj", width, width)
            if "center_feature_scale" in config:
                yield f"{block}.dcn.center_feature_scale_proj_weight", (groups, width)
                yield f"{block}.dcn.center_feature_scale_proj_bias", (groups,)
            yield from with_bias(f"{block}.mlp.fc1", 4 * width, width)
            yield from with_bias(f"{block}.mlp.fc2", width, 4 * width)
        if "post_norm" not in config or "center_feature_scale" in config:
            yield from with_bias(f"{level}.norm.0", width)
        if i == 2:
            for n, _ in enumerate(config.get("level2_post_norm_block_ids", ())):
                yield from with_bias(f"{level}.post_norms.{n}.0", width)
        if i < 3:
            yield f"{level}.downsample.conv.weight", (2 * width, width, 3, 3)
            yield from with_bias(f"{level}.downsample.norm.1", 2 * width)


class PlainInternImage:
    """The network as functions of its state dict, the operator as loops; nothing is shared with the class."""

    def __init__(self, state: dict[str, Tensor], config: Config) -> None:
        self.state, self.config = state, config

    def __call__(self, image: Tensor) -> list[Tensor]:
        x = F.gelu(self.norm("patch_embed.norm1.1", self.conv("patch_embed.conv1", image)))
        x = self.norm("patch_embed.norm2.1", self.conv("patch_embed.conv2", x))
        outputs = []
        for i, depth in enumerate(self.config["depths"]):
            for j in range(depth):
                x = self.block(f"levels.{i}.blocks.{j}", x, self.config["groups"][i])
                extra_norms = self.config.get("level2_post_norm_block_ids", ())
                if i == 2 and j in extra_norms:
                    x = self.norm(f"levels.2.post_norms.{extra_norms.index(j)}.0", x)
            x = self.norm(f"levels.{i}.norm.0", x)
            outputs.append(x)
            if i < 3:
                x = self.norm(f"levels.{i}.downsample.norm.1", self.conv(f"levels.{i}.downsample.conv", x))
        return outputs

    def block(self, name: str, x: Tensor, groups: int) -> Tensor:
        if self.config.get("post_norm"):
            x = x + self.norm(f"{name}.norm1.0", self.dcn(f"{name}.dcn", x, groups))
            return x + self.norm(f"{name}.norm2.0", self.mlp(f"{name}.mlp", x))
        y = self.dcn(f"{name}.dcn", self.norm(f"{name}.norm1.0", x), groups)
        x = x + self.norm(f"{name}.res_post_norm1.0", y)
        y = self.mlp(f"{name}.mlp", self.norm(f"{name}.norm2.0", x))
        return x + self.norm(f"{name}.res_post_norm2.0", y)

    def dcn(self, name: str, x: Tensor, groups: int) -> Tensor:
        """Of `(N, C, H, W)`, as everything here."""
        value = self.linear(f"{name}.input_proj", x)
        query = self.conv(f"{name}.dw_conv.0", x, stride=1, groups=x.shape[1])
        query = F.gelu(self.norm(f"{name}.dw_conv.1.1", query))
        mask = self.linear(f"{name}.mask", query)
        mask = mask.reshape(len(x), groups, 9, *x.shape[2:]).softmax(2).flatten(1, 2)
        arrays = (y.movedim(1, -1).numpy() for y in (value, self.linear(f"{name}.offset", query), mask))
        scale = self.config.get("offset_scale", 1.0)
        sampled = torch.from_numpy(dcnv3_by_loops(*arrays, groups=groups, offset_scale=scale)).movedim(-1, 1)
        weight = self.state[f"{name}.center_feature_scale_proj_weight"]
        bias = self.state[f"{name}.center_feature_scale_proj_bias"]
        own = torch.einsum("gc,nchw->nghw", weight, query).add(bias[:, None, None]).sigmoid()
        shares = zip(*(maps.chunk(groups, 1) for maps in (own, value, sampled)), strict=True)
        blended = torch.cat([share * centre + (1 - share) * around for share, centre, around in shares], 1)
        return self.linear(f"{name}.output_proj", blended)

    def mlp(self, name: str, x: Tensor) -> Tensor:
        return self.linear(f"{name}.fc2", F.gelu(self.linear(f"{name}.fc1", x)))

    def linear(self, name: str, x: Tensor) -> Tensor:
        return F.conv2d(x, self.state[f"{name}.weight"][:, :, None, None], self.state[f"{name}.bias"])

    def conv(self, name: str, x: Tensor, stride: int = 2, groups: int = 1) -> Tensor:
        weight = self.state[f"{name}.weight"]
        bias = self.state.get(f"{name}.bias")
        return F.conv2d(x, weight, bias, stride=stride, padding=weight.shape[-1] // 2, groups=groups)

    def norm(self, name: str, x: Tensor) -> Tensor:
        mean, variance = x.mean(1, keepdim=True), x.var(1, keepdim=True, correction=0)
        weight, bias = (self.state[f"{name}.{part}"][:, None, None] for part in ("weight", "bias"))
        return (x - mean) / (variance + 1e-6).sqrt() * weight + bias


class TestAgainstTheReference:
    @pytest.fixture(params=["tiny", "tiny_post"])
    def golden(self, request: pytest.FixtureRequest) -> Config:
        golden: Config = read_golden(request.param)
        return golden

    @pytest.fixture
    def network(self, golden: Config) -> InternImage:
        network = InternImage(**golden["config"]).eval()
        parameters = golden_parameters(golden).items()
        network.load_state_dict(
            {key.removeprefix("backbone."): value for key, value in parameters if key.startswith("backbone.")}
        )
        return network

    def test_stages_in_float64(self, golden: Config, network: InternImage) -> None:
        with torch.no_grad():
            stages = network.double()(golden["input"].double())
        torch.testing.assert_close(stages, golden["stages_fp64"], rtol=0, atol=1e-10)

    def test_stages_of_an_odd_size_in_float32(self, golden: Config, network: InternImage) -> None:
        with torch.no_grad():
            stages = network(golden["odd"]["input"])
        torch.testing.assert_close(stages, golden["odd"]["stages"], rtol=0, atol=1e-3)


class TestAgainstPlainFunctions:
    """Code paths of H and G, of which there is no golden network here."""

    @pytest.mark.parametrize(
        "style",
        [
            H_STYLE,
            H_STYLE | {"level2_post_norm": True, "level2_post_norm_block_ids": (0, 2)},
            {"post_norm": True, "center_feature_scale": True, "offset_scale": 2.0},
        ],
        ids=["h", "h-with-level2-norms", "g"],
    )
    def test_stages(self, style: Config) -> None:
        config = {"channels": 8, "depths": (1, 1, 3, 1), "groups": (1, 2, 2, 4), **style}
        network = InternImage(**config).double().eval()
        fill_network(network, seed=7)
        image = torch.randn(1, 3, 21, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        with torch.no_grad():
            stages = network(image)
        torch.testing.assert_close(stages, PlainInternImage(network.state_dict(), config)(image), rtol=0, atol=1e-10)


class TestPublishedVariants:
    @pytest.mark.parametrize("name", VARIANTS)
    def test_keys_shapes_and_number_of_parameters(self, name: str) -> None:
        config, keys, parameters = VARIANTS[name]
        with torch.device("meta"):
            state = InternImage(**config).state_dict()
        assert {key: tuple(value.shape) for key, value in state.items()} == dict(published_keys(config))
        assert len(state) == keys
        assert sum(value.numel() for value in state.values()) == parameters


class TestShapes:
    @pytest.mark.parametrize(
        ("size", "expected"),
        [
            ((1, 1), [(1, 1), (1, 1), (1, 1), (1, 1)]),
            ((33, 4), [(9, 1), (5, 1), (3, 1), (2, 1)]),
            ((64, 96), [(16, 24), (8, 12), (4, 6), (2, 3)]),
        ],
    )
    def test_any_size_is_accepted_and_rounds_up(self, size: Shape, expected: list[Shape]) -> None:
        stages = InternImage(**SMALL).eval()(torch.zeros(2, 3, *size))
        channels = (8, 16, 32, 64)
        assert [tuple(stage.shape) for stage in stages] == [
            (2, width, *cells) for width, cells in zip(channels, expected, strict=True)
        ]
        assert all(stage.is_contiguous(memory_format=torch.channels_last) for stage in stages)

    def test_only_the_stages_asked_for(self) -> None:
        image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        everything, two = InternImage(**SMALL).eval(), InternImage(**SMALL, out_indices=(1, 3)).eval()
        two.load_state_dict(everything.state_dict())
        stages = everything(image)
        torch.testing.assert_close(two(image), [stages[1], stages[3]])


class TestTraining:
    def test_a_fresh_network_samples_a_uniform_regular_grid(self) -> None:
        for module in InternImage(**SMALL).modules():
            if isinstance(module, DCNv3):
                tensors = [module.offset.weight, module.offset.bias, module.mask.weight, module.mask.bias]
                assert not any(tensor.any() for tensor in tensors)
                assert module.input_proj.weight.any()

    def test_every_parameter_gets_a_gradient(self) -> None:
        network = InternImage(**SMALL, layer_scale=1.0, drop_path_rate=0.0).train()
        fill_network(network)
        image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        sum(stage.square().sum() for stage in network(image)).backward()
        without = [name for name, value in network.named_parameters() if value.grad is None or not value.grad.any()]
        assert without == []

    def test_layer_scales_start_at_the_given_value(self) -> None:
        network = InternImage(**SMALL, layer_scale=0.25)
        gammas = [value for name, value in network.named_parameters() if "gamma" in name]
        assert len(gammas) == 2 * sum(SMALL["depths"])
        assert all((gamma == 0.25).all() for gamma in gammas)

    def test_drop_rates_rise_linearly_over_all_layers(self) -> None:
        network = InternImage(**SMALL, drop_path_rate=0.4)
        rates = [layer.drop_path.rate for layer in network.modules() if isinstance(layer, Layer)]
        assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])

    def test_a_single_layer_is_never_dropped(self) -> None:
        network = InternImage(channels=8, depths=(1,), groups=(1,), out_indices=(0,), drop_path_rate=0.4)
        assert [module.rate for module in network.modules() if isinstance(module, DropPath)] == [0]


class TestDropPath:
    def test_drops_whole_samples_and_keeps_the_mean(self) -> None:
        torch.manual_seed(0)
        out = DropPath(0.25).train()(torch.ones(4000, 2, 3))
        kept = out[:, 0, 0] != 0
        assert torch.equal(out, kept[:, None, None] * torch.full_like(out, 4 / 3))
        assert kept.float().mean().item() == pytest.approx(0.75, abs=0.03)

    @pytest.mark.parametrize(("rate", "training"), [(0.0, True), (0.9, False)])
    def test_is_otherwise_nothing(self, rate: float, training: bool) -> None:
        x = torch.randn(5, 2)
        assert torch.equal(DropPath(rate).train(training)(x), x)


class TestRefusedArguments:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"norm_layer": "BN"}, "norm_layer='BN' is not supported"),
            ({"core_op": "DCNv4"}, "core_op='DCNv4' is not supported"),
            ({"res_post_norm": True, "layer_scale": 1.0}, "res_post_norm cannot be combined"),
            ({"res_post_norm": True, "post_norm": True}, "res_post_norm cannot be combined"),
            ({"level2_post_norm": True}, "need each other"),
            ({"level2_post_norm": True, "level2_post_norm_block_ids": ()}, "need each other"),
            ({"level2_post_norm_block_ids": (0,)}, "need each other"),
            ({"level2_post_norm": True, "level2_post_norm_block_ids": (0, 2)}, r"\(0, 2\) must name layers"),
            ({"out_indices": ()}, "out_indices"),
            ({"out_indices": (0, 4)}, r"out_indices=\(0, 4\) must name stages 0..3"),
            ({"out_indices": (-1,)}, "out_indices"),
            ({"groups": (1, 2, 4)}, "4 depths but 3 groups"),
            ({"groups": (3, 2, 4, 8)}, "8 channels cannot be split into 3 groups"),
        ],
        ids=str,
    )
    def test_values(self, arguments: Config, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            InternImage(**SMALL | arguments)

    @pytest.mark.parametrize("name", ["with_cp", "remove_center", "use_dcn_v4_op", "chanels"])
    def test_unknown_names(self, name: str) -> None:
        unknown: dict[str, Any] = {name: True}
        with pytest.raises(TypeError, match=name):
            InternImage(**SMALL, **unknown)

    def test_both_names_of_the_operator_mean_the_same(self) -> None:
        image = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        networks: list[nn.Module] = [InternImage(**SMALL, core_op=op).eval() for op in ("DCNv3", "DCNv3_pytorch")]
        networks[1].load_state_dict(networks[0].state_dict())
        torch.testing.assert_close(networks[0](image), networks[1](image), rtol=0, atol=0)
