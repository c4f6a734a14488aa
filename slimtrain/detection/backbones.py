"""What a detector stands on: the stages of a network that classifies, each with half the sides of the one before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
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
    """The stages of any network that classifies: of every stride the last map, before whatever makes the next.

    `network`: one that torch.fx can trace, for images [N, 3, size, size]. UserError where it cannot, or where it has no map of
    a stride.
    """
    images = torch.zeros(2, 3, size, size)
    training = network.training
    try:
        _, names = get_graph_node_names(network.eval())
        seen = _map_shapes(network, images, names)
    except (RuntimeError, TypeError, ValueError, fx.proxy.TraceError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(
            f"{type(network).__name__}: its stages cannot be seen: {reason}. Expected a network that torch.fx traces and that "
            f"takes images of {size} pixels; else give the maps yourself, by a module that returns a dictionary of them."
        ) from error
    finally:
        network.train(training)
    chosen: dict[str, tuple[str, int]] = {}
    for index, stride in enumerate(strides):
        last = [(name, shape[1]) for name, shape in seen if len(shape) == 4 and shape[2:] == (size // stride,) * 2]
        if not last:
            raise UserError(
                f"{type(network).__name__}: has no map of stride {stride}, expected one of each of {list(strides)}."
            )
        chosen[str(index)] = last[-1]
    body = create_feature_extractor(network, {name: key for key, (name, _) in chosen.items()})
    return Stages(body, tuple(channels for _, channels in chosen.values()), tuple(strides))


def _map_shapes(network: nn.Module, images: Tensor, names: Sequence[str]) -> list[tuple[str, torch.Size]]:
    """What every node of `names` gives for `images`, in their order, of those that give a tensor."""
    with torch.no_grad():
        values = create_feature_extractor(network, list(names)).eval()(images)
    return [(name, values[name].shape) for name in names if isinstance(values[name], Tensor)]
