"""ONNX models of small modules, and of published networks at a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
from onnx import helper, numpy_helper
from torch import nn

from slimexport.onnx_files.graph_writer import write_graph
from slimexport.target.arrays import Array
from slimtrain.base.image_size import ImageSize, sides
from slimtrain.models.channels import ChannelPlan
from slimtrain.slimmable.graph_dense import stored_tensors
from slimtrain.slimmable.network import SlimmableNetwork
from tests.support.graph_cases import traced


def module_onnx(module: nn.Module, image_size: ImageSize, metadata: Mapping[str, str] | None = None) -> onnx.ModelProto:
    """Of a module that takes color images."""
    return write_graph(*traced(module.eval(), (3, *sides(image_size))), metadata=metadata)


def plan_onnx(
    network: SlimmableNetwork,
    plan: ChannelPlan,
    image_size: ImageSize,
    metadata: Mapping[str, str] | None = None,
    name: str = "network",
) -> onnx.ModelProto:
    """Of a slimmable network at a plan."""
    return write_graph(network.spec.sizing(plan, image_size), stored_tensors(network, plan), name=name, metadata=metadata)


def nodes_onnx(
    nodes: Sequence[onnx.NodeProto],
    tensors: Mapping[str, Array],
    size: int,
    outputs: Mapping[str, Sequence[int | str]],
    opset: int = 17,
) -> onnx.ModelProto:
    """Of nodes as they are, which take `input`, color images of that size, with stored `tensors`; `outputs`: their shapes."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, ["N", 3, size, size])],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(values, name) for name, values in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
