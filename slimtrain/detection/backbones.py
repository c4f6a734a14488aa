"""What a detector stands on: the stages of a network that classifies, each with half the sides of the one before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from slimtrain.base.errors import UserError

STRIDES = (4, 8, 16, 32)
RESNET_LAYERS = ("layer1", "layer2", "layer3", "layer4")


@dataclass(frozen=True)
class Stages:
    """`body`: images -> a dictionary of maps, the finest first. Of each its channels, and pixels of the image per place."""

    body: nn.Module
    channels: tuple[int, ...]
    strides: tuple[int, ...] = STRIDES


class NarrowResNet(ResNet):  # type: ignore[misc]
    """torchvision's ResNet of any width: `width` channels in the stem, where its own has 64, and twice as many in each layer
    after the first."""

    def __init__(self, block: type[BasicBlock | Bottleneck], layers: Sequence[int], width: int = 64) -> None:
        nn.Module.__init__(self)
        self._norm_layer, self.dilation, self.groups, self.base_width = nn.BatchNorm2d, 1, 1, 64
        self.inplanes = width
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        for number, depth in enumerate(layers):
            layer = self._make_layer(block, width * 2**number, depth, stride=1 if number == 0 else 2)
            self.add_module(RESNET_LAYERS[number], layer)
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")


def resnet_stages(depths: Sequence[int] = (3, 4, 6, 3), width: int = 64, bottleneck: bool = True, first: int = 0) -> Stages:
    """A ResNet's layers (ResNet-50 by default), from `first` on, under torchvision's names."""
    block = Bottleneck if bottleneck else BasicBlock
    network = NarrowResNet(block, depths, width)
    names = {name: str(index) for index, name in enumerate(RESNET_LAYERS[first : len(depths)])}
    channels = tuple(width * 2**number * block.expansion for number in range(first, len(depths)))
    return Stages(IntermediateLayerGetter(network, names), channels, STRIDES[first : len(depths)])


def stages_of(network: nn.Module, strides: Sequence[int] = STRIDES, size: int = 128) -> Stages:
    """The stages of any network that classifies: of every stride the last map before the block that halves it.

    `network`: one that torch.fx can trace, for images [N, 3, size, size]. Of blocks that stand in a sequence (`nn.Sequential`)
    the outermost counts: what a block computes before it halves its map (MobileNet's expansion) is no stage. UserError where
    it cannot be traced, or has no map of a stride.
    """
    title = type(network).__name__
    images = torch.zeros(2, 3, size, size)
    training = network.training
    try:
        _, names = get_graph_node_names(network.eval(), suppress_diff_warning=True)
        shapes = _shapes(network, images, names)
    except MemoryError:
        raise
    except Exception as error:  # what runs is the network's own code, on what stands for an image
        reason = next(filter(None, str(error).splitlines()), type(error).__name__).rstrip(".")
        raise UserError(
            f"{title}: its stages cannot be seen: {reason}. Expected a network that torch.fx traces and that takes images of "
            f"{size} pixels. Else give the maps yourself: Stages of a module that returns a dictionary of them."
        ) from error
    finally:
        network.train(training)
    chosen: dict[str, str] = {}
    channels = []
    for index, stride in enumerate(strides):
        smaller = [name for name, shape in shapes.items() if len(shape) == 4 and 1 < shape[2] < size // stride]
        block = _block(network, smaller[0]) if smaller and index + 1 < len(strides) else None
        maps = [name for name, shape in shapes.items() if shape[2:] == (size // stride,) * 2 and len(shape) == 4]
        outside = [name for name in maps if block is None or not f"{name}.".startswith(f"{block}.")]
        if not outside:
            raise UserError(f"{title}: has no map of stride {stride}, expected one of each of {', '.join(map(str, strides))}.")
        chosen[outside[-1]] = str(index)
        channels.append(int(shapes[outside[-1]][1]))
    return Stages(create_feature_extractor(network, chosen, suppress_diff_warning=True), tuple(channels), tuple(strides))


def _shapes(network: nn.Module, images: Tensor, names: Sequence[str]) -> dict[str, torch.Size]:
    """Node -> the shape of what it gives for `images`, of those that give a tensor, in their order."""
    with torch.no_grad():
        values = create_feature_extractor(network, list(names), suppress_diff_warning=True).eval()(images)
    return {name: values[name].shape for name in names if isinstance(values[name], Tensor)}


def _block(network: nn.Module, name: str) -> str:
    """The outermost module that a node is in and that stands in a sequence; the node itself where it is in none."""
    path = name.split(".")
    for depth in range(1, len(path)):
        if isinstance(network.get_submodule(".".join(path[:depth])), nn.Sequential | nn.ModuleList):
            return ".".join(path[: depth + 1])
    return name
