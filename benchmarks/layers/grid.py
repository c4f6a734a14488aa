"""At which channel counts the layers of a network are measured: a coarse grid for the table, fine lines for the staircase."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks.layers.layer_models import FEW, Lattice, LayerModels, PartModels, ShapeModels, lattice
from benchmarks.layers.layer_times import ChannelPoint
from slimtrain.base.image_size import ImageSize
from slimtrain.costs.graph_layers import graph_parts
from slimtrain.costs.latency_table import Layer
from slimtrain.costs.layer_shapes import layer_shapes
from slimtrain.groups.spec import GraphSpec
from slimtrain.models.channels import ChannelPlan, Dim
from slimtrain.models.spec import NetworkSpec
from slimtrain.models.width_spec import WidthSpec

INPUT, OUTPUT = "input", "output"


@dataclass(frozen=True)
class GridEntry:
    """Layers of one shape and one range of channels. `layer` stands for all; `outputs` is None for depthwise layers, and
    whatever else makes as many channels as it reads. `models`: what is measured. `fine`: the channels that each axis can be
    measured at, None where that is any number."""

    layer: Layer
    names: tuple[str, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...] | None
    models: LayerModels
    fine: Mapping[str, Lattice] | None = None

    def can_have(self, axis: str, count: int) -> bool:
        return self.fine is None or count in self.fine[axis]

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


def plan_range(spec: WidthSpec) -> tuple[ChannelPlan, ...]:
    """Plans whose channels span what the network can have: all its switches, and the ends of a US network's range."""
    ends = () if spec.width_range is None else tuple(map(spec.plan, spec.width_range))
    return (*spec.plans, *ends)


def three_plans(spec: WidthSpec) -> list[ChannelPlan]:
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


def counts_of(dim: Dim | int, places: Lattice, points: int) -> tuple[int, ...]:
    """About `points` of the channels that a dimension can have, evenly, as `spread_counts`: of one group in its slots."""
    counts = sorted(places)
    if isinstance(dim, int) or len(dim.groups) > 1:
        wanted: Sequence[int] = spread_counts(counts[0], counts[-1], points)
    else:
        (group,) = dim.groups
        slots = {slot[group]: count for count, slot in places.items()}
        low, high = min(slots), max(slots)
        few = sorted({low + round((high - low) * place / (points - 1)) for place in range(points)})
        wanted = [slots[slot] for slot in (few if high < FEW else spread_counts(low, high, points))]
    return tuple(sorted({min(counts, key=lambda count: abs(count - near)) for near in wanted}))


def entries(spec: WidthSpec, image_size: ImageSize, points: int) -> tuple[tuple[Layer, ...], tuple[int, ...], list[GridEntry]]:
    """The network's layers, the entry of each, and the entries."""
    if isinstance(spec, NetworkSpec):
        every = list(_published(spec, image_size, points))
    else:
        assert isinstance(spec, GraphSpec)
        spec.check_image_size(image_size)
        every = list(_traced(spec, points))
    by_shape: dict[object, list[GridEntry]] = {}
    for shape, entry in every:
        by_shape.setdefault(shape, []).append(entry)
    of_layer = {entry.layer.name: place for place, alike in enumerate(by_shape.values()) for entry in alike}
    merged = [replace(alike[0], names=tuple(entry.layer.name for entry in alike)) for alike in by_shape.values()]
    layers = tuple(entry.layer for _, entry in every)
    return layers, tuple(of_layer[layer.name] for layer in layers), merged


def _published(spec: NetworkSpec, image_size: ImageSize, points: int) -> Iterator[tuple[object, GridEntry]]:
    """What tells a layer's shape from others, and its entry."""
    plans = plan_range(spec)

    def span(dim: Dim | int) -> tuple[int, int]:
        sizes = [plan.size(dim) for plan in plans]
        return min(sizes), max(sizes)

    for layer in layer_shapes(spec, image_size):
        shape = (layer.kind, layer.kernel, layer.stride, layer.size, layer.activation, span(layer.inp), span(layer.out))
        outputs = None if layer.single else spread_counts(*span(layer.out), points)
        yield shape, GridEntry(layer, (layer.name,), spread_counts(*span(layer.inp), points), outputs, ShapeModels(layer))


def _traced(spec: GraphSpec, points: int) -> Iterator[tuple[object, GridEntry]]:
    channels = [plan.channels for plan in plan_range(spec)]
    low, high = ({group: end(plan[group] for plan in channels) for group in spec.groups.sizes} for end in (min, max))
    for part in graph_parts(spec):
        layer = part.layer
        inputs = lattice(layer.inp, low, high)
        outputs = inputs if layer.single else lattice(layer.out, low, high)
        shape = (layer.shape, tuple(inputs), tuple(outputs))
        columns = None if layer.single else counts_of(layer.out, outputs, points)
        models = PartModels(spec, part, inputs, outputs)
        rows = counts_of(layer.inp, inputs, points)
        yield shape, GridEntry(layer, (layer.name,), rows, columns, models, {INPUT: inputs, OUTPUT: outputs})


def lines(grid_entries: Sequence[GridEntry], unit: int, most: int) -> list[StaircaseLine]:
    """A line for each axis of each kind of layer: at most `most` counts, `unit` apart, from the lowest multiple of `unit` in
    its range on. Of the layers of a kind the one with most such counts is taken, then the one with most work."""
    chosen: dict[tuple[object, ...], tuple[tuple[int, int], StaircaseLine]] = {}
    for entry in grid_entries:
        for axis, counts in ((INPUT, entry.inputs), (OUTPUT, entry.outputs)):
            if counts is None:
                continue
            multiples = range(-(-counts[0] // unit) * unit, counts[-1] + 1, unit)
            along = tuple(count for count in multiples if entry.can_have(axis, count))[:most]
            key, merit = (*entry.layer.alike, axis), (len(along), _work(entry))
            if len(along) > 1 and (key not in chosen or merit > chosen[key][0]):
                chosen[key] = merit, StaircaseLine(entry, axis, along)
    return [line for _, line in chosen.values()]


def _work(entry: GridEntry) -> int:
    """MACs at the widest, of one image."""
    inp = entry.inputs[-1]
    return entry.models.macs(inp, inp if entry.outputs is None else entry.outputs[-1])
