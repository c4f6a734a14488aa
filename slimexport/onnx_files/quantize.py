"""Int8 for TensorRT: quantize-dequantize pairs written into an fp32 ONNX model, with scales measured on images.

Symmetric int8: per-channel weights (a convolution's output channels), stored as int8; per-tensor activations, pairs on the
inputs of weighted operators; at a residual sum on the branch that the convolution before it did not make, so that
convolution and sum fuse. Biases stay float. Convolutions that gain nothing from int8 (under 16 channels in or out,
depthwise with a 1x1 kernel) are left alone. The rules are NVIDIA's for TensorRT's explicit quantization; what CPUs run in
integers throughout is written by `integers`.

A model has two emissions: opset 17 with float32 around the pairs, which TensorRT 8.6 reads, and opset 19 with fp16 around
them for TensorRT 10 and later, where types are what the graph says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx

from slimexport.onnx_files.pairs import Affine, PairWriter, Recorded
from slimexport.onnx_files.ranges import FLOOR, LEVELS, weight_scales
from slimexport.onnx_files.typed import declare, to_typed
from slimtrain.base.errors import UserError

FLOOR_FP16 = 2.0**-14  # the smallest normal fp16 number, for scales that are stored as fp16
LARGEST_FP16 = 65504.0
LEAST_CHANNELS = 16
VERSIONS = {False: (17, 8), True: (19, 9)}  # opset and IR version, by `half`
WEIGHTED = ("Conv", "Gemm")
Site = tuple[int, int]  # a node's number and the number of its operand


# ---------------------------------------------------------------------------------------------------------- where


def quantized_inputs(model: onnx.ModelProto) -> list[str]:
    """The activations that get a quantize-dequantize pair, in graph order, each once."""
    return list(dict.fromkeys(model.graph.node[number].input[operand] for number, operand in _sites(model.graph)))


def _sites(graph: onnx.GraphProto) -> Iterator[Site]:
    """The operands that are read through a pair, in graph order; a weighted operator's weights go with its operand 0."""
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    writers = {output: node for node in graph.node for output in node.output}
    readers: dict[str, int] = {}
    for node in graph.node:
        for name in node.input:
            readers[name] = readers.get(name, 0) + 1
    for number, node in enumerate(graph.node):
        if node.op_type in WEIGHTED and _gains(node, shapes):
            yield number, 0
        elif node.op_type == "Add":
            # Operands that a quantized convolution writes for this sum alone: one of them takes the sum into itself.
            fusing = [
                operand
                for operand, name in enumerate(node.input)
                if (writer := writers.get(name)) is not None
                and writer.op_type == "Conv"
                and _gains(writer, shapes)
                and readers[name] == 1
            ]
            if len(fusing) == 2:  # a shortcut with a convolution: it reads the block's input, as the main branch does
                shared = [operand for operand in fusing if readers[writers[node.input[operand]].input[0]] > 1]
                fusing.remove(shared[0] if len(shared) == 1 else fusing[1])
            if fusing:
                yield number, 1 - fusing[0]


def _gains(node: onnx.NodeProto, shapes: Mapping[str, Sequence[int]]) -> bool:
    """Whether a weighted operator is worth quantizing."""
    attributes = {attribute.name: attribute.i for attribute in node.attribute}
    if node.input[1] not in shapes:  # weights that the network computes
        return False
    shape = shapes[node.input[1]]
    if node.op_type == "Gemm":
        assert attributes.get("transB") == 1, "weights [out, in]: scales belong to axis 0"
        return True
    group = attributes.get("group", 1)
    if group > 1 and shape[1] == 1:  # depthwise
        return max(shape[2:]) > 1 and shape[0] >= LEAST_CHANNELS
    return min(shape[0] // group, shape[1]) >= LEAST_CHANNELS


# ----------------------------------------------------------------------------------------------------------- writing


def quantize(model: onnx.ModelProto, scales: Mapping[str, float], half: bool = False) -> onnx.ModelProto:
    """`model` (fp32) with pairs on the activations of `scales` and on the weights that they meet.

    `half`: the emission for TensorRT 10 and later, fp16 tensors and scales at opset 19, input and output float32.
    UserError where weights or activations are larger than fp16 can hold.
    """
    return recorded_pairs(model, scales, half)[0]


def recorded_pairs(
    model: onnx.ModelProto, scales: Mapping[str, float], half: bool = False
) -> tuple[onnx.ModelProto, Recorded]:
    """The same, and what was decided."""
    large = [name for name, value in scales.items() if value * LEVELS > LARGEST_FP16]
    if half and large:
        raise UserError(
            f"{large[0]}: activations of up to {scales[large[0]] * LEVELS:.3g} on the calibration images, fp16 holds "
            f"{LARGEST_FP16:.0f}. Use the int8 file with float32 around it, or fp32."
        )
    quantized = onnx.ModelProto()
    quantized.CopyFrom(model)
    floor, kind = (FLOOR_FP16, np.float16) if half else (FLOOR, np.float32)
    writer = PairWriter(quantized.graph, lambda scale: scale.astype(kind))
    sites: dict[int, int] = dict(_sites(model.graph))
    reads: dict[Site, float] = {}
    weighted: set[str] = set()
    nodes = list(quantized.graph.node)
    del quantized.graph.node[:]
    for number, node in enumerate(nodes):
        name = node.input[sites[number]] if number in sites else ""
        if name in scales:
            reads[number, sites[number]] = float(kind(np.float32(max(scales[name], floor))))
            if node.op_type in WEIGHTED:
                weight = node.input[1]
                weighted.add(node.output[0])
                node.input[1] = writer.weight(weight, weight_scales(writer.weights[weight], LEVELS, floor), LEVELS)
            affine = Affine(np.float32(max(scales[name], floor)), np.int8(0))
            node.input[sites[number]] = writer.activation(name, affine)
        quantized.graph.node.append(node)
    writer.finish()
    if half:
        quantized, _ = to_typed(quantized, "fp16")
    declare(quantized, "int8-fp16" if half else "int8", *VERSIONS[half])
    around = "float16" if half else "float32"
    return quantized, Recorded(model, {}, writer.integers, reads, weighted, LEVELS, floor, number=around)
