"""Costs of graphs: against a count by hand, and against the published architectures' own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from slimtrain.costs.cost import CostCounter
from slimtrain.graph.sizes import Sizing
from slimtrain.groups.costs import graph_cost, graph_maps, node_costs
from slimtrain.groups.groups import find_groups
from slimtrain.models.published import published_spec
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.tracing.slimmed import trace
from tests.support.user_networks import CLASSES, images, network


def sizing(name: str, share: float = 1.0) -> Sizing:
    graph = trace(network(name), images(2)).graph
    groups = find_groups(graph)
    return Sizing(graph, groups, {group: max(1, int(slots * share)) for group, slots in groups.sizes.items()})


def test_convolutions_and_linear_layers_by_hand() -> None:
    cost = graph_cost(sizing("plain", 0.5))
    first, second = 3 * 8 * 9 * 16 * 16, 8 * 16 * 9 * 8 * 8
    assert cost.macs == first + second + 16 * CLASSES
    assert cost.params == 3 * 8 * 9 + 8 + 8 * 16 * 9 + 16 + 16 * CLASSES + CLASSES
    assert cost.activations == 8 * 256 + 16 * 64 + CLASSES and cost.layers == 3


def test_attention_by_hand() -> None:
    macs = {cost.node.kind: cost.macs for cost in node_costs(sizing("transformer"))}
    assert macs["scaled_dot_product_attention"] == 6 * 17 * 17 * (8 + 8)


class Read(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.GRU(3 * 16, 8, 2, batch_first=True, bidirectional=True)
        self.cell = nn.LSTMCell(16, 5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x, _ = self.rows(x.transpose(1, 2).flatten(2))
        read, _ = self.cell(x[:, -1])
        result: Tensor = read
        return result


def test_recurrent_layers_by_hand() -> None:
    graph = trace(Read().eval(), images(2)).graph
    groups = find_groups(graph)
    cost = graph_cost(Sizing(graph, groups, groups.sizes))
    layers = 2 * 3 * 8 * (3 * 16 + 8), 2 * 3 * 8 * (2 * 8 + 8)  # directions, gates, state: of the input, and of the state
    assert cost.macs == 16 * sum(layers) + 4 * 5 * (16 + 5)
    assert cost.params == sum(layers) + 2 * 2 * 2 * 3 * 8 + 4 * 5 * (16 + 5)


def test_a_depthwise_convolution_reads_one_channel() -> None:
    costs = {cost.node.module: cost.macs for cost in node_costs(sizing("gate"))}
    assert costs["body.1.0"] == 16 * 9 * 256


def test_maps_are_counted_without_views() -> None:
    total, largest = graph_maps(sizing("plain"))
    assert largest == 16 * 256 and total == 3 * 16 * 256 + 3 * 32 * 64 + 32 + CLASSES


class Normed(nn.Module):
    """Norms behind a convolution with a bias, behind one without, without scale and shift, and behind an activation."""

    def __init__(self) -> None:
        super().__init__()
        self.biased = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8))
        self.plain = nn.Sequential(nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8))
        self.unscaled = nn.Sequential(nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8, affine=False))
        self.alone, self.head = nn.BatchNorm2d(8), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.alone(self.unscaled(self.plain(self.biased(x))).relu()).mean((2, 3)))


def test_parameters_of_norms_that_are_folded_and_of_one_that_is_not() -> None:
    """A convolution has its weights and one bias, whichever way it got it; the norm that stands alone keeps both."""
    graph = trace(Normed().eval(), images(2)).graph
    groups = find_groups(graph)
    cost = graph_cost(Sizing(graph, groups, groups.sizes))
    assert cost.params == (3 * 8 + 8) + 2 * (8 * 8 + 8) + 2 * 8 + (8 * CLASSES + CLASSES)


@pytest.mark.parametrize("name", ["us_mobilenet_v1", "us_mobilenet_v2", "us_resnet50"])
def test_a_published_network_costs_the_same_as_a_graph(name: str) -> None:
    """The published architecture's own count, and that of the graph of its dense form, traced as if it were a user's."""
    from slimexport.dense import dense_network

    spec = published_spec(name, classes=10)
    plan = spec.plan(1.0)
    torch.manual_seed(0)
    dense = dense_network(SlimmableNetwork(spec), plan, fold=False)
    graph = trace(dense, torch.zeros(2, 3, 64, 64)).graph
    groups = find_groups(graph)
    cost, expected = graph_cost(Sizing(graph, groups, groups.sizes)), CostCounter(spec, 64)(plan)
    assert (cost.macs, cost.params, cost.layers) == (expected.macs, expected.params, expected.layers)
