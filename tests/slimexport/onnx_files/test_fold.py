"""Folding batch norm is exact algebra: checked in float64 against the definition, entry by entry, and on networks.

A norm that is no part of one convolution alone (its input is read twice, it comes first, the convolution runs more
than once) must stay, and the network must still compute the same.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from slimexport.dense import materialize
from slimexport.onnx_files.fold import fold_norms, folded
from tests.support.export_helpers import Wired, conv, opened

EPS = 1e-5


def randomize(network: nn.Module, seed: int = 0) -> nn.Module:
    """Norms with scales of both signs, shifts, means, and variances from 1e-3 to 10; float64, evaluation mode."""
    draw = torch.Generator().manual_seed(seed)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            assert norm.running_mean is not None and norm.running_var is not None
            norm.weight.data.normal_(generator=draw)
            norm.bias.data.normal_(generator=draw)
            norm.running_mean.normal_(generator=draw)
            norm.running_var.copy_(10 ** (torch.rand(norm.num_features, generator=draw) * 4 - 3))
    return network.double().eval()


def padded(inp: int = 3, out: int = 3, **options: Any) -> nn.Conv2d:
    """A convolution that keeps the image size, unless said otherwise."""
    return conv(inp, out, **{"padding": 1, **options})


def images(size: int = 9, channels: int = 3) -> Tensor:
    return torch.randn(2, channels, size, size, dtype=torch.double, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def check(network: nn.Module, kept: int) -> fx.GraphModule:
    """Fold a copy: the same outputs to float64 rounding, and `kept` norms left."""
    randomize(network)
    expected = network(images())
    result = fold_norms(fx.symbolic_trace(copy.deepcopy(network)))
    outputs = result(images())
    assert torch.max(torch.abs(outputs - expected)) <= 1e-13 * torch.max(torch.abs(expected))
    assert sum(isinstance(module, nn.BatchNorm2d) for module in result.modules()) == kept
    return result


# ------------------------------------------------------------------------------------------------------- the formula


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("out", "per_group"), [(6, 3), (6, 1), (4, 2), (1, 1)])
def test_weights_and_bias_are_those_of_the_definition(out: int, per_group: int, bias: bool) -> None:
    draw = torch.Generator().manual_seed(out)
    weight = torch.randn(out, per_group, 3, 2, dtype=torch.double, generator=draw)
    old = torch.randn(out, dtype=torch.double, generator=draw) if bias else None
    mean, scale, shift = torch.randn(3, out, dtype=torch.double, generator=draw)
    var = torch.rand(out, dtype=torch.double, generator=draw)
    new_weight, new_bias = folded(weight, old, mean, var, scale, shift, EPS)
    for o in range(out):
        s = scale[o].item() / math.sqrt(var[o].item() + EPS)
        moved = (old[o].item() if old is not None else 0.0) - mean[o].item()
        assert new_bias[o].item() == pytest.approx(shift[o].item() + s * moved, rel=1e-14)
        for i in range(per_group):
            for a in range(3):
                for b in range(2):
                    assert new_weight[o, i, a, b].item() == pytest.approx(s * weight[o, i, a, b].item(), rel=1e-14)


def test_float32_weights_are_folded_in_float64_and_rounded_once() -> None:
    """A variance of 1e-12 beside eps: the square root in float32 would be off by more than one rounding."""
    draw = torch.Generator().manual_seed(5)
    weight = torch.randn(64, 8, 1, 1, generator=draw)
    mean, scale, shift = torch.randn(3, 64, generator=draw)
    var = torch.cat([torch.full((32,), 1e-12), torch.rand(32, generator=draw)])
    exact = folded(weight.double(), None, mean.double(), var.double(), scale.double(), shift.double(), EPS)
    rounded = folded(weight, None, mean, var, scale, shift, EPS)
    for value, wanted in zip(rounded, exact, strict=True):
        assert value.dtype == torch.float32
        assert torch.equal(value, wanted.float())


def test_eps_is_the_norms_own() -> None:
    network = nn.Sequential(padded(bias=False), nn.BatchNorm2d(3, eps=0.5))
    check(network, kept=0)


# ---------------------------------------------------------------------------------------------------------- networks


@pytest.mark.parametrize(
    "layer",
    [
        padded(),
        padded(bias=False),
        padded(3, 12, groups=3),
        padded(3, 3, groups=3, bias=False),
        padded(3, 9, groups=3, stride=2, padding=0),
        nn.Conv2d(3, 5, 1),
        nn.Conv2d(3, 5, (1, 3), dilation=2, padding_mode="circular", padding=1),
    ],
    ids=["bias", "no bias", "grouped", "depthwise", "grouped stride 2", "1x1", "circular dilated"],
)
def test_every_kind_of_convolution_takes_its_norm_in(layer: nn.Conv2d) -> None:
    result = check(nn.Sequential(layer, nn.BatchNorm2d(layer.out_channels), nn.ReLU()), kept=0)
    assert result.get_submodule("0").bias is not None


def test_tiny_variances_and_negative_scales_fold_exactly() -> None:
    network = nn.Sequential(padded(bias=False), nn.BatchNorm2d(3))
    randomize(network)
    norm = network[1]
    assert isinstance(norm, nn.BatchNorm2d) and norm.running_var is not None
    norm.running_var.copy_(torch.tensor([0.0, 1e-30, 1e-12]))
    norm.weight.data.copy_(torch.tensor([-3.0, 0.0, 1e-20]))
    with torch.no_grad():
        expected = network(images())
        outputs = fold_norms(fx.symbolic_trace(copy.deepcopy(network)))(images())
    assert torch.max(torch.abs(outputs - expected)) <= 1e-13 * torch.max(torch.abs(expected))


def test_two_norms_in_a_row_both_fold() -> None:
    check(nn.Sequential(padded(), nn.BatchNorm2d(3), nn.BatchNorm2d(3), nn.ReLU()), kept=0)


def test_a_norm_that_comes_first_stays() -> None:
    check(nn.Sequential(nn.BatchNorm2d(3), padded(), nn.ReLU()), kept=1)


def test_a_norm_after_something_else_than_a_convolution_stays() -> None:
    check(nn.Sequential(padded(), nn.ReLU(), nn.BatchNorm2d(3)), kept=1)
    check(nn.Sequential(nn.ConvTranspose2d(3, 3, 3), nn.BatchNorm2d(3)), kept=1)


def test_a_norm_stays_where_something_else_reads_the_convolution_too() -> None:
    def forward(self: Any, x: Tensor) -> Any:
        y = self.c(x)
        return self.n(y) + y

    check(Wired(forward, c=padded(), n=nn.BatchNorm2d(3)), kept=1)


def test_two_norms_of_one_convolution_stay() -> None:
    def forward(self: Any, x: Tensor) -> Any:
        y = self.c(x)
        return self.n(y) + self.m(y)

    check(Wired(forward, c=padded(), n=nn.BatchNorm2d(3), m=nn.BatchNorm2d(3)), kept=2)


def test_a_convolution_that_runs_twice_keeps_its_norms() -> None:
    """Its weights belong to both places; folding a norm into them would change the other place as well."""

    def forward(self: Any, x: Tensor) -> Any:
        return self.m(self.c(self.n(self.c(x))))

    check(Wired(forward, c=padded(), n=nn.BatchNorm2d(3), m=nn.BatchNorm2d(3)), kept=2)


def test_a_norm_that_runs_twice_does_not_break_folding() -> None:
    def forward(self: Any, x: Tensor) -> Any:
        return self.n(self.d(self.n(self.c(x))))

    network = randomize(Wired(forward, c=padded(), d=padded(), n=nn.BatchNorm2d(3)))
    with torch.no_grad():
        expected = network(images())
        outputs = fold_norms(fx.symbolic_trace(copy.deepcopy(network)))(images())
    assert torch.max(torch.abs(outputs - expected)) <= 1e-13 * torch.max(torch.abs(expected))


def test_a_norm_without_scale_folds_or_stays_but_does_not_crash() -> None:
    network = nn.Sequential(padded(), nn.BatchNorm2d(3, affine=False)).double().eval()
    with torch.no_grad():
        expected = network(images())
        outputs = fold_norms(fx.symbolic_trace(copy.deepcopy(network)))(images())
    assert torch.max(torch.abs(outputs - expected)) <= 1e-13 * torch.max(torch.abs(expected))


def test_what_is_folded_leaves_no_trace_of_the_norms() -> None:
    result = check(nn.Sequential(padded(bias=False), nn.BatchNorm2d(3), nn.ReLU()), kept=0)
    assert set(result.state_dict()) == {"0.weight", "0.bias"}
    assert [node.target for node in result.graph.nodes if node.op == "call_module"] == ["0", "2"]


@pytest.mark.parametrize(
    ("name", "width"),
    [
        ("s_mobilenet_v1", 0.25),
        ("us_mobilenet_v2", 0.35),
        ("autoslim_mnasnet", 1),
        ("s_shufflenet", 0.5),
        ("autoslim_resnet50", 4),
    ],
)
def test_whole_networks_agree_with_and_without_folding_to_float64_rounding(
    checkpoint_path: Callable[[str], Path], name: str, width: float
) -> None:
    checkpoint = opened(checkpoint_path(name))
    plain = materialize(checkpoint, width, fold=False, dtype=torch.float64)
    small = materialize(checkpoint, width, fold=True, dtype=torch.float64)
    assert any(isinstance(module, nn.BatchNorm2d) for module in plain.modules())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in small.modules())
    x = images(64)
    with torch.inference_mode():
        expected, outputs = plain(x), small(x)
    assert torch.max(torch.abs(outputs - expected)) <= 1e-11 * torch.max(torch.abs(expected))
