"""Small detectors' files of fewer bits, as they are written, and with something wrong."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from slimexport.detector_proof.fewer_bits import LowLayers, prove_low_layers
from slimexport.detector_proof.parts import Parts
from slimexport.detectors.kinds import prove_detector
from slimexport.onnx_files.calibration import Calibration
from slimexport.onnx_files.parts.writing import PartsOriginal, PartsRecorded
from slimexport.target.precision import row_of
from slimtrain.models.detector import FASTER
from tests.support.detector_files import SIZE, DetectorFile, detector_file

LOW = ("fp16", "bf16", "int8-cpu", "int8", "int8-fp16")


@dataclass(frozen=True)
class LowFile:
    """A detector's `model` of fewer bits, what it is to compute, and the fp32 file that it was written from."""

    precision: str
    whole: DetectorFile
    model: onnx.ModelProto
    recorded: PartsRecorded

    def changed(self, change: Callable[[onnx.ModelProto], object]) -> onnx.ModelProto:
        model = copy.deepcopy(self.model)
        change(model)
        return model

    def layers(self, model: onnx.ModelProto, folder: Path) -> LowLayers:
        """The proof of a `model` in this one's place, layer by layer."""
        path = folder / "low.onnx"
        onnx.save(model, path)
        images = self.whole.images
        return prove_low_layers(path, self.precision, self.recorded, self.whole.settings, SIZE, images[:2], images[2:])

    def parts(self, model: onnx.ModelProto, folder: Path) -> Parts:
        """The proof of every file, part by part."""
        path = folder / "low.onnx"
        onnx.save(model, path)
        exact = copy.deepcopy(self.whole.network).double()
        plan = exact.plan(self.whole.width)
        return prove_detector(path, exact, plan, self.whole.settings, SIZE, self.whole.images[:2], self.precision)


def inner_of(model: onnx.ModelProto) -> dict[str, str]:
    stored = {entry.key: entry.value for entry in model.metadata_props}
    inner: dict[str, str] = json.loads(stored["inner_values"])
    return inner


@lru_cache
def parts_original(kind: str = FASTER) -> PartsOriginal:
    whole = detector_file(kind, width=1.0)
    images = np.random.default_rng(9).standard_normal((10, 3, *SIZE)).astype(np.float32)
    return PartsOriginal(whole.model, inner_of(whole.model), Calibration.of([images], "max", 7))


@lru_cache
def low_file(precision: str, kind: str = FASTER) -> LowFile:
    """Not to be changed."""
    written = parts_original(kind).write(row_of(precision))
    assert written.recorded is not None
    return LowFile(precision, detector_file(kind, width=1.0), written.model, written.recorded)


def stored_of(model: onnx.ModelProto, name: str, operand: int = 1) -> onnx.TensorProto:
    """What the operator of this name multiplies by (or adds, `operand` 2), whatever its type."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    source = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    (node,) = [node for node in model.graph.node if node.name == name]
    read = node.input[operand]
    return stored[source.get(read, read)]


def edit_stored(tensor: onnx.TensorProto, change: Callable[[NDArray[Any]], object]) -> None:
    array = numpy_helper.to_array(tensor).copy()
    change(array)
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
