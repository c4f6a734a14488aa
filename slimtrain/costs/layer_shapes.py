"""Every layer of a network that costs something, with the shapes that its cost depends on. No torch: the architecture's own
loop is run with layers that record themselves.

Heights and widths do not depend on the plan, channels do: they are `Dim`s. MACs, parameters, activations (`cost.py`) and
latency tables are all sums over these.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from slimtrain.base.image_size import ImageSize, pixels, sides
from slimtrain.models.architecture import Layers
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

    inp: Dim
    size: ImageSize

    def elements(self, plan: ChannelPlan) -> int:
        """Elements that it reads for one image."""
        return plan.size(self.inp) * pixels(self.size)


@dataclass(frozen=True)
class NetworkLayers:
    """The weighted layers and the average pools of a network, in the order in which they run."""

    weighted: tuple[LayerShape, ...]
    pools: tuple[AveragePool, ...]


@lru_cache(maxsize=8)  # whoever counts one network's costs in one process does so in several places
def network_layers(spec: NetworkSpec, image_size: ImageSize) -> NetworkLayers:
    """The layers of `spec`'s network for images of `image_size` pixels."""
    record = _Record()
    spec.build(_RecordingLayers())(image_size, "", record)
    weighted = (LayerShape(*row, record.activations.get(row[0], "")) for row in record.weighted)
    return NetworkLayers(tuple(weighted), tuple(record.pools))


def layer_shapes(spec: NetworkSpec, image_size: ImageSize) -> tuple[LayerShape, ...]:
    """The weighted layers alone. UserError for a size that is too small for the network."""
    spec.check_image_size(image_size)
    return network_layers(spec, image_size).weighted


@dataclass
class _Record:
    """What has run so far: the first seven fields of every LayerShape, the last one by name, and the pools."""

    weighted: list[tuple[str, str, int, int, ImageSize, Dim | int, Dim | int]] = field(default_factory=list)
    activations: dict[str, str] = field(default_factory=dict)
    pools: list[AveragePool] = field(default_factory=list)


# A module: the size that it reads, its path and what has run before, to which it adds -> the size that it makes.
ShapeRule = Callable[[ImageSize, str, _Record], ImageSize]


def _window(size: ImageSize, kernel: int, stride: int, padding: int) -> ImageSize:
    height, width = ((side + 2 * padding - kernel) // stride + 1 for side in sides(size))
    return height if height == width else (height, width)


def _keep(size: ImageSize, path: str, record: _Record) -> ImageSize:
    return size


class _RecordingLayers(Layers[ShapeRule]):
    """Layers that are functions from size to size."""

    def conv(self, inp: Dim | int, out: Dim, kernel: int, stride: int = 1) -> ShapeRule:
        return self._convolution(CONV, inp, out, kernel, stride)

    def depthwise(self, dim: Dim, kernel: int, stride: int = 1) -> ShapeRule:
        return self._convolution(DEPTHWISE, dim, dim, kernel, stride)

    def _convolution(self, kind: str, inp: Dim | int, out: Dim, kernel: int, stride: int) -> ShapeRule:
        def rule(size: ImageSize, path: str, record: _Record) -> ImageSize:
            record.weighted.append((path, kind, kernel, stride, size, inp, out))
            return _window(size, kernel, stride, kernel // 2)

        return rule

    def norm(self, dim: Dim) -> ShapeRule:
        return _keep

    def relu(self) -> ShapeRule:
        return self._activation("relu")

    def relu6(self) -> ShapeRule:
        return self._activation("relu6")

    def _activation(self, name: str) -> ShapeRule:
        def rule(size: ImageSize, path: str, record: _Record) -> ImageSize:
            layer, *_ = record.weighted[-1]
            record.activations[layer] = name
            return size

        return rule

    def max_pool(self, kernel: int, stride: int, padding: int) -> ShapeRule:
        return lambda size, path, record: _window(size, kernel, stride, padding)

    def average_pool(self, dim: Dim, kernel: int, stride: int, padding: int) -> ShapeRule:
        def rule(size: ImageSize, path: str, record: _Record) -> ImageSize:
            record.pools.append(AveragePool(dim, size))
            return _window(size, kernel, stride, padding)

        return rule

    def shuffle(self, groups: int) -> ShapeRule:
        return _keep

    def sequential(self, modules: Sequence[ShapeRule]) -> ShapeRule:
        def rule(size: ImageSize, path: str, record: _Record) -> ImageSize:
            for index, module in enumerate(modules):
                size = module(size, f"{path}.{index}", record)
            return size

        return rule

    def block(self, body: ShapeRule, residual: bool) -> ShapeRule:
        return lambda size, path, record: body(size, f"{path}.body", record)

    def bottleneck(self, body: ShapeRule, shortcut: ShapeRule | None) -> ShapeRule:
        def rule(size: ImageSize, path: str, record: _Record) -> ImageSize:
            out = body(size, f"{path}.body", record)
            if shortcut is not None:
                shortcut(size, f"{path}.shortcut", record)
            return out

        return rule

    def shuffle_unit(
        self, a: Sequence[ShapeRule], b: ShapeRule, c: Sequence[ShapeRule], pool: ShapeRule | None, whole: bool
    ) -> ShapeRule:
        def rule(size: ImageSize, path: str, record: _Record) -> ImageSize:
            inner = b(_side_by_side(a, size, f"{path}.a", record), f"{path}.b", record)
            out = _side_by_side(c, inner, f"{path}.c", record)
            if pool is not None:
                pool(size, f"{path}.pool", record)
            return out

        return rule

    def network(self, features: Sequence[ShapeRule], out: Dim, classes: int, heads: Sequence[ShapeRule] = ()) -> ShapeRule:
        def rule(size: ImageSize, path: str, record: _Record) -> ImageSize:
            size = _side_by_side(heads, size, "head", record)
            size = self.sequential(features)(size, "features", record)
            record.pools.append(AveragePool(out, size))
            record.weighted.append(("classifier.0", LINEAR, 1, 1, size, out, classes))
            return 1

        return rule


def _side_by_side(rules: Sequence[ShapeRule], size: ImageSize, prefix: str, record: _Record) -> ImageSize:
    """Modules `prefix_0`, `prefix_1`, ... that all read the same size; the size they make, or `size` where there are none."""
    return [size, *(rule(size, f"{prefix}_{index}", record) for index, rule in enumerate(rules))][-1]
