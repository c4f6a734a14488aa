"""ONNX written directly from a graph at a plan: exact opset, names that follow the module tree, the same bytes each time.

What every operator becomes stands in `operators/`; what opset 17 cannot say is refused by the node's name. Nothing is
optimized afterwards: what depends on parameters alone is computed before (`preparation`), and nothing superfluous is written.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper
from torch import Tensor

from slimexport.onnx_files.operators import (  # noqa: F401  they enter forms
    activations,
    convolutions,
    lookups,
    moves,
    norms,
    pointwise,
    pools,
    products,
    reductions,
    resizing,
    spaces,
    views,
)
from slimexport.onnx_files.operators.program import Action, Program
from slimexport.onnx_files.operators.registry import FORMS, NUMPY, Call, refusal
from slimexport.onnx_files.operators.sheet import Sheet
from slimexport.onnx_files.preparation import prepared
from slimtrain.base.errors import UserError
from slimtrain.graph.graph import Batch, Graph, Size, Value
from slimtrain.graph.sizes import Sizing

OPSET = 17
IR_VERSION = 8  # TensorRT 8.6 reads no more
INPUT, BATCH = "input", "batch"
INNER = "inner_values"  # of metadata: a JSON object
LARGEST_BYTES = 2**31 - 2**20  # of one file: protobuf holds no more


class TooLarge(UserError):
    """A network that does not fit into one ONNX file."""

    exit_code = 2


def write_graph(
    sizing: Sizing,
    tensors: Mapping[str, Tensor],
    *,
    name: str = "network",
    metadata: Mapping[str, str] | None = None,
    inner: Mapping[str, Value] | None = None,
) -> onnx.ModelProto:
    """The ONNX model of a graph at a plan: `input` [batch, C, H, W] -> `output`, or what its outputs are called.
    `tensors`: its parameters at the plan, by name; float64 ones are rounded to float32 at the end. `inner`: values by what
    they are known as: the file's metadata say what they are called in it (`INNER`).

    Opset 17, IR version 8, any batch. Raises NoOnnxForm, naming the node, for what has no form, TooLarge beyond 2 GB.
    """
    program = prepared(sizing, tensors)
    graph = sizing.graph
    inputs = input_names(graph)
    outputs = output_names(graph)
    sheet = Sheet(next(iter(inputs.values())), taken={*inputs.values(), *outputs})
    names = {Value(node): input_ for node, input_ in inputs.items()}
    path_names = _names_of(program)
    for action in program.actions:
        form = FORMS.get(action.kind)
        if form is None:
            raise refusal(action, "has no ONNX form here")
        call = Call(action, program, sheet, names)
        written = form(call)
        results = [written] if isinstance(written, str) else written
        named = sheet.add(call.nodes, results, path_names[action.node.name])
        names |= {Value(action.node.name, output): result for output, result in enumerate(named)}
    known = _finish(sheet, program, names, outputs, inner or {})
    if sum(map(_bytes_of, sheet.initializers)) > LARGEST_BYTES:
        raise TooLarge(f"{name}: its weights exceed the 2 GB that one ONNX file holds. Export it at narrower widths.")
    model = helper.make_model(
        helper.make_graph(
            sheet.nodes,
            name,
            [_declared(inputs[node], type_.shape, type_.dtype) for node, type_ in graph.inputs],
            [
                _declared(output, program.shape(value), program.dtype(value))
                for output, value in zip(outputs, program.outputs(), strict=True)
            ],
        ),
        opset_imports=[
            helper.make_opsetid("", OPSET),
            *(helper.make_opsetid(domain, 1) for domain in sorted({node.domain for node in sheet.nodes} - {""})),  # plugins
        ],
        ir_version=IR_VERSION,
    )
    model.graph.initializer.extend(sheet.initializers)  # last: making a model copies its graph
    model.producer_name = "slimexport"
    helper.set_model_props(model, {**(metadata or {}), **({INNER: json.dumps(known)} if known else {})})
    return model


def input_names(graph: Graph) -> dict[str, str]:
    """What a graph's inputs are called in the file, by their names in the graph."""
    nodes = [node for node, _ in graph.inputs]
    return {nodes[0]: INPUT} if len(nodes) == 1 else {node: f"{INPUT}_{place}" for place, node in enumerate(nodes)}


def output_names(graph: Graph) -> list[str]:
    """What a graph's outputs are called in the file."""
    return [name for name, _ in graph.results]


def _names_of(program: Program) -> dict[str, str]:
    """What the nodes' results are called: as the module that makes them, where it does nothing else, and otherwise as the
    module and the operator."""
    kinds: dict[str, set[str]] = defaultdict(set)
    inside = set()
    for node in program.sizing.graph.nodes:
        kinds[node.module].add(node.kind)
        parts = node.module.split(".")
        inside |= {".".join(parts[:length]) for length in range(len(parts))}
    names = {}
    for action in program.actions:
        node = action.node
        alone = node.module and node.module not in inside and len(kinds[node.module]) == 1
        names[node.name] = node.module if alone else f"{node.module}.{node.kind}" if node.module else node.kind
    return names


def _finish(
    sheet: Sheet, program: Program, names: dict[Value, str], outputs: list[str], inner: Mapping[str, Value]
) -> dict[str, str]:
    """Give the results their names; one that is an input, a stored tensor or another result too is copied. What the `inner`
    values are called."""
    last = Call(Action(program.sizing.graph.nodes[-1], "output", {}), program, sheet, names)
    values = [last.name(value) for value in program.outputs()]
    written = {output for node in sheet.nodes for output in node.output}
    renamed = {
        value: output for value, output in zip(values, outputs, strict=True) if values.count(value) == 1 and value in written
    }
    for node in sheet.nodes:
        node.input[:] = [renamed.get(value, value) for value in node.input]
        node.output[:] = [renamed.get(value, value) for value in node.output]
    for value, output in zip(values, outputs, strict=True):
        if value not in renamed:
            sheet.nodes.append(helper.make_node("Identity", [value], [output], name=output))
    sheet.prune(outputs)
    own = {key: last.name(value) for key, value in inner.items()}
    return {key: renamed.get(value, value) for key, value in own.items()}


def _bytes_of(tensor: onnx.TensorProto) -> int:
    """What a tensor holds; asked for itself, that would be copied."""
    return math.prod(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize


def _declared(name: str, shape: tuple[Size, ...], dtype: str) -> onnx.ValueInfoProto:
    dims: list[Any] = []
    for size in shape:
        if isinstance(size, Batch):
            dims.append(BATCH if size.factor == 1 else f"{size.factor}*{BATCH}")
        else:
            dims.append(size)
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(NUMPY[dtype])), dims)
