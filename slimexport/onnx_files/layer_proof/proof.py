"""Whether every layer of a file of fewer bits gives, of the inputs that it has there, what it should.

A network magnifies roundings: of an untrained MobileNet one value that is rounded up in place of down changes logits by a
tenth of their scale, so that no comparison of logits can tell a small defect from that. A layer by itself magnifies nothing.
What it gives is right to the last step, and a wrong scale, weight, bias, channel, pad or bound is not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from slimexport.onnx_files.layer_proof.constants import rounded
from slimexport.onnx_files.layer_proof.layers import PLAIN, layers_alone, moved_alone
from slimexport.onnx_files.layer_proof.values import Values, values_of
from slimexport.onnx_files.pairs import Affine, Recorded
from slimexport.onnx_files.runner import run_batches
from slimexport.onnx_files.typed import cast_twin
from slimexport.onnx_files.weight_bits import saturates
from slimexport.target.arrays import Array
from slimtrain.data.images import Images

STEP = 0.51  # what an 8-bit value may be off by, in its steps: half of one is rounding
# What a number may be off by: of itself twice the distance to the next one of its type, which is at least that between the
# smallest ones, and of its layer's largest number. A small bias is little next to that, and much next to small numbers.
OF_ITSELF = {"float32": 0.0, "float16": 2**-9, "bfloat16": 2**-6}
LEAST = {"float32": 0.0, "float16": 2**-23, "bfloat16": 0.0}
OF_LARGEST = {"float32": 1e-4, "float16": 1e-6, "bfloat16": 1e-6}
WITHOUT_LOSS = 63  # the largest weight whose products every CPU adds exactly
ALONE = 0.1  # of the scale: asked for its output only, a file is fused otherwise, and a network magnifies the last bits
MOST_BYTES = 256 * 2**20  # of all values; about three times as much is in use
JITTER = 2**-22  # of an input: a bit or two of its last ones
DRAWS = 3  # of such inputs: one alone may leave a number where it is by chance
MAGNIFIED = 8  # times what that changes, a number may be off


@dataclass(frozen=True)
class Layers:
    """The `worst` layer of `count`, by the name of its value, and how far it is off, of what it may be."""

    worst: str
    error: float
    count: int

    @property
    def right(self) -> bool:
        return bool(self.error <= 1)  # False for NaN


def computes_exactly(recorded: Recorded) -> bool:
    """Whether this machine's CPU adds products of 8 bits without loss, so that a wrong result is the file's fault."""
    return not (recorded.weighted and recorded.levels > WITHOUT_LOSS and saturates())


def prove_layers(model: onnx.ModelProto, recorded: Recorded, images: Images) -> Layers:
    """Hold each layer of a file's `model` against what was `recorded`, on images: run in onnxruntime on a CPU, with fp16 or
    bf16 numbers as its cast twin, which rounds each layer's result. Integers throughout, which are for it, run as it fuses
    them; others operator by operator (it rounds float biases beside 8 bits, or cuts them off). The first image runs alone,
    the others together, as far as all their values fit MOST_BYTES."""
    runnable = model if recorded.number == "float32" else cast_twin(model)
    errors, size = _errors(runnable, recorded, images[:1])
    together = max(1, MOST_BYTES // max(size, 1))
    for start in range(1, len(images), together):
        if _any_wrong(errors):  # which more images do not make right
            break
        more, _ = _errors(runnable, recorded, images[start : start + together])
        errors = {value: _larger(error, more[value]) for value, error in errors.items()}
    worst = max(errors, key=lambda value: (np.isnan(errors[value]), errors[value]))
    return Layers(worst, errors[worst], len(errors))


def _any_wrong(errors: dict[str, float]) -> bool:
    return any(not error <= 1 for error in errors.values())  # NaN too


def _larger(first: float, second: float) -> float:
    """NaN if one is."""
    return first + second if np.isnan(first + second) else max(first, second)


def _errors(runnable: onnx.ModelProto, recorded: Recorded, images: Images) -> tuple[dict[str, float], int]:
    """How far each layer is off, of what it may be, and the bytes of all their values."""
    as_written = not recorded.forms
    values = values_of(runnable, recorded, images, as_written=as_written)
    errors = _pairs(recorded, values)
    for name, output in zip(values.results, run_batches(runnable, [images], as_written=as_written), strict=True):
        errors[f"{name} alone"] = _apart(output, values.results[name]) / ALONE
    given = {**values.there, **{f"{value}{PLAIN}": numbers for value, numbers in values.plain.items()}}
    parts = {
        value: _Part(given[value], expected, recorded.forms.get(value), recorded.number)
        for value, expected in layers_alone(recorded, values).items()
    }
    errors |= {value: part.error() for value, part in parts.items()}
    if _any_wrong(errors):
        moved = moved_alone(recorded, values, JITTER, DRAWS)  # norms of what is nearly alike magnify the last bit of a number
        errors |= {value: part.error(moved.get(value)) for value, part in parts.items()}
    return errors, sum(array.nbytes for array in given.values())


def _apart(output: Array, other: Array) -> float:
    """How far two outputs are from each other, relative to their scale."""
    if output.shape != other.shape:
        return float("inf")
    if np.array_equal(output, other, equal_nan=True):
        return 0.0
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.abs(output.astype(np.float64) - other).max() / np.abs(other).max())


def _pairs(recorded: Recorded, values: Values) -> dict[str, float]:
    """Of the integers that pairs make of numbers: how far they are off."""
    errors: dict[str, float] = {}
    (image,) = (value.name for value in recorded.base.graph.input)
    for (number, place), scale in recorded.reads.items():
        value = recorded.base.graph.node[number].input[place]
        if value in values.integers:
            integers = values.integers[value].astype(np.float64)
            before = rounded(values.there[value], recorded.number) if value == image else values.there[value]
            steps = np.clip(before.astype(np.float64) / np.float32(scale), -128, 127)
            errors[f"{value} in 8 bits"] = float(np.abs(integers - steps).max() / STEP)
    return errors


@dataclass(frozen=True)
class _Part:
    """What a file has `given` as a layer's value, and what that should be."""

    given: Array
    expected: Array
    form: Affine | None
    number: str

    def error(self, moved: Array | None = None) -> float:
        """How far it is off, of what it may be: the number that is furthest. `moved`: what JITTER does to them."""
        given, expected = self.given, self.expected
        if given.shape != expected.shape or given.dtype != expected.dtype:
            return float("inf")
        if given.dtype.kind != "f":
            return float("inf") if (given != expected).any() else 0.0
        alike = (given == expected) | (np.isnan(given) & np.isnan(expected))  # infinities that mask something
        if alike.all():
            return 0.0
        given, expected = given[~alike].astype(np.float64), expected[~alike].astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            permitted = self._permitted(expected)
            if moved is not None:
                permitted += MAGNIFIED * moved[~alike]
            return float((np.abs(given - expected) / permitted).max())

    def _permitted(self, expected: Array) -> Array:
        """What these of its numbers may be off by."""
        if self.form is not None:
            return np.full(expected.shape, STEP * float(self.form.scale))
        of_itself = np.where(np.isfinite(expected), OF_ITSELF[self.number] * np.abs(expected), 0.0)
        finite = self.expected[np.isfinite(self.expected)]
        of_largest = OF_LARGEST[self.number] * float(np.abs(finite).max(initial=0.0))
        return np.asarray(np.maximum(of_itself, LEAST[self.number]) + of_largest)


def why_wrong(layers: Layers) -> str:
    """What a file is refused with."""
    return (
        f"{layers.worst} is not what its layer makes of its inputs, off by {layers.error:.3g} of what rounding explains (of "
        f"{layers.count} layers it is the furthest off)"
    )
