"""The time of a single layer at given channels: the difference of two models (`onnx_models.layer`), divided by its copies."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from benchmarks.layers.layer_models import LayerModels
from benchmarks.layers.model_timer import Model, Timer
from benchmarks.onnx_models.layer import COPIES

ChannelPoint = tuple[int, int]  # input and output channels
MOST_MODELS = 12  # open at once: they take turns, and all their weights are in memory
MOST_WEIGHTS = 1 << 21  # of all copies together, 8 MiB: more than a core's cache holds


@dataclass(frozen=True)
class LayerTime:
    """A layer's time at `inp` and `out` channels: (with_ms - without_ms) / copies. `noise_ms`: how much the rounds of both
    models differ, over the copies: half of highest less lowest median."""

    inp: int
    out: int
    ms: float
    noise_ms: float
    with_ms: float
    without_ms: float
    copies: int


def copies_of(layer: LayerModels, points: Iterable[ChannelPoint]) -> int:
    """How many copies of a layer one model holds: COPIES, fewer of a layer with many weights."""
    most = max(layer.weights(*point) for point in points)
    return max(1, min(COPIES, MOST_WEIGHTS // max(most, 1)))


def measure_layer(
    timer: Timer,
    layer: LayerModels,
    points: Sequence[ChannelPoint],
    duration_s: float,
    taken: Callable[[LayerTime], None] = lambda time: None,
) -> dict[ChannelPoint, LayerTime]:
    """The times of `layer` at all `points`, each of its models for `duration_s`; `taken` is told of each at once.

    Points of one base share the model without the layer. Both models of a point take turns with each other, so that a drift
    of the machine cancels.
    """
    copies = copies_of(layer, points)
    times: dict[ChannelPoint, LayerTime] = {}
    for group in groups(layer, points):
        models: dict[tuple[Hashable, int | None], Model] = {}
        for inp, out in group:
            size, channels = layer.image(inp, out)
            models[layer.base(inp, out), None] = Model(size, partial(layer.without_layer, inp, out, copies), channels)
            models[inp, out] = Model(size, partial(layer.with_layer, inp, out, copies), channels)
        samples = timer(models, duration_s)
        for inp, out in group:
            whole, rest = samples[inp, out], samples[layer.base(inp, out), None]
            noise = (whole.high_ms - whole.ms + rest.high_ms - rest.ms) / 2
            time = LayerTime(inp, out, (whole.ms - rest.ms) / copies, noise / copies, whole.ms, rest.ms, copies)
            times[inp, out] = time
            taken(time)
    return times


def groups(layer: LayerModels, points: Sequence[ChannelPoint]) -> Iterator[list[ChannelPoint]]:
    """`points` in order, so many at a time that their models are at most MOST_MODELS."""
    group: list[ChannelPoint] = []
    for point in dict.fromkeys(points):
        if group and _open(layer, [*group, point]) > MOST_MODELS:
            yield group
            group = []
        group.append(point)
    if group:
        yield group


def _open(layer: LayerModels, group: Sequence[ChannelPoint]) -> int:
    """How many models these points have."""
    return len(set(group)) + len({layer.base(*point) for point in group})


def models_of(layer: LayerModels, points: Sequence[ChannelPoint]) -> int:
    """How many models measuring `points` takes."""
    return sum(_open(layer, group) for group in groups(layer, points))
