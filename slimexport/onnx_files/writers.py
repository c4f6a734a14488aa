"""Who writes the ONNX file of a precision: a function for each that `target.precision` has files of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import onnx

from slimexport.onnx_files.calibration import Calibrated, Calibration, MethodChoice, integers, symmetric
from slimexport.onnx_files.pairs import Recorded
from slimexport.onnx_files.typed import to_typed
from slimexport.target.manifest import Int8, Rounding
from slimexport.target.precision import CPU, EVERY_TARGET, EXACT, PRECISIONS, TENSORRT

FULL_BITS = 8  # of int8 weights


@dataclass(frozen=True)
class Written:
    """A model, what it is to compute, where that has fewer bits than the fp32 model that it was written from, and what its
    entry in the manifest tells of how it was written."""

    model: onnx.ModelProto
    recorded: Recorded | None = None
    rounding: Rounding | None = None
    int8: Int8 | None = None


class Original:
    """The fp32 model that all files of a plan are written from, with the images that calibrated ones need."""

    def __init__(self, model: onnx.ModelProto, calibration: Calibration | None = None) -> None:
        self.model, self.calibration = model, calibration

    @property
    def weight_bits(self) -> int:
        """Of files for CPUs."""
        return FULL_BITS if self.calibration is None else self.calibration.weight_bits

    @cached_property
    def calibrated(self) -> Calibrated:
        """The model with the ranges of its activations, measured once for all files."""
        assert self.calibration is not None, "calibrated files are asked for with images"
        by_target = {TENSORRT: symmetric(), CPU: integers(self.weight_bits)}
        schemes = [scheme for target, scheme in by_target.items() if self.calibration.target in (EVERY_TARGET, target)]
        return Calibrated(self.model, self.calibration, schemes)

    @cached_property
    def symmetric_choice(self) -> MethodChoice:
        """How the ranges of both symmetric files are taken."""
        return self.calibrated.choose(symmetric())


def _exact(original: Original) -> Written:
    return Written(original.model)


def _typed(precision: str, original: Original) -> Written:
    model, rounding = to_typed(original.model, precision)
    return Written(model, Recorded(original.model, number=PRECISIONS[precision].number), rounding)


def _symmetric(half: bool, original: Original) -> Written:
    choice = original.symmetric_choice
    written = choice.model, choice.recorded
    if half:
        written = symmetric(half).write(original.model, original.calibrated.ranges, choice.method)
    return Written(*written, int8=choice.described(FULL_BITS))


def _integers(original: Original) -> Written:
    choice = original.calibrated.choose(integers(original.weight_bits))
    return Written(choice.model, choice.recorded, int8=choice.described(original.weight_bits))


WRITERS: dict[str, Callable[[Original], Written]] = {
    EXACT: _exact,
    "fp16": partial(_typed, "fp16"),
    "bf16": partial(_typed, "bf16"),
    "int8-cpu": _integers,
    "int8": partial(_symmetric, False),
    "int8-fp16": partial(_symmetric, True),
}
