"""Graphs prepared to run: shorter ways into torch, activations in place, what is in memory meanwhile."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimtrain.graph.order import IN_PLACE
from slimtrain.slimmable.graph_body import GraphBody
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.slimmable.prepared import CHANGING, SHORT
from slimtrain.slimmable.program import operator
from slimtrain.tracing.slimmed import make_slimmable
from tests.support.user_networks import images


class Chain(nn.Module):
    def __init__(self, *activations: nn.Module) -> None:
        super().__init__()
        convs = [nn.Conv2d(3 if i == 0 else 8, 8, 3, padding=1) for i in range(len(activations))]
        self.layers = nn.Sequential(*(layer for pair in zip(convs, activations, strict=True) for layer in pair))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).mean((2, 3))


def test_short_ways_lead_to_the_same_operators() -> None:
    """Their arguments stand in the schema's order: those of torch's own signature, where it says one."""
    assert CHANGING.keys() == set(IN_PLACE)
    x, weight = torch.randn(2, 4, 6, 6), torch.randn(4, 4, 3, 3)
    arguments = {
        "add.Tensor": (x, x), "avg_pool2d": (x, [3, 2], [2, 1], [1, 0], True, False, 5), "adaptive_avg_pool2d": (x, [2, 3]),
        "cat": ([x, x], 2), "conv2d": (x, weight[:, :2], None, [2, 1], [1, 0], [1, 2], 2), "hardtanh": (x, -0.5, 0.7),
        "linear": (x, torch.randn(5, 6), torch.randn(5)), "max_pool2d": (x, [3, 2], [2, 1], [1, 0], [1, 2], True),
        "mean.dim": (x, [1, 3], True), "mul.Tensor": (x, x), "reshape": (x, [2, -1]),
    }  # fmt: skip
    for op, function in SHORT.items():
        given = arguments.get(op, (x,))
        assert torch.equal(function(*given), operator(op)(*given)), op
    for op, function in CHANGING.items():
        given = (x.clone(), *arguments.get(op, (x,))[1:])
        assert function(*given) is given[0] and torch.equal(given[0], operator(op)(x, *given[1:])), op


@pytest.mark.parametrize("gradients", [False, True])
def test_activations_work_in_place_and_change_no_bit(gradients: bool) -> None:
    activations = [nn.ReLU(), nn.ReLU6(), nn.Hardswish(), nn.Hardsigmoid(), nn.SiLU(), nn.Sigmoid()]
    module = Chain(*activations)
    network = make_slimmable(module, images(2), order="none")
    assert isinstance(network.body, GraphBody) and len(network.body.order.in_place) == len(activations)
    x, before = images(3), images(3)
    with torch.set_grad_enabled(gradients):
        ours, theirs = network(x), module(x)
        assert torch.equal(ours, theirs) and torch.equal(x, before)
    if gradients:
        for output in (ours, theirs):
            output.square().sum().backward()
        expected = dict(module.named_parameters())
        assert all(torch.equal(p.grad, expected[name].grad) for name, p in network.named_parameters())  # type: ignore[arg-type]


def most_maps(network: SlimmableNetwork, x: Tensor) -> int:
    """The most maps of the layers' size that are in memory at the end of any step."""
    body, counts = network.body, []
    assert isinstance(body, GraphBody)
    size = 8 * x.numel() // 3
    slots = body.begin(x)
    for index in range(len(body.spec.graph.nodes)):
        body.run(slots, x, index, index + 1)
        maps = {t.data_ptr() for t in slots if isinstance(t, Tensor) and t.numel() == size}
        counts.append(len(maps))
    return max(counts)


def test_maps_are_let_go_once_nothing_reads_them() -> None:
    network = make_slimmable(Chain(*[nn.ReLU() for _ in range(5)]), images(2))
    with torch.no_grad():
        assert most_maps(network, images(4)) == 1


def test_gradients_wait_for_one_map_behind_a_relu() -> None:
    """As behind `nn.ReLU(inplace=True)`: the map that the next layer reads, and no other."""
    network = make_slimmable(Chain(nn.ReLU(), nn.ReLU()), images(2))
    saved: set[int] = set()
    x = images(4)

    def note(tensor: Tensor) -> Tensor:
        saved.add(tensor.data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        network(x)
    weights = {p.data_ptr() for p in network.parameters()}
    assert len(saved - weights - {x.data_ptr()}) == 2


def test_a_list_of_one_is_a_list() -> None:
    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 1)

        def forward(self, x: Tensor) -> Tensor:
            (whole,) = torch.chunk(self.conv(x), 1, 1)
            return F.relu(whole).mean((2, 3))

    module = Whole()
    assert torch.equal(make_slimmable(module, images(2), order="none")(images(3)), module(images(3)))
