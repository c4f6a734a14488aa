"""Multiply-accumulates and weights of a plan. No torch: the architecture's own loop is run with layers that count.

A MAC is not a FLOP: the papers' "FLOPs" are MACs at batch 1, of convolutions and linear layers, plus one per input
element of every average pool. `Cost.macs` leaves the pools out, `Cost.pools` holds them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from slimtrain.models.architecture import Layers
from slimtrain.models.channels import ChannelPlan, Dim
from slimtrain.models.spec import NetworkSpec

Shape = tuple[int, int, int]  # channels, height, width


@dataclass(frozen=True)
class Cost:
    """`macs`: convolutions and linear layers, batch 1. `pools`: input elements of average pools. `params`: weights
    and biases once batch norm is folded. `activations`: elements that convolutions and linear layers write for one image.
    `layers`: how many convolutions and linear layers there are."""

    macs: int
    pools: int
    params: int
    activations: int
    layers: int

    @property
    def published_macs(self) -> int:
        """The figure of the papers' tables, pools included."""
        return self.macs + self.pools


def format_macs(macs: int) -> str:
    """`149.5M`, `4.089G`."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("K", 10**3)):
        if macs >= size:
            return f"{macs / size:.4g}{unit}"
    return str(macs)


class CostCounter:
    """Costs of any plan of one network at one image size (pixels)."""

    def __init__(self, spec: NetworkSpec, image_size: int) -> None:
        self.image = (3, image_size, image_size)
        self.network = spec.build(_CountingLayers())

    def __call__(self, plan: ChannelPlan) -> Cost:
        tally = _Tally(plan)
        self.network(self.image, tally)
        return Cost(tally.macs, tally.pools, tally.params, tally.activations, tally.layers)


class _Tally:
    """What has been counted so far, at one plan."""

    def __init__(self, plan: ChannelPlan) -> None:
        self.size = plan.size
        self.macs = self.pools = self.params = self.activations = self.layers = 0

    def weighted(self, outputs: int, per_output: int, positions: int) -> None:
        """A layer with bias: `outputs` channels of `per_output` weights, applied at `positions` places."""
        self.macs += outputs * per_output * positions
        self.params += outputs * (per_output + 1)
        self.activations += outputs * positions
        self.layers += 1


Step = Callable[[Shape, _Tally], Shape]  # a layer: the shape it reads and the tally it adds to -> the shape it makes


def _keep(shape: Shape, tally: _Tally) -> Shape:
    return shape


def _window(shape: Shape, channels: int, kernel: int, stride: int, padding: int) -> Shape:
    """The shape after a convolution or pool."""
    height, width = ((side + 2 * padding - kernel) // stride + 1 for side in shape[1:])
    return channels, height, width


class _CountingLayers(Layers[Step]):
    """Layers that are functions from shape to shape."""

    def conv(self, inp: Dim | int, out: Dim, kernel: int, stride: int = 1) -> Step:
        def step(shape: Shape, tally: _Tally) -> Shape:
            made = _window(shape, tally.size(out), kernel, stride, kernel // 2)
            assert shape[0] == tally.size(inp), f"{shape[0]} channels arrive where the plan has {tally.size(inp)}"
            tally.weighted(made[0], shape[0] * kernel * kernel, made[1] * made[2])
            return made

        return step

    def depthwise(self, dim: Dim, kernel: int, stride: int = 1) -> Step:
        def step(shape: Shape, tally: _Tally) -> Shape:
            made = _window(shape, shape[0], kernel, stride, kernel // 2)
            tally.weighted(made[0], kernel * kernel, made[1] * made[2])
            return made

        return step

    def norm(self, dim: Dim) -> Step:
        return _keep

    def relu(self) -> Step:
        return _keep

    def relu6(self) -> Step:
        return _keep

    def shuffle(self, groups: int) -> Step:
        return _keep

    def max_pool(self, kernel: int, stride: int, padding: int) -> Step:
        return lambda shape, tally: _window(shape, shape[0], kernel, stride, padding)

    def average_pool(self, kernel: int, stride: int, padding: int) -> Step:
        def step(shape: Shape, tally: _Tally) -> Shape:
            tally.pools += shape[0] * shape[1] * shape[2]
            return _window(shape, shape[0], kernel, stride, padding)

        return step

    def sequential(self, modules: Sequence[Step]) -> Step:
        def step(shape: Shape, tally: _Tally) -> Shape:
            for module in modules:
                shape = module(shape, tally)
            return shape

        return step

    def block(self, body: Step, residual: bool) -> Step:
        return body

    def bottleneck(self, body: Step, shortcut: Step | None) -> Step:
        def step(shape: Shape, tally: _Tally) -> Shape:
            added = shortcut(shape, tally) if shortcut else shape
            made = body(shape, tally)
            assert made == added, "a residual sum of two shapes"
            return made

        return step

    def shuffle_unit(self, a: Sequence[Step], b: Step, c: Sequence[Step], pool: Step | None, whole: bool) -> Step:
        def step(shape: Shape, tally: _Tally) -> Shape:
            third = shape if whole else (shape[0] // len(a), *shape[1:])
            inner = b(_side_by_side(a, third, tally), tally)
            made = _side_by_side(c, (inner[0] // len(c), *inner[1:]), tally)
            return made if pool is None else (made[0] + pool(shape, tally)[0], *made[1:])

        return step

    def network(self, features: Sequence[Step], out: Dim, classes: int, heads: Sequence[Step] = ()) -> Step:
        def step(shape: Shape, tally: _Tally) -> Shape:
            if heads:
                shape = _side_by_side(heads, shape, tally)
            channels, height, width = self.sequential(features)(shape, tally)
            assert channels == tally.size(out), "the classifier reads another number of channels"
            tally.pools += channels * height * width
            tally.weighted(classes, channels, 1)
            return classes, 1, 1

        return step


def _side_by_side(steps: Sequence[Step], shape: Shape, tally: _Tally) -> Shape:
    """Steps that read the same shape, concatenated."""
    made = [step(shape, tally) for step in steps]
    return sum(shape[0] for shape in made), made[0][1], made[0][2]
