"""Who writes the ONNX file of a precision: a function for each that `target.precision` has files of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import onnx

from slimexport.onnx_files.calibration import Calibration, RangeChoice
from slimexport.onnx_files.quantize import quantize
from slimexport.onnx_files.typed import to_typed
from slimexport.target.manifest import Int8, Rounding
from slimexport.target.precision import EXACT


@dataclass(frozen=True)
class Written:
    """A model, and what its entry in the manifest tells of how it was written."""

    model: onnx.ModelProto
    rounding: Rounding | None = None
    int8: Int8 | None = None


class Original:
    """The fp32 model that all files of a plan are written from, with the images that calibrated ones need."""

    def __init__(self, model: onnx.ModelProto, calibration: Calibration | None = None) -> None:
        self.model, self.calibration = model, calibration

    @cached_property
    def ranges(self) -> RangeChoice:
        """The scales of its activations, measured once for all files."""
        assert self.calibration is not None, "calibrated files are asked for with images"
        return self.calibration.choose(self.model)


def _exact(original: Original) -> Written:
    return Written(original.model)


def _typed(precision: str, original: Original) -> Written:
    return Written(*to_typed(original.model, precision))


def _quantized(half: bool, original: Original) -> Written:
    return Written(quantize(original.model, original.ranges.scales, half), int8=original.ranges.described())


WRITERS: dict[str, Callable[[Original], Written]] = {
    EXACT: _exact,
    "fp16": partial(_typed, "fp16"),
    "bf16": partial(_typed, "bf16"),
    "int8": partial(_quantized, False),
    "int8-fp16": partial(_quantized, True),
}
