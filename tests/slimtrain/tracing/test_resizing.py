"""Graphs for inputs of another size, against those that are traced with it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from slimtrain.base.errors import UserError
from slimtrain.graph.graph import Batch
from slimtrain.groups.groups import find_groups
from slimtrain.groups.spec import GraphSpec
from slimtrain.tracing.resizing import resized
from slimtrain.tracing.slimmed import trace


class Maps(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        small = self.first(x).relu()
        return nn.functional.interpolate(self.second(small), scale_factor=2.0).mean((2, 3))


class Fixed(Maps):
    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x)).reshape(x.shape[0], -1)


def spec_of(module: nn.Module, size: int) -> GraphSpec:
    graph = trace(module, torch.zeros(2, 3, size, size)).graph
    return GraphSpec("maps", "s", (0.5, 1.0), graph, find_groups(graph))


def test_it_is_the_graph_that_would_be_traced() -> None:
    module = Maps()
    result, expected = resized(spec_of(module, 16), {"x": (Batch(), 3, 40, 40)}), spec_of(module, 40)
    assert result.graph.types == expected.graph.types and result.groups.dims == expected.groups.dims
    plan = result.plan(0.5)
    assert result.own_cost(plan) == expected.own_cost(plan) and result.image_size == 40


def test_a_graph_that_holds_sizes_is_refused() -> None:
    with pytest.raises(UserError, match=r"s_maps: reshape at .* holds a size that may be the images'"):
        resized(spec_of(Fixed(), 16), {"x": (Batch(), 3, 40, 40)})


def test_inputs_that_the_graph_does_not_take_are_refused() -> None:
    with pytest.raises(UserError, match=r"does not take such inputs: conv2d"):
        resized(spec_of(Maps(), 16), {"x": (Batch(), 4, 40, 40)})
