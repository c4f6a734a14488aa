"""What an architecture is built of: `SlimmableLayers` for the network that trains; `DenseLayers`, ordinary `torch.nn` ones,
for the network of one plan. The architecture's own loop puts both together, so that their modules carry the same names.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from torch import nn

from slimtrain.models.architecture import Layers
from slimtrain.models.channels import ChannelPlan, Dim
from slimtrain.slimmable.blocks import Bottleneck, Network, ResidualBlock, ShuffleUnit
from slimtrain.slimmable.norms import BN_EPS, BN_MOMENTUM


class TorchLayers(Layers[nn.Module]):
    """What slimmable and dense networks have in common."""

    def relu(self) -> nn.Module:
        return nn.ReLU(inplace=True)

    def relu6(self) -> nn.Module:
        return nn.ReLU6(inplace=True)

    def max_pool(self, kernel: int, stride: int, padding: int) -> nn.Module:
        return nn.MaxPool2d(kernel, stride, padding)

    def average_pool(self, dim: Dim, kernel: int, stride: int, padding: int) -> nn.Module:
        return nn.AvgPool2d(kernel, stride, padding, count_include_pad=True)

    def shuffle(self, groups: int) -> nn.Module:
        return nn.ChannelShuffle(groups)

    def sequential(self, modules: Sequence[nn.Module]) -> nn.Module:
        return nn.Sequential(*modules)

    def block(self, body: nn.Module, residual: bool) -> nn.Module:
        return ResidualBlock(body, residual)

    def bottleneck(self, body: nn.Module, shortcut: nn.Module | None) -> nn.Module:
        return Bottleneck(body, shortcut)

    def shuffle_unit(
        self, a: Sequence[nn.Module], b: nn.Module, c: Sequence[nn.Module], pool: nn.Module | None, whole: bool
    ) -> nn.Module:
        return ShuffleUnit(a, b, c, pool, whole)

    def network(self, features: Sequence[nn.Module], out: Dim, classes: int, heads: Sequence[nn.Module] = ()) -> nn.Module:
        return Network(features, self.linear(out, classes), heads)

    @abstractmethod
    def linear(self, inp: Dim, classes: int) -> nn.Module:
        """The classifier."""


class DenseLayers(TorchLayers):
    """Ordinary `torch.nn` layers at the size of one plan."""

    def __init__(self, plan: ChannelPlan) -> None:
        self.plan = plan

    def conv(self, inp: Dim | int, out: Dim, kernel: int, stride: int = 1) -> nn.Module:
        size = self.plan.size
        return nn.Conv2d(size(inp), size(out), kernel, stride, padding=kernel // 2, bias=False)

    def depthwise(self, dim: Dim, kernel: int, stride: int = 1) -> nn.Module:
        channels = self.plan.size(dim)
        return nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False)

    def norm(self, dim: Dim) -> nn.Module:
        return nn.BatchNorm2d(self.plan.size(dim), BN_EPS, BN_MOMENTUM)

    def linear(self, inp: Dim, classes: int) -> nn.Module:
        return nn.Linear(self.plan.size(inp), classes)
