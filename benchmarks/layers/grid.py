"""At which channel counts the layers of a network are measured: a coarse grid for the table, fine lines for the staircase."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.layers.layer_times import ChannelPoint
from slimtrain.base.image_size import ImageSize
from slimtrain.costs.layer_shapes import DEPTHWISE, LayerShape, layer_shapes
from slimtrain.models.channels import ChannelPlan, Dim
from slimtrain.models.spec import NetworkSpec

INPUT, OUTPUT = "input", "output"


@dataclass(frozen=True)
class GridEntry:
    """Layers of one shape and one range of channels. `layer` stands for all; `outputs` is None for depthwise layers."""

    layer: LayerShape
    names: tuple[str, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...] | None

    @property
    def points(self) -> list[ChannelPoint]:
        if self.outputs is None:
            return [(count, count) for count in self.inputs]
        return [(inp, out) for inp in self.inputs for out in self.outputs]


@dataclass(frozen=True)
class StaircaseLine:
    """A staircase: the layer of `entry` at `counts` channels of one `axis`, the other at its widest."""

    entry: GridEntry
    axis: str
    counts: tuple[int, ...]

    @property
    def what(self) -> str:
        """What is counted: a depthwise layer's inputs are its outputs."""
        return "channels" if self.entry.outputs is None else f"{self.axis} channels"

    @property
    def points(self) -> list[ChannelPoint]:
        if self.entry.outputs is None:
            return [(count, count) for count in self.counts]
        if self.axis == INPUT:
            return [(count, self.entry.outputs[-1]) for count in self.counts]
        return [(self.entry.inputs[-1], count) for count in self.counts]


def plan_range(spec: NetworkSpec) -> tuple[ChannelPlan, ...]:
    """Plans whose channels span what the network can have: all its switches, and the ends of a US network's range."""
    ends = () if spec.width_range is None else tuple(map(spec.plan, spec.width_range))
    return (*spec.plans, *ends)


def three_plans(spec: NetworkSpec) -> list[ChannelPlan]:
    """The smallest, the middle and the largest uniform width, or switch; each once."""
    low, high = spec.range
    if spec.family == "us":
        plans = [spec.plan(width) for width in (low, (low + high) / 2, high)]
    else:
        ordered = sorted(spec.plans, key=lambda plan: sum(plan.channels.values()))
        plans = [ordered[0], ordered[len(ordered) // 2], ordered[-1]]
    return list(dict.fromkeys(plans))


def spread_counts(low: int, high: int, points: int) -> tuple[int, ...]:
    """About `points` counts from `low` to `high`, evenly: both ends, and between them multiples of the largest power of two
    that fits twice into the distance (8 to 64), where hardware has its steps."""
    if low == high:
        return (low,)
    gap = (high - low) / max(1, points - 1)
    unit = 8
    while unit < 64 and 4 * unit <= gap:
        unit *= 2
    between = {round((low + index * gap) / unit) * unit for index in range(1, points - 1)}
    return tuple(sorted({low, high} | {count for count in between if low < count < high}))


def entries(
    spec: NetworkSpec, image_size: ImageSize, points: int
) -> tuple[tuple[LayerShape, ...], tuple[int, ...], list[GridEntry]]:
    """The network's layers, the entry of each, and the entries."""
    layers = layer_shapes(spec, image_size)
    plans = plan_range(spec)

    def span(dim: Dim | int) -> tuple[int, int]:
        sizes = [plan.size(dim) for plan in plans]
        return min(sizes), max(sizes)

    by_shape: dict[tuple[object, ...], list[LayerShape]] = {}
    for layer in layers:
        shape = (layer.kind, layer.kernel, layer.stride, layer.size, layer.activation, span(layer.inp), span(layer.out))
        by_shape.setdefault(shape, []).append(layer)
    of_layer = {layer.name: place for place, alike in enumerate(by_shape.values()) for layer in alike}
    grid_entries = []
    for alike in by_shape.values():
        layer = alike[0]
        outputs = None if layer.kind == DEPTHWISE else spread_counts(*span(layer.out), points)
        names = tuple(one.name for one in alike)
        grid_entries.append(GridEntry(layer, names, spread_counts(*span(layer.inp), points), outputs))
    return layers, tuple(of_layer[layer.name] for layer in layers), grid_entries


def kind_of(layer: LayerShape) -> tuple[str, int, int]:
    """What steps are looked for in: layers of one kind, kernel and stride are computed alike."""
    return layer.kind, layer.kernel, layer.stride


def lines(grid_entries: Sequence[GridEntry], unit: int, most: int) -> list[StaircaseLine]:
    """A line for each axis of each kind of layer: at most `most` counts, `unit` apart, from the lowest multiple of `unit` in
    its range on. Of the layers of a kind the one with most such counts is taken, then the one with most work."""
    chosen: dict[tuple[object, ...], tuple[tuple[int, int], StaircaseLine]] = {}
    for entry in grid_entries:
        for axis, counts in ((INPUT, entry.inputs), (OUTPUT, entry.outputs)):
            if counts is None:
                continue
            along = tuple(range(-(-counts[0] // unit) * unit, counts[-1] + 1, unit))[:most]
            key, merit = (*kind_of(entry.layer), axis), (len(along), _work(entry))
            if len(along) > 1 and (key not in chosen or merit > chosen[key][0]):
                chosen[key] = merit, StaircaseLine(entry, axis, along)
    return [line for _, line in chosen.values()]


def _work(entry: GridEntry) -> int:
    """MACs at the widest, of one image."""
    layer, out = entry.layer, 1 if entry.outputs is None else entry.outputs[-1]
    return entry.inputs[-1] * out * layer.kernel**2 * layer.positions
