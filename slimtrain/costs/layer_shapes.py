"""Every layer of a published network that costs something, with the shapes that its cost depends on, read off its graph. No
torch.

Heights and widths do not depend on the plan, channels do: they are `Dim`s. MACs, parameters, activations (`cost.py`) and
latency tables are all sums over these.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from slimtrain.base.image_size import ImageSize, pixels, sides
from slimtrain.graph.extents import WiredGraph
from slimtrain.graph.graph import Node, Value
from slimtrain.models.channels import ChannelPlan, Dim
from slimtrain.models.spec import NetworkSpec

CONV, DEPTHWISE, LINEAR = "conv", "depthwise", "linear"
KINDS = (CONV, DEPTHWISE, LINEAR)


@dataclass(frozen=True)
class LayerShape:
    """One weighted layer. `name` is its module's path, as in checkpoints and ONNX files: `features.3.body.0`.

    `size`: height and width of what it reads, in pixels; of a linear layer, of what the global pool before it reads. `inp` and
    `out`: its channels, a plain number where no plan slims them; of a depthwise layer they are the same. `activation`: `relu`
    or `relu6` directly behind it, or nothing.
    """

    name: str
    kind: str
    kernel: int
    stride: int
    size: ImageSize
    inp: Dim | int
    out: Dim | int
    activation: str = ""

    @property
    def positions(self) -> int:
        """Height times width of what it makes; a linear layer makes one value per class."""
        return 1 if self.kind == LINEAR else pixels(_window(self.size, self.kernel, self.stride, self.kernel // 2))

    @property
    def single(self) -> bool:
        """Whether its inputs are its outputs."""
        return self.kind == DEPTHWISE

    @property
    def alike(self) -> tuple[object, ...]:
        """What layers that are computed alike have in common."""
        return self.kind, self.kernel, self.stride

    @property
    def fan_in(self) -> Dim | int:
        """The channels that one output channel reads: of a depthwise layer one."""
        return 1 if self.kind == DEPTHWISE else self.inp

    def weights(self, plan: ChannelPlan) -> int:
        """How many weights it has, biases left out."""
        return plan.size(self.out) * plan.size(self.fan_in) * self.kernel**2

    def activations(self, plan: ChannelPlan) -> int:
        """Elements that it writes for one image."""
        return plan.size(self.out) * self.positions

    def macs(self, plan: ChannelPlan) -> int:
        """Multiply-accumulates for one image: every weight at every place."""
        return self.weights(plan) * self.positions


@dataclass(frozen=True)
class AveragePool:
    """An average pool, the one before the classifier among them: the channels, and the height and width, that it reads."""

    inp: Dim | int
    size: ImageSize

    def elements(self, plan: ChannelPlan) -> int:
        """Elements that it reads for one image."""
        return plan.size(self.inp) * pixels(self.size)


@dataclass(frozen=True)
class NetworkLayers:
    """The weighted layers and the average pools of a network, in the order in which they run."""

    weighted: tuple[LayerShape, ...]
    pools: tuple[AveragePool, ...]


ACTIVATIONS = {"relu": "relu", "hardtanh": "relu6"}
AVERAGES = ("avg_pool2d", "adaptive_avg_pool2d")


@lru_cache(maxsize=8)  # whoever counts one network's costs in one process does so in several places
def network_layers(spec: NetworkSpec, image_size: ImageSize) -> NetworkLayers:
    """The layers of `spec`'s network for images of `image_size` pixels."""
    wired = spec.wired(image_size)
    activations = dict(_activations(wired))
    weighted: list[LayerShape] = []
    pools: list[AveragePool] = []
    for node in wired.graph.nodes:
        if node.kind == "conv2d":
            weighted.append(_convolution(wired, node, activations.get(node.name, "")))
        elif node.kind in AVERAGES:
            pools.append(AveragePool(*_map_of(wired, node.inputs[0])))
        elif node.kind == "linear":  # behind the global average pool
            inp, out = (wired.dims[value][1] for value in (node.inputs[0], Value(node.name)))
            weighted.append(LayerShape(node.module, LINEAR, 1, 1, pools[-1].size, _channels(inp), _channels(out)))
    return NetworkLayers(tuple(weighted), tuple(pools))


def layer_shapes(spec: NetworkSpec, image_size: ImageSize) -> tuple[LayerShape, ...]:
    """The weighted layers alone. UserError for a size that is too small for the network."""
    spec.check_image_size(image_size)
    return network_layers(spec, image_size).weighted


def _convolution(wired: WiredGraph, node: Node, activation: str) -> LayerShape:
    inp, size = _map_of(wired, node.inputs[0])
    out, _ = _map_of(wired, Value(node.name))
    kind = CONV if node.arguments["groups"] == 1 else DEPTHWISE
    (*_, kernel), strides = wired.dims[node.inputs[1]], node.arguments["stride"]
    assert isinstance(kernel, int) and isinstance(strides, tuple) and isinstance(strides[0], int)
    return LayerShape(node.module, kind, kernel, strides[0], size, inp, out, activation)


def _activations(wired: WiredGraph) -> Iterator[tuple[str, str]]:
    """(convolution's node, its activation): that which reads its norm directly."""
    by_name = wired.graph.by_name
    for node in wired.graph.nodes:
        if node.kind in ACTIVATIONS:
            norm = by_name[node.inputs[0].node]
            if norm.kind == "batch_norm":
                yield norm.inputs[0].node, ACTIVATIONS[node.kind]


def _map_of(wired: WiredGraph, value: Value) -> tuple[Dim | int, ImageSize]:
    """Channels, and height and width, of a map."""
    _, channels, height, width = wired.dims[value]
    assert isinstance(height, int) and isinstance(width, int)
    return _channels(channels), height if height == width else (height, width)


def _channels(extent: object) -> Dim | int:
    assert isinstance(extent, Dim | int)
    return extent


def _window(size: ImageSize, kernel: int, stride: int, padding: int) -> ImageSize:
    height, width = ((side + 2 * padding - kernel) // stride + 1 for side in sides(size))
    return height if height == width else (height, width)
