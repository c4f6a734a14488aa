"""Parts of a model put back into it after each was written by itself, in numbers of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx

from slimexport.onnx_files.parts.cutting import Cut, Wiring
from slimexport.onnx_files.typed import declare


@dataclass(frozen=True)
class Joined:
    """A `model`, and for each part that was put into it which of its values are called otherwise there."""

    model: onnx.ModelProto
    renamed: tuple[Mapping[str, str], ...]


def joined(model: onnx.ModelProto, cuts: Sequence[Cut], parts: Sequence[onnx.ModelProto], precision: str) -> Joined:
    """`model` (fp32) with `parts` in the place of the nodes that `cuts` cut out of it. What a part is given and what it gives
    keeps its name, and is float32. The opset is that of the parts."""
    wiring = Wiring(model)
    numbers = [wiring.between(cut.inputs, cut.outputs) for cut in cuts]
    places = {min(those): part for part, those in enumerate(numbers)}  # what a part begins with is there before its first node
    gone = set().union(*numbers)
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    graph = whole.graph
    del graph.node[:]
    graph.node.extend(node for number, node in enumerate(model.graph.node) if number not in gone)
    _declare(whole, parts, precision)
    rest = iter(list(graph.node))
    read = {name for node in graph.node for name in node.input} | {result.name for result in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.node[:]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    stored = {tensor.name: tensor for tensor in graph.initializer}
    taken = {*stored, *(value.name for value in graph.input)}
    taken |= {name for number, node in enumerate(model.graph.node) if number not in gone for name in node.output}
    taken |= {name for cut in cuts for name in (*cut.inputs, *cut.outputs)}
    renamed: list[Mapping[str, str]] = [{} for _ in parts]
    for number in range(len(model.graph.node)):
        if number in places:
            part = places[number]
            renamed[part] = _names(parts[part], cuts[part], taken, stored)
            _put(graph, parts[part], renamed[part], stored)
        if number not in gone:
            graph.node.append(next(rest))
    return Joined(whole, tuple(renamed))


def _declare(whole: onnx.ModelProto, parts: Sequence[onnx.ModelProto], precision: str) -> None:
    """Opset and IR version of the parts."""
    opset = max(version.version for part in parts for version in part.opset_import if not version.domain)
    declare(whole, precision, opset, max(part.ir_version for part in parts))


def _names(part: onnx.ModelProto, cut: Cut, taken: set[str], stored: Mapping[str, onnx.TensorProto]) -> dict[str, str]:
    """What of a part's own values and stored tensors must be called otherwise."""
    fixed = {*cut.inputs, *cut.outputs}
    alike = {t.name for t in part.graph.initializer if t.name in stored and _content(t) == _content(stored[t.name])}
    own = [tensor.name for tensor in part.graph.initializer] + [name for node in part.graph.node for name in node.output]
    names: dict[str, str] = {}
    for name in own:
        if not name or name in fixed or name in alike:
            continue
        free = name
        while free in taken:
            free = f"_{free}"
        taken.add(free)
        if free != name:
            names[name] = free
    return names


def _put(graph: onnx.GraphProto, part: onnx.ModelProto, names: Mapping[str, str], stored: dict[str, onnx.TensorProto]) -> None:
    for tensor in part.graph.initializer:
        name = names.get(tensor.name, tensor.name)
        if name not in stored:
            graph.initializer.append(tensor)
            graph.initializer[-1].name = name
            stored[name] = graph.initializer[-1]
    for node in part.graph.node:
        graph.node.append(node)
        for side in (graph.node[-1].input, graph.node[-1].output):
            side[:] = [names.get(name, name) for name in side]


def _content(tensor: onnx.TensorProto) -> bytes:
    bare = onnx.TensorProto()
    bare.CopyFrom(tensor)
    bare.name = ""
    return bare.SerializeToString(deterministic=True)
