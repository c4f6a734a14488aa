"""Single defects of an ONNX file, drawn: what a writer or a converter could do to it and still leave a file that loads."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx
from numpy.random import Generator
from onnx import helper, numpy_helper

from slimexport.target.arrays import Array

Change = Callable[[Array, Generator], Array]
Mutation = Callable[[onnx.ModelProto, Generator], str]
WEIGHTED = ("Conv", "Gemm", "MatMul")
AXES_READ = 18  # the opset since which ReduceMean reads its axes


class NotHere(Exception):
    """A model has no place for a defect."""


def mutated(model: onnx.ModelProto, name: str, draw: Generator) -> tuple[onnx.ModelProto, str]:
    """A copy of a model with the defect called `name`, and where that is. NotHere."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy, MUTATIONS[name](copy, draw)


# -------------------------------------------------------------------------------------------------------------- numbers


def _weights(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    """The stored weights of operators, as they are or through a DequantizeLinear."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    source = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    names = [node.input[1] for node in model.graph.node if node.op_type in WEIGHTED and len(node.input) > 1]
    return [stored[key] for name in names if (key := source.get(name, name)) in stored]


def _biases(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    source = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    names = [node.input[2] for node in model.graph.node if node.op_type in WEIGHTED and len(node.input) > 2]
    tensors = [stored[key] for name in names if (key := source.get(name, name)) in stored]
    return [tensor for tensor in tensors if np.abs(numpy_helper.to_array(tensor).astype(np.float64)).max() > 0]


def _scales(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    pairs = ("QuantizeLinear", "DequantizeLinear")
    return [stored[name] for name in dict.fromkeys(node.input[1] for node in model.graph.node if node.op_type in pairs)]


def _bounds(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    names = [node.input[2] for node in model.graph.node if node.op_type == "Clip" and len(node.input) > 2]
    return [stored[name] for name in names if name in stored]


def _numbers(places: Callable[[onnx.ModelProto], list[onnx.TensorProto]], change: Change) -> Mutation:
    def mutate(model: onnx.ModelProto, draw: Generator) -> str:
        tensors = places(model)
        if not tensors:
            raise NotHere
        tensor = tensors[draw.integers(len(tensors))]
        before = numpy_helper.to_array(tensor)
        after = change(before.astype(np.float64), draw)
        if before.dtype.kind in "iu":
            limits = np.iinfo(before.dtype)
            after = np.clip(np.rint(after), limits.min, limits.max)
        after = after.astype(before.dtype)
        if np.array_equal(after, before):
            raise NotHere
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(after).reshape(before.shape), name))
        return name

    return mutate


def _one_sign(values: Array, draw: Generator) -> Array:
    flat = values.reshape(len(values), -1)
    row = draw.integers(len(flat))
    place = np.abs(flat[row]).argmax()
    flat[row, place] = -flat[row, place]
    return values


def _swap(axis: int) -> Change:
    def change(values: Array, draw: Generator) -> Array:
        if values.ndim <= axis or values.shape[axis] < 2:
            raise NotHere
        first, second = draw.choice(values.shape[axis], 2, replace=False)
        order = np.arange(values.shape[axis])
        order[[first, second]] = order[[second, first]]
        return np.asarray(values.take(order, axis))

    return change


def _rolled(values: Array, draw: Generator) -> Array:
    if values.ndim != 4 or values.shape[3] < 2:
        raise NotHere
    return np.roll(values, 1, 3)


def _transposed(values: Array, draw: Generator) -> Array:
    if values.ndim != 4 or values.shape[3] < 2:
        raise NotHere
    return values.transpose(0, 1, 3, 2)


def _without_a_channel(values: Array, draw: Generator) -> Array:
    values[draw.integers(len(values))] = 0
    return values


# --------------------------------------------------------------------------------------------------------------- graphs


def _attribute(kind: str, name: str, change: Callable[[list[int]], list[int]]) -> Mutation:
    def mutate(model: onnx.ModelProto, draw: Generator) -> str:
        places = [(node, a) for node in model.graph.node if node.op_type == kind for a in node.attribute if a.name == name]
        places = [(node, a) for node, a in places if change(list(a.ints)) != list(a.ints)]
        if not places:
            raise NotHere
        node, attribute = places[draw.integers(len(places))]
        attribute.ints[:] = change(list(attribute.ints))
        return node.output[0]

    return mutate


def _turned(pads: list[int]) -> list[int]:
    """A pad of one side on the other."""
    if len(pads) != 4 or sum(pads) == 0:
        return pads
    return [pads[0] + 1, pads[1], pads[2] - 1, pads[3]] if pads[2] > 0 else pads


def _residual_dropped(model: onnx.ModelProto, draw: Generator) -> str:
    stored = {tensor.name for tensor in model.graph.initializer}
    sums = [node for node in model.graph.node if node.op_type == "Add" and not stored.intersection(node.input)]
    if not sums:
        raise NotHere
    node = sums[draw.integers(len(sums))]
    node.CopyFrom(helper.make_node("Identity", [node.input[draw.integers(2)]], list(node.output)))
    return node.output[0]


def _output(write: Callable[[onnx.ModelProto, str, str], Iterator[onnx.NodeProto]]) -> Mutation:
    """Something done to the output."""

    def mutate(model: onnx.ModelProto, draw: Generator) -> str:
        name = model.graph.output[0].name
        inner = f"{name}.before"
        for node in model.graph.node:
            for i, output in enumerate(node.output):
                if output == name:
                    node.output[i] = inner
            for i, read in enumerate(node.input):
                if read == name:
                    node.input[i] = inner
        model.graph.node.extend(write(model, inner, name))
        return name

    return mutate


def _constant(model: onnx.ModelProto, values: object) -> str:
    name = f"defect.{len(model.graph.initializer)}"
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))
    return name


def _with(kind: str, number: float) -> Mutation:
    return _output(lambda model, x, y: iter([helper.make_node(kind, [x, _constant(model, np.float32(number))], [y])]))


def _mean(model: onnx.ModelProto, x: str) -> onnx.NodeProto:
    """Over the images."""
    if model.opset_import[0].version >= AXES_READ:
        return helper.make_node("ReduceMean", [x, _constant(model, np.array([0], np.int64))], [f"{x}.mean"], keepdims=1)
    return helper.make_node("ReduceMean", [x], [f"{x}.mean"], axes=[0], keepdims=1)


def _always_the_same(model: onnx.ModelProto, x: str, y: str) -> Iterator[onnx.NodeProto]:
    yield _mean(model, x)
    yield helper.make_node("Sub", [x, x], [f"{x}.zero"])
    yield helper.make_node("Add", [f"{x}.zero", f"{x}.mean"], [y])


def _coupled(model: onnx.ModelProto, x: str, y: str) -> Iterator[onnx.NodeProto]:
    yield _mean(model, x)
    yield helper.make_node("Mul", [f"{x}.mean", _constant(model, np.float32(0.1))], [f"{x}.share"])
    yield helper.make_node("Add", [x, f"{x}.share"], [y])


def _colours_exchanged(model: onnx.ModelProto, draw: Generator) -> str:
    (image,) = (value.name for value in model.graph.input)
    for node in model.graph.node:
        for i, read in enumerate(node.input):
            if read == image:
                node.input[i] = f"{image}.exchanged"
    order = _constant(model, np.array([2, 1, 0], np.int64))
    model.graph.node.insert(0, helper.make_node("Gather", [image, order], [f"{image}.exchanged"], axis=1))
    return image


MUTATIONS: dict[str, Mutation] = {
    "a weight's sign": _numbers(_weights, _one_sign),
    "weights times 1.05": _numbers(_weights, lambda values, draw: values * 1.05),
    "outputs swapped": _numbers(_weights, _swap(0)),
    "inputs swapped": _numbers(_weights, _swap(1)),
    "kernel rolled": _numbers(_weights, _rolled),
    "kernel transposed": _numbers(_weights, _transposed),
    "a channel's weights dropped": _numbers(_weights, _without_a_channel),
    "20 % of noise": _numbers(_weights, lambda values, draw: values + 0.2 * values.std() * draw.normal(size=values.shape)),
    "bias dropped": _numbers(_biases, lambda values, draw: values * 0),
    "biases swapped": _numbers(_biases, _swap(0)),
    "bias times 1.05": _numbers(_biases, lambda values, draw: values * 1.05),
    "scale halved": _numbers(_scales, lambda values, draw: values / 2),
    "scale doubled": _numbers(_scales, lambda values, draw: values * 2),
    "scale times 1.05": _numbers(_scales, lambda values, draw: values * 1.05),
    "bound lowered": _numbers(_bounds, lambda values, draw: values * 0.9),
    "stride": _attribute("Conv", "strides", lambda ints: [3 - size if size in (1, 2) else size for size in ints]),
    "pads": _attribute("Conv", "pads", _turned),
    "residual dropped": _residual_dropped,
    "logits times 1.1": _with("Mul", 1.1),
    "logits times 1000": _with("Mul", 1000),
    "logits plus 1000": _with("Add", 1000),
    "one answer for all": _output(_always_the_same),
    "images coupled": _output(_coupled),
    "red and blue exchanged": _colours_exchanged,
}
