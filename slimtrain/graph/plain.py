"""A graph as lists, numbers and text, as checkpoints hold it, and back. Nothing in it is run by reading it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from slimtrain.graph.graph import (
    CONSTANT,
    PARAMETER,
    STATISTIC,
    Argument,
    Batch,
    Graph,
    Node,
    Parameter,
    Size,
    TensorType,
    Value,
)
from slimtrain.graph.structure import plain_structure, read_structure

LARGEST = 2**24  # of one dimension: more than any network has, and labels for it still fit into memory
KINDS = (PARAMETER, STATISTIC, CONSTANT)


def to_plain(graph: Graph) -> dict[str, Any]:
    """The graph without its constants' arrays."""
    return {
        "inputs": [[name, _type(type_)] for name, type_ in graph.inputs],
        "parameters": [[p.node, p.name, _type(p.type), p.kind] for p in graph.parameters],
        "nodes": [
            [
                n.name,
                n.op,
                {name: _argument(a) for name, a in n.arguments.items()},
                [_type(t) for t in n.outputs],
                n.module,
                n.line,
            ]
            for n in graph.nodes
        ],
        "outputs": [[value.node, value.output] for value in graph.outputs],
        **({} if graph.structure is None else {"structure": plain_structure(graph.structure)}),
    }


def from_plain(content: Mapping[str, Any], constants: Mapping[str, NDArray[Any]]) -> Graph:
    """The graph again. ValueError, KeyError or TypeError for what is none: a name that is read before it is there, an argument
    of no known form, a constant of another shape."""
    inputs = tuple((_text(name), _read_type(type_)) for name, type_ in content["inputs"])
    parameters = tuple(Parameter(_text(n), _text(name), _read_type(t), _kind(k)) for n, name, t, k in content["parameters"])
    nodes = tuple(_node(*row) for row in content["nodes"])
    outputs = tuple(Value(_text(name), _whole(output)) for name, output in content["outputs"])
    structure = read_structure(content["structure"]) if "structure" in content else None
    graph = Graph(inputs, parameters, nodes, outputs, dict(constants), structure)
    _check(graph)
    return graph


def _check(graph: Graph) -> None:
    there = {Value(name) for name, _ in graph.inputs} | {Value(p.node) for p in graph.parameters}
    names = [name for name, _ in graph.inputs] + [p.node for p in graph.parameters] + [node.name for node in graph.nodes]
    if len(set(names)) < len(names) or len({p.name for p in graph.parameters}) < len(graph.parameters):
        raise ValueError("a name stands twice")
    for node in graph.nodes:
        if not set(node.inputs) <= there:
            raise ValueError(f"{node.name} reads what is not there yet")
        there |= {Value(node.name, index) for index in range(len(node.outputs))}
    if not graph.outputs or not set(graph.outputs) <= there:
        raise ValueError("what it gives out is not there")
    if graph.structure is not None and graph.structure.tensors != len(graph.outputs):
        raise ValueError(f"it gives out {len(graph.outputs)} tensors, and names {graph.structure.tensors}")
    for parameter in graph.parameters:
        if parameter.kind == CONSTANT:
            array = graph.constants[parameter.name]
            if array.shape != parameter.type.shape or str(array.dtype) != parameter.type.dtype:
                raise ValueError(f"constant {parameter.name} is {array.dtype} {array.shape}, expected {parameter.type}")


def _type(type_: TensorType) -> list[Any]:
    return [[_argument(size) for size in type_.shape], type_.dtype]


def _read_type(content: Any) -> TensorType:
    sizes, dtype = content
    return TensorType(tuple(_size(size) for size in sizes), _text(dtype))


def _size(content: Any) -> Size:
    size = _read_argument(content)
    if not isinstance(size, Batch) and (type(size) is not int or not 0 <= size <= LARGEST):
        raise ValueError(f"{size!r} is no size")
    return size


def _argument(argument: Argument) -> Any:
    if isinstance(argument, Value):
        return {"value": [argument.node, argument.output]}
    if isinstance(argument, Batch):
        return {"batch": argument.factor}
    return [_argument(part) for part in argument] if isinstance(argument, tuple) else argument


def _read_argument(content: Any) -> Argument:
    if isinstance(content, list | tuple):
        return tuple(_read_argument(part) for part in content)
    if isinstance(content, Mapping):
        ((form, inside),) = content.items()
        if form == "batch":
            return Batch(_whole(inside))
        if form == "value":
            name, output = inside
            return Value(_text(name), _whole(output))
        raise ValueError(f"{form!r} is no form of an argument")
    if content is None or isinstance(content, bool | int | float | str):
        return content
    raise TypeError(f"a {type(content).__name__} is no argument")


def _node(name: Any, op: Any, arguments: Any, outputs: Any, module: Any, line: Any) -> Node:
    read = {_text(key): _read_argument(value) for key, value in arguments.items()}
    return Node(_text(name), _text(op), read, tuple(_read_type(t) for t in outputs), _text(module), _text(line))


def _text(content: Any) -> str:
    if not isinstance(content, str):
        raise TypeError(f"{content!r} is no text")
    return content


def _whole(content: Any) -> int:
    if type(content) is not int or content < 0:
        raise ValueError(f"{content!r} is no whole number")
    return content


def _kind(content: Any) -> str:
    if content not in KINDS:
        raise ValueError(f"{content!r} is no kind of parameter")
    return str(content)
