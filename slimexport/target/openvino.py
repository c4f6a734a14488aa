"""ONNX files in OpenVINO on the CPU: what a user would take in onnxruntime's place, above all on Intel's.

OpenVINO computes in numbers of its own choice where nobody says which: on a CPU that multiplies bfloat16, an fp32 file's
convolutions silently are in bfloat16, off by a tenth of the logits' scale for some networks. So files are run with a hint, the
number that is theirs, and what their layers really compute in is read from the compiled network.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from slimexport.target.arrays import Array
from slimexport.target.backends import OPENVINO
from slimexport.target.errors import BundleError
from slimexport.target.limits import Budget, FirstRuns
from slimexport.target.manifest import Artifact
from slimexport.target.precision import row_of
from slimexport.target.runners import Given, alone, require_module
from slimtrain.base.files import library_name
from slimtrain.base.packages import install_command

DEVICE = "CPU"
# Numbers -> OpenVINO's names of them, around integers too: an int8-fp16 file with the hint f16 takes a hundred times as long,
# as OpenVINO 2026.4 has no kernel but its reference for int8 classifiers between float16 numbers.
HINTS = {"float32": "f32", "float16": "f16", "bfloat16": "bf16", "int8": "f32"}
CAPABILITIES = {"f16": "FP16", "bf16": "BF16"}  # what a CPU that multiplies these says that it has
WITH_WEIGHTS = ("Convolution", "Deconvolution", "FullyConnected", "MatMul")  # layers, as the compiled network calls them


def require_openvino() -> Any:
    """The openvino module; MissingBackend, with the command that installs it, where there is none."""
    return require_module(
        "openvino",
        missing=f"openvino is not installed: {install_command('openvino')}.",
        broken="Reinstall openvino.",
    )


@cache
def core() -> Any:
    """OpenVINO's core: one for the process, for ever.

    On processors with AMX the CPU's plugin, which lives as long as its core and what was compiled in it, gives the thread a
    stack for its signals, and takes it back at its end. Where the lives of two overlap, the second brings back that of the
    first, which is gone, and the next signal that Python handles (Ctrl-C, say) ends the process.
    """
    return require_openvino().Core()


def hint_of(precision: str) -> str:
    """OpenVINO's name of the numbers that files of a precision are computed in, around int8 operators where there are some: of
    those that this CPU multiplies. In place of float16 OpenVINO takes bfloat16, whose steps are eight times as coarse."""
    hint = HINTS[row_of(precision).number]
    needed = CAPABILITIES.get(hint)
    if needed is None or needed in core().get_property(DEVICE, "OPTIMIZATION_CAPABILITIES"):
        return hint
    return HINTS["float32"]


def compile_file(
    path: Path, precision: str, settings: Mapping[str, Any], batch: int | None = None, content: bytes | None = None
) -> Any:
    """A file, or the `content` that stands in its place, compiled for the CPU; for a `batch` alone it is faster than for any.
    BundleError where OpenVINO does not read it, or where it is no network of one input."""
    require_openvino()
    try:
        from openvino.frontend import FrontEndManager

        # ONNX is asked for by name: left to guess, OpenVINO tries all it knows on a damaged file, and each complains
        reader = FrontEndManager().load_by_framework("onnx")
        with library_name(path) as name:
            model = reader.convert(reader.load(name if content is None else io.BytesIO(content)))
        if batch is not None and len(model.inputs) == 1:
            shape = model.inputs[0].partial_shape
            shape[0] = batch
            model.reshape(shape)
        compiled = core().compile_model(model, DEVICE, {"INFERENCE_PRECISION_HINT": hint_of(precision), **settings})
        inputs, outputs = len(compiled.inputs), len(compiled.outputs)
    except Exception as error:  # its types share no base but Exception, and text that is no UTF-8 is a UnicodeError
        raise BundleError(f"{path.name}: OpenVINO does not load it ({reason(error)}).") from error
    if inputs != 1 or not outputs:
        raise BundleError(f"{path.name}: has {inputs} inputs and {outputs} outputs, expected 1 input. Export again.")
    return compiled


def reason(error: Exception) -> str:
    """What an error of OpenVINO says: its last line; those before name lines of its sources."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].removeprefix("-- ") if lines else type(error).__name__


def layers_by_number(compiled: Any) -> dict[str, int]:
    """How many of a compiled network's layers with weights compute in which numbers, by OpenVINO's names (f32, f16, bf16,
    u8, i8): a CPU without a number computes in another, whatever the hint."""
    counts: Counter[str] = Counter()
    for layer in compiled.get_runtime_model().get_ops():
        facts = layer.get_rt_info()
        if facts["layerType"].astype(str) in WITH_WEIGHTS:
            counts[facts["runtimePrecision"].astype(str)] += 1
    return dict(counts.most_common())


class OpenVINORunner:
    """An ONNX file, or what stands in its place (`content`), in OpenVINO on the CPU, with its default settings but for the
    numbers, which are the file's. With a
    `budget`, loading and the first run of every batch size take no more than it explains."""

    backend = OPENVINO
    stands_in = False

    def __init__(self, path: Path, precision: str, budget: Budget | None = None, content: bytes | None = None) -> None:
        self.name = path.name
        self._of = path, precision, budget
        self._first = FirstRuns(self.name, budget)
        self.compiled = self._first.load(lambda: compile_file(path, precision, {}, content=content))
        self.input = self.compiled.inputs[0].any_name
        self.outputs = [output.any_name for output in self.compiled.outputs]
        self.request: Any = self.compiled.create_infer_request()

    def __call__(self, images: Array) -> Given:
        request = self.request
        try:
            given = self._first.run(len(images), lambda: request.infer({0: images}), request.cancel)
            arrays = [np.asarray(given[index]) for index in range(len(self.outputs))]
        except BundleError:
            raise
        except Exception as error:  # such as images of another size
            raise BundleError(f"{self.name}: OpenVINO does not run it ({reason(error)}).") from error
        return alone(dict(zip(self.outputs, arrays, strict=True)))

    @property
    def content(self) -> bytes:
        """What the file holds."""
        return self._of[0].read_bytes()

    def opened(self, content: bytes) -> OpenVINORunner:
        """Another network, run as this one is."""
        return OpenVINORunner(*self._of, content)

    def close(self) -> None:
        """Free the network's memory; it cannot run again."""
        self.request = self.compiled = None


def open_in_openvino(path: Path, artifact: Artifact) -> OpenVINORunner:
    """A bundle's ONNX file. Raises BundleError, MissingBackend without OpenVINO."""
    return OpenVINORunner(path, artifact.precision, Budget.of(artifact))
