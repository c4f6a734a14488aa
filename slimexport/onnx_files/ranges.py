"""Ranges of activations and weights, and the int8 scales that follow from them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, helper

from slimexport.onnx_files.methods import MAX, METHODS
from slimexport.onnx_files.runner import cpu_session
from slimexport.target.arrays import Array
from slimtrain.base.errors import UserError
from slimtrain.data.images import Images

LEVELS = 127
FLOOR = 1e-6  # of a scale: a channel or tensor that is all zero still needs one above zero
PERCENT = 99.99
BINS = 1 << 14


@dataclass
class Range:
    """What is known of an activation: its largest absolute value, and a histogram of absolute values up to it."""

    largest: float = 0.0
    counts: Array = field(default_factory=lambda: np.zeros(BINS, np.int64))

    def widen(self, values: Array) -> None:
        """Take the largest absolute value of `values` into account."""
        self.largest = max(self.largest, float(np.abs(values).max()))

    def count(self, values: Array) -> None:
        """Add `values` to the histogram; `largest` is known by then."""
        if self.largest > 0:
            bins = (np.abs(values).ravel() * np.float32(BINS / self.largest)).astype(np.int32)
            self.counts += np.bincount(np.minimum(bins, BINS - 1), minlength=BINS)

    def percentile(self, percent: float) -> float:
        """The absolute value that `percent` of all values do not exceed, to the upper edge of its bin."""
        total = self.counts.sum()
        if not total:
            return self.largest
        reached = np.cumsum(self.counts) >= total * percent / 100
        return float((np.argmax(reached) + 1) / BINS * self.largest)


def measure_ranges(model: onnx.ModelProto, batches: Iterable[Images], names: Sequence[str]) -> dict[str, Range]:
    """The ranges of the activations `names` over `batches`, each float32 [N, 3, H, W], run in onnxruntime on the CPU.

    The batches are gone through twice, so they are kept. UserError where there are none, or a value is not finite.
    """
    kept = [np.asarray(batch) for batch in batches]
    if not kept:
        raise UserError("there are no images to calibrate int8 with. Give a folder that has some with --calibration-data.")
    (image,) = (value.name for value in model.graph.input)
    outputs = [name for name in names if name != image]
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    probe.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs)
    session = cpu_session(probe) if outputs else None
    ranges = {name: Range() for name in names}

    def activations() -> Iterator[tuple[str, Array]]:
        for batch in kept:
            if image in ranges:
                yield image, batch
            if session is not None:
                yield from zip(outputs, session.run(outputs, {image: batch}), strict=True)

    for name, values in activations():
        if not np.isfinite(values).all():
            raise UserError(
                f"{name}: is not finite on the calibration images, expected finite activations. Check that they are "
                "photographs of the kind that the network was trained on."
            )
        ranges[name].widen(values)
    for name, values in activations():
        ranges[name].count(values)
    return ranges


def activation_scales(ranges: Mapping[str, Range], method: str) -> dict[str, float]:
    """Scales by `max` or `percentile` (99.99)."""
    assert method in METHODS, method
    largest = {name: r.largest if method == MAX else r.percentile(PERCENT) for name, r in ranges.items()}
    return {name: max(value / LEVELS, FLOOR) for name, value in largest.items()}


def weight_scales(weight: Array) -> Array:
    """One scale per output channel of a weight [out, ...], above zero for channels that are all zero."""
    largest = np.abs(weight.reshape(len(weight), -1)).max(1)
    return np.maximum(largest / LEVELS, FLOOR).astype(np.float32)
