"""Graphs that compute images with each other, found without running them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimtrain.graph.coupling import couples_images
from slimtrain.tracing.slimmed import trace


class Given(nn.Module):
    """A convolution, and something done to its map [N, 8, 4, 4]."""

    def __init__(self, forward: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.written = nn.Conv2d(3, 8, 1), forward

    def forward(self, x: Tensor) -> Tensor:
        return self.written(self.conv(x))


def coupled(forward: Callable[[Tensor], Tensor]) -> bool:
    """Whether the results of some images change with another one: computed from the definition."""
    module = Given(forward).eval()
    x = torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    changed = torch.cat([x[:1], 2 - x[1:2], x[2:]])
    with torch.no_grad():
        before, after = module(x), module(changed)
    return len(before) != 4 or not torch.allclose(before[[0, 2, 3]], after[[0, 2, 3]])


def attended(tokens: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(tokens, tokens, tokens)


FORWARDS: dict[str, Callable[[Tensor], Tensor]] = {
    "pointwise": lambda x: x.relu() + 1,
    "its own mean": lambda x: x - x.mean((1, 2, 3), keepdim=True),
    "mean over images": lambda x: x - x.mean(0, keepdim=True),
    "mean of everything": lambda x: x - x.mean(),
    "softmax over channels": lambda x: x.softmax(1),
    "softmax over images": lambda x: x.softmax(0),
    "softmax over images, behind": lambda x: x.permute(1, 2, 3, 0).softmax(-1).permute(3, 0, 1, 2),
    "turned": lambda x: x.flip(2),
    "images turned": lambda x: x.flip(0),
    "rolled": lambda x: x.roll(1, 3),
    "images rolled": lambda x: x.roll(1, 0),
    "everything rolled": lambda x: x.roll(1),
    "products": lambda x: x.flatten(2) @ x.flatten(2).transpose(1, 2),
    "products of images": lambda x: (x.flatten(1) @ x.flatten(1).t()) @ x.flatten(1),
    "normalized": lambda x: F.layer_norm(x, (4, 4)),
    "batch statistics": lambda x: F.batch_norm(x, None, None, training=True),
    "tokens are places": lambda x: attended(x.flatten(2).transpose(1, 2)),
    "tokens are images": lambda x: attended(x.flatten(1)[None])[0],
    "windows of an image": lambda x: x.unfold(2, 2, 2).reshape(-1, 8, 2, 2).softmax(1).reshape(-1, 128),
    "convolution over images": lambda x: F.conv1d(x.flatten(1).t()[None], torch.ones(1, 128, 3), padding=1)[0].t(),
    "running sum over images": lambda x: x.cumsum(0),
}


@pytest.mark.parametrize("forward", FORWARDS.values(), ids=FORWARDS.keys())
def test_it_is_said_of_those_whose_images_change_each_other_s_results(forward: Callable[[Tensor], Tensor]) -> None:
    assert couples_images(trace(Given(forward), torch.zeros(2, 3, 4, 4)).graph) == coupled(forward)


class Rows(nn.Module):
    """The rows of a map [N, 8, 4, 4] as the steps of a recurrent layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.GRU(16, 5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        read: Tensor = self.layer(x.flatten(2))[0]
        return read


def test_a_recurrent_layer_couples_the_images_that_are_its_steps() -> None:
    torch.manual_seed(0)
    rows = Rows()
    graph = trace(Given(rows), torch.zeros(2, 3, 4, 4)).graph
    assert not couples_images(graph) and not coupled(rows)
    rows.layer.batch_first = False
    nodes = (replace(n, arguments={**n.arguments, **({"batch_first": False} if n.kind == "gru" else {})}) for n in graph.nodes)
    assert couples_images(replace(graph, nodes=tuple(nodes))) and coupled(rows)
