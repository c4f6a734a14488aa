"""A user's module that the tests of searches slim, and the same module written narrower, by hand: no graph, no groups."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimtrain.groups.spec import GraphSpec
from slimtrain.models.channels import ChannelPlan
from slimtrain.search.evaluator import TensorChunks
from slimtrain.search.greedy import CandidateScore
from slimtrain.slimmable.network import SlimmableNetwork
from slimtrain.tracing.slimmed import make_slimmable
from tests.support.run_helpers import noise
from tests.support.search_toys import measured
from tests.support.user_networks import CLASSES, conv

SIZE = 16
FULL = {"stem.0": 32, "block.0.0": 24, "fc1": 8, "a.0": 16, "b.0": 24}
# Half of each group a step (of 24 it is 16), in eights where it has sixteen and more, down to a quarter.
LADDERS = {"stem.0": (32, 16, 8), "block.0.0": (24, 8), "fc1": (8, 4, 2), "a.0": (16, 8), "b.0": (24, 8)}


class Counted(nn.Module):
    """A residual sum, a gate, a concatenation, of as many channels as are asked for."""

    def __init__(self, stem: int = 32, inner: int = 24, gate: int = 8, a: int = 16, b: int = 24) -> None:
        super().__init__()
        self.stem, self.block = conv(3, stem, stride=2), nn.Sequential(conv(stem, inner), conv(inner, stem))
        self.fc1, self.fc2 = nn.Conv2d(stem, gate, 1), nn.Conv2d(gate, stem, 1)
        self.a, self.b, self.head = conv(stem, a), conv(stem, b), nn.Linear(a + b, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.block(x)
        x = x * self.fc2(F.relu(self.fc1(F.adaptive_avg_pool2d(x, 1)))).sigmoid()
        return self.head(torch.cat([self.a(x), self.b(x)], 1).mean((2, 3)))


def build(num_classes: int = CLASSES) -> nn.Module:
    """For `--model`."""
    module = Counted()
    module.head = nn.Linear(40, num_classes)
    return module


@cache
def module() -> Counted:
    """With weights of a seed, and scales that differ. It is not changed."""
    torch.manual_seed(4)
    counted = Counted()
    for norm in counted.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, 0, 0.3)
    return counted.eval()


def slimmable(module: nn.Module, size: int = SIZE) -> SlimmableNetwork:
    """Its channels in the module's own order, widths from a quarter on."""
    return make_slimmable(module, torch.zeros(2, 3, size, size), (0.25, 1.0), order="none")


def traced() -> SlimmableNetwork:
    network = slimmable(module())
    assert isinstance(network.spec, GraphSpec) and network.spec.groups.sizes == FULL
    return network


@torch.no_grad()
def narrow(channels: Mapping[str, int]) -> Counted:
    """The module of so many channels, with the leading weights of each of its layers."""
    small = Counted(*(channels[group] for group in FULL))
    a, b = channels["a.0"], channels["b.0"]
    for (key, own), whole in zip(small.named_parameters(), module().parameters(), strict=True):
        if key == "head.weight":  # reads the two parts one after the other
            own.copy_(torch.cat([whole[:, :a], whole[:, 16 : 16 + b]], 1))
        else:
            own.copy_(whole[tuple(slice(size) for size in own.shape)])
    return small


@torch.no_grad()
def by_hand(plan: ChannelPlan, chunks: TensorChunks) -> CandidateScore:
    """Error and loss of a plan, every norm using the batch's statistics."""
    small = narrow(plan.channels).train()
    return measured([(small(batch).double(), labels) for batch, labels in chunks.chunks])


@torch.no_grad()
def known(count: int = 16) -> TensorChunks:
    """Images with the classes that the module gives them."""
    whole = narrow(FULL).train()
    return TensorChunks([(batch, whole(batch).argmax(1)) for batch in (noise(count, SIZE, seed) for seed in (7, 8))])
