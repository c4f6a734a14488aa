"""ONNX written directly from a dense network: exact opset, names that follow the module tree, the same bytes each time.

About a dozen operators are known; anything else is refused by name. Nothing is optimized afterwards, because nothing
superfluous is written.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import Tensor, fx, nn

from slimexport.onnx_files.operators.sheet import unique_name
from slimtrain.base.image_size import ImageSize, sides

OPSET = 17
IR_VERSION = 8  # TensorRT 8.6 reads no more
INPUT, OUTPUT, BATCH = "input", "output", "batch"

TensorShape = tuple[int, ...]  # without the batch


class UnsupportedModule(ValueError):
    """The network holds something that this writer has no ONNX form for."""


def to_onnx(
    network: nn.Module, image_size: ImageSize, metadata: Mapping[str, str], name: str = "network", channels: int = 3
) -> onnx.ModelProto:
    """The ONNX model of a dense network: `input` [batch, channels, height, width] -> `output` [batch, classes].

    Opset 17, IR version 8. Raises UnsupportedModule, naming the module, for an operation it does not know.
    """
    traced = network if isinstance(network, fx.GraphModule) else fx.symbolic_trace(network)
    writer = _Writer(traced)
    shape = channels, *sides(image_size)
    result = writer.write(shape)
    graph = helper.make_graph(
        writer.nodes,
        name,
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [BATCH, *shape])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [BATCH, *result])],
        writer.initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    model.producer_name = "slimexport"
    helper.set_model_props(model, dict(metadata))
    return model


class _Writer:
    """One pass over a traced network, collecting nodes and initializers and following shapes."""

    def __init__(self, network: fx.GraphModule) -> None:
        self.network = network
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[TensorProto] = []
        self.names: dict[Any, str | list[str]] = {}  # fx node -> value name, or names where it has several
        self.shapes: dict[Any, TensorShape] = {}
        self.taken = {OUTPUT}
        self.named: dict[str, str] = {}  # a weight's key -> the initializer that holds it

    def write(self, shape: TensorShape) -> TensorShape:
        """Write all nodes; the shape of the network's output."""
        for node in self.network.graph.nodes:
            if node.op == "placeholder":
                if INPUT in self.taken:
                    raise UnsupportedModule(f"{node.name}: a second input; the network is to take images only")
                self.taken.add(INPUT)
                self.names[node], self.shapes[node] = INPUT, shape
            elif node.op == "output":
                return self._finish(node.args[0])
            elif node.op == "call_module":
                self._module(node)
            elif node.op == "call_function" and node.target in FUNCTIONS:
                FUNCTIONS[node.target](self, node)
            else:
                raise UnsupportedModule(f"{self._path(node)}: {node.op} {node.target} has no ONNX form here")
        raise UnsupportedModule("the network returns nothing")

    def _finish(self, node: Any) -> TensorShape:
        """Name the last value `output`."""
        last = self.nodes[-1] if self.nodes else None
        if last is None or not isinstance(node, fx.Node) or list(last.output) != [self.names[node]]:
            raise UnsupportedModule("the network does not return its last layer's result")
        last.output[0] = OUTPUT
        return self.shapes[node]

    def _module(self, node: fx.Node) -> None:
        module = self.network.get_submodule(str(node.target))
        for kind, write in MODULES.items():
            if type(module) is kind:
                write(self, node, module)
                return
        known = ", ".join(kind.__name__ for kind in MODULES)
        raise UnsupportedModule(f"{node.target}: {type(module).__name__} has no ONNX form here. Known are {known}")

    def _path(self, node: fx.Node) -> str:
        """The module in whose forward pass a function was called."""
        stack = node.meta.get("nn_module_stack") or {}
        return next(reversed(stack), "") if stack else ""

    def unique(self, name: str) -> str:
        return unique_name(name, self.taken)

    def function_name(self, node: fx.Node, kind: str) -> str:
        path = self._path(node)
        return self.unique(f"{path}.{kind}" if path else kind)

    def weight(self, key: str, value: Tensor) -> str:
        """The initializer of a module's weight; a module that runs twice has one."""
        if key not in self.named:
            if value.dtype != torch.float32:
                raise UnsupportedModule(f"{key}: is {value.dtype}, expected float32. Convert the network with .float()")
            self.named[key] = self.initializer(key, value)
        return self.named[key]

    def initializer(self, name: str, value: NDArray[Any] | Tensor) -> str:
        name = self.unique(name)
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else value
        array = np.asarray(array, array.dtype.newbyteorder("<"), order="C")  # which leaves scalars as they are
        tensor = TensorProto(
            name=name, data_type=helper.np_dtype_to_tensor_dtype(array.dtype), dims=array.shape, raw_data=array.tobytes()
        )
        self.initializers.append(tensor)
        return name

    def constant(self, name: str, values: Any) -> str:
        """A small initializer that is shared by all who ask for it under this name."""
        if name not in self.named:
            self.named[name] = self.initializer(name, values)
        return self.named[name]

    def emit(self, op: str, name: str, inputs: list[str], outputs: list[str] | None = None, **attributes: Any) -> None:
        self.nodes.append(helper.make_node(op, inputs, outputs or [name], name=name, **attributes))

    def add(self, node: fx.Node, op: str, shape: TensorShape, *more: str, name: str = "", **attributes: Any) -> None:
        """A node that reads `node`'s first argument and `more`, and gives one value."""
        name = name or self.unique(str(node.target))
        self.emit(op, name, [self.value(node.args[0]), *more], **attributes)
        self.names[node], self.shapes[node] = name, shape

    def value(self, argument: Any) -> str:
        name = self.names[argument]
        assert isinstance(name, str)
        return name


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _refuse(node: fx.Node, module: nn.Module, what: str) -> UnsupportedModule:
    return UnsupportedModule(f"{node.target}: {type(module).__name__} with {what} has no ONNX form here")


def _window(node: fx.Node, module: Any, shape: TensorShape) -> tuple[dict[str, Any], tuple[int, int]]:
    """Kernel attributes of a convolution or pool, and the size of what it makes."""
    if isinstance(module.padding, str) or _pair(getattr(module, "dilation", 1)) != (1, 1):
        raise _refuse(node, module, "this padding or dilation")
    kernel, stride, padding = _pair(module.kernel_size), _pair(module.stride), _pair(module.padding)
    size = tuple((n + 2 * p - k) // s + 1 for n, k, s, p in zip(shape[1:], kernel, stride, padding, strict=True))
    attributes = {"kernel_shape": list(kernel), "strides": list(stride), "pads": [*padding, *padding]}
    return attributes, (size[0], size[1])


def _conv(writer: _Writer, node: fx.Node, module: nn.Conv2d) -> None:
    if module.padding_mode != "zeros":
        raise _refuse(node, module, f"padding mode {module.padding_mode}")
    attributes, size = _window(node, module, writer.shapes[node.args[0]])
    more = [writer.weight(f"{node.target}.weight", module.weight)]
    if module.bias is not None:
        more.append(writer.weight(f"{node.target}.bias", module.bias))
    writer.add(node, "Conv", (module.out_channels, *size), *more, group=module.groups, dilations=[1, 1], **attributes)


def _norm(writer: _Writer, node: fx.Node, module: nn.BatchNorm2d) -> None:
    if not module.affine or module.running_mean is None or module.training:
        raise _refuse(node, module, "no scale, no statistics or in training mode")
    keys = ("weight", "bias", "running_mean", "running_var")
    more = [writer.weight(f"{node.target}.{key}", getattr(module, key)) for key in keys]
    writer.add(node, "BatchNormalization", writer.shapes[node.args[0]], *more, epsilon=module.eps)


def _relu(writer: _Writer, node: fx.Node, module: nn.ReLU) -> None:
    writer.add(node, "Relu", writer.shapes[node.args[0]])


def _relu6(writer: _Writer, node: fx.Node, module: nn.ReLU6) -> None:
    low = writer.constant("relu6.min", np.float32(0))
    high = writer.constant("relu6.max", np.float32(6))
    writer.add(node, "Clip", writer.shapes[node.args[0]], low, high)


def _max_pool(writer: _Writer, node: fx.Node, module: nn.MaxPool2d) -> None:
    if module.ceil_mode or module.return_indices:
        raise _refuse(node, module, "ceil_mode or indices")
    shape = writer.shapes[node.args[0]]
    attributes, size = _window(node, module, shape)
    writer.add(node, "MaxPool", (shape[0], *size), **attributes)


def _average_pool(writer: _Writer, node: fx.Node, module: nn.AvgPool2d) -> None:
    if module.ceil_mode or module.divisor_override:
        raise _refuse(node, module, "ceil_mode or a divisor")
    shape = writer.shapes[node.args[0]]
    attributes, size = _window(node, module, shape)
    counted = int(module.count_include_pad)
    writer.add(node, "AveragePool", (shape[0], *size), count_include_pad=counted, **attributes)


def _global_pool(writer: _Writer, node: fx.Node, module: nn.AdaptiveAvgPool2d) -> None:
    if _pair(module.output_size) != (1, 1):
        raise _refuse(node, module, f"output size {module.output_size}")
    writer.add(node, "GlobalAveragePool", (writer.shapes[node.args[0]][0], 1, 1))


def _flatten(writer: _Writer, node: fx.Node, module: nn.Flatten) -> None:
    if (module.start_dim, module.end_dim) != (1, -1):
        raise _refuse(node, module, "these dimensions")
    writer.add(node, "Flatten", (int(np.prod(writer.shapes[node.args[0]])),), axis=1)


def _linear(writer: _Writer, node: fx.Node, module: nn.Linear) -> None:
    if len(writer.shapes[node.args[0]]) != 1:
        raise _refuse(node, module, "an input of more than two dimensions")
    more = [writer.weight(f"{node.target}.weight", module.weight)]
    if module.bias is not None:
        more.append(writer.weight(f"{node.target}.bias", module.bias))
    writer.add(node, "Gemm", (module.out_features,), *more, transB=1)


def _shuffle(writer: _Writer, node: fx.Node, module: nn.ChannelShuffle) -> None:
    """[N, g * c, H, W] -> [N, g, c, H, W] -> [N, c, g, H, W] -> [N, c * g, H, W]; 0 keeps the batch as it is."""
    channels, height, width = shape = writer.shapes[node.args[0]]
    groups = module.groups
    path = str(node.target)
    split = writer.initializer(f"{path}.split", np.array([0, groups, channels // groups, height, width], np.int64))
    whole = writer.initializer(f"{path}.shape", np.array([0, channels, height, width], np.int64))
    writer.emit("Reshape", writer.unique(f"{path}.grouped"), [writer.value(node.args[0]), split])
    writer.emit("Transpose", writer.unique(f"{path}.exchanged"), [writer.nodes[-1].output[0]], perm=[0, 2, 1, 3, 4])
    writer.emit("Reshape", name := writer.unique(path), [writer.nodes[-1].output[0], whole])
    writer.names[node], writer.shapes[node] = name, shape


def _arguments(node: fx.Node, *names: str) -> list[Any]:
    """A function's arguments, given by position or by name; UnsupportedModule for others than `names`."""
    if len(node.args) > len(names) or set(node.kwargs) - set(names):
        raise UnsupportedModule(f"{node.name}: these arguments have no ONNX form here")
    given = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
    return [given.get(name, 0) for name in names]  # where torch has a default, as for `dim`, it is 0


def _add(writer: _Writer, node: fx.Node) -> None:
    if not all(isinstance(argument, fx.Node) for argument in node.args) or node.kwargs:
        raise UnsupportedModule(f"{node.name}: only sums of two layers have an ONNX form here")
    if writer.shapes[node.args[0]] != writer.shapes[node.args[1]]:
        raise UnsupportedModule(f"{node.name}: a sum of two shapes has no ONNX form here")
    name = writer.function_name(node, "add")
    writer.add(node, "Add", writer.shapes[node.args[0]], writer.value(node.args[1]), name=name)


def _cat(writer: _Writer, node: fx.Node) -> None:
    parts, axis = _arguments(node, "tensors", "dim")
    if axis != 1:
        raise UnsupportedModule(f"{node.name}: concatenation along dimension {axis} has no ONNX form here")
    name = writer.function_name(node, "concat")
    writer.emit("Concat", name, [writer.value(part) for part in parts], axis=1)
    channels = sum(writer.shapes[part][0] for part in parts)
    writer.names[node], writer.shapes[node] = name, (channels, *writer.shapes[parts[0]][1:])


def _chunk(writer: _Writer, node: fx.Node) -> None:
    x, number, axis = _arguments(node, "input", "chunks", "dim")
    channels, *rest = writer.shapes[x]
    if axis != 1 or not isinstance(number, int) or channels % number:
        raise UnsupportedModule(f"{node.name}: this chunk has no ONNX form here")
    name = writer.function_name(node, "split")
    sizes = writer.constant(f"split_{number}x{channels // number}", np.full(number, channels // number, np.int64))
    outputs = [f"{name}.{i}" for i in range(number)]
    writer.emit("Split", name, [writer.value(x), sizes], outputs, axis=1)
    writer.names[node], writer.shapes[node] = outputs, (channels // number, *rest)


def _getitem(writer: _Writer, node: fx.Node) -> None:
    parts, index = node.args
    names = writer.names[parts]
    if not isinstance(names, list) or not isinstance(index, int):
        raise UnsupportedModule(f"{node.name}: indexing has no ONNX form here")
    writer.names[node], writer.shapes[node] = names[index], writer.shapes[parts]


MODULES: dict[type[nn.Module], Callable[[_Writer, fx.Node, Any], None]] = {
    nn.Conv2d: _conv,
    nn.BatchNorm2d: _norm,
    nn.ReLU: _relu,
    nn.ReLU6: _relu6,
    nn.MaxPool2d: _max_pool,
    nn.AvgPool2d: _average_pool,
    nn.AdaptiveAvgPool2d: _global_pool,
    nn.Flatten: _flatten,
    nn.Linear: _linear,
    nn.ChannelShuffle: _shuffle,
}
FUNCTIONS: dict[Any, Callable[[_Writer, fx.Node], None]] = {
    operator.add: _add,
    torch.add: _add,
    torch.cat: _cat,
    torch.chunk: _chunk,
    operator.getitem: _getitem,
}
