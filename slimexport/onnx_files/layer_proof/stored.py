"""Whether the numbers that stand in a file of fewer bits are those that should: weights, biases, scales, zero points, strides.

Images show what numbers do, and there are weights that no image shows: others outweigh them, or what they multiply is
nearly nothing. What stands in the file is known without any image, from the fp32 model's weights and what was recorded. It is
computed here in float64 from the definition: an integer is right that is a rounding of its weight in steps of the stored
scale, a scale that is next to what its channel's largest weight asks for.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import numpy_helper

from slimexport.onnx_files.layer_proof.constants import COLUMNS, LARGEST_BIAS, TYPES
from slimexport.onnx_files.pairs import Affine, Recorded
from slimexport.target.arrays import Array

HALF = 0.5 + 2**-15  # of a step: float32 divides by it, and the last bit of that decides a tie
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", COLUMNS)
ACTIVATIONS = ("Relu", "Clip")  # which what they read may take in
CAST, QUANTIZE, DEQUANTIZE = "Cast", "QuantizeLinear", "DequantizeLinear"
RAMP = "HardSigmoid"  # is read as the same integers in other steps
SLOPE = 0.2  # of one that does not say it


def wrong_number(model: onnx.ModelProto, recorded: Recorded) -> str:
    """The first number of a file's `model` that is not what it should be by what was `recorded`, in words; nothing where all
    are right."""
    file = _File(model, recorded)
    return next(iter((*file.pairs(), *file.operands())), "")


class _File:
    """A file's nodes and stored tensors, and which of them do what those of the fp32 model do."""

    def __init__(self, model: onnx.ModelProto, recorded: Recorded) -> None:
        self.recorded = recorded
        self.wanted = {tensor.name: numpy_helper.to_array(tensor) for tensor in recorded.base.graph.initializer}
        self.stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        self.nodes = model.graph.node
        self.makers = {output: node for node in self.nodes for output in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in recorded.base.graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)

    # -- activations

    def pairs(self) -> Iterator[str]:
        """What is wrong with the scales and zero points of activations."""
        forms = self._forms()
        values = {name: value for value, name in self.recorded.names.items() if value in forms}
        for node in self.nodes:
            integers = node.output[0] if node.op_type == QUANTIZE else node.input[0]
            if node.op_type not in (QUANTIZE, DEQUANTIZE) or integers not in values:
                continue
            value = values[integers]
            form, (scale, zero) = forms[value], self._parameters(node)
            scales = [form.scale, *self._ramps(value, form)] if node.op_type == DEQUANTIZE else [form.scale]
            if not any(_same(scale, np.asarray(one)) for one in scales):
                yield f"{value} is in steps of {_shown(scale)}, expected {form.scale}"
            if not _zeros(zero, form):
                yield f"{value} has the zero point {_shown(zero)}, expected {form.zero}"

    def _forms(self) -> dict[str, Affine]:
        """Of the values that are integers in the file."""
        forms = dict(self.recorded.forms)
        for (number, place), scale in self.recorded.reads.items():
            forms[self.recorded.base.graph.node[number].input[place]] = Affine(np.float32(scale), np.int8(0))
        return forms

    def _ramps(self, value: str, form: Affine) -> Iterator[np.float32]:
        """The scales by which hard sigmoids read a value."""
        for node in self.readers.get(value, []):
            if node.op_type == RAMP:
                slope = next((attribute.f for attribute in node.attribute if attribute.name == "alpha"), SLOPE)
                yield np.float32(form.scale * np.float32(slope))

    def _parameters(self, node: onnx.NodeProto) -> tuple[Array | None, Array | None]:
        """A pair's scale and zero point, as far as they are stored."""
        scale, zero = [*node.input[1:], "", ""][:2]
        return self.stored.get(scale), self.stored.get(zero)

    # -- what operators multiply by, add, and are told

    def operands(self) -> Iterator[str]:
        """What is wrong with the stored operands of nodes, and with what those that have weights are told."""
        for node in self.recorded.base.graph.node:
            places = [place for place, name in enumerate(node.input) if name in self.wanted]
            weighs = node.op_type in WEIGHTED
            if not places:
                continue
            written = self._written(node)
            if written is None:
                if weighs:
                    yield f"{node.output[0]} is nowhere in the file"
                continue
            if (
                node.op_type in ACTIVATIONS and written.op_type != node.op_type
            ):  # taken in: what it cuts off, integers cannot hold
                continue
            if weighs and (written.op_type != node.op_type or _signature(written) != _signature(node)):
                yield f"{node.output[0]} is told {_signature(written)}, expected {_signature(node)}"
            if node.output[0] in self.recorded.weighted:
                yield from self._quantized(node, written)
                places = [] if self.recorded.biases else [place for place in places if place != 1]
            for place in places:
                yield from self._number(node, written, place)

    def _written(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        """The node of the file that does what one of the fp32 model does."""
        value = node.output[0]
        while True:
            integers = self.makers.get(self.recorded.names.get(value, ""))
            maker = self.makers.get(value if integers is None else integers.input[0])
            while maker is not None and maker.op_type == CAST and node.op_type != CAST:
                maker = self.makers.get(maker.input[0])
            following = self.readers.get(value, [])
            if maker is not None or len(following) != 1 or following[0].op_type not in ACTIVATIONS:
                return maker
            value = following[0].output[0]  # taken in by what writes its operand

    def _number(self, node: onnx.NodeProto, written: onnx.NodeProto, place: int) -> Iterator[str]:
        """What is wrong with an operand that is as it was, in the numbers of the file."""
        wanted = self.wanted[node.input[place]]
        given = self.stored.get(written.input[place]) if place < len(written.input) else None
        if wanted.dtype == np.float32 and given is not None and given.dtype == TYPES.get(self.recorded.number):
            with np.errstate(over="ignore"):
                wanted = wanted.astype(given.dtype)
        if given is None or given.dtype != wanted.dtype or not np.array_equal(_bits(given), _bits(wanted)):
            yield f"operand {place} of {node.output[0]} is not the fp32 model's in {self.recorded.number}"

    def _quantized(self, node: onnx.NodeProto, written: onnx.NodeProto) -> Iterator[str]:
        """What is wrong with integers as weights and bias."""
        levels, name = self.recorded.levels, node.output[0]
        columns = node.op_type == COLUMNS
        weight = self.wanted[node.input[1]].astype(np.float64)
        bias = self.wanted[node.input[2]].astype(np.float64) if self.recorded.biases and len(node.input) > 2 else None
        integers, scales, fault = self._integers(written, 1, np.dtype(np.int8), 1 if columns else 0)
        if fault:
            yield f"the weights of {name} {fault}"
            return
        if columns:
            weight, integers = weight.T, integers.T
        if weight.shape != integers.shape or scales.shape != weight.shape[:1]:
            yield f"the weights of {name} are {list(integers.shape)} with {scales.size} scales, expected {list(weight.shape)}"
            return
        largest = np.abs(weight.reshape(len(weight), -1)).max(1, initial=0.0)
        wanted = np.maximum(largest / levels, self.recorded.floor)
        if bias is not None:
            step = np.float64(self.recorded.forms[node.input[0]].scale)
            wanted = np.maximum(wanted, np.abs(bias) / (LARGEST_BIAS * step))
        yield from _next_to(scales, wanted, f"scales of {name}")
        by_channel = scales.astype(np.float64).reshape(-1, *[1] * (weight.ndim - 1))
        yield from _rounding_of(integers, np.clip(weight / by_channel, -levels, levels), f"weights of {name}")
        if bias is not None:
            integers, steps, fault = self._integers(written, 2, np.dtype(np.int32), 0)
            if fault or integers.shape != bias.shape or steps.shape != bias.shape:
                yield f"the biases of {name} {fault or 'are not as many as its outputs'}"
                return
            yield from _next_to(steps, step * scales.astype(np.float64), f"scales of the biases of {name}")
            yield from _rounding_of(integers, bias / steps.astype(np.float64), f"biases of {name}")

    def _integers(
        self, written: onnx.NodeProto, place: int, dtype: np.dtype[np.generic], axis: int
    ) -> tuple[Array, Array, str]:
        """Stored integers and their scales, which count outputs along `axis`, or what is wrong with how they are stored."""
        nothing = np.zeros(0)
        node = self.makers.get(written.input[place]) if place < len(written.input) else None
        if node is None or node.op_type != DEQUANTIZE or node.input[0] not in self.stored:
            return nothing, nothing, "are no stored integers"
        integers, (scales, zero) = self.stored[node.input[0]], self._parameters(node)
        if scales is None or integers.dtype != dtype:
            return nothing, nothing, f"are {integers.dtype}, expected {dtype}, with stored scales"
        if zero is not None and (zero.dtype != dtype or zero.any()):
            return nothing, nothing, f"have zero points up to {np.abs(zero.astype(np.int64)).max(initial=0)}, expected 0"
        along = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
        if integers.ndim > 1 and along % integers.ndim != axis:
            return nothing, nothing, f"have scales along dimension {along}, expected {axis}"
        return integers, scales, ""


def _same(stored: Array | None, wanted: Array) -> bool:
    """Whether a stored number is exactly a wanted one, in the type that it is stored in."""
    return stored is not None and stored.size == 1 and bool(stored.reshape(()) == wanted.astype(stored.dtype))


def _zeros(stored: Array | None, form: Affine) -> bool:
    """Whether a stored zero point is that of a form; where none is stored it is a uint8's 0."""
    if stored is None:
        return form.zero == 0 and form.zero.dtype == np.uint8
    return stored.dtype == form.zero.dtype and _same(stored, np.asarray(form.zero))


def _shown(stored: Array | None) -> str:
    return "none" if stored is None else str(stored.reshape(-1)[0]) if stored.size == 1 else f"{stored.size} numbers"


def _signature(node: onnx.NodeProto) -> str:
    """An operator and its attributes, in words that are the same in any order."""
    values = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    return f"{node.op_type}({', '.join(f'{name}={values[name]}' for name in sorted(values))})"


def _bits(values: Array) -> Array:
    """Numbers that are equal where these have the same bits: what is not a number equals itself."""
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8)


def _next_to(stored: Array, wanted: Array, what: str) -> Iterator[str]:
    """Numbers that are further from what is wanted than one step of their type."""
    rounded = wanted.astype(stored.dtype)
    with np.errstate(invalid="ignore", over="ignore"):
        step = np.maximum(np.nextafter(rounded, np.inf, dtype=stored.dtype).astype(np.float64) - rounded, 0)
        wrong = ~(np.abs(stored.astype(np.float64) - wanted) <= 1.5 * step)
    yield from counted(wrong, stored, wanted, what)


def _rounding_of(integers: Array, wanted: Array, what: str) -> Iterator[str]:
    """Integers that are not next to what they are roundings of."""
    with np.errstate(invalid="ignore"):
        wrong = ~(np.abs(integers - wanted) <= HALF)
    yield from counted(wrong, integers, wanted, what)


def counted(wrong: Array, stored: Array, wanted: Array, what: str) -> Iterator[str]:
    """How many numbers are `wrong`, and the first of them; nothing where none is."""
    if wrong.any():
        first = np.unravel_index(int(wrong.argmax()), wrong.shape)
        yield f"{int(wrong.sum())} of {wrong.size} {what} are wrong: {stored[first]}, expected {wanted[first]:.6g}"
