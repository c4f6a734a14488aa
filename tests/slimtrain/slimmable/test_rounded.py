"""What rounding costs a network itself: weights and results of layers, next to rounding by hand."""

from __future__ import annotations

import torch
from torch import nn

from slimtrain.slimmable.rounded import rounded_network
from slimtrain.tracing.slimmed import make_slimmable


def test_weights_and_results_of_layers_are_rounded() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    network = make_slimmable(module, torch.zeros(2, 3), order="none").double()
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(generator=draw)
    before = [parameter.clone() for parameter in network.parameters()]
    x = torch.randn(5, 3, dtype=torch.float64, generator=draw)
    for number, kind in (("float16", torch.float16), ("bfloat16", torch.bfloat16)):
        rounded = rounded_network(network, number)
        w0, b0, w1, b1 = (parameter.to(kind).double() for parameter in network.parameters())
        inner = nn.functional.linear(x, w0, b0).to(kind).double().relu()
        expected = nn.functional.linear(inner, w1, b1).to(kind).double()
        torch.testing.assert_close(rounded(x), expected, rtol=0, atol=0)
        assert not torch.equal(rounded(x), network(x))
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True)), "the network is not changed"


def test_between_roundings_it_computes_in_float64_and_statistics_stay() -> None:
    """Of a network in float32, whose own sums would be rounded too."""
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).eval()
    norm = module[1]
    assert isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None
    draw = torch.Generator().manual_seed(0)
    norm.running_mean.uniform_(-1, 1, generator=draw)
    norm.running_var.uniform_(0.5, 1, generator=draw)
    rounded = rounded_network(make_slimmable(module, torch.zeros(2, 3, 4, 4)), "float16")
    assert rounded(torch.zeros(1, 3, 4, 4, dtype=torch.float64)).dtype == torch.float64
    mean, var = rounded.statistics(rounded.spec.plan(1.0))["1"]
    assert mean.equal(norm.running_mean.double()) and var.equal(norm.running_var.double())
    assert not norm.running_mean.half().float().equal(norm.running_mean), "rounding them would be seen"
