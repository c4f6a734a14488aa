"""Slimmable layers compute what torch's own do on the leading corner of their weights."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from slimtrain.models.channels import ChannelPlan, Dim
from slimtrain.slimmable.layers import SlimConv2d, SlimLinear

WIDEST = ChannelPlan("widest", {"a": 12, "b": 8})
PLANS = [WIDEST, ChannelPlan("narrow", {"a": 5, "b": 3}), ChannelPlan("one", {"a": 1, "b": 1})]
A, B = Dim.of("a"), Dim.of("b")


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.name)
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 2), (5, 1)])
def test_a_convolution_reads_and_writes_the_active_channels(plan: ChannelPlan, kernel: int, stride: int) -> None:
    conv = SlimConv2d(A, B, kernel, stride, False, WIDEST).double()
    conv.activate(plan)
    x = noise(2, plan.size(A), 7, 7)
    weight = conv.weight[: plan.size(B), : plan.size(A)]
    assert torch.equal(conv(x), F.conv2d(x, weight, None, stride, kernel // 2))
    assert conv.bias is None and conv.weight.shape == (8, 12, kernel, kernel)
    assert conv.dims == (A, B)


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.name)
def test_a_depthwise_convolution_has_a_filter_per_active_channel(plan: ChannelPlan) -> None:
    conv = SlimConv2d(A, A, 3, 1, True, WIDEST).double()
    conv.activate(plan)
    count = plan.size(A)
    x = noise(2, count, 7, 7)
    alone = [F.conv2d(x[:, i : i + 1], conv.weight[i : i + 1], None, 1, 1) for i in range(count)]
    torch.testing.assert_close(conv(x), torch.cat(alone, 1), rtol=1e-12, atol=1e-12)


def test_image_channels_are_never_slimmed() -> None:
    conv = SlimConv2d(3, B, 3, 2, False, WIDEST)
    conv.activate(PLANS[1])
    assert (conv.active_in, conv.active_out) == (3, 3) and conv(torch.zeros(1, 3, 8, 8)).shape == (1, 3, 4, 4)


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.name)
def test_a_classifier_reads_the_active_channels_and_keeps_its_classes(plan: ChannelPlan) -> None:
    linear = SlimLinear(A, 10, WIDEST).double()
    linear.activate(plan)
    x = noise(4, plan.size(A))
    expected = x @ linear.weight[:, : plan.size(A)].T + linear.bias
    torch.testing.assert_close(linear(x), expected, rtol=1e-12, atol=1e-12)
    assert linear.dims == (A,)
