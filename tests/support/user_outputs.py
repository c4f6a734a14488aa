"""Small networks as users write them that are no classifiers of images: several outputs, maps of classes, signals."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Segmentation(nn.Module):
    """A map of 5 classes, and another from an early layer, both as large as the image, as torchvision's networks give them."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(16, 24, 3, 1, 1), nn.ReLU())
        self.head, self.early = nn.Conv2d(24, 5, 1), nn.Conv2d(16, 5, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        early = self.stem(x)
        maps = {"out": self.head(self.body(early)), "aux": self.early(early)}
        return {name: F.interpolate(map_, size=x.shape[-2:], mode="bilinear") for name, map_ in maps.items()}


class Gives(nn.Module):
    """Two convolutions, and whatever is made of what the second gives, [N, 4, H, W]."""

    def __init__(self, outputs: Any, channels: int = 3) -> None:
        super().__init__()
        self.first, self.second, self.outputs = nn.Conv2d(channels, 8, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1), outputs

    def forward(self, x: Tensor) -> Any:
        return self.outputs(self.second(F.relu(self.first(x))))


class SignalClassifier(nn.Module):
    """Signals of 12 channels, 6 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv1d(12, 16, 5, 2, 2), nn.BatchNorm1d(16), nn.ReLU())
        self.second, self.head = nn.Conv1d(16, 24, 3), nn.Linear(24, 6)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(F.relu(self.second(self.first(x))).mean(2))
        return logits


def seeded(module: nn.Module) -> nn.Module:
    """The module in evaluation mode, every parameter random, the same each time."""
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.3, generator=draw)
    return module.eval()
