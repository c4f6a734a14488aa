"""fp16 and bf16 networks: an fp32 ONNX model whose tensors get another type, with one cast at each end.

Input and output stay float32, so that a file of any precision is run alike. Nothing is decided by the runtime: a
strongly typed builder (TensorRT 10 and later) does what the types say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from slimexport.target.manifest import Rounding
from slimexport.target.precision import PRECISIONS
from slimtrain.base.errors import UserError

SHOWN = 3  # tensors that a message names
TWIN_OPSET = 21  # at most


@dataclass(frozen=True)
class NumberType:
    """A type of tensors: its number in ONNX, numpy's type, opset and IR version that have it."""

    tensor: int
    array: np.dtype[Any]
    opset: int
    ir_version: int

    @property
    def limits(self) -> tuple[float, float]:
        """The smallest normal number and the largest."""
        return _limits(self.array)


def _limits(number: str | np.dtype[Any]) -> tuple[float, float]:
    info = ml_dtypes.finfo(number)  # type: ignore[no-untyped-call]
    return float(info.tiny), float(info.max)


TYPES = {
    "float16": NumberType(TensorProto.FLOAT16, np.dtype(np.float16), 17, 8),
    # Conv and the pools take bf16 from opset 22 on, which IR 10 can hold.
    "bfloat16": NumberType(TensorProto.BFLOAT16, np.dtype(ml_dtypes.bfloat16), 22, 10),
}


@dataclass
class _Count:
    """What a change of type does to the weights (not to scalars such as Clip's bounds): how many are lost (rounded to
    zero), how many are subnormal and thus less exact, and which tensors overflow."""

    values: int = 0
    lost: int = 0
    subnormal: int = 0
    overflowing: list[str] = field(default_factory=list)


def to_typed(model: onnx.ModelProto, precision: str) -> tuple[onnx.ModelProto, Rounding]:
    """`model` (float32) computed in `precision`, whose number is one of TYPES, and what that does to its weights.

    Reshape's and Split's integers and int8 zero points stay. UserError where a weight is larger than the type can hold.
    """
    kind = TYPES[PRECISIONS[precision].number]
    typed = onnx.ModelProto()
    typed.CopyFrom(model)
    count = _Count()
    del typed.graph.value_info[:]  # of the types that were
    graph = typed.graph
    exact = {node.input[2] for node in graph.node if node.op_type == "Resize"}  # factors, which are float32 always
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and tensor.name not in exact:
            tensor.CopyFrom(_round(tensor, kind, count))
    if count.overflowing:
        more = f" and {len(count.overflowing) - SHOWN} more" if len(count.overflowing) > SHOWN else ""
        raise UserError(
            f"{precision}: weights of {', '.join(count.overflowing[:SHOWN])}{more} are larger than {precision} can hold "
            f"({kind.limits[1]:.4g}). Export {' or '.join(_wider(kind))}."
        )
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = kind.tensor
    if kind.tensor == TensorProto.BFLOAT16:
        _spell_out(graph)
    _cast_ends(graph, kind.tensor)
    declare(typed, precision, kind.opset, kind.ir_version)
    return typed, Rounding(weights=count.values, underflow_to_zero=count.lost, subnormal=count.subnormal)


def _spell_out(graph: onnx.GraphProto) -> None:
    """HardSwish as TensorRT's parser takes it in bf16: the HardSigmoid that it is made of, times what it is of."""
    nodes = []
    for node in graph.node:
        if node.op_type != "HardSwish":
            nodes.append(node)
            continue
        gate = f"{node.output[0]}.hard_sigmoid"
        nodes += [
            helper.make_node("HardSigmoid", [node.input[0]], [gate], f"{node.name}.hard_sigmoid", alpha=1 / 6, beta=0.5),
            helper.make_node("Mul", [node.input[0], gate], list(node.output), node.name),
        ]
    del graph.node[:]
    graph.node.extend(nodes)


def _wider(kind: NumberType) -> list[str]:
    """The precisions whose files hold larger numbers."""
    files = (row for row in PRECISIONS.values() if row.weight_bytes is not None and not row.calibrated)
    return [row.name for row in files if _limits(row.number)[1] > kind.limits[1]]


def declare(model: onnx.ModelProto, precision: str, opset: int, ir_version: int) -> None:
    """Set a model's opset and IR version, and the `precision` of its metadata where it has one."""
    if opset > max(version.version for version in model.opset_import if not version.domain):
        _as_of(model.graph, opset)
    domains = [version for version in model.opset_import if version.domain]  # of plugins
    del model.opset_import[:]
    model.opset_import.extend([helper.make_opsetid("", opset), *domains])
    model.ir_version = ir_version
    for entry in model.metadata_props:
        if entry.key == "precision":
            entry.value = precision


MODES_BEFORE_20 = {b"bilinear": b"linear", b"bicubic": b"cubic"}  # of GridSample


def _as_of(graph: onnx.GraphProto, opset: int) -> None:
    """Operators of opset 17 as a later one writes them: it takes the axes of reductions as a tensor, wants to be told into how
    many parts a Split goes, and calls the modes of GridSample otherwise."""
    known = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        attributes = {attribute.name: attribute for attribute in node.attribute}
        if opset >= 18 and node.op_type.startswith("Reduce") and "axes" in attributes:
            axes = attributes["axes"]
            name = f"axes_{'_'.join(map(str, axes.ints))}".replace("-", "m")
            if name not in known:
                known.add(name)
                graph.initializer.append(numpy_helper.from_array(np.array(axes.ints, np.int64), name))
            node.attribute.remove(axes)
            node.input.append(name)
        elif opset >= 18 and node.op_type == "Split" and len(node.input) == 1 and "num_outputs" not in attributes:
            node.attribute.append(helper.make_attribute("num_outputs", len(node.output)))
        elif opset >= 20 and node.op_type == "GridSample":
            attributes["mode"].s = MODES_BEFORE_20.get(attributes["mode"].s, attributes["mode"].s)


def _round(tensor: TensorProto, kind: NumberType, count: _Count) -> TensorProto:
    """A float32 initializer as `kind`; what it costs is added to `count`."""
    values = numpy_helper.to_array(tensor)
    with np.errstate(over="ignore"):
        rounded = values.astype(kind.array)
    if values.ndim:
        back = np.abs(rounded.astype(np.float32))
        count.values += values.size
        count.lost += int(((back == 0) & (values != 0)).sum())
        count.subnormal += int(((back != 0) & (back < kind.limits[0])).sum())
    masking = not values.ndim and not np.isfinite(values)  # what attention may not look at is set to it
    if not masking and not np.isfinite(rounded.astype(np.float32)).all():
        count.overflowing.append(tensor.name)
    return TensorProto(name=tensor.name, data_type=kind.tensor, dims=tensor.dims, raw_data=rounded.tobytes())


def _cast_ends(graph: onnx.GraphProto, kind: int) -> None:
    """Cast inputs right after they come in and outputs right before they go out, where they are numbers of the type that
    changes; all keep their names."""
    images, results = (
        [v for v in side if v.type.tensor_type.elem_type == TensorProto.FLOAT] for side in (graph.input, graph.output)
    )
    renamed = {value.name: f"{value.name}.typed" for value in (*images, *results)}
    for node in graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = renamed.get(name, name)
        for i, name in enumerate(node.output):
            node.output[i] = renamed.get(name, name)
    nodes = list(graph.node)
    del graph.node[:]
    for image in images:
        inside = renamed[image.name]
        graph.node.append(helper.make_node("Cast", [image.name], [inside], name=inside, to=kind))
    graph.node.extend(nodes)
    for result in results:
        graph.node.append(
            helper.make_node("Cast", [renamed[result.name]], [result.name], name=f"{result.name}.cast", to=TensorProto.FLOAT)
        )


def cast_twin(typed: onnx.ModelProto) -> onnx.ModelProto:
    """A float32 model that rounds as `typed` does: the same rounded weights, and every node's result cast to the type and
    back. It runs where there are no kernels of that type."""
    twin = onnx.ModelProto()
    twin.CopyFrom(typed)
    graph = twin.graph
    kinds = {tensor.data_type for tensor in graph.initializer} & {kind.tensor for kind in TYPES.values()}
    assert len(kinds) == 1, "a typed model has weights of one type"
    (kind,) = kinds
    for tensor in graph.initializer:
        if tensor.data_type == kind:
            values: NDArray[np.float32] = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    inferred = onnx.shape_inference.infer_shapes(typed).graph
    types = {v.name: v.type.tensor_type.elem_type for v in (*inferred.input, *inferred.value_info, *inferred.output)}
    types |= {tensor.name: tensor.data_type for tensor in typed.graph.initializer}
    nodes = list(_rounding_nodes(graph, kind, types))
    del graph.node[:]
    graph.node.extend(nodes)
    for version in twin.opset_import:
        if not version.domain:  # 22 adds bf16 alone, and onnxruntime 1.31 has no RoiAlign of it
            version.version = min(version.version, TWIN_OPSET)
    return twin


def _rounding_nodes(graph: onnx.GraphProto, kind: int, types: Mapping[str, int]) -> Iterator[onnx.NodeProto]:
    """The nodes of a typed graph, in float32, each followed by casts of its results of type `kind` to that and back. `types`:
    those of the values; what has another one, as sizes have, and parts that are float32, is not rounded."""
    for node in graph.node:
        if node.op_type == "Cast" and types.get(node.input[0]) == kind and types.get(node.output[0]) == TensorProto.FLOAT:
            yield helper.make_node("Identity", list(node.input), list(node.output), name=node.name)
            continue
        rounding = [name for name in node.output if name and types.get(name, kind) == kind]
        if not rounding:
            yield node
            continue
        exact = onnx.NodeProto()
        exact.CopyFrom(node)
        exact.output[:] = [f"{name}.exact" if name in rounding else name for name in node.output]
        if node.op_type == "Cast":
            same = types.get(node.input[0], kind) in (kind, TensorProto.FLOAT)
            if same:
                exact = helper.make_node("Identity", list(node.input), list(exact.output), name=node.name)
            else:
                exact.attribute[0].i = TensorProto.FLOAT
        yield exact
        for name in rounding:
            rounded = f"{name}.rounded"
            yield helper.make_node("Cast", [f"{name}.exact"], [rounded], name=rounded, to=kind)
            yield helper.make_node("Cast", [rounded], [name], name=f"{name}.back", to=TensorProto.FLOAT)
