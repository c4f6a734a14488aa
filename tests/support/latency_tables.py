"""Latency tables whose times are a function of layer and channels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from slimtrain.base.image_size import ImageSize
from slimtrain.costs.latency_grid import Axis, Times
from slimtrain.costs.latency_table import LatencyTable, Layer, NetworkShape, layers_of
from slimtrain.models.width_spec import WidthSpec

SIZE = 64


def table_of(
    spec: WidthSpec, time: Callable[[Any, int, int], float], step: int = 1, size: ImageSize = SIZE, **more: Any
) -> LatencyTable:
    """A table in which every layer has an entry of its own and takes `time`."""
    layers = layers_of(spec, size)
    times = []
    for layer in layers:
        inputs, outputs = spans(spec, layer)
        if layer.single:
            times.append(Times(Axis(inputs, step), None, tuple((time(layer, c, c),) for c in inputs)))
        else:
            rows = tuple(tuple(time(layer, i, o) for o in outputs) for i in inputs)
            times.append(Times(Axis(inputs, step), Axis(outputs, step), rows))
    values: dict[str, Any] = {
        "network": NetworkShape.of(spec, size),
        "device": {"name": "a CPU"},
        "backend": "onnxruntime-cpu",
        "precision": "fp32",
        "batch": 1,
        "threads": 2,
        "layers": layers,
        "of_layer": tuple(range(len(layers))),
        "times": tuple(times),
        "constant_ms": 0.25,
        "factor": 1.5,
    }
    return LatencyTable(**{**values, **more})


def spans(spec: WidthSpec, layer: Layer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Counts of input and output: both ends and what is a third of the way."""
    counts = []
    for dim in (layer.inp, layer.out):
        low, high = spec.plan(spec.range[0]).size(dim), spec.widest.size(dim)
        counts.append(tuple(sorted({low, (2 * low + high) // 3, high})))
    return counts[0], counts[1]
