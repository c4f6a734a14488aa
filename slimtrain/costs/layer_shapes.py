"""Every convolution and linear layer of a network with the shapes that its time depends on. No torch: as in `cost.py`, the
architecture's own loop is run, here with layers that record themselves.

Heights and widths do not depend on the plan, channels do: they are `Dim`s.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from slimtrain.models.architecture import Layers
from slimtrain.models.channels import ChannelPlan, Dim
from slimtrain.models.spec import NetworkSpec

CONV, DEPTHWISE, LINEAR = "conv", "depthwise", "linear"
KINDS = (CONV, DEPTHWISE, LINEAR)


@dataclass(frozen=True)
class LayerShape:
    """One weighted layer. `name` is its module's path, as in checkpoints and ONNX files: `features.3.body.0`.

    `side`: height and width of what it reads, in pixels; of a linear layer, of what the global pool before it reads. `inp` and
    `out`: its channels, a plain number where no plan slims them; of a depthwise layer they are the same. `activation`: `relu`
    or `relu6` directly behind it, or nothing.
    """

    name: str
    kind: str
    kernel: int
    stride: int
    side: int
    inp: Dim | int
    out: Dim | int
    activation: str = ""

    @property
    def out_side(self) -> int:
        """Height and width of what it makes; a linear layer makes one value per class."""
        return 1 if self.kind == LINEAR else _window(self.side, self.kernel, self.stride, self.kernel // 2)

    def weights(self, plan: ChannelPlan) -> int:
        """How many weights it has, biases left out."""
        inputs = 1 if self.kind == DEPTHWISE else plan.size(self.inp)
        return plan.size(self.out) * inputs * self.kernel**2

    def activations(self, plan: ChannelPlan) -> int:
        """Elements that it writes for one image."""
        return plan.size(self.out) * self.out_side**2

    def macs(self, plan: ChannelPlan) -> int:
        """Multiply-accumulates for one image: every weight at every place."""
        return self.weights(plan) * self.out_side**2


def layer_shapes(spec: NetworkSpec, image_size: int) -> tuple[LayerShape, ...]:
    """The layers of `spec`'s network at `image_size` pixels, in the order in which they run. UserError for a size that is too
    small for it."""
    spec.check_image_size(image_size)
    recorded: list[LayerShape] = []
    spec.build(_RecordingLayers())(image_size, "", recorded)
    return tuple(recorded)


def _window(side: int, kernel: int, stride: int, padding: int) -> int:
    return (side + 2 * padding - kernel) // stride + 1


# A module: the side that it reads, its path and the layers recorded so far, to which it adds -> the side that it makes.
Step = Callable[[int, str, list[LayerShape]], int]


def _keep(side: int, path: str, recorded: list[LayerShape]) -> int:
    return side


class _RecordingLayers(Layers[Step]):
    """Layers that are functions from side to side."""

    def conv(self, inp: Dim | int, out: Dim, kernel: int, stride: int = 1) -> Step:
        return self._layer(CONV, inp, out, kernel, stride)

    def depthwise(self, dim: Dim, kernel: int, stride: int = 1) -> Step:
        return self._layer(DEPTHWISE, dim, dim, kernel, stride)

    def _layer(self, kind: str, inp: Dim | int, out: Dim, kernel: int, stride: int) -> Step:
        def step(side: int, path: str, recorded: list[LayerShape]) -> int:
            recorded.append(LayerShape(path, kind, kernel, stride, side, inp, out))
            return recorded[-1].out_side

        return step

    def norm(self, dim: Dim) -> Step:
        return _keep

    def relu(self) -> Step:
        return self._activation("relu")

    def relu6(self) -> Step:
        return self._activation("relu6")

    def _activation(self, name: str) -> Step:
        def step(side: int, path: str, recorded: list[LayerShape]) -> int:
            recorded[-1] = replace(recorded[-1], activation=name)
            return side

        return step

    def max_pool(self, kernel: int, stride: int, padding: int) -> Step:
        return lambda side, path, recorded: _window(side, kernel, stride, padding)

    def average_pool(self, kernel: int, stride: int, padding: int) -> Step:
        return self.max_pool(kernel, stride, padding)

    def shuffle(self, groups: int) -> Step:
        return _keep

    def sequential(self, modules: Sequence[Step]) -> Step:
        def step(side: int, path: str, recorded: list[LayerShape]) -> int:
            for index, module in enumerate(modules):
                side = module(side, f"{path}.{index}", recorded)
            return side

        return step

    def block(self, body: Step, residual: bool) -> Step:
        return lambda side, path, recorded: body(side, f"{path}.body", recorded)

    def bottleneck(self, body: Step, shortcut: Step | None) -> Step:
        def step(side: int, path: str, recorded: list[LayerShape]) -> int:
            made = body(side, f"{path}.body", recorded)
            if shortcut is not None:
                shortcut(side, f"{path}.shortcut", recorded)
            return made

        return step

    def shuffle_unit(self, a: Sequence[Step], b: Step, c: Sequence[Step], pool: Step | None, whole: bool) -> Step:
        def step(side: int, path: str, recorded: list[LayerShape]) -> int:
            side = b(_side_by_side(a, side, f"{path}.a", recorded), f"{path}.b", recorded)
            return _side_by_side(c, side, f"{path}.c", recorded)

        return step

    def network(self, features: Sequence[Step], out: Dim, classes: int, heads: Sequence[Step] = ()) -> Step:
        def step(side: int, path: str, recorded: list[LayerShape]) -> int:
            side = _side_by_side(heads, side, "head", recorded)
            side = self.sequential(features)(side, "features", recorded)
            recorded.append(LayerShape("classifier.0", LINEAR, 1, 1, side, out, classes))
            return 1

        return step


def _side_by_side(steps: Sequence[Step], side: int, prefix: str, recorded: list[LayerShape]) -> int:
    """Modules `prefix_0`, `prefix_1`, ... that all read the same side; the side they make, or `side` where there are none."""
    return [side, *(step(side, f"{prefix}_{index}", recorded) for index, step in enumerate(steps))][-1]
