"""An fp32 model as integers compute it best: exact algebra on the graph, before it is quantized.

Zeros that a `Pad` puts around what convolutions read become the convolutions' own padding, which costs nothing. A batch norm
that no convolution took in is a depthwise convolution of 1x1: one weight per channel, which int8 with a scale per channel
holds exactly.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

from slimexport.target.arrays import Array

IMAGES = 4  # dimensions


def integer_form(model: onnx.ModelProto) -> onnx.ModelProto:
    """What computes the same as `model` with fewer float operators. Values that are still there keep their names."""
    formed = onnx.ModelProto()
    formed.CopyFrom(model)
    _merge_pads(formed.graph)
    if any(node.op_type == "BatchNormalization" for node in formed.graph.node):
        _write_norms(formed)
    _split_swishes(formed.graph)
    return formed


def _split_swishes(graph: onnx.GraphProto) -> None:
    """Write HardSwish as what it is: a value times its hard sigmoid."""
    taken = {name for node in graph.node for name in node.output} | {tensor.name for tensor in graph.initializer}
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        if node.op_type == "HardSwish":
            read, written = node.input[0], node.output[0]
            gate = f"{written}.gate"
            while gate in taken:
                gate += "_"
            taken.add(gate)
            graph.node.append(helper.make_node("HardSigmoid", [read], [gate], alpha=1 / 6, beta=0.5))
            node.CopyFrom(helper.make_node("Mul", [read, gate], [written], name=node.name))
        graph.node.append(node)


def readers_of(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    """The nodes that read each value, once for each time that they do."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    return readers


def _merge_pads(graph: onnx.GraphProto) -> None:
    """Take out the pads that convolutions alone read."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    results = {result.name for result in graph.output}
    readers = readers_of(graph)
    merged = []
    for node in graph.node:
        around = _zeros_around(node, constants)
        following = readers.get(node.output[0], [])
        if around is None or node.output[0] in results or not following:
            continue
        if all(_pads_alone(reader, node.output[0]) for reader in following):
            for reader in following:
                own = next((attribute for attribute in reader.attribute if attribute.name == "pads"), None)
                before = list(own.ints) if own is not None else [0] * len(around)
                if own is not None:
                    reader.attribute.remove(own)
                reader.attribute.append(helper.make_attribute("pads", [a + b for a, b in zip(before, around, strict=True)]))
                reader.input[0] = node.input[0]
            merged.append(node)
    for node in merged:
        graph.node.remove(node)


def _zeros_around(node: onnx.NodeProto, constants: Mapping[str, Array]) -> list[int] | None:
    """How many zeros a pad puts before and after each spatial dimension of a batch of images, as a convolution says it; None
    for anything else."""
    mode = next((attribute.s for attribute in node.attribute if attribute.name == "mode"), b"constant")
    if node.op_type != "Pad" or mode != b"constant" or any(node.input[3:]) or node.input[1] not in constants:
        return None
    if len(node.input) > 2 and node.input[2] and not np.array_equal(constants.get(node.input[2], np.ones(1)), 0):
        return None
    before, after = constants[node.input[1]].reshape(2, -1).tolist()
    if any((*before[:2], *after[:2])) or min((*before, *after)) < 0:
        return None
    return [*before[2:], *after[2:]]


def _pads_alone(node: onnx.NodeProto, name: str) -> bool:
    """Whether a convolution reads a value as its images, padded as numbers say."""
    automatic = any(attribute.name == "auto_pad" and attribute.s != b"NOTSET" for attribute in node.attribute)
    return node.op_type == "Conv" and node.input[0] == name and name not in node.input[1:] and not automatic


def _write_norms(model: onnx.ModelProto) -> None:
    """Write norms of images as convolutions."""
    graph = model.graph
    inferred = onnx.shape_inference.infer_shapes(model).graph
    ranks = {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in (*inferred.input, *inferred.value_info, *inferred.output)
        if value.type.tensor_type.HasField("shape")
    }
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    taken = {*constants, *(name for node in graph.node for name in node.output)}
    for node in graph.node:
        own = node.op_type == "BatchNormalization" and all(name in constants for name in node.input[1:])
        if not own or ranks.get(node.input[0]) != IMAGES:
            continue
        scale, shift, mean, variance = (constants[name].astype(np.float64) for name in node.input[1:])
        epsilon = next((attribute.f for attribute in node.attribute if attribute.name == "epsilon"), 1e-5)
        factor = scale / np.sqrt(variance + epsilon)
        names = []
        for kind, values in (("weight", factor.reshape(-1, 1, 1, 1)), ("bias", shift - factor * mean)):
            name = f"{node.output[0]}.{kind}"
            while name in taken:
                name += "_"
            taken.add(name)
            names.append(name)
            graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
        read, written, called = node.input[0], node.output[0], node.name
        node.CopyFrom(helper.make_node("Conv", [read, *names], [written], name=called, group=len(factor)))
