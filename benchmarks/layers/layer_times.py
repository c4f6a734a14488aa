"""The time of a single layer at given channels: the difference of two models (`onnx_models.layer`), divided by its copies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from benchmarks.layers.model_timer import Model, Timer
from benchmarks.onnx_models.layer import COPIES, image_channels, with_layer, without_layer
from slimtrain.costs.layer_shapes import DEPTHWISE, LayerShape

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


def copies_of(layer: LayerShape, points: Iterable[ChannelPoint]) -> int:
    """How many copies of a layer one model holds: COPIES, fewer of a layer with many weights."""
    kind = 0 if layer.kind == DEPTHWISE else 1
    most = max(out * inp**kind for inp, out in points) * layer.kernel**2
    return max(1, min(COPIES, MOST_WEIGHTS // most))


def measure_layer(
    timer: Timer,
    layer: LayerShape,
    points: Sequence[ChannelPoint],
    duration_s: float,
    taken: Callable[[LayerTime], None] = lambda time: None,
) -> dict[ChannelPoint, LayerTime]:
    """The times of `layer` at all `points`, each of its models for `duration_s`; `taken` is told of each at once.

    Points of one input share the model without the layer. Both models of a point take turns with each other, so that a
    drift of the machine cancels.
    """
    copies = copies_of(layer, points)
    times: dict[ChannelPoint, LayerTime] = {}
    for group in groups(points):
        models: dict[tuple[int, int | None], Model] = {}
        for inp, out in group:
            models[inp, None] = Model(layer.size, partial(without_layer, layer, inp, copies), image_channels(layer))
            models[inp, out] = Model(layer.size, partial(with_layer, layer, inp, out, copies), image_channels(layer))
        samples = timer(models, duration_s)
        for inp, out in group:
            whole, rest = samples[inp, out], samples[inp, None]
            noise = (whole.high_ms - whole.ms + rest.high_ms - rest.ms) / 2
            time = LayerTime(inp, out, (whole.ms - rest.ms) / copies, noise / copies, whole.ms, rest.ms, copies)
            times[inp, out] = time
            taken(time)
    return times


def groups(points: Sequence[ChannelPoint]) -> Iterator[list[ChannelPoint]]:
    """`points` in order, so many at a time that their models are at most MOST_MODELS."""
    group: list[ChannelPoint] = []
    for point in dict.fromkeys(points):
        if len({*group, point}) + len({inp for inp, _ in (*group, point)}) > MOST_MODELS:
            yield group
            group = []
        group.append(point)
    if group:
        yield group


def models_of(points: Sequence[ChannelPoint]) -> int:
    """How many models measuring `points` takes."""
    return sum(len(group) + len({inp for inp, _ in group}) for group in groups(points))
