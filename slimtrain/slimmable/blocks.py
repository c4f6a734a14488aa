"""The modules that are not layers: blocks and whole networks, the same for slimmable and for dense layers."""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Block(nn.Module, ABC):
    """A part of a network with inputs or outputs of its own to join. It says what others have to know of it."""


class ResidualBlock(Block):
    """MobileNet's block: `body`, and its input added where the block is a residual one."""

    def __init__(self, body: nn.Module, residual: bool) -> None:
        super().__init__()
        self.body = body
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.residual else self.body(x)


class Bottleneck(Block):
    """ResNet's block: ReLU(body(x) + shortcut(x)), the shortcut being x itself where there is none."""

    def __init__(self, body: nn.Module, shortcut: nn.Module | None) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.body(x) + (x if self.shortcut is None else self.shortcut(x)))


class ShuffleUnit(Block):
    """ShuffleNet's unit: thirds `a_0..2`, shuffle and depthwise `b`, thirds `c_0..2`; summed with the input at
    stride 1, concatenated with the pooled input at stride 2."""

    def __init__(
        self,
        a: Sequence[nn.Module],
        b: nn.Module,
        c: Sequence[nn.Module],
        pool: nn.Module | None,
        whole: bool,
    ) -> None:
        super().__init__()
        self.b = b  # registered first: the published state dicts have this order
        for i, module in enumerate(a):
            self.add_module(f"a_{i}", module)
        for i, module in enumerate(c):
            self.add_module(f"c_{i}", module)
        self.groups = len(a)
        self.whole = whole
        self.pool = pool
        self.relu = nn.ReLU(inplace=True)

    def thirds(self, name: str, x: Sequence[Tensor] | tuple[Tensor, ...]) -> Tensor:
        return torch.cat([self.get_submodule(f"{name}_{i}")(x[i]) for i in range(self.groups)], 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = [x] * self.groups if self.whole else torch.chunk(x, self.groups, 1)
        out = self.b(self.thirds("a", parts))
        out = self.thirds("c", torch.chunk(out, self.groups, 1))
        if self.pool is None:
            return self.relu(x + out)
        return torch.cat([self.relu(out), self.pool(x)], 1)


class Network(nn.Module):
    """An image classifier: [N, C, H, W] normalized float images -> [N, classes] logits.

    Features, global average pool, linear classifier. Where there are `heads` (ShuffleNet's stems), each reads the whole
    image and the features read their concatenation.
    """

    def __init__(self, features: Sequence[nn.Module], classifier: nn.Module, heads: Sequence[nn.Module] = ()) -> None:
        super().__init__()
        self.heads = len(heads)
        for i, head in enumerate(heads):
            self.add_module(f"head_{i}", head)
        self.features = nn.Sequential(*features)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten(1)
        self.classifier = nn.Sequential(classifier)

    def forward(self, x: Tensor) -> Tensor:
        if self.heads:
            x = self.stem(x)
        return self.classifier(self.flatten(self.pool(self.features(x))))

    def stem(self, x: Tensor) -> Tensor:
        """All heads side by side: [N, C, H, W] -> [N, channels of all, H', W']."""
        return torch.cat([self.get_submodule(f"head_{i}")(x) for i in range(self.heads)], 1)
