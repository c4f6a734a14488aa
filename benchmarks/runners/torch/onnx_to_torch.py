"""An exported ONNX file as an ordinary torch network, so that torch measures what the bundle holds and needs no checkpoint.

The inverse of `slimexport.onnx_files.graph` (and of `slimexport.onnx_files.typed`'s casts), operator by operator: what that
writes is read, everything else is refused by name. Modules are called after the file's nodes, which are called after the
dense network's modules, so both networks have the same modules under the same names.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import NodeProto, TensorProto, helper
from torch import Tensor, fx, nn

from benchmarks.runners.failures import first_line
from slimtrain.base.errors import UserError

TYPES = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.BFLOAT16: torch.bfloat16,
    TensorProto.INT64: torch.int64,
}
SHUFFLED = (0, 2, 1, 3, 4)  # [N, g, c, H, W] -> [N, c, g, H, W]
WINDOW: dict[str, Sequence[int]] = {"kernel_shape": (), "strides": (1, 1), "pads": (0, 0, 0, 0)}  # ONNX's defaults
QUANTIZING = ("QuantizeLinear", "DequantizeLinear")

Pair = tuple[int, int]


class UnsupportedFile(UserError):
    """An ONNX file holds something that this reader has no torch form for."""


def dense_from_onnx(path: Path) -> fx.GraphModule:
    """The network of an ONNX file that slimexport wrote, in evaluation mode, its weights in the file's type.

    float32 images [N, C, H, W] -> float32 logits [N, classes], several outputs by name; fp16 and bf16 files cast inside.
    Raises UnsupportedFile, naming the operator, for a file with others than slimexport writes, and for int8 files.
    """
    try:
        model = onnx.load(path)
    except Exception as error:  # protobuf's DecodeError derives from Exception alone, and onnx raises others
        raise UnsupportedFile(f"{path.name}: onnx cannot read it ({first_line(error)}). Export again.") from error
    return _Reader(model.graph, path.name).read()


class _Reader:
    """One pass over a graph's nodes, which are in the order that they run in."""

    def __init__(self, graph: onnx.GraphProto, file: str) -> None:
        self.onnx, self.file = graph, file
        self.graph = fx.Graph()
        self.modules: dict[str, nn.Module] = {}
        self.values: dict[str, fx.Node] = {}  # name of a value -> what computes it
        self.tensors = {tensor.name: tensor for tensor in graph.initializer}
        self.readers = Counter(name for node in graph.node for name in node.input)

    def read(self) -> fx.GraphModule:
        if len(self.onnx.input) != 1 or not self.onnx.output:
            raise self.refuse(f"has {len(self.onnx.input)} inputs and {len(self.onnx.output)} outputs, expected one input")
        nodes = list(self.onnx.node)
        self.values[self.onnx.input[0].name] = self.graph.placeholder("x")
        while nodes:
            node = nodes.pop(0)
            if node.op_type == "Reshape":
                self._shuffle(node, nodes)
            elif node.op_type in OPERATORS:
                OPERATORS[node.op_type](self, node, attributes(node))
            elif node.op_type in QUANTIZING:
                raise self.refuse(f"is an int8 file ({node.op_type}); torch runs fp32, fp16 and bf16 files")
            else:
                known = ", ".join(sorted({*OPERATORS, "Reshape"}))
                raise self.refuse(f"operator {node.op_type} has no torch form here. Known are {known}")
        results = {output.name: self.value(output.name) for output in self.onnx.output}
        self.graph.output(results if len(results) > 1 else next(iter(results.values())))
        network = fx.GraphModule(self.modules, self.graph, class_name=Path(self.file).name.split(".")[0])
        return network.eval()

    def refuse(self, what: str) -> UnsupportedFile:
        return UnsupportedFile(f"{self.file}: {what}.")

    def unsupported(self, node: NodeProto, what: str) -> UnsupportedFile:
        return self.refuse(f"{node.op_type} {node.name or node.output[0]} with {what} has no torch form here")

    def value(self, name: str) -> fx.Node:
        if name not in self.values:
            raise self.refuse(f"nothing computes {name!r} before it is read")
        return self.values[name]

    def tensor(self, node: NodeProto, index: int) -> Tensor:
        """The initializer that is an operand of `node`, with storage of its own."""
        name = node.input[index]
        stored = self.tensors.get(name)
        if stored is None or stored.data_type not in TYPES or not stored.raw_data:
            raise self.unsupported(node, f"operand {name!r}, which is no weight stored in the file,")
        return torch.frombuffer(bytearray(stored.raw_data), dtype=TYPES[stored.data_type]).reshape(tuple(stored.dims))

    def integers(self, node: NodeProto, index: int) -> list[int]:
        return [int(number) for number in self.tensor(node, index).tolist()]

    def add_module(self, node: NodeProto, module: nn.Module) -> None:
        """`module` reads the node's first input."""
        path = node.name or node.output[0]
        self.modules[path] = module
        self.values[node.output[0]] = self.graph.call_module(path, (self.value(node.input[0]),))

    def add_function(self, node: NodeProto, function: Callable[..., Any], *arguments: Any) -> fx.Node:
        call = self.graph.call_function(function, arguments)
        self.values[node.output[0]] = call
        return call

    def in_place(self, node: NodeProto) -> bool:
        """Whether the node may overwrite its input, as the dense network's activations do: it is the only one to read it, and
        what it reads has memory of its own."""
        maker = self.value(node.input[0])
        computed = self.modules.get(str(maker.target))
        fresh = maker.target in (operator.add, torch.cat) or isinstance(computed, nn.Conv2d | nn.BatchNorm2d)
        return fresh and self.readers[node.input[0]] == 1

    def _shuffle(self, node: NodeProto, rest: list[NodeProto]) -> None:
        """A channel shuffle is written as reshape, transpose, reshape."""
        if [follower.op_type for follower in rest[:2]] != ["Transpose", "Reshape"]:
            raise self.unsupported(node, "anything but a channel shuffle's transpose and reshape behind it")
        transpose, last = rest.pop(0), rest.pop(0)
        split, whole = self.integers(node, 1), self.integers(last, 1)
        chained = transpose.input[0] == node.output[0] and last.input[0] == transpose.output[0]
        same = len(split) == 5 and [split[0], split[1] * split[2], *split[3:]] == whole and split[0] == 0
        if not chained or not same or tuple(attributes(transpose).get("perm", ())) != SHUFFLED:
            raise self.unsupported(node, "these shapes")
        self.modules[last.name or last.output[0]] = nn.ChannelShuffle(split[1])
        self.values[last.output[0]] = self.graph.call_module(last.name or last.output[0], (self.value(node.input[0]),))


def attributes(node: NodeProto) -> dict[str, Any]:
    """A node's attributes by name, as Python values."""
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _window(reader: _Reader, node: NodeProto, given: Mapping[str, Any]) -> tuple[Pair, Pair, Pair]:
    """Kernel, stride and padding of a convolution or pool, each of two numbers."""
    kernel, stride, pads = (given.get(key, default) for key, default in WINDOW.items())
    dilated = any(step != 1 for step in given.get("dilations", ()))
    uneven = len(pads) != 4 or list(pads[:2]) != list(pads[2:])
    if len(kernel) != 2 or len(stride) != 2 or uneven or dilated or given.get("ceil_mode") or given.get("auto_pad"):
        raise reader.unsupported(node, f"kernel {kernel}, strides {stride}, pads {pads} or other settings of its window")
    return (kernel[0], kernel[1]), (stride[0], stride[1]), (pads[0], pads[1])


def _conv(reader: _Reader, node: NodeProto, given: Mapping[str, Any]) -> None:
    kernel, stride, padding = _window(reader, node, given)
    weight, groups = reader.tensor(node, 1), given.get("group", 1)
    bias = reader.tensor(node, 2) if len(node.input) > 2 else None
    out, inp = weight.shape[0], weight.shape[1] * groups
    with torch.device("meta"):
        module = nn.Conv2d(inp, out, kernel, stride, padding, groups=groups, bias=bias is not None)
    reader.add_module(node, _with_weights(module, weight, bias))


def _linear(reader: _Reader, node: NodeProto, given: Mapping[str, Any]) -> None:
    if {**given, "transB": given.get("transB", 0)} != {"transB": 1}:
        raise reader.unsupported(node, f"attributes {dict(given)}")
    weight = reader.tensor(node, 1)
    bias = reader.tensor(node, 2) if len(node.input) > 2 else None
    with torch.device("meta"):
        module = nn.Linear(weight.shape[1], weight.shape[0], bias is not None)
    reader.add_module(node, _with_weights(module, weight, bias))


def _with_weights(module: nn.Conv2d | nn.Linear, weight: Tensor, bias: Tensor | None) -> nn.Module:
    module.weight = nn.Parameter(weight, requires_grad=False)
    module.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
    return module


def _norm(reader: _Reader, node: NodeProto, given: Mapping[str, Any]) -> None:
    scale, shift, mean, var = (reader.tensor(node, index) for index in range(1, 5))
    module = nn.BatchNorm2d(len(scale), eps=given.get("epsilon", 1e-5), device="meta")
    module.weight, module.bias = nn.Parameter(scale, requires_grad=False), nn.Parameter(shift, requires_grad=False)
    module.running_mean, module.running_var, module.num_batches_tracked = mean, var, torch.zeros((), dtype=torch.long)
    reader.add_module(node, module)


def _relu(reader: _Reader, node: NodeProto, given: Mapping[str, Any]) -> None:
    reader.add_module(node, nn.ReLU(inplace=reader.in_place(node)))


def _clip(reader: _Reader, node: NodeProto, given: Mapping[str, Any]) -> None:
    bounds = [float(reader.tensor(node, index)) for index in range(1, len(node.input))]
    if bounds != [0.0, 6.0]:
        raise reader.unsupported(node, f"bounds {bounds}")
    reader.add_module(node, nn.ReLU6(inplace=reader.in_place(node)))


def _max_pool(reader: _Reader, node: NodeProto, given: Mapping[str, Any]) -> None:
    if len(node.output) > 1:
        raise reader.unsupported(node, "indices")
    reader.add_module(node, nn.MaxPool2d(*_window(reader, node, given)))


def _average_pool(reader: _Reader, node: NodeProto, given: Mapping[str, Any]) -> None:
    kernel, stride, padding = _window(reader, node, given)
    counted = bool(given.get("count_include_pad", 0))
    reader.add_module(node, nn.AvgPool2d(kernel, stride, padding, count_include_pad=counted))


def _global_pool(reader: _Reader, node: NodeProto, given: Mapping[str, Any]) -> None:
    reader.add_module(node, nn.AdaptiveAvgPool2d(1))


def _flatten(reader: _Reader, node: NodeProto, given: Mapping[str, Any]) -> None:
    if given.get("axis", 1) != 1:
        raise reader.unsupported(node, f"axis {given['axis']}")
    reader.add_module(node, nn.Flatten(1))


def _add(reader: _Reader, node: NodeProto, given: Mapping[str, Any]) -> None:
    reader.add_function(node, operator.add, *map(reader.value, node.input))


def _concat(reader: _Reader, node: NodeProto, given: Mapping[str, Any]) -> None:
    if given.get("axis") != 1:
        raise reader.unsupported(node, f"axis {given.get('axis')}")
    reader.add_function(node, torch.cat, [reader.value(name) for name in node.input], 1)


def _split(reader: _Reader, node: NodeProto, given: Mapping[str, Any]) -> None:
    sizes = reader.integers(node, 1) if len(node.input) > 1 else []
    if given.get("axis") != 1 or len(sizes) != len(node.output) or len(set(sizes)) != 1:
        raise reader.unsupported(node, f"parts of {sizes} along axis {given.get('axis')}")
    parts = reader.add_function(node, torch.chunk, reader.value(node.input[0]), len(sizes), 1)
    for index, name in enumerate(node.output):
        reader.values[name] = reader.graph.call_function(operator.getitem, (parts, index))


def _cast(reader: _Reader, node: NodeProto, given: Mapping[str, Any]) -> None:
    kind = TYPES.get(given.get("to", 0))
    if kind is None or not kind.is_floating_point:
        raise reader.unsupported(node, f"type {given.get('to')}")
    reader.values[node.output[0]] = reader.graph.call_method("to", (reader.value(node.input[0]), kind))


OPERATORS: dict[str, Callable[[_Reader, NodeProto, Mapping[str, Any]], None]] = {
    "Conv": _conv,
    "BatchNormalization": _norm,
    "Relu": _relu,
    "Clip": _clip,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global_pool,
    "Flatten": _flatten,
    "Gemm": _linear,
    "Add": _add,
    "Concat": _concat,
    "Split": _split,
    "Cast": _cast,
}
