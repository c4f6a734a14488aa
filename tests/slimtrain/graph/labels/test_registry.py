"""Operators that hand channels on: what reads the channels behind them gets narrower too, and computes what the masked network
does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from slimtrain.graph.sizes import Sizing
from slimtrain.groups.groups import find_groups
from slimtrain.slimmable.program import Program
from slimtrain.tracing.masked import masked
from slimtrain.tracing.slimmed import trace
from tests.support.graph_cases import randomized

CHANNELS = 8
EXACT = 1e-10


class Between(nn.Module):
    """A convolution, an operator on its map [N, 8, 6, 6], and another convolution."""

    def __init__(self, operator: Callable[..., Tensor], *parts: nn.Module) -> None:
        super().__init__()
        self.first, self.last, self.parts = (
            nn.Conv2d(3, CHANNELS, 3, padding=1),
            nn.Conv2d(CHANNELS, 4, 1),
            nn.ModuleList(parts),
        )
        self.operator = operator

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.last(self.operator(self.first(x), *self.parts))
        return result


def turned(x: Tensor) -> Tensor:
    """Each image turned by an angle of its own (arXiv 1506.02025)."""
    theta = torch.eye(2, 3, dtype=x.dtype) * x.mean((1, 2, 3))[:, None, None]
    grid = F.affine_grid(theta, [x.shape[0], 1, 5, 5], align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


def remembered(x: Tensor, conv: nn.Module) -> Tensor:
    """Three steps of a convolutional LSTM (arXiv 1506.04214) that begins with zeros, on the same map."""
    state = kept = x.new_zeros(x.shape[0], CHANNELS, *x.shape[2:])
    for _ in range(3):
        taken, kept_share, given, new = conv(torch.cat([x, state], 1)).chunk(4, 1)
        kept = kept_share.sigmoid() * kept + taken.sigmoid() * new.tanh()
        state = given.sigmoid() * kept.tanh()
    return state


OPERATORS: dict[str, Between] = {
    "normalized over channels": Between(lambda x: F.normalize(x, dim=1)),
    "spread as another": Between(lambda x: x + x.mean(1, keepdim=True).expand_as(x)),
    "spread by a number": Between(lambda x: x * x.mean(1, keepdim=True).expand(-1, CHANNELS, -1, -1)),
    "weight norm": Between(lambda x, conv: conv(x), weight_norm(nn.Conv2d(CHANNELS, CHANNELS, 3))),
    "weight norm of inputs": Between(lambda x, conv: conv(x), weight_norm(nn.Conv2d(CHANNELS, CHANNELS, 3), dim=1)),
    "bilinear": Between(
        lambda x, two: two(x.mean((2, 3)), x.amax((2, 3)))[..., None, None], nn.Bilinear(CHANNELS, CHANNELS, 6)
    ),
    "cosine": Between(lambda x: x * F.cosine_similarity(x, x.flip(2), dim=1)[:, None]),
    "distance": Between(lambda x: x * F.pairwise_distance(x.flatten(2).mT, x.flip(3).flatten(2).mT, 1).reshape(-1, 1, 6, 6)),
    "triangle": Between(torch.tril),
    "randomized leaky relu": Between(lambda x, act: act(x), nn.RReLU()),
    "turned": Between(turned),
    "remembered": Between(remembered, nn.Conv2d(2 * CHANNELS, 4 * CHANNELS, 3, padding=1)),
    "ones beside": Between(lambda x: torch.where(x > 0, x, torch.ones_like(x)) * x.new_full(x.shape, 2.0)),
}
OPERATORS["bilinear"].last = nn.Conv2d(6, 4, 1)


@pytest.mark.parametrize("name", OPERATORS)
def test_channels_behind_an_operator_get_narrower_as_the_masked_network_s(name: str) -> None:
    images = torch.randn(3, 3, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    traced = trace(randomized(OPERATORS[name]), images[:2].float())
    tensors = {key: t.double() if t.is_floating_point() else t for key, t in traced.tensors.items()}
    groups = find_groups(traced.graph)
    assert groups.sizes["first"] == CHANNELS, groups.pinned
    sizing = Sizing(traced.graph, groups, {key: slots // 2 + i for i, (key, slots) in enumerate(groups.sizes.items())})
    weight = traced.graph.nodes[-1].inputs[1]  # of the last convolution: it reads fewer channels
    assert sizing.size(groups.dims[weight][1]) != traced.graph.types[weight].shape[1]
    (result,) = Program.of(sizing, torch.float64).run([images], tensors)
    (expected,) = masked(sizing, [images], tensors)
    assert (result - expected).abs().max() < EXACT * expected.abs().max()
