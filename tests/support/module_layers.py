"""The published architectures built of ordinary `torch.nn` modules at the size of one plan: an oracle that knows nothing of
graphs. Their modules carry the published names."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from slimtrain.models.architecture import Layers
from slimtrain.models.channels import ChannelPlan, Dim


class ResidualBlock(nn.Module):
    """MobileNet's block."""

    def __init__(self, body: nn.Module, residual: bool) -> None:
        super().__init__()
        self.body, self.residual = body, residual

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x)
        return x + out if self.residual else out


class Bottleneck(nn.Module):
    """ResNet's block."""

    def __init__(self, body: nn.Module, shortcut: nn.Module | None) -> None:
        super().__init__()
        self.body, self.shortcut, self.relu = body, shortcut, nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.body(x) + (x if self.shortcut is None else self.shortcut(x)))
        return out


class ShuffleUnit(nn.Module):
    """ShuffleNet's unit."""

    def __init__(
        self, a: Sequence[nn.Module], b: nn.Module, c: Sequence[nn.Module], pool: nn.Module | None, whole: bool
    ) -> None:
        super().__init__()
        self.b = b  # registered first: the published state dicts have this order
        for name, modules in (("a", a), ("c", c)):
            for index, module in enumerate(modules):
                self.add_module(f"{name}_{index}", module)
        self.groups, self.whole, self.pool, self.relu = len(a), whole, pool, nn.ReLU(inplace=True)

    def thirds(self, name: str, parts: Sequence[Tensor]) -> Tensor:
        return torch.cat([self.get_submodule(f"{name}_{index}")(parts[index]) for index in range(self.groups)], 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = [x] * self.groups if self.whole else torch.chunk(x, self.groups, 1)
        out = self.b(self.thirds("a", parts))
        out = self.thirds("c", torch.chunk(out, self.groups, 1))
        if self.pool is None:
            return self.relu(x + out)
        return torch.cat([self.relu(out), self.pool(x)], 1)


class Network(nn.Module):
    """[N, C, H, W] normalized images -> [N, classes] logits."""

    def __init__(self, features: Sequence[nn.Module], classifier: nn.Module, heads: Sequence[nn.Module]) -> None:
        super().__init__()
        self.heads = len(heads)
        for index, head in enumerate(heads):
            self.add_module(f"head_{index}", head)
        self.features = nn.Sequential(*features)
        self.pool, self.flatten, self.classifier = nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Sequential(classifier)

    def forward(self, x: Tensor) -> Tensor:
        if self.heads:
            x = torch.cat([self.get_submodule(f"head_{index}")(x) for index in range(self.heads)], 1)
        logits: Tensor = self.classifier(self.flatten(self.pool(self.features(x))))
        return logits


class DenseLayers(Layers[nn.Module]):
    """Ordinary layers at the size of `plan`."""

    def __init__(self, plan: ChannelPlan) -> None:
        self.size = plan.size

    def conv(self, inp: Dim | int, out: Dim, kernel: int, stride: int = 1) -> nn.Module:
        return nn.Conv2d(self.size(inp), self.size(out), kernel, stride, padding=kernel // 2, bias=False)

    def depthwise(self, dim: Dim, kernel: int, stride: int = 1) -> nn.Module:
        channels = self.size(dim)
        return nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False)

    def norm(self, dim: Dim) -> nn.Module:
        return nn.BatchNorm2d(self.size(dim))

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
        return Network(features, nn.Linear(self.size(out), classes), heads)
