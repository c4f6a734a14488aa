"""Which norms become part of a layer, of modules whose norms stand in several ways."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from slimtrain.graph.folding import folded_norms
from slimtrain.tracing.slimmed import trace


class Wired(nn.Module):
    def __init__(self, run: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.norm, self.other = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.BatchNorm2d(8, affine=False)
        self.linear, self.row, self.run = nn.Linear(8, 5), nn.BatchNorm1d(5), run

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


WAYS: dict[str, tuple[Callable[..., Tensor], list[str]]] = {
    "directly": (lambda m, x: m.norm(m.conv(x)), ["conv"]),
    "without scale": (lambda m, x: m.other(m.conv(x)), ["conv"]),
    "twice": (lambda m, x: m.other(m.norm(m.conv(x))), ["conv"]),
    "behind an activation": (lambda m, x: m.norm(m.conv(x).relu()), []),
    "read by another": (lambda m, x: m.norm(y := m.conv(x)) + y, []),
    "both of one layer": (lambda m, x: m.norm(m.conv(x)) + m.other(m.conv(x + 1)), ["conv", "conv"]),
    "behind a linear layer": (lambda m, x: m.row(m.linear(m.conv(x).mean((2, 3)))), ["linear"]),
    "with a view between": (lambda m, x: m.row(m.linear(m.conv(x).flatten(2).mT).flatten(0, 1)), ["linear"]),
}


@pytest.mark.parametrize("name", WAYS)
def test_norms_that_become_part_of_a_layer(name: str) -> None:
    run, modules = WAYS[name]
    graph = trace(Wired(run).eval(), torch.zeros(2, 3, 8, 8)).graph
    assert [layer.module for layer in folded_norms(graph).values()] == modules
