"""A model between values of its own: the nodes that make some of them of others, as a model or as a list."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field

import onnx
from onnx import TensorProto, helper


@dataclass(frozen=True)
class Cut:
    """What is cut out of a model: the values that it begins with, and those that it gives."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass
class Wiring:
    """Who makes and who reads the values of a model."""

    model: onnx.ModelProto
    makers: dict[str, int] = field(default_factory=dict)  # a value -> the number of its node
    readers: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for number, node in enumerate(self.nodes):
            self.makers.update(dict.fromkeys(node.output, number))
            for name in dict.fromkeys(node.input):
                self.readers.setdefault(name, []).append(number)

    @property
    def nodes(self) -> Sequence[onnx.NodeProto]:
        return self.model.graph.node

    def between(self, inputs: Iterable[str], outputs: Iterable[str]) -> set[int]:
        """The numbers of the nodes that make `outputs` where `inputs` are there."""
        given, needed, kept = set(inputs), list(outputs), set[int]()
        while needed:
            name = needed.pop()
            number = self.makers.get(name)
            if name not in given and number is not None and number not in kept:
                kept.add(number)
                needed += self.nodes[number].input
        return kept

    def entering(self, numbers: Set[int]) -> list[str]:
        """What nodes of these numbers read that none of them makes, stored tensors left out."""
        stored = {tensor.name for tensor in self.model.graph.initializer}
        own = {name for number in numbers for name in self.nodes[number].output}
        read = (name for number in sorted(numbers) for name in self.nodes[number].input)
        return list(dict.fromkeys(name for name in read if name and name not in own and name not in stored))

    def leaving(self, numbers: Set[int], more: Set[str] = frozenset()) -> list[str]:
        """What they make that others read, or that is a result of the model or one of `more`."""
        results = {result.name for result in self.model.graph.output} | more
        own = (name for number in sorted(numbers) for name in self.nodes[number].output)
        return [name for name in own if name in results or any(other not in numbers for other in self.readers.get(name, ()))]


def cut_out(model: onnx.ModelProto, cut: Cut, name: str = "") -> onnx.ModelProto:
    """The model that makes float32 values of a `model` of others, which begin with the images where they count them."""
    wiring = Wiring(model)
    numbers = wiring.between(cut.inputs, cut.outputs)
    nodes = [node for number, node in enumerate(model.graph.node) if number in numbers]
    read = {operand for node in nodes for operand in node.input}
    shapes = shapes_of(model)
    graph = helper.make_graph(
        nodes,
        name or model.graph.name,
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, shapes.get(value)) for value in cut.inputs],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, shapes.get(value)) for value in cut.outputs],
        [tensor for tensor in model.graph.initializer if tensor.name in read],
    )
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


def with_outputs(model: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    """A model that gives more of its values, for onnxruntime, which knows their types itself."""
    more = onnx.ModelProto()
    more.CopyFrom(model)
    there = {output.name for output in more.graph.output}
    more.graph.output.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(names) if name not in there)
    return more


def shapes_of(model: onnx.ModelProto) -> Mapping[str, list[int | str]]:
    """Of the values whose number of dimensions is known."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    return {
        value.name: [size.dim_value or size.dim_param or f"{value.name}.{place}" for place, size in enumerate(type_.shape.dim)]
        for value in (*graph.input, *graph.value_info, *graph.output)
        if (type_ := value.type.tensor_type).HasField("shape")
    }
