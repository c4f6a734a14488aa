"""Which batch norms become part of the layer before them: nothing stands between, and nobody else reads the layer."""

from __future__ import annotations

from collections import Counter

from slimtrain.graph.graph import Batch, Graph, Node, Value, values_of

BATCH_NORMS = ("batch_norm", "native_batch_norm")
CONVOLUTIONS = ("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
# What may stand between a linear layer and its norm.
RESHAPES = (
    "view",
    "reshape",
    "_unsafe_view",
    "unflatten",
    "squeeze",
    "unsqueeze",
    "view_as",
    "reshape_as",
    "flatten",
    "ravel",
)
SPREADS = ("expand", "expand_as", "broadcast_to")


def folded_norms(graph: Graph) -> dict[str, Node]:
    """Norm's node -> the convolution or linear layer that does what it does too, as files have it."""
    stored = _stored(graph)
    count = Counter(value for node in graph.nodes for value in _reads(node)) + Counter(graph.outputs)
    layers: dict[str, Node] = {}
    for norm in graph.nodes:
        if norm.kind not in BATCH_NORMS or not _by_statistics(norm, stored):
            continue
        x = norm.arguments["input"]
        assert isinstance(x, Value)
        path = [x]
        while (maker := graph.by_name.get(x.node)) and maker.kind in RESHAPES and _keeps_last(graph, maker, norm):
            x = maker.inputs[0]
            path.append(x)
        alone = all(count[value] == 1 and value not in graph.outputs for value in path)
        if maker is not None and alone and _takes(graph, maker, norm, stored):
            layers[norm.name] = maker
    return layers


def _reads(node: Node) -> tuple[Value, ...]:
    """Of another tensor whose shape it takes (`reshape_as`) a node reads nothing."""
    return node.inputs[:1] if node.kind in (*RESHAPES, *SPREADS) else node.inputs


def _stored(graph: Graph) -> set[Value]:
    """What is known without images: parameters, and what is computed of these alone."""
    stored = {Value(parameter.node) for parameter in graph.parameters}
    for node in graph.nodes:
        if (
            node.inputs
            and all(value in stored for value in node.inputs)
            and not _counts_images(tuple(node.arguments.values()))
        ):
            stored |= {Value(node.name, output) for output in range(len(node.outputs))}
    return stored


def _counts_images(argument: object) -> bool:
    return any(map(_counts_images, argument)) if isinstance(argument, tuple) else isinstance(argument, Batch)


def _by_statistics(norm: Node, stored: set[Value]) -> bool:
    values = [norm.arguments.get(name) for name in ("running_mean", "running_var", "weight", "bias")]
    known = all(value is None or value in stored for value in values)
    return known and not norm.arguments.get("training") and None not in values[:2]


def _keeps_last(graph: Graph, view: Node, norm: Node) -> bool:
    after, before = norm.outputs[0].shape, graph.types[view.inputs[0]].shape
    return len(after) == 2 and before[-1] == after[-1]


def _takes(graph: Graph, layer: Node, norm: Node, stored: set[Value]) -> bool:
    if layer.kind not in (*CONVOLUTIONS, "linear") or layer.arguments.get("weight") not in stored:
        return False
    if any(value not in stored for value in values_of(layer.arguments.get("bias"))):
        return False
    return layer.kind != "linear" or len(norm.outputs[0].shape) == 2  # else dimension 1 are not its outputs
