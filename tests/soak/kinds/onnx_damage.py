"""Damage to a network in ONNX: what it takes and gives, its operators, its weights, and what no file of ours has (loops, text,
data elsewhere)."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
from onnx import AttributeProto, TensorProto, helper, numpy_helper

Model = Any
NAMES = ("", "output", "input", "a" * 100_000, "\u202e", "../x")


def input_renamed(draw: Random, model: Model) -> None:
    for value in model.graph.input[:1]:
        value.name = draw.choice(NAMES)


def no_input(draw: Random, model: Model) -> None:
    del model.graph.input[:]


def output_renamed(draw: Random, model: Model) -> None:
    for value in model.graph.output[:1]:
        value.name = draw.choice(NAMES)


def no_output(draw: Random, model: Model) -> None:
    del model.graph.output[:]


def other_type(draw: Random, model: Model) -> None:
    for value in (*model.graph.input, *model.graph.output):
        if draw.random() < 0.5:
            value.type.tensor_type.elem_type = draw.choice((0, 2, 8, 9, 10, 11, 14, 99))


def other_shape(draw: Random, model: Model) -> None:
    for value in (*model.graph.input, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if draw.random() < 0.3:
                dim.dim_value = draw.choice((-1, 0, 1, 2, 31, 10**6, 2**62))


def text_output(draw: Random, model: Model) -> None:
    for value in model.graph.output[:1]:
        last = value.name
        for node in model.graph.node:
            node.output[:] = ["inner" if name == last else name for name in node.output]
        model.graph.node.append(helper.make_node("Cast", ["inner"], [last], to=TensorProto.STRING))
        value.type.tensor_type.elem_type = TensorProto.STRING


def endless_loop(draw: Random, model: Model) -> None:
    """A loop of many rounds between the network and its output."""
    for value in model.graph.output[:1]:
        last = value.name
        for node in model.graph.node:
            node.output[:] = ["inner" if name == last else name for name in node.output]
        kinds: list[tuple[str, int, list[int] | None]] = [
            ("i", TensorProto.INT64, []),
            ("go_in", TensorProto.BOOL, []),
            ("x_in", TensorProto.FLOAT, None),
        ]
        inputs = [helper.make_tensor_value_info(*kind) for kind in kinds]
        outputs = [
            helper.make_tensor_value_info("go_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x_out", 1, None),
        ]
        nodes = [helper.make_node("Identity", ["go_in"], ["go_out"]), helper.make_node("Relu", ["x_in"], ["x_out"])]
        body = helper.make_graph(nodes, "body", inputs, outputs)
        rounds = draw.choice((10**5, 10**9, 2**62))
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(rounds, np.int64), "rounds"))
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(True), "go"))
        model.graph.node.append(helper.make_node("Loop", ["rounds", "go", "inner"], [last], body=body))


def huge_between(draw: Random, model: Model) -> None:
    """An operator whose result takes gigabytes."""
    for value in model.graph.output[:1]:
        shape = np.asarray(draw.choice(([10**4, 10**5], [10**6, 10**6], [2**31, 2])), np.int64)
        model.graph.initializer.append(numpy_helper.from_array(shape, "huge_shape"))
        model.graph.node.append(helper.make_node("ConstantOfShape", ["huge_shape"], ["huge"]))
        model.graph.node.append(helper.make_node("ReduceSum", ["huge"], ["sum"], keepdims=0))
        last = value.name
        for node in model.graph.node[:-2]:
            node.output[:] = ["inner" if name == last else name for name in node.output]
        model.graph.node.append(helper.make_node("Add", ["inner", "sum"], [last]))


def elsewhere(draw: Random, model: Model) -> None:
    """A weight whose data is in another file."""
    tensor = draw.choice(model.graph.initializer)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    place = draw.choice(("/dev/zero", "/etc/passwd", "../../x", "manifest.json", "reference.npz", "", "/dev/stdin"))
    del tensor.external_data[:]
    for key, text in (("location", place), ("offset", "0"), ("length", draw.choice(("16", "99999999999", "-1", "x")))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, text


def weight_changed(draw: Random, model: Model) -> None:
    tensors = [tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT]
    if not tensors:
        return
    tensor = draw.choice(tensors)
    try:
        array = numpy_helper.to_array(tensor).copy()
    except (ValueError, TypeError):  # of one that was damaged before
        return
    if not array.size:
        return
    with np.errstate(all="ignore"):
        way = draw.randrange(6)
        if way == 0:
            array *= np.float32(draw.choice((1.05, 0, -1, 1e30, np.nan, np.inf)))
        elif way == 1:
            array.flat[draw.randrange(array.size)] *= np.float32(-1)
        elif way == 2:
            array = np.roll(array, 1)
        elif way == 3:
            array = array[:-1] if array.ndim else array
        elif way == 4:
            array.flat[draw.randrange(array.size)] = np.float32(draw.choice((np.nan, np.inf, 1e38)))
        else:
            array = array.astype(draw.choice((np.float64, np.float16, np.int32)))
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), tensor.name))


def tensor_lies(draw: Random, model: Model) -> None:
    tensor = draw.choice(model.graph.initializer)
    way = draw.randrange(4)
    if way == 0:
        tensor.data_type = draw.choice((0, 2, 7, 8, 10, 16, 17, 99))
    elif way == 1:
        tensor.dims[:] = draw.choice(([2**62], [-1], [10**6, 10**6], [0], [1] * 100, []))
    elif way == 2:
        tensor.raw_data = tensor.raw_data[: len(tensor.raw_data) // 2]
    else:
        tensor.name = draw.choice(NAMES)


def node_removed(draw: Random, model: Model) -> None:
    if len(model.graph.node):
        del model.graph.node[draw.randrange(len(model.graph.node))]


def node_twice(draw: Random, model: Model) -> None:
    if len(model.graph.node):
        model.graph.node.add().CopyFrom(draw.choice(model.graph.node))


def other_operator(draw: Random, model: Model) -> None:
    if len(model.graph.node):
        node = draw.choice(model.graph.node)
        node.op_type = draw.choice(("Relu", "Conv", "Gemm", "Identity", "NoSuch", "", "Loop", "If", "Sigmoid", "Concat"))


def other_domain(draw: Random, model: Model) -> None:
    if len(model.graph.node):
        draw.choice(model.graph.node).domain = draw.choice(("com.microsoft", "no.such", "ai.onnx.ml"))


def wired_elsewhere(draw: Random, model: Model) -> None:
    if len(model.graph.node):
        node, other = draw.choice(model.graph.node), draw.choice(model.graph.node)
        if node.input and other.output:
            node.input[draw.randrange(len(node.input))] = draw.choice((*other.output, "nothing", ""))


def attribute_changed(draw: Random, model: Model) -> None:
    nodes = [node for node in model.graph.node if node.attribute]
    if not nodes:
        return
    attribute = draw.choice(draw.choice(nodes).attribute)
    if attribute.type == AttributeProto.INTS and attribute.ints:
        attribute.ints[draw.randrange(len(attribute.ints))] = draw.choice((0, -1, 2, 7, 2**31, 2**62))
    elif attribute.type == AttributeProto.INT:
        attribute.i = draw.choice((0, -1, 2, 7, 2**62))
    else:
        attribute.f = draw.choice((0.0, -1.0, float("nan"), 1e38))


def other_versions(draw: Random, model: Model) -> None:
    model.ir_version = draw.choice((0, 1, 3, 8, 13, 99, 2**62))
    for entry in model.opset_import:
        entry.version = draw.choice((0, 1, 6, 11, 17, 28, 99))


def metadata(draw: Random, model: Model) -> None:
    entry = model.metadata_props.add()
    entry.key, entry.value = draw.choice(NAMES), draw.choice(NAMES)


def deep_if(draw: Random, model: Model) -> None:
    """Graphs within graphs."""
    inner = helper.make_graph([], "end", [], [])
    for _ in range(draw.choice((5, 20))):
        node = helper.make_node("If", ["go"], ["x"], then_branch=inner, else_branch=inner if draw.random() < 0.05 else None)
        inner = helper.make_graph([node], "g", [], [helper.make_tensor_value_info("x", 1, None)])
    model.graph.node.extend(inner.node)


WAYS = (
    *(input_renamed, no_input, output_renamed, no_output, other_type, other_shape, text_output, endless_loop, huge_between),
    *(
        elsewhere,
        elsewhere,
        weight_changed,
        weight_changed,
        weight_changed,
        tensor_lies,
        tensor_lies,
        node_removed,
        node_twice,
    ),
    *(other_operator, other_domain, wired_elsewhere, attribute_changed, attribute_changed, other_versions, metadata, deep_if),
)
