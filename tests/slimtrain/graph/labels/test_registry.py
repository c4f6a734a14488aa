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


def repeated(x: Tensor) -> Tensor:
    """Every channel twice, as keys that several queries share are, beside ones that are as many."""
    n, c, *places = x.shape
    twice = x[:, :, None].expand(n, c, 2, *places).reshape(n, 2 * c, *places)
    return (twice * x.new_ones(n, 2 * c, *places)).reshape(n, c, 2, *places).sum(2)


def deformed(x: Tensor) -> Tensor:
    """Two heads of channels in the place of images, each sampled at places of its own."""
    n, c, h, w = x.shape
    grid = torch.tanh(torch.stack([x.mean(1), x.amax(1)], -1)).repeat_interleave(2, 0)
    return F.grid_sample(x.reshape(2 * n, c // 2, h, w), grid, align_corners=False).reshape(n, c, h, w)


def looked_up(x: Tensor, table: nn.Module) -> Tensor:
    """Numbers of rows, spread as a tensor of channels is."""
    rows = (x.mean((1, 2, 3)) > 0).long()[:, None].expand_as(x[:, :, 0, 0])
    return x + table(rows).reshape(x.shape[0], -1).mean(1)[:, None, None, None]


OPERATORS: dict[str, Between] = {
    "normalized over channels": Between(lambda x: F.normalize(x, dim=1)),
    "spread as another": Between(lambda x: x + x.mean(1, keepdim=True).expand_as(x)),
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
    "repeated": Between(repeated),
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


class Apart(nn.Module):
    """The channels of a map read one by one, each as a sequence of its rows."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.first, self.layer, self.last = nn.Conv2d(3, CHANNELS, 1), layer, nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.first(x).reshape(-1, 6, 6)
        read = self.layer(rows[:, 0]) if isinstance(self.layer, nn.RNNCellBase) else self.layer(rows)[0][:, -1]
        result: Tensor = self.last(read).reshape(-1, CHANNELS, 4).sum(1)
        return result


def looked_up_by_channels(x: Tensor, table: nn.Module) -> Tensor:
    """A row for every channel."""
    rows = (x.mean((2, 3)) > 0).long()
    return x + table(rows).reshape(x.shape[0], -1).mean(1)[:, None, None, None]


KEPT: dict[str, nn.Module] = {
    "a row for every channel": Between(looked_up_by_channels, nn.Embedding(3, 5)),
    "channels are sequences": Apart(nn.LSTM(6, 5, batch_first=True)),
    "channels are steps' images": Apart(nn.GRUCell(6, 5)),
    "heads are images": Between(deformed),
    "rows of a table": Between(looked_up, nn.Embedding(3, 5)),
}


@pytest.mark.parametrize("name", KEPT)
def test_what_cannot_get_narrower_is_kept_and_computes_what_it_did(name: str) -> None:
    images = torch.randn(3, 3, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    module = randomized(KEPT[name])
    traced = trace(module, images[:2].float())
    tensors = {key: t.double() if t.is_floating_point() else t for key, t in traced.tensors.items()}
    groups = find_groups(traced.graph)
    for channels in (groups.sizes, {key: max(1, slots // 2) for key, slots in groups.sizes.items()}):
        sizing = Sizing(traced.graph, groups, channels)
        (result,) = Program.of(sizing, torch.float64).run([images], tensors)
        (expected,) = masked(sizing, [images], tensors)
        assert (result - expected).abs().max() <= EXACT * expected.abs().max()
