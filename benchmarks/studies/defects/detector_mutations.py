"""Single defects of a detector's ONNX file, drawn: those that any file may have, and those of what chooses boxes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from numpy.random import Generator
from onnx import helper, numpy_helper

from benchmarks.studies.defects.mutations import MUTATIONS, Mutation, NotHere
from slimexport.target.arrays import Array

CLASSES, CODES = "roi_heads.box_predictor.cls_score", "roi_heads.box_predictor.bbox_pred"
Values = Callable[[Array, Generator], Array]
Nodes = Callable[[str, str], list[onnx.NodeProto]]


def _tensor(model: onnx.ModelProto, suits: Callable[[str], bool], draw: Generator) -> onnx.TensorProto:
    tensors = [tensor for tensor in model.graph.initializer if suits(tensor.name)]
    if not tensors:
        raise NotHere
    return tensors[draw.integers(len(tensors))]


def _stored(suits: Callable[[str], bool], change: Values) -> Mutation:
    """Other numbers in one of the stored tensors whose names suit."""

    def mutate(model: onnx.ModelProto, draw: Generator) -> str:
        tensor = _tensor(model, suits, draw)
        before = numpy_helper.to_array(tensor)
        after = np.ascontiguousarray(change(before.copy(), draw), before.dtype)
        if np.array_equal(before, after):
            raise NotHere
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(after, name))
        return name

    return mutate


def _is_anchors(name: str) -> bool:
    return ".anchors" in name


def _grown(anchors: Array, draw: Generator) -> Array:
    middle = (anchors[:, :2] + anchors[:, 2:]) / 2
    return np.concatenate([middle + 1.1 * (anchors[:, :2] - middle), middle + 1.1 * (anchors[:, 2:] - middle)], 1)


def _two(values: Array, draw: Generator, size: int) -> tuple[Array, Array]:
    """Rows of two classes, of which each has so many."""
    first, second = draw.choice(len(values) // size, 2, replace=False)
    rows = np.arange(size)
    return size * first + rows, size * second + rows


def _exchanged(size: int) -> Values:
    def change(values: Array, draw: Generator) -> Array:
        first, second = _two(values, draw, size)
        values[np.concatenate([first, second])] = values[np.concatenate([second, first])]
        return values

    return change


def _turned_codes(values: Array, draw: Generator) -> Array:
    """x and y of a class."""
    row = 4 * int(draw.integers(len(values) // 4))
    values[row : row + 4] = values[[row + 1, row, row + 3, row + 2]]
    return values


def _number(factor: float) -> Mutation:
    """Another number where one operator reads a stored one: thresholds, sizes, weights of codes."""

    def mutate(model: onnx.ModelProto, draw: Generator) -> str:
        stored = {tensor.name: tensor for tensor in model.graph.initializer}
        places = [
            (node, place)
            for node in model.graph.node
            for place, name in enumerate(node.input)
            if name in stored and not stored[name].dims and stored[name].data_type == onnx.TensorProto.FLOAT
        ]
        if not places:
            raise NotHere
        node, place = places[draw.integers(len(places))]
        value = numpy_helper.to_array(stored[node.input[place]])
        if value == 0:
            raise NotHere
        name = f"{node.input[place]}.defect"
        model.graph.initializer.append(numpy_helper.from_array(np.array(value * factor, np.float32), name))
        node.input[place] = name
        return f"{node.output[0]}: {float(value):g}"

    return mutate


def _another_edge(model: onnx.ModelProto, draw: Generator) -> str:
    """One of a box's four numbers in the place of another."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    places = [node for node in model.graph.node if node.op_type == "Gather" and ".unbind" in node.output[0]]
    others = {int(numpy_helper.to_array(stored[node.input[1]])): node.input[1] for node in places}
    if len(others) < 2:
        raise NotHere
    node = places[draw.integers(len(places))]
    node.input[1] = draw.choice([name for name in others.values() if name != node.input[1]])
    return node.output[0]


def _region(name: str, changed: Callable[[Array], object]) -> Mutation:
    """Another attribute of a level's RoIAlign."""

    def mutate(model: onnx.ModelProto, draw: Generator) -> str:
        nodes = [node for node in model.graph.node if node.op_type == "RoiAlign"]
        if not nodes:
            raise NotHere
        node = nodes[draw.integers(len(nodes))]
        own = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        own[name] = changed(own.get(name))  # type: ignore[arg-type]
        del node.attribute[:]
        node.attribute.extend(helper.make_attribute(key, value) for key, value in own.items())
        return node.output[0]

    return mutate


def _another_level(model: onnx.ModelProto, draw: Generator) -> str:
    nodes = [node for node in model.graph.node if node.op_type == "RoiAlign"]
    maps = list(dict.fromkeys(node.input[0] for node in nodes))
    if len(maps) < 2:
        raise NotHere
    node = nodes[draw.integers(len(nodes))]
    node.input[0] = draw.choice([name for name in maps if name != node.input[0]])
    return node.output[0]


def _of_output(output: str, nodes: Callable[[onnx.ModelProto, str, str], list[onnx.NodeProto]]) -> Mutation:
    """Something done to an output that only who runs the file sees."""

    def mutate(model: onnx.ModelProto, draw: Generator) -> str:
        inner = f"{output}.before"
        for node in model.graph.node:
            node.output[:] = [inner if name == output else name for name in node.output]
            node.input[:] = [inner if name == output else name for name in node.input]
        model.graph.node.extend(nodes(model, inner, output))
        return output

    return mutate


def _with(output: str, kind: str, number: float, dtype: type = np.float32) -> Mutation:
    def nodes(model: onnx.ModelProto, before: str, name: str) -> list[onnx.NodeProto]:
        model.graph.initializer.append(numpy_helper.from_array(np.array(number, dtype), f"{name}.defect"))
        return [helper.make_node(kind, [before, f"{name}.defect"], [name])]

    return _of_output(output, nodes)


def _edges_exchanged(model: onnx.ModelProto, before: str, name: str) -> list[onnx.NodeProto]:
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 0, 3, 2]), f"{name}.defect"))
    return [helper.make_node("Gather", [before, f"{name}.defect"], [name], axis=2)]


GENERAL = (
    "a weight's sign",
    "weights times 1.05",
    "outputs swapped",
    "inputs swapped",
    "kernel rolled",
    "kernel transposed",
    "a channel's weights dropped",
    "20 % of noise",
    "bias dropped",
    "biases swapped",
    "bias times 1.05",
    "stride",
    "pads",
    "residual dropped",
    "red and blue exchanged",
)
DETECTOR_MUTATIONS: dict[str, Mutation] = {
    **{name: MUTATIONS[name] for name in GENERAL},
    "two classes exchanged": _stored(lambda name: name.startswith(CLASSES), _exchanged(1)),
    "two classes' box codes exchanged": _stored(lambda name: name.startswith(CODES), _exchanged(4)),
    "x and y of a class's codes exchanged": _stored(lambda name: name.startswith(CODES), _turned_codes),
    "anchors half a pixel aside": _stored(_is_anchors, lambda values, draw: values + 0.5),
    "anchors of another size": _stored(_is_anchors, _grown),
    "anchors in reverse order": _stored(_is_anchors, lambda values, draw: values[::-1]),
    "a number times 1.1": _number(1.1),
    "a number times 0.9": _number(0.9),
    "another edge of boxes": _another_edge,
    "regions' scale doubled": _region("spatial_scale", lambda scale: 2 * float(scale)),
    "regions' scale times 1.01": _region("spatial_scale", lambda scale: 1.01 * float(scale)),
    "regions sampled once": _region("sampling_ratio", lambda _: 1),
    "regions aligned otherwise": _region("coordinate_transformation_mode", lambda _: "half_pixel"),
    "regions of another level": _another_level,
    "boxes times 1.01": _with("boxes", "Mul", 1.01),
    "boxes half a pixel aside": _with("boxes", "Add", 0.5),
    "x and y of boxes exchanged": _of_output("boxes", _edges_exchanged),
    "scores times 1.01": _with("scores", "Mul", 1.01),
    "labels from 0": _with("labels", "Sub", 1, np.int64),
    "one detection more counted": _with("count", "Add", 1, np.int64),
}
NEIGHBOUR = "the neighbour switch's norm"
