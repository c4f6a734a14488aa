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
    """What is known of an activation: the lowest of its values and zero, the highest of them, and a histogram of absolute
    values up to the larger of both, those below zero (row 0) apart from the others (row 1)."""

    low: float = 0.0
    high: float = 0.0
    counts: Array = field(default_factory=lambda: np.zeros((2, BINS), np.int64))

    @property
    def largest(self) -> float:
        """The largest absolute value."""
        return max(-self.low, self.high)

    def widen(self, values: Array) -> None:
        """Take the extremes of `values` into account."""
        self.low = min(self.low, float(values.min()))
        self.high = max(self.high, float(values.max()))

    def count(self, values: Array) -> None:
        """Add `values` to the histogram; the extremes are known by then."""
        if self.largest > 0:
            bins = (np.abs(values).ravel() * np.float32(BINS / self.largest)).astype(np.int32)
            rows = BINS * (values.ravel() >= 0)
            counted = np.bincount(np.minimum(bins, BINS - 1) + rows, minlength=2 * BINS)
            self.counts += counted.reshape(2, BINS)

    def percentile(self, percent: float) -> float:
        """The absolute value that `percent` of all values do not exceed, to the upper edge of its bin."""
        counts = self.counts.sum(0)
        if not counts.any():
            return self.largest
        reached = np.cumsum(counts) >= counts.sum() * percent / 100
        return float((np.argmax(reached) + 1) / BINS * self.largest)

    def interval(self, percent: float = 100) -> tuple[float, float]:
        """Around zero, the interval outside of which 100 - `percent` % of all values lie at most, on each side of it."""
        left_out = self.counts.sum() * (100 - percent) / 100
        sides = []
        for counts, extreme in zip(self.counts, (-self.low, self.high), strict=True):
            beyond = np.cumsum(counts[::-1]) > left_out  # from the largest value on
            edge = (BINS - np.argmax(beyond)) / BINS * self.largest if beyond.any() else 0.0
            sides.append(min(extreme, float(edge)) if percent < 100 else extreme)
        return -sides[0], sides[1]


def measure_ranges(model: onnx.ModelProto, batches: Iterable[Images], names: Sequence[str]) -> dict[str, Range]:
    """The ranges of the activations `names` over `batches`, each float32 [N, C, H, W], run in onnxruntime on the CPU.

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


def intervals(ranges: Mapping[str, Range], method: str) -> dict[str, tuple[float, float]]:
    """The interval around zero that an asymmetric activation takes, by `max` or `percentile` (99.99)."""
    assert method in METHODS, method
    return {name: r.interval(100 if method == MAX else PERCENT) for name, r in ranges.items()}


def weight_scales(weight: Array, levels: int = LEVELS, floor: float = FLOOR) -> Array:
    """One scale per output channel of a weight [out, ...], which reaches +-`levels`; `floor` for channels that are all
    zero."""
    largest = np.abs(weight.reshape(len(weight), -1)).max(1)
    return np.maximum(largest / levels, floor).astype(np.float32)
